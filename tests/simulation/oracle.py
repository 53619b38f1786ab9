"""What must hold, whatever happens: judged from outside, by rules of its own, not by the code under test."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fednode.errors import Diverged, FednodeError, HeadError, JournalError, PeerFault
from fednode.node.protocol import facts as f
from fednode.node.protocol.facts import Fact
from fednode.node.protocol.state import State, waiting_since
from fednode.types import PartyName, SignalContent, TrainRequest, Transaction, TxKind

from .ledger import Snapshot, Tx, read_tx
from .seams import judge_of

if TYPE_CHECKING:
    from .party import Party, Process
    from .world import World

SENDS = 400
"""The same bytes are sent at most so often: who sends more is spinning."""
OBJECT_FAULTS = {
    "wrong-size": {"object-size"},
    "wrong-object": {"object-digest", "object-size"},
    "two-faced": {"object-digest", "object-size"},
    "bad-object": {"object-code", "object-party", "object-header"},
}
"""The kinds of fault that a lie about objects may be called."""


class Violation(AssertionError):
    """Something that must hold does not."""


class Oracle:
    def __init__(self, world: World) -> None:
        self.world = world
        self.truth: dict[int, str] = {}
        """Digest of S_r, as the first honest party had it."""
        self.submitted: dict[tuple[PartyName, int], set[str]] = {}
        self.sends: dict[str, int] = {}
        self.journal: dict[PartyName, set[str]] = {}
        """Ids of own signals in each party's journal."""
        self.bundles: dict[tuple[PartyName, int], str] = {}
        self.kept: dict[tuple[PartyName, str], bytes] = {}
        """What honest parties put into their buckets."""
        self.order: list[tuple[PartyName, SignalContent, Transaction]] = []
        """Every signal of the run in confirmed order."""
        self.expected: list[tuple[PartyName, str]] = []
        """Faults that the confirmed transactions prove, by this file's own reading."""
        self.ready: dict[PartyName, tuple[float, float]] = {}
        self.losses: set[PartyName] = set()
        """Parties whose home was restored: their bundles may be gone."""
        self.extra_payments = False

    def fail(self, text: str) -> None:
        raise Violation(text)

    def honest(self, party: PartyName | None) -> bool:
        return party != self.world.adversary.name

    def judge(self, tx: Tx) -> Transaction:
        a = self.world.setting.agreement
        return judge_of(self.world.setting.members, a.head.magic).judge_raw(tx.raw, tx.cbor)

    # While it runs ----------------------------------------------------------------------------------------------------

    def journalled(self, party: Party, records: Sequence[tuple[str, Mapping[str, object]]]) -> None:
        for kind, body in records:
            if kind in ("SignalSigned", "SignalAdopted"):
                signal: Any = body["signal"]
                self.journal.setdefault(party.me, set()).add(signal["id"])
            elif kind == "Trained":
                self.bundles[party.me, int(str(body["round"]))] = str(body["bundle"])
            elif kind in ("Prepared", "Aggregated") and self.honest(party.me):
                self._adapter(
                    party, int(str(body.get("round", 0))), str(body["base" if kind == "Prepared" else "digest"])
                )

    def _adapter(self, party: Party, number: int, digest: str) -> None:
        if self.truth.setdefault(number, digest) != digest:
            self.fail(f"{party.me} has another S_{number}")

    def sent(self, process: Process, cbor: str) -> None:
        """A daemon hands a transaction to its node: everything that must come before it has."""
        party = process.party
        tx = read_tx(bytes.fromhex(cbor))
        if tx is None or not self.honest(party.me):
            return
        judged = self.judge(tx)
        self.sends[tx.id] = self.sends.get(tx.id, 0) + 1
        if self.sends[tx.id] > SENDS:
            self.fail(f"{party.me} sent {tx.id[:12]} {SENDS} times")
        content = judged.content
        if judged.sender != party.me or content is None:
            return
        where = f"{party.me}, round {content.round}"
        if judged.kind is not TxKind.SIGNAL:
            self.fail(f"{where}: sent a broken signal: {judged.problem}")
        ids = self.submitted.setdefault((party.me, content.round), set())
        ids.add(tx.id)
        if len(ids) > 1:
            self.fail(f"{where}: {len(ids)} different signals were sent")
        if tx.id not in self.journal.get(party.me, set()):
            self.fail(f"{where}: sent before it was journalled")
        prefix = f"{content.run}/{content.round:06d}/"
        if self.kept.get((party.me, prefix + "signal.cbor")) != tx.cbor:
            self.fail(f"{where}: sent before it was stored")
        suffix = "json" if content.round == 0 else "safetensors"
        if content.object is not None and (party.me, f"{prefix}{content.object}.{suffix}") not in self.kept:
            self.fail(f"{where}: signalled before its object was published")

    def stored(self, owner: PartyName, key: str, data: bytes) -> None:
        self.world.adversary.stored(owner, key, data)
        if self.honest(owner) and self.kept.setdefault((owner, key), data) != data:
            self.fail(f"{owner}: {key} changed")

    def training(self, party: Party, request: TrainRequest) -> None:
        """The bundle of the round before goes in, unless this home lost it."""
        expected = self.bundles.get((party.me, request.round - 1))
        found = None
        if request.bundle is not None:
            with self.world.pause():
                found = hashlib.sha256(party.process._bytes(request.bundle)).hexdigest() if party.process else None
        if request.round > 1 and party.me not in self.losses and found != expected:
            self.fail(f"{party.me}, round {request.round}: trains without the bundle of the round before")

    def replayed(self, party: Party, state: State) -> None:
        """What the journal holds is what the process had last shown."""
        if state != party.state:
            names = [n for n in State.__slots__ if getattr(state, n) != getattr(party.state, n)]  # type: ignore[attr-defined]
            self.fail(f"{party.me}: the journal folds to another state than the process had: {names}")

    def fact(self, party: Party, state: State, fact: Fact) -> None:
        if not self.honest(party.me):
            return
        since = waiting_since(state)
        if self.ready.get(party.me, (0.0, 0.0))[0] != since:
            self.ready[party.me] = (since, self.world.loop.now)
        match fact:
            case f.FaultFound():
                if self.honest(fact.party):
                    self.fail(f"{party.me} accuses {fact.party}: {fact.kind}: {fact.message}")
                self._accused(party, fact)
            case f.DivergenceFound() if not self._lied_about_base():
                self.fail(f"{party.me} sees a divergence in round {fact.round}: {fact.digests}")
            case f.DeadlinePassed():
                waited = self.world.loop.now - self.ready[party.me][1]
                if waited < state.rules.deadline_s - 1:
                    self.fail(f"{party.me}: the deadline passed after {waited:.0f} s")
            case f.DepositChanged():
                for name in state.rules.parties:
                    if state.head.funded(name) > state.rules.deposit:
                        self.fail(f"{party.me}: counts {state.head.funded(name)} lovelace deposited by {name}")
            case _:
                pass

    def _lied_about_base(self) -> bool:
        """A signal of the liar that counts names another base than everybody else has."""
        liar, truth = self.world.adversary.name, self.truth
        return any(p == liar and c.base != truth.get(max(c.round - 1, 0)) for p, c, _ in self.order)

    def _accused(self, party: Party, fact: f.FaultFound) -> None:
        lie = self.world.adversary.lie or ""
        allowed = OBJECT_FAULTS.get(lie, set()) | {kind for _, kind in self.expected}
        if fact.kind not in allowed:
            self.fail(f"{party.me} accuses the liar of {fact.kind}, the lie is {lie}: {fact.message}")

    # The head's own order ---------------------------------------------------------------------------------------------

    def confirmed(self, snapshot: Snapshot) -> None:
        deposits = self.world.setting.agreement.head.deposit
        total = sum(c.lovelace for c in (*snapshot.utxo.values(), *(snapshot.commit_utxo or {}).values()))
        fees = sum(tx.raw.fee for tx in snapshot.txs)
        if self.world.adversary.lie != "dangerous" and (total % deposits or fees):
            self.fail(f"snapshot {snapshot.number} holds {total} lovelace")
        for tx in snapshot.txs:
            self._confirmed(self.judge(tx))
        self._balances(snapshot)

    def _confirmed(self, judged: Transaction) -> None:
        sender, content = judged.sender, judged.content
        if sender is None:
            self.fail("a transaction of nobody was confirmed")
            return
        if judged.kind is TxKind.DANGEROUS:
            self.expected.append((sender, "dangerous-transaction"))
        elif judged.kind is TxKind.BROKEN_SIGNAL:
            self.expected.append((sender, "signal-rules"))
            self.extra_payments = True
        elif content is None or content.run != self.world.setting.run:
            self.extra_payments = self.extra_payments or content is not None
        else:
            self._ordered(sender, content, judged)

    def _ordered(self, sender: PartyName, content: SignalContent, judged: Transaction) -> None:
        """The rules of protocol.md sections 3 and 4 on order, read anew: one per round, and not before its time."""
        firsts = {(p, c.round): c for p, c, _ in reversed(self.order)}
        before = firsts.get((sender, content.round))
        counts = [sum((p, r) in firsts for p in self.world.names) for r in range(content.round)]
        if before is not None:
            self.extra_payments = True
            if before != content:
                self.expected.append((sender, "equivocation"))
            if self.honest(sender):
                self.fail(f"{sender} paid twice for round {content.round}")
        elif any(count < len(self.world.names) for count in counts):
            self.expected.append((sender, "early"))
            self.extra_payments = True
        else:
            self.order.append((sender, content, judged))

    def _balances(self, snapshot: Snapshot) -> None:
        """After every full round everybody has what the deposit was."""
        names, agreement = self.world.names, self.world.setting.agreement
        each = [sum(p == name for p, _, _ in self.order) for name in names]
        if self.extra_payments or self.expected or min(each) != max(each) or not each[0] or snapshot.commit is not None:
            return
        for member in self.world.setting.members:
            held = sum(c.lovelace for c in snapshot.utxo.values() if c.address == member.address)
            if held != agreement.head.deposit and self.world.adversary.lie != "dangerous":
                self.fail(f"after round {each[0] - 1} {member.name} holds {held} lovelace")

    # The ends ---------------------------------------------------------------------------------------------------------

    def exit(self, party: Party, error: FednodeError) -> bool:
        """Whether the daemon that this error ended is started again; Violation where it may not end so."""
        if not self.honest(party.me):
            return not isinstance(error, PeerFault | Diverged) and len(party.failed) < 5
        if isinstance(error, JournalError) and "injected" in error.message:
            return True
        lie = self.world.adversary.lie
        if isinstance(error, PeerFault | Diverged) and lie is not None:
            return False
        words = ("the head was closed in round", "it cannot be opened again")
        closed = isinstance(error, HeadError) and any(text in error.message for text in words)
        if closed and (lie is not None or self.world.plan.terms.on_deadline == "close"):
            return False
        self.fail(f"{party.me} ended with {type(error).__name__}: {error.message}")
        return False

    def at_end(self) -> None:
        """Everybody has ended."""
        world = self.world
        honest = [p for p in world.parties if self.honest(p.me)]
        for party in honest:
            self._payout(party)
        full = [p for p in honest if p.state is not None and p.state.certified]
        if world.adversary.lie is None and world.plan.terms.on_deadline == "wait" and len(full) != len(honest):
            self.fail("without a liar every run is completed")
        last = world.setting.terms.rounds + 1
        for party in full:
            state = party.state
            assert state is not None
            if len(state.digests) != last:
                self.fail(f"{party.me} has {len(state.digests)} adapters of {last}")
            for name in world.names:
                rounds = [c.round for p, c, _ in self.order if p == name]
                if rounds != list(range(last + 1)):
                    self.fail(f"{name} signalled {rounds}")
        scripts = {self.kept.get((p.me, f"{world.setting.run}/transcript.cborseq")) for p in full}
        wanted = b"".join(bytes.fromhex(tx.cbor) for _, _, tx in self.order)
        if full and scripts != {wanted}:
            sizes = [None if s is None else len(s) for s in scripts]
            self.fail(f"the transcripts in the buckets are not the confirmed signals in order: {sizes}, {len(wanted)}")
        self._caught(honest)
        self._told_of_divergence(honest)

    def _payout(self, party: Party) -> None:
        state, network = party.state, self.world.network
        if state is None or network.paid is None or state.head.id is None:
            return
        if state.paid is None:
            self.fail(f"{party.me} never saw the payout")
            return
        paid = dict(state.paid.paid)
        for member in self.world.setting.members:
            real = sum(c.lovelace for c in network.paid.values() if c.address == member.address)
            if paid[member.name] != real:
                self.fail(f"{party.me} says {member.name} was paid {paid[member.name]}, it was {real}")
            whole = not self.extra_payments and not self.expected and state.certified
            if whole and self.world.adversary.lie != "dangerous" and real != state.rules.deposit:
                self.fail(f"{member.name} was paid {real}, deposited {state.rules.deposit}")
        if not state.paid.verified:
            self.fail(f"{party.me}: the payout is not what the last snapshot says")

    def _told_of_divergence(self, honest: list[Party]) -> None:
        """Where a signal that counts names another base, whoever read its whole round says so."""
        liar, truth = self.world.adversary.name, self.truth
        for _, c, _ in [x for x in self.order if x[0] == liar]:
            others = [p for p, other, _ in self.order if other.round == c.round]
            if c.base == truth.get(max(c.round - 1, 0)) or len(others) < len(self.world.names):
                continue
            for party in honest:
                state = party.state
                assert state is not None
                # Who closes does not judge bases; an old home may have forgotten that it found them to differ.
                forgot = state.goal != "run" and party.me in self.losses
                read = state.head.snapshot == len(self.world.network.log) and state.round == c.round and not forgot
                if read and state.run is not None and state.divergence is None and not state.faults:
                    self.fail(f"{party.me} has not found the other base in round {c.round}")

    def _caught(self, honest: list[Party]) -> None:
        """What the head proves, every honest party that read so far has found, with evidence."""
        if not self.expected:
            return
        for party in honest:
            state = party.state
            assert state is not None
            accused = [x for x in state.faults if x.party == self.world.adversary.name]
            if not accused and state.run is not None and state.head.snapshot == len(self.world.network.log):
                self.fail(f"{party.me} has not found {self.expected[0]}")
            if len(state.evidence) < len(state.faults) and state.goal == "run":
                self.fail(f"{party.me} has no evidence for {state.faults}")
