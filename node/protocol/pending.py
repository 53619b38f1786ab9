"""pending(state): what is left to be made true. Level-triggered: no command is ever remembered, and none forgotten.

Every command is idempotent, so the shell may start one again at any time; `not_before` (Unix seconds) delays it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fednode.node.protocol.state import State, own_object_known
from fednode.types import HeadStatus, PartyName


@dataclass(frozen=True, slots=True)
class _Command:
    not_before: float = field(default=0.0, compare=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class InitHead(_Command):
    """Ask the own node to post Init."""


@dataclass(frozen=True, slots=True)
class DraftDeposit(_Command):
    """Draft and sign the own deposit."""


@dataclass(frozen=True, slots=True)
class SubmitDeposit(_Command):
    """Put the signed deposit on layer 1, again if need be."""

    tx: str


@dataclass(frozen=True, slots=True)
class Prepare(_Command):
    """Load the model, write S_0 and the object of round 0."""


@dataclass(frozen=True, slots=True)
class CheckOwnBucket(_Command):
    """Look for an own signal of this round that the journal does not know."""

    round: int


@dataclass(frozen=True, slots=True)
class Train(_Command):
    round: int


@dataclass(frozen=True, slots=True)
class Publish(_Command):
    round: int


@dataclass(frozen=True, slots=True)
class Sign(_Command):
    round: int


@dataclass(frozen=True, slots=True)
class StoreSignal(_Command):
    round: int


@dataclass(frozen=True, slots=True)
class Send(_Command):
    """Deliver the signed signal until it is final."""

    round: int


@dataclass(frozen=True, slots=True)
class Fetch(_Command):
    """Download and verify a party's object."""

    round: int
    party: PartyName


@dataclass(frozen=True, slots=True)
class Aggregate(_Command):
    round: int


@dataclass(frozen=True, slots=True)
class StoreTranscript(_Command):
    """All confirmed signals, in order, into the own bucket."""


@dataclass(frozen=True, slots=True)
class StoreEvidence(_Command):
    fault: int


@dataclass(frozen=True, slots=True)
class CloseHead(_Command):
    """Ask for Close until the head is closed."""


@dataclass(frozen=True, slots=True)
class Fanout(_Command):
    """Ask for Fanout until the head is finalized."""


Command = (
    InitHead
    | DraftDeposit
    | SubmitDeposit
    | Prepare
    | CheckOwnBucket
    | Train
    | Publish
    | Sign
    | StoreSignal
    | Send
    | Fetch
    | Aggregate
    | StoreTranscript
    | StoreEvidence
    | CloseHead
    | Fanout
)


def pending(state: State) -> tuple[Command, ...]:
    """The commands that the state calls for."""
    evidence = tuple(StoreEvidence(i) for i in range(len(state.faults)) if i not in state.evidence)
    if state.goal == "open":
        return evidence + _opening(state)
    if state.goal == "close":
        return evidence + _ending(state)
    if state.goal == "run":
        return evidence + _running(state)
    return ()


def closing(state: State) -> bool:
    """Whether the head shall be closed, or is."""
    by_choice = state.goal == "close" or state.close_reason is not None or (state.goal == "run" and state.certified)
    return by_choice or state.head.status in (HeadStatus.CLOSED, HeadStatus.FANOUT_POSSIBLE, HeadStatus.FINALIZED)


def _opening(state: State) -> tuple[Command, ...]:
    head = state.head
    if head.status is HeadStatus.IDLE and head.id is None:
        return (InitHead(),) if state.rules.index == 0 else ()
    if head.status is not HeadStatus.OPEN or not head.replayed:
        return ()
    own = [d for d in head.deposits.values() if d.party == state.rules.me and d.stage != "failed"]
    if own:
        return ()
    if head.own_deposit is None:
        return (DraftDeposit(),)
    return (SubmitDeposit(head.own_deposit.id),)


