"""evolve(state, fact): the only way the state changes. Total over facts; judges nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from fednode.node.protocol import facts as f
from fednode.node.protocol.changed import changed
from fednode.node.protocol.facts import Fact
from fednode.node.protocol.findings import kept_for_later
from fednode.node.protocol.state import Deposit, Head, State, Work
from fednode.node.protocol.transcript import Finding, fold
from fednode.types import HeadStatus


def evolve(state: State, fact: Fact) -> State:
    """The state after a fact."""
    return _timed(_STEPS[type(fact)](state, fact), fact.at)


def _timed(state: State, at: float) -> State:
    """Notes when the own signal, and every signal, of the current round became final."""
    work = state.work
    if work.final_at == 0.0 and state.rules.me in state.transcript.signals(state.round):
        work = changed(work, final_at=at)
    if work.complete_at == 0.0 and state.transcript.complete(state.round):
        work = changed(work, complete_at=at)
    return state if work is state.work else changed(state, work=work)


def _begun(state: State, fact: f.Begun) -> State:
    head = changed(_past_head(state.head, fact.at), replayed=False, lost=False, stall=None)
    certified_at = None if state.certified_at is None else min(state.certified_at, fact.at)
    return changed(
        state,
        goal=fact.goal,
        reason=fact.reason,
        head=head,
        work=_past_work(state.work, fact.at),
        certified_at=certified_at,
        own_bucket_checked=False,
        overdue=None,
    )


def _past_head(head: Head, now: float) -> Head:
    """The machine's clock may have been set back since the last start: what was noted before is not in the future, or
    what waits for some time after it would wait too long."""
    deposits = {tx: d if d.at <= now else changed(d, at=now) for tx, d in head.deposits.items()}
    return changed(head, status_at=min(head.status_at, now), deposits=deposits)


def _past_work(work: Work, now: float) -> Work:
    return changed(
        work,
        ready_at=min(work.ready_at, now),
        final_at=min(work.final_at, now),
        complete_at=min(work.complete_at, now),
    )


def _head_changed(state: State, fact: f.HeadChanged) -> State:
    head = changed(
        state.head,
        stall=None,
        status=fact.status,
        status_at=fact.at,
        closed_snapshot=fact.snapshot if fact.snapshot is not None else state.head.closed_snapshot,
        contestation_deadline=fact.deadline if fact.deadline is not None else state.head.contestation_deadline,
    )
    return changed(state, head=head)


def _deposit_changed(state: State, fact: f.DepositChanged) -> State:
    deposits = dict(state.head.deposits)
    known = deposits.get(fact.deposit)
    party = fact.party or (known.party if known else None)
    lovelace = fact.lovelace or (known.lovelace if known else fact.lovelace)
    deposits[fact.deposit] = Deposit(party, lovelace, fact.stage, fact.at)
    own = state.head.own_deposit
    if fact.stage == "failed" and own is not None and own.id == fact.deposit:
        own = None
    return changed(state, head=changed(state.head, deposits=deposits, own_deposit=own))


def _snapshot(state: State, fact: f.SnapshotNoted) -> State:
    transcript, findings = state.transcript, list[Finding]()
    for tx in fact.transactions:
        transcript, finding = fold(transcript, state.rules.run, tx)
        if finding is not None:
            findings.append(finding)
    return changed(
        state,
        transcript=transcript,
        untimely=kept_for_later(state, findings),
        head=changed(state.head, snapshot=fact.number, stall=None),
    )


def _work(state: State, **changes: Any) -> State:
    return changed(state, work=changed(state.work, **changes))


def _adopted(state: State, fact: f.SignalAdopted) -> State:
    own = state.work.object if fact.round == 0 else None  # later rounds: fetched from the own bucket and checked
    changes = {"object": own, "size": fact.size, "adopted_object": fact.object}
    return _work(state, signal=fact.signal, stored=True, published=True, ready_at=fact.at, **changes)


def _fetched(state: State, fact: f.Fetched) -> State:
    return _work(state, fetched=state.work.fetched | {fact.party})


def _aggregated(state: State, fact: f.Aggregated) -> State:
    digests, momenta = (*state.digests, fact.digest), (*state.momenta, fact.momentum)
    return changed(state, digests=digests, momenta=momenta, round=fact.round + 1, work=Work(), overdue=None)


def _round_agreed(state: State, fact: f.RoundAgreed) -> State:
    if fact.round == 0:
        return changed(state, round=1, work=Work(), overdue=None)
    return changed(state, round=fact.round + 1, certified_at=fact.at, overdue=None)


def _prepared(state: State, fact: f.Prepared) -> State:
    return _work(changed(state, digests=(fact.base,), momenta=(None,)), object=fact.object, size=fact.size)


_STEPS: dict[type, Callable[[State, Any], State]] = {
    f.Begun: _begun,
    f.HomeBound: lambda s, x: changed(s, binding=cast(f.HomeBound, x).binding),
    f.RunBound: lambda s, x: changed(s, run=cast(f.RunBound, x).run, untimely=()),
    f.HeadBound: lambda s, x: changed(s, head=changed(s.head, id=cast(f.HeadBound, x).head_id)),
    f.HeadChanged: _head_changed,
    f.HeadLost: lambda s, x: changed(s, head=changed(s.head, lost=True)),
    f.HeadRegained: lambda s, x: changed(s, head=changed(s.head, lost=False)),
    f.HeadStalled: lambda s, x: changed(s, head=changed(s.head, stall=cast(f.HeadStalled, x))),
    f.HeadResumed: lambda s, x: changed(s, head=changed(s.head, stall=None)),
    f.DepositSigned: lambda s, x: changed(s, head=changed(s.head, own_deposit=cast(f.DepositSigned, x).deposit)),
    f.DepositChanged: _deposit_changed,
    f.SnapshotNoted: _snapshot,
    f.ReplayDone: lambda s, x: changed(s, head=changed(s.head, replayed=True, replayed_at=x.at)),
    f.Prepared: _prepared,
    f.OwnBucketChecked: lambda s, x: changed(s, own_bucket_checked=True),
    f.SignalAdopted: _adopted,
    f.Trained: lambda s, x: _work(s, object=x.object, size=x.size),
    f.ObjectLost: lambda s, x: _work(s, object=None, size=None),
    f.Published: lambda s, x: _work(s, published=True),
    f.SignalSigned: lambda s, x: _work(s, signal=x.signal),
    f.SignalStored: lambda s, x: _work(s, stored=True, ready_at=x.at),
    f.Fetched: _fetched,
    f.Aggregated: _aggregated,
    f.RoundAgreed: _round_agreed,
    f.ForeignRunSeen: lambda s, x: s,
    f.RepeatSeen: lambda s, x: s,
    f.FaultFound: lambda s, x: changed(s, faults=(*s.faults, x)),
    f.EvidenceStored: lambda s, x: changed(s, evidence={**s.evidence, x.fault: x.path}),
    f.DivergenceFound: lambda s, x: changed(s, divergence=x),
    f.DeadlinePassed: lambda s, x: changed(s, overdue=x.missing),
    f.CloseDecided: lambda s, x: changed(s, close_reason=x.reason),
    f.TranscriptStored: lambda s, x: changed(s, transcript_stored=True),
    f.PaidOut: lambda s, x: changed(s, paid=x, head=changed(s.head, status=HeadStatus.FINALIZED)),
}
