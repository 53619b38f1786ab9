"""Killing daemons at named points, one after the other, in one running federation."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import psutil
from federation import PATIENCE_S, Federation, Running, Trouble

from fednode.node.protocol import facts as f
from fednode.node.protocol.state import State
from fednode.types import HeadStatus

MADE_TRUE_BY: Mapping[str, type] = {
    "DraftDeposit": f.DepositSigned,
    "Prepare": f.Prepared,
    "CheckOwnBucket": f.SignalSigned,
    "Train": f.Trained,
    "Publish": f.Published,
    "Sign": f.SignalSigned,
    "StoreSignal": f.SignalStored,
    "Aggregate": f.Aggregated,
    "StoreTranscript": f.TranscriptStored,
    "Fanout": f.PaidOut,
}
"""The fact after which a command is never given again."""
ONCE = (f.HomeBound, f.RunBound, f.HeadBound, f.Prepared, f.TranscriptStored, f.PaidOut)
"""Facts without a number of which a journal holds one."""
LOOK_EVERY_S = 0.2
TRAIN_FAILED = "Train failed and is tried again"
UNREACHABLE = "cannot be reached"


@dataclass
class Kills:
    """What became of the points of one federation run: (party, point)."""

    survived: list[tuple[str, str]] = field(default_factory=list)
    missed: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class _Line:
    """One party: its points ahead, the one that its process was told, and when to look whether it still can come."""

    whole: Federation
    what: str
    party: str
    kills: Kills
    ahead: list[str]
    point: str = ""
    look_at: float = 0.0
    seen: bool = False
    until: Callable[[], bool] | None = None
    """What has to be true before it is started a second time."""

    def start(self) -> Running:
        """Start with the next point that is not behind already."""
        self.point = self.ahead.pop(0) if self.ahead else ""
        while self.point and behind(self.whole, self.party, self.point):
            self.kills.missed.append((self.party, self.point))
            self.point = self.ahead.pop(0) if self.ahead else ""
        self.look_at, self.seen = time.monotonic() + LOOK_EVERY_S, False
        return self.whole.party(self.party, self.what, crash_at=self.point)

    def overtaken(self) -> bool:
        """Whether the daemon has gone past its point: seen twice, since it may be about to die at the point."""
        if not self.point or time.monotonic() < self.look_at:
            return False
        self.look_at = time.monotonic() + LOOK_EVERY_S
        before, self.seen = self.seen, behind(self.whole, self.party, self.point)
        return before and self.seen


def kill_along(
    whole: Federation,
    what: str,
    schedule: Mapping[str, Sequence[str]],
    *,
    hold: Mapping[str, Callable[[], bool]] | None = None,
    timeout: float = 4 * PATIENCE_S,
) -> Kills:
    """Run `what` at every party of `schedule`. A party's daemon kills itself at its next point, and is started again by
    the same command with the point after that, until the command succeeds.

    A point is missed when it lies behind the daemon (facts that were journalled together, say); a daemon that has gone
    past its point is killed where it is. A party in `hold` is started a second time only when that becomes true.
    Trouble when a command fails in any other way, or does not end.
    """
    kills, hold = Kills(), hold or {}
    lines = [
        _Line(whole, what, party, kills, list(points), until=hold.get(party)) for party, points in schedule.items()
    ]
    running = {line.party: line.start() for line in lines}

    def settled() -> bool:
        for line in lines:
            again = _judge(line, running[line.party])
            if again is not None:
                running[line.party] = again
        return all(process.popen.returncode == 0 for process in running.values())

    whole.wait(settled, f"{what} ends at all parties, killed on the way", timeout=timeout)
    return kills


def _judge(line: _Line, process: Running) -> Running | None:
    """The process that takes the place of this one, if it has to be replaced."""
    if not process.over:
        if not line.overtaken() or process.over:
            return None
        process.kill()
    status = process.popen.returncode
    if status == -signal.SIGKILL:
        if line.until is not None and not line.until():
            return None
        line.until = None
        told = line.kills.missed if process.killed else line.kills.survived
        told.append((line.party, line.point))
        return line.start()
    if status != 0:
        raise Trouble(f"{process.name}, told to die at {line.point!r}: {process.answer()}" + line.whole.tails())
    line.kills.missed.extend((line.party, point) for point in [line.point, *line.ahead] if point)
    line.point, line.ahead = "", []
    return None


def kill_trainer(whole: Federation, daemon: Running, party: str, number: int) -> None:
    """kill -9 of a trainer child in mid-step of a round; its daemon goes on with another child."""
    trainer = stop_trainer(whole, daemon, party, number)
    failed = daemon.talk.count(TRAIN_FAILED)
    trainer.kill()
    whole.wait(lambda: daemon.talk.count(TRAIN_FAILED) > failed, f"{party} says that its trainer is gone")
    whole.wait(lambda: whole.has(party, f.Trained, round=number), f"{party} has trained round {number}")
    assert not daemon.over


def stop_trainer(whole: Federation, daemon: Running, party: str, number: int) -> psutil.Process:
    """The trainer child, which holds still in mid-step of a round."""
    whole.wait(lambda: _stepping(daemon, number), f"{party} is in a step of round {number}")
    trainer = daemon.trainer()
    assert trainer is not None
    trainer.suspend()
    assert not whole.has(party, f.Trained, round=number), f"{party}: too late to stop the trainer in round {number}"
    return trainer


def _stepping(daemon: Running, number: int) -> bool:
    shown = [json.loads(line) for line in daemon.talk.splitlines() if line.startswith("{") and line.endswith("}")]
    return any(x.get("round") == number and 0 < x.get("step", 0) < x.get("steps", 0) for x in shown)


def kill_node(whole: Federation, daemons: Mapping[str, Running]) -> None:
    """kill -9 of the embedded head, and its start by the same command once every daemon has noticed."""
    assert whole.server is not None
    noticed = {name: daemon.talk.count(UNREACHABLE) for name, daemon in daemons.items()}
    whole.server.kill()
    for name, daemon in daemons.items():
        whole.wait(
            lambda d=daemon, n=name: d.talk.count(UNREACHABLE) > noticed[n], f"{name} says that its node is gone"
        )
        assert not daemon.over
    whole.serve()


def behind(whole: Federation, party: str, point: str) -> bool:
    """The point can never be reached any more by this party's daemon."""
    journal = whole.facts(party)
    if not journal:
        return False
    where, kind, number = parse(point)
    if where.endswith("journal"):
        kinds = {type(fact).__name__: type(fact) for fact in journal}
        if number is None:
            return kind in kinds and kinds[kind] in ONCE
        return any(type(fact).__name__ == kind and _number(fact) == number for fact in journal)
    state = whole.state(party)
    if state.paid is not None:
        return True
    if kind == "Send" and number is not None:
        return party in state.transcript.signals(number)
    if kind == "Fetch" and number is not None:
        return state.round > number or (state.round == number and _all_fetched(state))
    if kind == "CloseHead":
        return state.head.status not in (HeadStatus.UNKNOWN, HeadStatus.IDLE, HeadStatus.OPEN)
    fact = MADE_TRUE_BY.get(kind)
    return fact is not None and any(type(x) is fact and _number(x) == number for x in journal)


def _all_fetched(state: State) -> bool:
    return len(state.work.fetched) >= len(state.rules.parties) - 1


def _number(thing: object) -> int | None:
    number = getattr(thing, "round", getattr(thing, "number", None))
    return number if isinstance(number, int) else None


def parse(point: str) -> tuple[str, str, int | None]:
    """`where`, what, and the round or snapshot number of a point's name."""
    where, kind, *number = point.split(":")
    return where, kind, int(number[0]) if number else None


def around(*things: str) -> list[str]:
    """The points before and after each thing: a fact (its journal write) or a command (its effect)."""
    return [f"{where}{way(thing)}:{thing}" for thing in things for where in ("before", "after")]


def way(thing: str) -> str:
    return "-journal" if hasattr(f, thing.partition(":")[0]) else ""
