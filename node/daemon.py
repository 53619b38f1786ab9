"""The shell round the core: event -> facts -> journal -> state -> outstanding commands -> tasks.

Everything is journalled (fsync) before anything acts on it. The daemon may be killed at any moment; it starts again
from the journal and goes on with whatever `pending` says.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol, cast

from fednode import reports
from fednode.errors import FednodeError, HeadError, TrainingError
from fednode.node.crashpoint import reach
from fednode.node.ports import Clock, Head, Journal
from fednode.node.protocol.decide import decide
from fednode.node.protocol.events import Event, Tick
from fednode.node.protocol.evolve import evolve
from fednode.node.protocol.facts import Fact
from fednode.node.protocol.outcome import ended
from fednode.node.protocol.pending import Command, pending
from fednode.node.protocol.records import to_record
from fednode.node.protocol.state import State
from fednode.node.reconcile import Reconciler

TICK_S = 1.0
"""The longest the loop sleeps: deadlines are judged at least this often."""
TRAINING_ATTEMPTS = 3


class Watcher(Protocol):
    """Whoever shows what happens. Never influences it."""

    def fact(self, state: State, fact: Fact) -> None:
        """A fact became durable; `state` is the state after it."""
        ...

    def unreachable(self, reason: str) -> None: ...

    def refused(self, tx: str, reason: str) -> None: ...

    def retry(self, command: Command, error: FednodeError, delay_s: float) -> None: ...


@dataclass(frozen=True, slots=True)
class _Done:
    command: Command
    task: asyncio.Task[object]


@dataclass(frozen=True, slots=True)
class _Failure:
    command: Command
    error: BaseException
    delay: float


def _stamped(report: reports.HeadReport, now: float) -> reports.HeadReport:
    """By one clock only: waits and deadlines compare with it. What a node's clock dates later happened now."""
    at = min(report.at, now) if isinstance(report, reports.DepositFinalized) else now
    return replace(report, at=at)


class Daemon:
    """One party's node for one goal. `perform(command, state)` makes one command true and returns its event, if any."""

    def __init__(
        self,
        state: State,
        *,
        journal: Journal,
        head: Head,
        perform: Callable[[Command, State], Awaitable[Event | None]],
        clock: Clock,
        watcher: Watcher,
    ) -> None:
        self.state = state
        self._journal = journal
        self._head = head
        self._clock = clock
        self._watcher = watcher
        self._effects = perform
        self._broken: Counter[Command] = Counter()
        """How often each command has failed in training since it last ended well: outages are another matter."""
        self._inbox: asyncio.Queue[Event | _Done] = asyncio.Queue()
        self._reconciler = Reconciler(
            start=self._perform,
            done=lambda command, task: self._inbox.put_nowait(_Done(command, task)),
        )

    async def run(self, begin: Event) -> State:
        """Work until the goal is reached. Raises the FednodeError that ends it otherwise; cancel to stop at once."""
        self._record([begin])
        listener = asyncio.ensure_future(self._listen())
        try:
            while (end := ended(self.state)) is None:
                wake = self._reconciler.update(pending(self.state), self._clock.now())
                self._absorb(await self._next(wake, listener))
            if end.error is not None:
                raise end.error
            return self.state
        finally:
            listener.cancel()
            await self._reconciler.aclose()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await listener

    async def _perform(self, command: Command) -> Event | None:
        reach("before", (command,))
        try:
            return await self._effects(command, self.state)
        finally:
            reach("after", (command,))  # also when it failed, or was cancelled because it had become true

    async def _listen(self) -> None:
        async for report in self._head.reports(self.state.head.snapshot):
            self._inbox.put_nowait(_stamped(report, self._clock.now()))

    async def _next(self, wake: float | None, listener: asyncio.Task[None]) -> list[Event | _Done]:
        """Everything that has arrived; empty when nothing does in time."""
        timeout = TICK_S if wake is None else min(TICK_S, max(0.0, wake - self._clock.now()))
        getter = asyncio.ensure_future(self._inbox.get())
        try:
            await asyncio.wait({getter, listener}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            items = [getter.result()] if getter.done() else []
        finally:
            getter.cancel()
        while not self._inbox.empty():
            items.append(self._inbox.get_nowait())
        if not items and listener.done():
            await listener  # the adapter gave up for a reason that waiting cannot mend
            raise HeadError("the reports of the head ended", hint="run the same command again: it goes on from here")
        return items

    def _absorb(self, items: list[Event | _Done]) -> None:
        """Journal what arrived, then judge failures: by the new state, since it may no longer want what failed."""
        events: list[Event] = []
        failures: list[_Failure] = []
        for item in items:
            if not isinstance(item, _Done):
                self._show(item)
                events.append(item)
                continue
            error, now = item.task.exception(), self._clock.now()
            delay = self._reconciler.ended(item.command, item.task, failed=error is not None, now=now)
            if error is not None:
                failures.append(_Failure(item.command, error, delay))
                continue
            del self._broken[item.command]
            if (event := cast("Event | None", item.task.result())) is not None:
                events.append(event)
        self._record([*events, Tick(self._clock.now())])
        for failure in failures:
            self._judge(failure)

    def _show(self, report: Event) -> None:
        if isinstance(report, reports.HeadUnreachable):
            self._watcher.unreachable(report.reason)
        elif isinstance(report, reports.TransactionRefused):
            self._watcher.refused(report.id, report.reason)

    def _judge(self, failure: _Failure) -> None:
        """Raise what ends the daemon; what waiting may mend was delayed by the reconciler, and starts again."""
        command, error = failure.command, failure.error
        if ended(self.state) is not None or command not in pending(self.state):
            return
        if not isinstance(error, FednodeError):
            raise error
        if isinstance(error, TrainingError):
            self._broken[command] += 1
        again = isinstance(error, TrainingError) and self._broken[command] < TRAINING_ATTEMPTS
        if not (error.retryable or again):
            raise error
        self._watcher.retry(command, error, failure.delay)

    def _record(self, events: list[Event]) -> None:
        """Decide, journal, then change the state: one durable write for all events that arrived together."""
        state = self.state
        steps: list[tuple[State, Fact]] = []
        for event in events:
            for fact in decide(state, event):
                state = evolve(state, fact)
                steps.append((state, fact))
        if not steps:
            return
        reach("before-journal", (fact for _, fact in steps))
        self._journal.append([to_record(fact) for _, fact in steps])
        reach("after-journal", (fact for _, fact in steps))
        self.state = state
        for after, fact in steps:
            self._watcher.fact(after, fact)