def _running(state: State) -> tuple[Command, ...]:
    if not state.head.replayed:
        return ()
    transcript: tuple[Command, ...] = ()
    if state.certified and not state.transcript_stored:
        transcript = (StoreTranscript(),)
    if closing(state):
        return transcript + _catching_up(state) + _ending(state)
    if state.halted or state.faults:
        return ()
    if state.round == 0:
        return _round_zero(state)
    if state.round <= state.rules.rounds:
        return _round(state)
    return _own_signal(state)


def _catching_up(state: State) -> tuple[Command, ...]:
    """The head closes and all last signals are final: a node that has not recomputed every round still does so."""
    if state.certified or state.halted or state.faults or not state.transcript.complete(state.rules.rounds + 1):
        return ()
    if not state.digests:
        return (Prepare(),)
    return _objects(state) + _aggregate(state) if 0 < state.round <= state.rules.rounds else ()


def _round_zero(state: State) -> tuple[Command, ...]:
    if not state.digests:
        return (Prepare(),)
    return _own_signal(state)


def _round(state: State) -> tuple[Command, ...]:
    """Rounds 1..R: the own part, and whatever of the peers' is already final."""
    return _objects(state) + _own_signal(state) + _aggregate(state)


def _objects(state: State) -> tuple[Command, ...]:
    """Fetch what is signalled, the own object too where only the signal of it is known (older backup).

    An object is judged against our base; where the signal names another, the run has diverged and nothing about that
    party can be judged.
    """
    me, work = state.rules.me, state.work
    signals = state.transcript.signals(state.round)
    wanted = {p for p in state.rules.parties if p != me and p in signals}
    if (work.signal is not None or me in signals) and not own_object_known(state):
        wanted.add(me)
    judged = {p for p in wanted if p not in signals or signals[p].base == state.base}
    return tuple(Fetch(state.round, p) for p in state.rules.parties if p in judged and p not in work.fetched)


def _aggregate(state: State) -> tuple[Command, ...]:
    peers = set(state.rules.parties) - {state.rules.me}
    ready = state.transcript.complete(state.round) and own_object_known(state) and state.work.fetched >= peers
    return (Aggregate(state.round),) if ready else ()


def _own_signal(state: State) -> tuple[Command, ...]:
    """Train, publish, sign, store, send: the next step of the own part of any round, in this order."""
    work, number = state.work, state.round
    if state.rules.me in state.transcript.signals(number):
        return ()
    settled = state.head.settled_at() + state.rules.settle_s
    if work.signal is not None:
        if not work.stored:
            return (StoreSignal(number),)
        # An adopted signal is sent only once its object is known to be there for the peers.
        lacking = 0 < number <= state.rules.rounds and not own_object_known(state)
        return () if lacking else (Send(number, not_before=settled),)
    if not state.own_bucket_checked:
        return (CheckOwnBucket(number),)
    if number <= state.rules.rounds:
        if work.object is None:
            return (Train(number),)
        if not work.published:
            return (Publish(number),)
    if state.head.status is not HeadStatus.OPEN:
        return ()
    return (Sign(number, not_before=settled),)


def _ending(state: State) -> tuple[Command, ...]:
    """Close, then fan out; at the orderly end the parties take over from each other in agreement order."""
    head, rules = state.head, state.rules
    turn = rules.index * rules.takeover_s
    if head.status is HeadStatus.OPEN:
        orderly = state.goal == "run" and state.certified_at is not None and state.close_reason is None
        return (CloseHead(not_before=(state.certified_at or 0.0) + turn if orderly else 0.0),)
    if head.status is HeadStatus.FANOUT_POSSIBLE:
        # Only a node whose last snapshot is the closed one can fan out; one that lags leaves the others a turn each.
        if head.closed_snapshot is not None and head.closed_snapshot != head.snapshot:
            turn += len(rules.parties) * rules.takeover_s
        return (Fanout(not_before=head.status_at + turn),)
    return ()
