"""Several nodes of the pure core round one head, their buckets and trainers: no time, no I/O, any order of steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from fednode import reports as r
from fednode.node.protocol import events as e
from fednode.node.protocol import pending as c
from fednode.node.protocol.outcome import ended
from fednode.node.protocol.pending import Command
from fednode.node.protocol.state import State
from fednode.types import (
    Digest,
    HeadStatus,
    PartyName,
    SignalContent,
    SignedTx,
    Transaction,
    TxKind,
)

from .story import AGREEMENT, HEAD, PARTIES, S0, SIZE, Node, content, fold, h, rules, signal


@dataclass(frozen=True)
class Sent:
    """A signed signal, and how many own signals came before its inputs: of two that spend the same, one is valid."""

    tx: Transaction
    inputs: int


@dataclass
class World:
    """The shared truth: the head's order of reports, every bucket, and all that was ever signed or sent."""

    rounds: int
    log: list[r.HeadReport] = field(default_factory=list)
    status: HeadStatus = HeadStatus.OPEN
    snapshots: int = 0
    waiting: dict[str, Sent] = field(default_factory=dict)
    spent: dict[PartyName, int] = field(default_factory=dict)
    signed: dict[str, Sent] = field(default_factory=dict)
    sent: dict[tuple[PartyName, int], set[str]] = field(default_factory=dict)
    objects: set[tuple[PartyName, int, Digest]] = field(default_factory=set)
    kept: dict[tuple[PartyName, int], tuple[SignedTx, SignalContent]] = field(default_factory=dict)
    nonce: int = 0

    def submit(self, sent: Sent) -> None:
        sender, what = sent.tx.sender, sent.tx.content
        assert sender is not None
        assert what is not None
        self.sent.setdefault((sender, what.round), set()).add(sent.tx.id)
        self.waiting[sent.tx.id] = sent

    def confirm(self, picked: list[Transaction], at: float) -> None:
        """A snapshot of these transactions; those whose inputs are spent are dropped, as a head would."""
        valid: list[Transaction] = []
        for tx in picked:
            sent = self.waiting.pop(tx.id, None)
            sender = tx.sender
            assert sender is not None
            if sent is not None and sent.inputs != self.spent.get(sender, 0):
                continue
            if sent is not None:
                self.spent[sender] = sent.inputs + 1
            valid.append(tx)
        if valid and self.status is HeadStatus.OPEN:
            self.snapshots += 1
            self.log.append(r.SnapshotConfirmed(at, self.snapshots, tuple(valid)))

    def close(self, at: float) -> None:
        if self.status is HeadStatus.OPEN:
            self.status = HeadStatus.FANOUT_POSSIBLE
            self.log += [r.HeadClosed(at, self.snapshots, at + 60), r.FanoutPossible(at + 60)]

    def fanout(self, at: float) -> None:
        if self.status is HeadStatus.FANOUT_POSSIBLE:
            self.status = HeadStatus.FINALIZED
            self.log.append(r.HeadFinalized(at, (), (), True))


@dataclass
class Site:
    """One node with what outlives its process besides the journal: the objects that its trainer wrote."""

    node: Node
    world: World
    local: set[Digest] = field(default_factory=set)
    inbox: list[e.Event] = field(default_factory=list)
    seen: list[e.Event] = field(default_factory=list)
    """Delivered since the start of this process."""
    read: int = 0
    """How much of the head's log this process has put into its inbox."""
    _checked: State | None = None

    @property
    def me(self) -> PartyName:
        return self.node.rules.me

    def start(self, *, keep: int | None = None) -> None:
        """A new process: nothing is left but the journal, or an older backup of it, and the trainer's files."""
        world = self.world
        self.node = self.node.restart(keep=keep).begin()
        known = self.node.state.head.snapshot
        self.read = len(world.log)
        past = [x for x in world.log if not isinstance(x, r.SnapshotConfirmed) or x.number > known]
        greeting = r.HeadConnected(self.node.now, world.status, HEAD, True, "2.3.0")
        self.inbox = [greeting, *past, r.SnapshotsSynced(self.node.now, world.snapshots)]
        self.seen = []

    def pull(self) -> None:
        self.inbox += self.world.log[self.read :]
        self.read = len(self.world.log)

    def deliver(self) -> bool:
        """Take the next event of the inbox."""
        self.pull()
        if not self.inbox:
            return False
        event = self.inbox.pop(0)
        self.seen.append(event)
        self.node.take(event)
        return True

    def wanted(self) -> list[Command]:
        return [x for x in self.node.pending() if x.not_before <= self.node.now]

    def perform(self, command: Command) -> None:
        """The effect now, its outcome into the inbox: between the two anything may happen."""
        event = _EFFECTS[type(command)](self, command)
        if event is not None:
            self.inbox.append(event)

    def done(self) -> bool:
        return ended(self.node.state) is not None

    def check(self) -> None:
        """What must hold of one node at any time."""
        state = self.node.state
        if state is not self._checked:
            assert state == fold(self.node.rules, self.node.journal)
            self._checked = state
        assert state.faults == ()
        assert state.divergence is None


def new_world(rounds: int, parties: int) -> tuple[World, list[Site]]:
    names = PARTIES[:parties]
    world = World(rounds)
    sites = [Site(Node(rules(p, parties=names, rounds=rounds, settle_s=0.0, deadline_s=50.0)), world) for p in names]
    for site in sites:
        site.start()
    return world, sites


