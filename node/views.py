"""What `status` and `rounds` show, computed from the journal alone: they work while the daemon runs and when it does
not, and never touch it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fednode.node.protocol import facts as f
from fednode.node.protocol import pending as c
from fednode.node.protocol.evolve import evolve
from fednode.node.protocol.facts import Fact
from fednode.node.protocol.outcome import unfunded
from fednode.node.protocol.pending import closing, pending
from fednode.node.protocol.stalls import words
from fednode.node.protocol.state import State, waiting_for, waiting_since
from fednode.node.protocol.transcript import Signal
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
    open: dict[str, float] = field(default_factory=dict[str, float])
    """Of the current round so far: `loss`, seconds of `train`, `publish` and `fetch`, and when the own signal was
    `signed` and every signal `complete`."""

    def add(self, fact: Fact) -> None:
        before, now = self.state, self.open
        if isinstance(fact, f.Trained):
            now["loss"], now["train"] = fact.loss, fact.seconds
        elif isinstance(fact, f.Published):
            now["publish"] = fact.seconds
        elif isinstance(fact, f.SignalSigned | f.SignalAdopted):
            now["signed"] = fact.at
        elif isinstance(fact, f.Fetched):
            now["fetch"] = now.get("fetch", 0.0) + fact.seconds
        elif isinstance(fact, f.Aggregated):
            self._finish(before, fact)
        self.state = evolve(before, fact)
        self.last_at = fact.at
        if self.state.round != before.round:
            now.clear()
        if "complete" not in now and self.state.transcript.complete(self.state.round):
            now["complete"] = fact.at

    def _finish(self, before: State, fact: f.Aggregated) -> None:
        now, final_at = self.open, before.work.final_at
        signed, complete = now.get("signed"), now.get("complete")
        signal = final_at - signed if signed and final_at else 0.0
        wait = complete - final_at if complete and final_at else 0.0
        names = ("train", "publish", "signal", "wait", "fetch", "aggregate")
        seconds = {**now, "signal": signal, "wait": wait, "aggregate": fact.seconds}
        self.rounds.append(
            RoundView(
                round=fact.round,
                digest=fact.digest,
                base=before.digests[-1],
                phase=phase_of(fact.round, self.phase),
                loss=now.get("loss"),
                signals=signals_shown(before.transcript.signals(fact.round)),
                outliers=list(fact.outliers),
                seconds={name: round(max(0.0, seconds.get(name, 0.0)), 6) for name in names},
            )
        )


def signals_shown(signals: Mapping[PartyName, Signal]) -> dict[str, dict[str, object]]:
    """The signals of a round as `rounds` shows them."""
    return {p: {"tx": s.tx, "object": s.object, "size": s.size} for p, s in signals.items()}


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
