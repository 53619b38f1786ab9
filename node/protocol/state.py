"""The state of one party's node: the fold of its facts. Frozen, printable, free of I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fednode.node.protocol.events import Goal
from fednode.node.protocol.facts import DivergenceFound, FaultFound, HeadStalled, PaidOut
from fednode.node.protocol.transcript import Finding, Transcript
from fednode.types import Digest, HeadId, HeadStatus, Lovelace, PartyName, RunId, SignedTx, TxId


@dataclass(frozen=True, slots=True)
class Rules:
    """What the agreement fixes and the core needs; never journalled, always given at the start."""

    me: PartyName
    parties: tuple[PartyName, ...]
    """In agreement order."""
    rounds: int
    """R; round R + 1 carries the last signals."""
    run: RunId
    binding: str
    sections: Mapping[str, str]
    deposit: Lovelace
    deadline_s: float
    on_deadline: Literal["wait", "close"]
    on_fault: Literal["halt", "close"]
    settle_s: float
    takeover_s: float

    @property
    def index(self) -> int:
        """The own place in agreement order."""
        return self.parties.index(self.me)


@dataclass(frozen=True, slots=True)
class Deposit:
    party: PartyName | None
    lovelace: Lovelace
    stage: str
    at: float


@dataclass(frozen=True, slots=True)
class Head:
    """What is known of the head."""

    id: HeadId | None = None
    status: HeadStatus = HeadStatus.UNKNOWN
    closed_snapshot: int | None = None
    contestation_deadline: float | None = None
    status_at: float = 0.0
    deposits: Mapping[TxId, Deposit] = field(default_factory=dict[TxId, Deposit])
    own_deposit: SignedTx | None = None
    """Signed, and not known to have failed."""
    snapshot: int = 0
    """Number of the last confirmed snapshot in the journal."""
    replayed: bool = False
    """Since this start, every confirmed snapshot has been read."""
    replayed_at: float = 0.0
    lost: bool = False
    """The own node cannot be reached: what is missing may just not have been heard."""
    stall: HeadStalled | None = None
    """Why no snapshot can be confirmed now, and because of whom."""

    def funded(self, party: PartyName) -> int:
        """Lovelace of the party's deposits that are in the head."""
        return sum(d.lovelace for d in self.deposits.values() if d.party == party and d.stage == "final")

    def settled_at(self) -> float:
        """When the last deposit became final at the own node; 0 before."""
        return max((d.at for d in self.deposits.values() if d.stage == "final"), default=0.0)


@dataclass(frozen=True, slots=True)
class Work:
    """The own part of the current round."""

    object: Digest | None = None
    size: int | None = None
    published: bool = False
    signal: SignedTx | None = None
    adopted_object: Digest | None = None
    """Object of an adopted signal: it must come from the own bucket."""
    stored: bool = False
    """The signed bytes lie in the own bucket."""
    fetched: frozenset[PartyName] = frozenset()
    ready_at: float = 0.0
    """When the own signal could be sent; 0 before."""
    final_at: float = 0.0
    """When the own signal became final; 0 before."""
    complete_at: float = 0.0
    """When every party's signal was final; 0 before."""


@dataclass(frozen=True, slots=True)
class State:
    rules: Rules
    transcript: Transcript
    untimely: tuple[Finding, ...] = ()
    """What was found in the transcript before the run was bound: judged when it is."""
    goal: Goal | None = None
    reason: str = ""
    binding: str | None = None
    run: RunId | None = None
    head: Head = field(default_factory=Head)
    round: int = 0
    """The round the own node works on: 0..R + 1, and R + 2 once the last signals are final."""
    digests: tuple[Digest, ...] = ()
    """S_0 .. S_{round-1}."""
    momenta: tuple[Digest | None, ...] = ()
    """Of the momentum beside each of them; None where there is none, or the journal does not know it."""
    work: Work = field(default_factory=Work)
    own_bucket_checked: bool = False
    """Since this start the own bucket was seen to hold no signal that the journal lacks."""
    certified_at: float | None = None
    """When the last of the N last signals became final."""
    transcript_stored: bool = False
    faults: tuple[FaultFound, ...] = ()
    evidence: Mapping[int, str] = field(default_factory=dict[int, str])
    divergence: DivergenceFound | None = None
    overdue: tuple[PartyName, ...] | None = None
    """Set once the deadline of the current round has passed: the parties it waits for."""
    close_reason: str | None = None
    paid: PaidOut | None = None

    @property
    def base(self) -> Digest | None:
        """Digest of the adapter that the current round starts from (round 0 and 1: S_0)."""
        return self.digests[-1] if self.digests else None

    @property
    def certified(self) -> bool:
        """All last signals are final: the run is complete, only the money is left."""
        return self.round == self.rules.rounds + 2

    @property
    def halted(self) -> bool:
        """The rounds have stopped for good. A complete run has no rounds to stop: its head is still closed."""
        if self.certified:
            return False
        return self.divergence is not None or (bool(self.faults) and self.rules.on_fault == "halt")


def initial(rules: Rules) -> State:
    """The state before the first fact."""
    return State(rules=rules, transcript=Transcript(rules.parties, rules.rounds + 1))


def waiting_for(state: State) -> tuple[PartyName, ...]:
    """The peers whose signal or object of the current round is missing, in agreement order; none after the last."""
    if state.certified:
        return ()
    signals = state.transcript.signals(state.round)
    objects = 0 < state.round <= state.rules.rounds
    return tuple(
        p
        for p in state.rules.parties
        if p != state.rules.me and (p not in signals or (objects and p not in state.work.fetched))
    )


def waiting_since(state: State) -> float:
    """Unix time from which the deadline of the current round counts; 0 while the own part is not ready.

    It counts anew when all signals are final (then objects are waited for) and after the replay of a start: while this
    node was down it heard nobody, so nobody can have been late for it.
    """
    ready = state.work.ready_at or state.work.final_at
    return max(ready, state.work.complete_at, state.head.replayed_at) if ready else 0.0


def own_object_known(state: State) -> bool:
    """The object that the own signal names, or will name, is in the cache."""
    me, work = state.rules.me, state.work
    if me in work.fetched:
        return True
    signal = state.transcript.signals(state.round).get(me)
    return work.object is not None and (signal is None or signal.object == work.object)
