"""What is news in the reports about the head. Old, repeated and foreign reports give no facts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fednode import reports as r
from fednode.node.protocol import facts as f
from fednode.node.protocol.facts import Fact
from fednode.node.protocol.findings import fact_of, known_fault, timely
from fednode.node.protocol.stalls import resumed, stalled
from fednode.node.protocol.state import State
from fednode.node.protocol.transcript import fold
from fednode.types import HeadStatus, Lovelace, PartyName, TxId


def _unreachable(state: State, event: r.HeadUnreachable) -> list[Fact]:
    return [] if state.head.lost else [f.HeadLost(event.at)]


def _connected(state: State, event: r.HeadConnected) -> list[Fact]:
    found: list[Fact] = [f.HeadRegained(event.at)] if state.head.lost else []
    if event.head_id is not None and state.head.id is None and event.status is HeadStatus.OPEN and state.goal == "open":
        found.append(f.HeadBound(event.at, event.head_id))
    if event.head_id is not None and state.head.id not in (None, event.head_id):
        return found  # another head: the adapter refuses it with words
    if event.status is HeadStatus.IDLE and state.head.id is not None:
        return found  # the head is over: the adapter reports how it ended
    order = list(HeadStatus)
    if order.index(event.status) > order.index(state.head.status):
        found.append(f.HeadChanged(event.at, event.status, None, None))
    return found


def _opened(state: State, event: r.HeadOpened) -> list[Fact]:
    if state.head.id is not None and state.head.id != event.head_id:
        return []
    found: list[Fact] = []
    if state.head.id is None and state.goal == "open":
        found.append(f.HeadBound(event.at, event.head_id))
    if state.head.status in (HeadStatus.UNKNOWN, HeadStatus.IDLE):
        found.append(f.HeadChanged(event.at, HeadStatus.OPEN, None, None))
    return found


def _deposit(
    state: State, at: float, tx: TxId, party: PartyName | None, lovelace: int, stage: str, reason: str
) -> list[Fact]:
    known = state.head.deposits.get(tx)
    if known is not None and (known.stage in (stage, "final") or (known.stage == "failed" and stage != "final")):
        return []  # money that is in the head is there, whatever was said about its deposit before
    return [f.DepositChanged(at, tx, party, Lovelace(lovelace), stage, reason)]


def _deposit_recorded(state: State, event: r.DepositRecorded) -> list[Fact]:
    return _deposit(state, event.at, event.deposit, event.party, event.lovelace, "recorded", "")


def _deposit_final(state: State, event: r.DepositFinalized) -> list[Fact]:
    return _deposit(state, event.at, event.deposit, event.party, event.lovelace, "final", "")


def _deposit_failed(state: State, event: r.DepositFailed) -> list[Fact]:
    return _deposit(state, event.at, event.deposit, None, 0, "failed", event.reason)


def _snapshot(state: State, event: r.SnapshotConfirmed) -> list[Fact]:
    if event.number <= state.head.snapshot:
        return []
    found: list[Fact] = [f.SnapshotNoted(event.at, event.number, event.transactions)]
    transcript = state.transcript
    for tx in event.transactions:
        transcript, finding = fold(transcript, state.rules.run, tx)
        if finding is not None and timely(state, finding):
            fact = fact_of(state, event.at, finding)
            if not known_fault(fact, (*state.faults, *found)):
                found.append(fact)
    return found


def _synced(state: State, event: r.SnapshotsSynced) -> list[Fact]:
    return [] if state.head.replayed else [f.ReplayDone(event.at, event.number)]


def _closed(state: State, event: r.HeadClosed) -> list[Fact]:
    head = state.head
    # A contest only ever raises the snapshot and moves the deadline back: anything else is old news.
    known = (-1 if head.closed_snapshot is None else head.closed_snapshot, head.contestation_deadline or 0.0)
    if (event.snapshot, event.deadline) <= known:
        return []
    over = head.status in (HeadStatus.FANOUT_POSSIBLE, HeadStatus.FINALIZED)
    status = head.status if over else HeadStatus.CLOSED
    return [f.HeadChanged(event.at, status, event.snapshot, event.deadline)]


def _fanout_possible(state: State, event: r.FanoutPossible) -> list[Fact]:
    if state.head.status in (HeadStatus.FANOUT_POSSIBLE, HeadStatus.FINALIZED):
        return []
    return [f.HeadChanged(event.at, HeadStatus.FANOUT_POSSIBLE, None, None)]


def _finalized(state: State, event: r.HeadFinalized) -> list[Fact]:
    if state.paid is not None:
        return []
    return [f.PaidOut(event.at, event.paid, event.expected, event.verified)]


STEPS: dict[type, Callable[[State, Any], list[Fact]]] = {
    r.HeadConnected: _connected,
    r.HeadUnreachable: _unreachable,
    r.HeadOpened: _opened,
    r.HeadStalled: stalled,
    r.HeadResumed: resumed,
    r.DepositRecorded: _deposit_recorded,
    r.DepositFinalized: _deposit_final,
    r.DepositFailed: _deposit_failed,
    r.SnapshotConfirmed: _snapshot,
    r.SnapshotsSynced: _synced,
    r.HeadClosed: _closed,
    r.FanoutPossible: _fanout_possible,
    r.HeadFinalized: _finalized,
}
"""What each report of the Cardano adapter is worth."""
