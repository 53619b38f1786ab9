"""The daemon's talk: one line per event on standard error, for people, or as JSON lines for a program that shows
several daemons at once. Never a secret, never more than one line per fact."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from typing import Literal, TextIO

from fednode.errors import FednodeError
from fednode.node.printable import one_line
from fednode.node.protocol import facts as f
from fednode.node.protocol.facts import Fact
from fednode.node.protocol.pending import Command
from fednode.node.protocol.stalls import words
from fednode.node.protocol.state import State
from fednode.node.views import absent, word
from fednode.types import SIGNAL_LOVELACE, HeadStatus, Transferred

Style = Literal["plain", "json", "none"]
STEP_EVERY_S = 1.0
"""Training steps are shown at most this often."""
TRANSFER_EVERY_S = 10.0
"""So often it is told how far a transfer is."""
LONGEST_RECORD = 1000
"""Characters of a log record."""


@dataclass(slots=True)
class Talk:
    """A `Watcher` that writes lines; `state` is the last state it was shown."""

    style: Style = "plain"
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    state: State | None = None
    _last: str = ""
    _stepped: float = 0.0

    def fact(self, state: State, fact: Fact) -> None:
        self.state = state
        text = describe(state, fact)
        if text:
            self._write(text)

    def unreachable(self, reason: str) -> None:
        self.waiting(f"the hydra-node cannot be reached ({reason}): waiting for it")

    def waiting(self, text: str) -> None:
        """Said once, however often it is waited for the same thing."""
        if text != self._last:
            self._write(text)

    def refused(self, tx: str, reason: str) -> None:
        self._write(f"the head refused transaction {tx[:16]}…: {reason[:200]}")

    def retry(self, command: Command, error: FednodeError, delay_s: float) -> None:
        name = type(command).__name__
        self._write(f"{name} failed and is tried again in {delay_s:.1f} s: {error.message}")

    def step(self, done: int, steps: int, loss: float) -> None:
        """Progress inside the local phase (shown only by the JSON style, and rarely)."""
        now = time.monotonic()
        if self.style == "json" and (done == steps or now - self._stepped >= STEP_EVERY_S):
            self._stepped = now
            self._write("", step=done, steps=steps, loss=loss)

    def transfer(self, what: str) -> Transferred:
        """What tells how far a long transfer is; a short one is not told of."""
        began = told = time.monotonic()

        def moved(done: int, size: int) -> None:
            nonlocal told
            now = time.monotonic()
            if now - told >= TRANSFER_EVERY_S and size:
                told = now
                speed = done / 1e6 / (now - began)
                self._write(f"{what}: {done / 1e6:.1f} of {size / 1e6:.1f} MB, {speed:.1f} MB/s")

        return moved

    def log(self, level: str, text: str) -> None:
        """A log record: talk as everything else, of whatever length and origin its text is."""
        self._put(one_line(f"{level}: {text}"[:LONGEST_RECORD]), {"level": level})

    def _write(self, text: str, **more: object) -> None:
        self._last = text
        self._put(text, more)

    def _put(self, text: str, more: dict[str, object]) -> None:
        if self.style == "none":
            return
        try:
            self.stream.write(self._line(text, more) + "\n")  # in one piece: records come from other threads too
            self.stream.flush()
        except (BrokenPipeError, ValueError):
            self.style = "none"  # whoever listened is gone; the run goes on

    def _line(self, text: str, more: dict[str, object]) -> str:
        if self.style == "plain":
            me = self.state.rules.me if self.state else "fednode"
            return f"{time.strftime('%H:%M:%S')} {me}: {one_line(text)}"
        shown: dict[str, object] = {"at": round(time.time(), 3), "text": text, **more}
        if self.state is not None:
            state = self.state
            shown |= {
                "party": state.rules.me,
                "round": min(state.round, state.rules.rounds),
                "rounds": state.rules.rounds,
                "state": word(state),
                "waiting_for": list(absent(state)),
            }
        return json.dumps(shown)


def describe(state: State, fact: Fact) -> str:
    """One line for a fact; "" for facts that tell a user nothing new."""
    rules = state.rules
    match fact:
        case f.HeadBound():
            return f"head {fact.head_id[:16]}… is open"
        case f.HeadChanged():
            return _head_changed(fact)
        case f.DepositSigned():
            return f"deposit {fact.deposit.id[:16]}… signed"
        case f.DepositChanged():
            return _deposit_changed(state, fact)
        case f.Prepared():
            return f"S_0 {fact.base[:16]}…, agreement and schema {fact.object[:16]}…"
        case f.SignalAdopted():
            return f"round {fact.round}: adopted an own signal that the journal did not know ({fact.signal.id[:16]}…)"
        case f.Trained():
            return f"round {fact.round}/{rules.rounds}: trained, loss {fact.loss:.4f}, {fact.seconds:.1f} s"
        case f.Published():
            return f"round {fact.round}: published {state.work.size} bytes"
        case f.SignalSigned():
            last = fact.round > rules.rounds
            pays = 0 if last else (len(rules.parties) - 1) * SIGNAL_LOVELACE // 1_000_000
            return f"round {fact.round}: {'last ' if last else ''}signal {fact.signal.id[:16]}… pays {pays} ADA"
        case f.Aggregated():
            outliers = f", outliers: {', '.join(fact.outliers)}" if fact.outliers else ""
            return f"round {fact.round}/{rules.rounds}: S_{fact.round} = {fact.digest[:16]}…{outliers}"
        case _:
            return _rare(state, fact)


def _deposit_changed(state: State, fact: f.DepositChanged) -> str:
    known = state.head.deposits[fact.deposit]
    text = f"deposit of {known.party or 'somebody'}: {fact.stage}, {known.lovelace / 1e6:.6g} ADA {fact.reason}"
    on_chain = known.lovelace > 0  # what was signed and never confirmed was never paid
    if fact.stage == "failed" and known.party == state.rules.me and on_chain:
        text = f"{text}; get it back with `fednode deposit recover {fact.deposit}`"
    return text.rstrip()


def _head_changed(fact: f.HeadChanged) -> str:
    if fact.status is not HeadStatus.CLOSED or fact.deadline is None:
        return f"head: {fact.status}"
    deadline = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(fact.deadline))
    return (
        f"head: {fact.status} with snapshot {fact.snapshot}, contestation until {deadline}: every party's hydra-node "
        "must stay online until then (a newer snapshot is contested by the node that has it), and one until the fanout"
    )


def _rare(state: State, fact: Fact) -> str:
    match fact:
        case f.HeadStalled():
            return f"the head stands still since {time.strftime('%H:%M:%S', time.localtime(fact.since))}: {words(fact)}"
        case f.HeadResumed():
            return "the head goes on"
        case f.RoundAgreed(round=0):
            return f"round 0: all parties agree on run {state.rules.run}"
        case f.RoundAgreed():
            return f"all parties certify S_{state.rules.rounds}"
        case f.ForeignRunSeen():
            differ = f" (other: {', '.join(fact.sections)})" if fact.sections else ""
            return f"{fact.party} runs another agreement, {fact.run}{differ}: compare peers.toml and --epochs; waiting"
        case f.ObjectLost():
            return f"round {fact.round}: the own object is gone or damaged, and nobody has it: training again"
        case f.RepeatSeen():
            return f"{fact.party} signalled round {fact.round} twice, with equal content"
        case f.FaultFound():
            return f"FAULT of {fact.party} in round {fact.round}: {fact.kind}: {fact.message}"
        case f.EvidenceStored():
            return f"evidence: {fact.path}"
        case f.DivergenceFound():
            return f"the run has diverged before round {fact.round}"
        case f.DeadlinePassed():
            return f"round {fact.round}: the deadline has passed, waiting for {', '.join(fact.missing)}"
        case f.CloseDecided():
            return f"closing the head: {fact.reason}"
        case f.TranscriptStored():
            return "transcript stored"
        case f.PaidOut():
            verdict = "as the last snapshot says" if fact.verified else "NOT what the last snapshot says"
            paid = ", ".join(f"{p} {lovelace / 1e6:.6f}" for p, lovelace in fact.paid)
            return f"fanout paid (ADA): {paid}; {verdict}"
        case _:
            return ""
