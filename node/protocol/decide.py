"""decide(state, event): what is news in an event, and what follows from it. Duplicate, stale, foreign and reordered
events give no facts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fednode.node.protocol import decide_head
from fednode.node.protocol import events as e
from fednode.node.protocol import facts as f
from fednode.node.protocol.events import Event
from fednode.node.protocol.evolve import evolve
from fednode.node.protocol.facts import Fact
from fednode.node.protocol.findings import judged_late
from fednode.node.protocol.state import State, waiting_for, waiting_since
from fednode.types import HeadStatus, Lovelace


def decide(state: State, event: Event) -> tuple[Fact, ...]:
    """The facts of an event, consequences included, in the order in which they are journalled."""
    step = _STEPS.get(type(event))
    found = list(step(state, event)) if step else []
    for fact in found:
        state = evolve(state, fact)
    while consequence := _consequence(state, event.at):
        found.append(consequence)
        state = evolve(state, consequence)
    return tuple(found)


def _consequence(state: State, at: float) -> Fact | None:
    """What follows from a state, at most one fact at a time; None when nothing is left to conclude."""
    if state.goal == "run" and state.run is not None and state.divergence is None and state.digests:
        conclusion = _conclusion(state, at)
        if conclusion is not None:
            return conclusion
    if state.close_reason is None and state.faults and state.rules.on_fault == "close":
        return f.CloseDecided(at, f"fault of {state.faults[0].party}: {state.faults[0].kind}")
    if state.close_reason is None and state.overdue and state.rules.on_deadline == "close":
        return f.CloseDecided(at, f"deadline of round {state.round} passed, missing: {', '.join(state.overdue)}")
    return None


def _conclusion(state: State, at: float) -> Fact | None:
    """All signals of the current round are final: do they name one base (round 0: and one agreement object)?"""
    if not state.transcript.complete(state.round):
        return None
    signals = state.transcript.signals(state.round)
    bases = {p: signals[p].base for p in state.rules.parties}
    if any(base != state.base for base in bases.values()):
        return f.DivergenceFound(at, state.round, bases)
    if state.round == 0 and state.work.object is not None:
        objects = {p: o for p in state.rules.parties if (o := signals[p].object) is not None}
        if any(o != state.work.object for o in objects.values()):
            return f.DivergenceFound(at, 0, objects)
    if state.round in (0, state.rules.rounds + 1) and not state.faults:
        return f.RoundAgreed(at, state.round)
    return None


# Starts and time -----------------------------------------------------------------------------------------------------


def _begin(state: State, event: e.Begin) -> list[Fact]:
    found: list[Fact] = []
    late: list[Fact] = []
    if state.binding is None and event.goal != "close":
        found.append(f.HomeBound(event.at, event.binding))
    if event.goal == "run" and state.run is None and event.run is not None and event.rounds is not None:
        found.append(f.RunBound(event.at, event.run, event.rounds))
        late = judged_late(state, event.at)
    found.append(f.Begun(event.at, event.goal, event.reason))
    return found + late


def _tick(state: State, event: e.Tick) -> list[Fact]:
    head, since = state.head, waiting_since(state)
    if state.goal != "run" or state.overdue is not None or not since or state.certified or state.halted:
        return []
    if not head.replayed or head.lost or head.status is not HeadStatus.OPEN:
        return []  # nobody is late for a node that does not hear, or for a head that is over
    if event.at - since < state.rules.deadline_s:
        return []
    # Where only the own signal hangs, the head lacks a signature, and nobody knows whose: the own party is named.
    own = () if state.rules.me in state.transcript.signals(state.round) else (state.rules.me,)
    missing = waiting_for(state) or own
    return [f.DeadlinePassed(event.at, state.round, missing)] if missing else []


# Outcomes of commands ------------------------------------------------------------------------------------------------


def _drafted(state: State, event: e.DepositDrafted) -> list[Fact]:
    return [f.DepositSigned(event.at, event.deposit)] if state.head.own_deposit is None else []


def _lapsed(state: State, event: e.DepositLapsed) -> list[Fact]:
    own = state.head.own_deposit
    if own is None or own.id != event.deposit or own.id in state.head.deposits:
        return []
    return [f.DepositChanged(event.at, own.id, state.rules.me, Lovelace(0), "failed", "its validity is over")]


def _prepared(state: State, event: e.AgreementPrepared) -> list[Fact]:
    return [] if state.digests else [f.Prepared(event.at, event.object, event.size, event.base)]


def _signed_already(state: State) -> bool:
    """The one signal of the own party for the current round exists."""
    return state.work.signal is not None or state.rules.me in state.transcript.signals(state.round)


def _absent(state: State, event: e.OwnSignalAbsent) -> list[Fact]:
    stale = event.round != state.round or state.own_bucket_checked
    return [] if stale else [f.OwnBucketChecked(event.at, event.round)]


def _adopt(state: State, event: e.OwnSignalFound) -> list[Fact]:
    if event.round != state.round or _signed_already(state):
        return []
    c = event.content
    return [f.SignalAdopted(event.at, event.round, event.signal, c.object, c.size, c.base)]


def _trained(state: State, event: e.TrainingDone) -> list[Fact]:
    if event.round != state.round or state.work.object is not None or _signed_already(state):
        return []
    x = event
    return [f.Trained(x.at, x.round, x.object, x.size, x.bundle, x.loss, x.seconds)]


def _object_lost(state: State, event: e.OwnObjectLost) -> list[Fact]:
    unseen = state.work.object is not None and not state.work.published and not _signed_already(state)
    return [f.ObjectLost(event.at, event.round)] if event.round == state.round and unseen else []


def _published(state: State, event: e.ObjectPublished) -> list[Fact]:
    stale = event.round != state.round or state.work.published
    return [] if stale else [f.Published(event.at, event.round, event.seconds)]


def _signed(state: State, event: e.SignalBuilt) -> list[Fact]:
    if event.round != state.round or _signed_already(state):
        return []
    return [f.SignalSigned(event.at, event.round, event.signal)]


def _kept(state: State, event: e.SignalKept) -> list[Fact]:
    stale = event.round != state.round or state.work.stored
    return [] if stale else [f.SignalStored(event.at, event.round)]


def _fetched(state: State, event: e.ObjectFetched) -> list[Fact]:
    stale = event.round != state.round or event.party in state.work.fetched
    return [] if stale else [f.Fetched(event.at, event.round, event.party, event.seconds)]


def _faulty(state: State, event: e.ObjectFaulty) -> list[Fact]:
    if event.round != state.round or any(x.party == event.party and x.round == event.round for x in state.faults):
        return []
    signal = state.transcript.signals(event.round).get(event.party)
    message = f"{event.message} (signal {signal.tx})" if signal else event.message
    return [f.FaultFound(event.at, event.party, event.round, f"object-{event.rule}", message, (), event.evidence)]


def _aggregated(state: State, event: e.AggregateDone) -> list[Fact]:
    if event.round != state.round:
        return []
    return [f.Aggregated(event.at, event.round, event.digest, event.outliers, event.seconds, event.momentum)]


def _transcript_kept(state: State, event: e.TranscriptKept) -> list[Fact]:
    return [] if state.transcript_stored else [f.TranscriptStored(event.at)]


def _evidence_kept(state: State, event: e.EvidenceKept) -> list[Fact]:
    known = event.fault in state.evidence or event.fault >= len(state.faults)
    return [] if known else [f.EvidenceStored(event.at, event.fault, event.path)]


_STEPS: dict[type, Callable[[State, Any], list[Fact]]] = {
    **decide_head.STEPS,
    e.Begin: _begin,
    e.Tick: _tick,
    e.DepositDrafted: _drafted,
    e.DepositLapsed: _lapsed,
    e.AgreementPrepared: _prepared,
    e.OwnSignalAbsent: _absent,
    e.OwnSignalFound: _adopt,
    e.TrainingDone: _trained,
    e.OwnObjectLost: _object_lost,
    e.ObjectPublished: _published,
    e.SignalBuilt: _signed,
    e.SignalKept: _kept,
    e.ObjectFetched: _fetched,
    e.ObjectFaulty: _faulty,
    e.AggregateDone: _aggregated,
    e.TranscriptKept: _transcript_kept,
    e.EvidenceKept: _evidence_kept,
}
