"""One node of the pure core, driven by hand: events in, facts kept, commands out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from fednode import reports as r
from fednode.errors import FednodeError
from fednode.node.protocol import events as e
from fednode.node.protocol import pending as c
from fednode.node.protocol.decide import decide
from fednode.node.protocol.evolve import evolve
from fednode.node.protocol.facts import Fact
from fednode.node.protocol.outcome import ended
from fednode.node.protocol.pending import Command, pending
from fednode.node.protocol.records import from_record, to_record
from fednode.node.protocol.state import Rules, State, initial
from fednode.types import (
    Digest,
    HeadId,
    HeadStatus,
    Lovelace,
    PartyName,
    RunId,
    SignalContent,
    SignedTx,
    Transaction,
    TxId,
    TxKind,
)

ANNA, BERT, CLEO = PartyName("anna"), PartyName("bert"), PartyName("cleo")
PARTIES = (ANNA, BERT, CLEO)
RUN, OTHER_RUN = RunId("11" * 16), RunId("22" * 16)
HEAD = HeadId("aa" * 28)
SECTIONS = {"run": "01" * 8, "model": "02" * 8}
SIZE = 64


def h(*parts: object) -> Digest:
    return Digest(hashlib.sha256(repr(parts).encode()).hexdigest())


S0 = h("S0")
AGREEMENT = h("agreement")


def rules(me: PartyName = ANNA, *, parties: tuple[PartyName, ...] = PARTIES, rounds: int = 2, **changes: Any) -> Rules:
    base = Rules(
        me=me,
        parties=parties,
        rounds=rounds,
        run=RUN,
        binding="b" * 64,
        sections=SECTIONS,
        deposit=Lovelace(10_000_000),
        deadline_s=1000.0,
        on_deadline="wait",
        on_fault="halt",
        settle_s=3.0,
        takeover_s=30.0,
    )
    return replace(base, **changes)


def content(
    round_number: int, base: Digest, obj: Digest | None, *, rounds: int = 2, run: RunId = RUN, size: int = SIZE
) -> SignalContent:
    last = round_number == rounds + 1
    return SignalContent(
        run=run,
        round=round_number,
        base=base,
        object=None if last else obj,
        size=None if last else size,
        sections=SECTIONS if round_number == 0 else None,
    )


def signal(party: PartyName, what: SignalContent, *, nonce: int = 0) -> Transaction:
    """A confirmed signal; another nonce is another transaction with the same content."""
    tx = h("tx", party, what.run, what.round, what.base, what.object, nonce)
    return Transaction(TxId(tx), "84" + tx, TxKind.SIGNAL, party, what)


class Node:
    """Facts are kept as JSON text, as a journal would; `state` is always their fold."""

    def __init__(self, given: Rules, journal: Iterable[str] = ()) -> None:
        self.rules = given
        self.journal = list(journal)
        self.state = fold(given, self.journal)
        self.now = 100.0
        self.snapshot = self.state.head.snapshot

    def take(self, *events: e.Event) -> tuple[Fact, ...]:
        """Give events to the core; the facts that they were."""
        found: list[Fact] = []
        for event in events:
            for fact in decide(self.state, event):
                self.state = evolve(self.state, fact)
                kind, body = to_record(fact)
                self.journal.append(json.dumps([kind, body]))
                found.append(fact)
        return tuple(found)

    def begin(self, goal: e.Goal = "run") -> Node:
        run = (RUN, self.rules.rounds) if goal == "run" else (None, None)
        self.take(e.Begin(self.now, goal, self.rules.binding, *run))
        return self

    def open(self) -> Node:
        """A head that is open, and read to its end."""
        self.take(
            r.HeadConnected(self.now, HeadStatus.OPEN, HEAD, True, "2.3.0"), r.SnapshotsSynced(self.now, self.snapshot)
        )
        return self

    def confirm(self, *transactions: Transaction) -> tuple[Fact, ...]:
        self.snapshot += 1
        return self.take(r.SnapshotConfirmed(self.now, self.snapshot, transactions))

    def tick(self, seconds: float = 0.0) -> tuple[Fact, ...]:
        self.now += seconds
        return self.take(e.Tick(self.now))

    def restart(self, *, keep: int | None = None, **changes: Any) -> Node:
        """The node after a crash: folded from its journal (or the first `keep` facts of it) alone."""
        journal = self.journal if keep is None else self.journal[:keep]
        other = Node(replace(self.rules, **changes), journal)
        other.now = self.now
        return other

    # What the node does, done for it ---------------------------------------------------------------------------------

    def pending(self) -> tuple[Command, ...]:
        return pending(self.state)

    def kinds(self) -> list[str]:
        return [type(command).__name__ for command in pending(self.state)]

    def obj(self) -> Digest:
        return h("object", self.rules.me, self.state.round, self.state.base)

    def own(self) -> Transaction:
        """The transaction of the own signal."""
        assert self.state.work.signal is not None
        known = self.state.work.signal
        what = content(self.state.round, self.base(), self.state.work.object, rounds=self.rules.rounds)
        return Transaction(known.id, known.cbor, TxKind.SIGNAL, self.rules.me, what)

    def base(self) -> Digest:
        assert self.state.base is not None
        return self.state.base

    def do(self, kind: type[Command]) -> tuple[Fact, ...]:
        """Perform the first pending command of this kind."""
        command = next(x for x in pending(self.state) if isinstance(x, kind))
        return self.take(OUTCOMES[kind](self, command))

    def do_own_part(self) -> Transaction:
        """Everything up to a signal that is under way; returns it."""
        for kind in (c.Prepare, c.CheckOwnBucket, c.Train, c.Publish, c.Sign, c.StoreSignal):
            if any(isinstance(x, kind) for x in pending(self.state)):
                self.do(kind)
        return self.own()

    def do_round(self) -> None:
        """One whole round in which all peers agree; ends in the next round."""
        number = self.state.round
        self.do_own_part()
        peers = [p for p in self.rules.parties if p != self.rules.me]
        self.confirm(self.own(), *[self.peer_signal(p) for p in peers])
        if 0 < number <= self.rules.rounds:
            for _ in peers:
                self.do(c.Fetch)
            self.do(c.Aggregate)

    def peer_signal(self, party: PartyName, *, base: Digest | None = None, **more: Any) -> Transaction:
        """What an honest peer signals in the node's current round."""
        number = more.pop("round_number", self.state.round)
        nonce = more.pop("nonce", 0)
        obj = AGREEMENT if number == 0 else h("object", party, number, base or self.state.base)
        what = content(number, base or self.base(), obj, rounds=self.rules.rounds, **more)
        return signal(party, what, nonce=nonce)