def check_all(world: World, sites: list[Site]) -> None:
    for site in sites:
        site.check()
    for (party, number), ids in world.sent.items():
        assert len(ids) == 1, f"{party} sent {len(ids)} signals for round {number}"
    for one, other in pairwise(sites):
        shared = min(len(one.node.state.digests), len(other.node.state.digests))
        assert one.node.state.digests[:shared] == other.node.state.digests[:shared]


def settle(world: World, sites: list[Site]) -> None:
    """Without faults, everything that is still wanted happens, and everybody ends."""
    for _ in range(3000):
        busy = False
        for site in sites:
            site.node.now += 1.0
            while site.deliver():
                busy = True
            if site.done():
                continue
            for command in site.wanted():
                busy = busy or not isinstance(command, c.Send)
                site.perform(command)
        if world.waiting:
            world.confirm([x.tx for x in world.waiting.values()], sites[0].node.now)
            busy = True
        check_all(world, sites)
        if all(site.done() for site in sites):
            return
        assert busy or any(x.not_before > s.node.now for s in sites for x in s.node.pending()), [
            (s.me, s.node.state.round, s.node.pending()) for s in sites
        ]
    raise AssertionError("no end in sight")


# Effects -------------------------------------------------------------------------------------------------------------


def _check_own_bucket(site: Site, command: Any) -> e.Event:
    found = site.world.kept.get((site.me, command.round))
    now = site.node.now
    return e.OwnSignalFound(now, command.round, *found) if found else e.OwnSignalAbsent(now, command.round)


def _train(site: Site, command: Any) -> e.Event:
    """Training is not reproducible here: an adapter that is trained twice gives two objects."""
    site.world.nonce += 1
    made = h("object", site.me, command.round, site.node.state.base, site.world.nonce)
    site.local.add(made)
    return e.TrainingDone(site.node.now, command.round, made, SIZE, h("bundle", made), 0.5, 1.0)


def _publish(site: Site, command: Any) -> e.Event:
    made = site.node.state.work.object
    assert made is not None
    assert command.round == 0 or made in site.local
    site.world.objects.add((site.me, command.round, made))
    return e.ObjectPublished(site.node.now, command.round, 0.1)


def _sign(site: Site, command: Any) -> e.Event:
    world, node = site.world, site.node
    world.nonce += 1
    what = content(command.round, node.base(), node.state.work.object, rounds=world.rounds)
    tx = signal(site.me, what, nonce=world.nonce)
    inputs = sum(site.me in signals for signals in node.state.transcript.rounds)
    world.signed[tx.id] = Sent(tx, inputs)
    return e.SignalBuilt(node.now, command.round, SignedTx(tx.id, tx.cbor))


def _store_signal(site: Site, command: Any) -> e.Event:
    own = site.node.state.work.signal
    assert own is not None
    what = site.world.signed[own.id].tx.content
    assert what is not None
    before = site.world.kept.setdefault((site.me, command.round), (own, what))
    assert before[0] == own, f"{site.me} has a second signal for round {command.round}"
    return e.SignalKept(site.node.now, command.round)


def _send(site: Site, command: Any) -> None:
    own = site.node.state.work.signal
    assert own is not None
    assert (site.me, command.round) in site.world.kept
    sent = site.world.signed[own.id]
    what = sent.tx.content
    assert what is not None
    assert what.object is None or (site.me, what.round, what.object) in site.world.objects
    if sent.inputs == site.world.spent.get(site.me, 0):
        site.world.submit(sent)


def _fetch(site: Site, command: Any) -> e.Event | None:
    known = site.node.state.transcript.signals(command.round).get(command.party)
    digest = known.object if known else site.node.state.work.adopted_object
    assert digest is not None
    assert (command.party, command.round, digest) in site.world.objects
    return e.ObjectFetched(site.node.now, command.round, command.party, 0.1)


def _aggregate(site: Site, command: Any) -> e.Event:
    state = site.node.state
    signals = state.transcript.signals(command.round)
    digest = h("S", command.round, state.base, [signals[p].object for p in state.rules.parties])
    return e.AggregateDone(site.node.now, command.round, digest, (), 0.1, h("V", digest))


_EFFECTS: dict[type, Callable[[Site, Any], e.Event | None]] = {
    c.Prepare: lambda s, x: e.AgreementPrepared(s.node.now, AGREEMENT, SIZE, S0),
    c.CheckOwnBucket: _check_own_bucket,
    c.Train: _train,
    c.Publish: _publish,
    c.Sign: _sign,
    c.StoreSignal: _store_signal,
    c.Send: _send,
    c.Fetch: _fetch,
    c.Aggregate: _aggregate,
    c.StoreTranscript: lambda s, x: e.TranscriptKept(s.node.now),
    c.CloseHead: lambda s, x: s.world.close(s.node.now),
    c.Fanout: lambda s, x: s.world.fanout(s.node.now),
}


def foreign(world: World, party: PartyName, number: int) -> Transaction:
    """A signal of a run with another agreement, by the same party."""
    world.nonce += 1
    what = content(number, h("another"), h("another object", world.nonce), rounds=world.rounds)
    return signal(party, replace(what, run=h("run", world.nonce % 3)[:32]), nonce=world.nonce)


def repeat(world: World, party: PartyName, number: int) -> Transaction | None:
    """A second transaction with the content that the party's confirmed signal of this round has."""
    for report in world.log:
        for tx in report.transactions if isinstance(report, r.SnapshotConfirmed) else ():
            what = tx.content
            if tx.sender == party and what is not None and (what.run, what.round) == (rules().run, number):
                world.nonce += 1
                return Transaction(h("repeat", world.nonce), "84", TxKind.SIGNAL, party, what)  # type: ignore[arg-type]
    return None
