"""The shell round the core: event -> facts -> journal -> state -> outstanding commands -> tasks.

Everything is journalled (fsync) before anything acts on it. The daemon may be killed at any moment; it starts again
from the journal and goes on with whatever `pending` says.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, cast

from fednode import reports
from fednode.errors import FednodeError, TrainingError
from fednode.node.ports import Clock, Head, Journal
from fednode.node.protocol.decide import decide
from fednode.node.protocol.events import Event, Tick
from fednode.node.protocol.evolve import evolve
from fednode.node.protocol.facts import Fact
from fednode.node.protocol.outcome import ended
from fednode.node.protocol.pending import Command, Train, pending
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
        self._inbox: asyncio.Queue[Event | _Done] = asyncio.Queue()
        self._reconciler = Reconciler(
            start=lambda command: perform(command, self.state),
            done=lambda command, task: self._inbox.put_nowait(_Done(command, task)),
        )

    async def run(self, begin: Event) -> State:
        """Work until the goal is reached. Raises the FednodeError that ends it otherwise; cancel to stop at once."""
        self._record([begin])
        listener = asyncio.ensure_future(self._listen())
        try:
            while (end := ended(self.state)) is None:
                wake = self._reconciler.update(pending(self.state), self._clock.now())
                self._record(await self._next(wake, listener))
            if end.error is not None:
                raise end.error
            return self.state
        finally:
            listener.cancel()
            await self._reconciler.aclose()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await listener

    async def _listen(self) -> None:
        async for report in self._head.reports(self.state.head.snapshot):
            self._inbox.put_nowait(report)

    async def _next(self, wake: float | None, listener: asyncio.Task[None]) -> list[Event]:
        """The next events: everything that has arrived, or a tick when nothing does in time."""
        if listener.done():
            await listener  # the adapter gave up for a reason that waiting cannot mend
        timeout = TICK_S if wake is None else min(TICK_S, max(0.0, wake - self._clock.now()))
        items: list[Event | _Done] = []
        getter = asyncio.ensure_future(self._inbox.get())
        try:
            await asyncio.wait({getter, listener}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if getter.done():
                items.append(getter.result())
        finally:
            getter.cancel()
        while not self._inbox.empty():
            items.append(self._inbox.get_nowait())
        events = [event for item in items if (event := self._event_of(item)) is not None]
        return events or [Tick(self._clock.now())]

    def _event_of(self, item: Event | _Done) -> Event | None:
        if isinstance(item, _Done):
            return self._outcome(item)
        if isinstance(item, reports.HeadUnreachable):
            self._watcher.unreachable(item.reason)
        elif isinstance(item, reports.TransactionRefused):
            self._watcher.refused(item.id, item.reason)
        return item

    def _outcome(self, done: _Done) -> Event | None:
        """The event of a command that ended; a failure is retried with back-off where waiting can mend it."""
        error = done.task.exception()
        delay = self._reconciler.ended(done.command, done.task, failed=error is not None, now=self._clock.now())
        if error is None:
            return cast("Event | None", done.task.result())
        if not isinstance(error, FednodeError):
            raise error
        training = isinstance(error, TrainingError) and isinstance(done.command, Train)
        again = training and self._reconciler.failures(done.command) < TRAINING_ATTEMPTS
        if not (error.retryable or again):
            raise error
        self._watcher.retry(done.command, error, delay)
        return None

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
        self._journal.append([to_record(fact) for _, fact in steps])
        self.state = state
        for after, fact in steps:
            self._watcher.fact(after, fact)
