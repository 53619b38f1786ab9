"""What `status` and `rounds` show, computed from the journal alone: they work while the daemon runs and when it does
not, and never touch it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from fednode.node.protocol import facts as f
from fednode.node.protocol import pending as c
from fednode.node.protocol.evolve import evolve
from fednode.node.protocol.facts import Fact
from fednode.node.protocol.outcome import unfunded
from fednode.node.protocol.pending import closing, pending
from fednode.node.protocol.stalls import words
from fednode.node.protocol.state import State, waiting_for, waiting_since
from fednode.types import Digest, HeadStatus, PartyName, PhasePolicy, phase_of

_WORDS: dict[type, str] = {
    c.InitHead: "opening the head",
    c.DraftDeposit: "depositing",
    c.SubmitDeposit: "depositing",
    c.Prepare: "loading the model",
    c.CheckOwnBucket: "checking the own bucket",
    c.Train: "training",
    c.Publish: "publishing",
    c.Sign: "signalling",
    c.StoreSignal: "signalling",
    c.Send: "signalling",
    c.Aggregate: "aggregating",
    c.Fetch: "fetching",
    c.StoreTranscript: "storing the transcript",
    c.CloseHead: "closing the head",
    c.Fanout: "fanning out",
}
"""Command to the word for what the node does, in order of precedence."""


@dataclass(slots=True)
class RoundView:
    """One finished round."""

    round: int
    digest: Digest
    base: Digest
    phase: str
    loss: float | None
    signals: dict[str, dict[str, object]]
    outliers: list[PartyName]
    seconds: dict[str, float]


@dataclass(slots=True)
class History:
    """A fold over the facts that remembers what the state forgets: losses, times, one entry per finished round."""

    state: State
    phase: PhasePolicy
    rounds: list[RoundView] = field(default_factory=list[RoundView])
    last_at: float = 0.0
    _seconds: dict[str, float] = field(default_factory=dict[str, float])
    _loss: float | None = None
    _signed_at: float = 0.0
    _complete_at: float = 0.0

    def add(self, fact: Fact) -> None:
        before = self.state
        if isinstance(fact, f.Trained):
            self._loss, self._seconds["train"] = fact.loss, fact.seconds
        elif isinstance(fact, f.Published):
            self._seconds["publish"] = fact.seconds
        elif isinstance(fact, f.SignalSigned | f.SignalAdopted):
            self._signed_at = fact.at
        elif isinstance(fact, f.Fetched):
            self._seconds["fetch"] = self._seconds.get("fetch", 0.0) + fact.seconds
        elif isinstance(fact, f.Aggregated):
            self._finish(before, fact)
        self.state = evolve(before, fact)
        self.last_at = fact.at
        if self.state.round != before.round:
            self._seconds, self._loss, self._signed_at, self._complete_at = {}, None, 0.0, 0.0
        if not self._complete_at and self.state.transcript.complete(self.state.round):
            self._complete_at = fact.at

    def _finish(self, before: State, fact: f.Aggregated) -> None:
        final_at = before.work.final_at
        signal = final_at - self._signed_at if self._signed_at and final_at else 0.0
        wait = self._complete_at - final_at if self._complete_at and final_at else 0.0
        names = ("train", "publish", "signal", "wait", "fetch", "aggregate")
        seconds = {"signal": signal, "wait": wait, "aggregate": fact.seconds, **self._seconds}
        signals = before.transcript.signals(fact.round)
        self.rounds.append(
            RoundView(
                round=fact.round,
                digest=fact.digest,
                base=before.digests[-1],
                phase=phase_of(fact.round, self.phase),
                loss=self._loss,
                signals={p: {"tx": s.tx, "object": s.object, "size": s.size} for p, s in signals.items()},
                outliers=list(fact.outliers),
                seconds={name: round(max(0.0, seconds.get(name, 0.0)), 6) for name in names},
            )
        )


def history(state: State, facts: Iterable[Fact], phase: PhasePolicy) -> History:
    """Fold all facts over the initial `state`."""
    view = History(state, phase)
    for fact in facts:
        view.add(fact)
    return view


def word(state: State) -> str:
    """What the node does now, in a word or two, for a node whose daemon runs."""
    if state.goal is None:
        return "new"
    if state.divergence is not None:
        return "diverged"
    if state.paid is not None:
        return "finished" if state.certified or state.goal == "close" else "closed early"
    if state.halted:
        return "halted"
    commands = {type(command) for command in pending(state)}
    for kind, name in _WORDS.items():
        if kind in commands:
            return name
    if not state.head.replayed:
        return "waiting for the hydra-node"
    if state.head.status is HeadStatus.CLOSED:
        return "contestation period"
    return "waiting"


def absent(state: State) -> tuple[PartyName, ...]:
    """The peers that the node waits for now: their deposits, or their signals and objects of the current round."""
    if state.goal == "open":
        return tuple(p for p in unfunded(state) if p != state.rules.me)
    if state.goal == "run" and not closing(state):
        return waiting_for(state)
    return ()


def _stalled(state: State) -> dict[str, object] | None:
    stall = state.head.stall
    if stall is None:
        return None
    parties = list(stall.parties)
    text = words(stall)
    return {"kind": stall.kind, "snapshot": stall.snapshot, "parties": parties, "since": stall.since, "text": text}


def status(view: History, *, pid: int | None) -> dict[str, object]:
    """The JSON of `fednode status`. `pid` is the running daemon's, None where none runs."""
    state, rules = view.state, view.state.rules
    return {
        "party": rules.me,
        "state": word(state) if pid is not None or state.paid is not None else f"stopped ({word(state)})",
        "round": min(state.round, rules.rounds),
        "rounds": rules.rounds,
        "waiting_for": list(absent(state)),
        "waiting_since": (waiting_since(state) or None) if absent(state) else None,
        "pid": pid,
        "run_id": state.run,
        "digest": state.base,
        "finished_rounds": len(view.rounds),
        "head": {
            "id": state.head.id,
            "status": str(state.head.status),
            "snapshot": state.head.snapshot,
            "contestation_deadline": state.head.contestation_deadline,
        },
        "stalled": _stalled(state),
        "deposits": {p: state.head.funded(p) for p in rules.parties},
        "paid": dict(state.paid.paid) if state.paid else None,
        "foreign_runs": dict(state.transcript.foreign),
        "unlabelled_transactions": state.transcript.unlabelled,
        "faults": [
            {
                "party": x.party,
                "round": x.round,
                "kind": x.kind,
                "message": x.message,
                "evidence": state.evidence.get(i),
            }
            for i, x in enumerate(state.faults)
        ],
        "overdue": list(state.overdue) if state.overdue else [],
        "last_fact_at": view.last_at or None,
    }