def error_of(node: Node) -> FednodeError | None:
    """The error that the node's work ended with; it must have ended."""
    end = ended(node.state)
    assert end is not None
    return end.error


def fold(given: Rules, journal: Iterable[str]) -> State:
    state = initial(given)
    for line in journal:
        kind, body = json.loads(line)
        state = evolve(state, from_record(kind, body))
    return state


def _built(node: Node, command: Any) -> e.Event:
    what = content(command.round, node.base(), node.state.work.object, rounds=node.rules.rounds)
    tx = signal(node.rules.me, what)
    return e.SignalBuilt(node.now, command.round, SignedTx(tx.id, tx.cbor))


def _aggregated(node: Node, command: Any) -> e.Event:
    return e.AggregateDone(node.now, command.round, h("S", command.round), (), 0.1, h("V", command.round))


OUTCOMES: dict[type, Callable[[Node, Any], e.Event]] = {
    c.DraftDeposit: lambda n, x: e.DepositDrafted(n.now, SignedTx(TxId(h("deposit", n.rules.me, n.now)), "84")),
    c.Prepare: lambda n, x: e.AgreementPrepared(n.now, AGREEMENT, SIZE, S0),
    c.CheckOwnBucket: lambda n, x: e.OwnSignalAbsent(n.now, x.round),
    c.Train: lambda n, x: e.TrainingDone(n.now, x.round, n.obj(), SIZE, h("bundle"), 0.5, 1.0),
    c.Publish: lambda n, x: e.ObjectPublished(n.now, x.round, 0.1),
    c.Sign: _built,
    c.StoreSignal: lambda n, x: e.SignalKept(n.now, x.round),
    c.Fetch: lambda n, x: e.ObjectFetched(n.now, x.round, x.party, 0.1),
    c.Aggregate: _aggregated,
    c.StoreTranscript: lambda n, x: e.TranscriptKept(n.now),
    c.StoreEvidence: lambda n, x: e.EvidenceKept(n.now, x.fault, "evidence/x.json"),
}
