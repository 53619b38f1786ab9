"""An event loop on simulated time: the same callbacks in the same order for the same seed, and no waiting."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any


class Handle:
    """A callback that may be cancelled."""

    __slots__ = ("args", "callback", "context", "dead")

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...], context: contextvars.Context | None):
        self.callback, self.args, self.dead = callback, args, False
        self.context = context if context is not None else contextvars.copy_context()

    def cancel(self) -> None:
        self.dead = True

    def cancelled(self) -> bool:
        return self.dead


class VirtualLoop(asyncio.AbstractEventLoop):
    """As much of an event loop as the daemon uses. Threads are callbacks that run whole, some time later."""

    def __init__(self, start: float, most: int) -> None:
        self.now, self.most = start, most
        """Simulated time, and the number of steps after which `run` gives up."""
        self.steps = 0
        self.thread_delay: Callable[[], float] = lambda: 0.0
        self.may_run: Callable[[], bool] = lambda: True
        """Asked in the context of a thread call before it runs: a killed process runs nothing any more."""
        self.problems: list[BaseException] = []
        self._ready: deque[Handle] = deque()
        self._timers: list[tuple[float, int, Handle]] = []
        self._count = 0

    # What asyncio asks of a loop -------------------------------------------------------------------------------------

    def time(self) -> float:
        return self.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self, **options)

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        handle = Handle(callback, args, context)
        self._ready.append(handle)
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        handle = Handle(callback, args, context)
        self._count += 1
        heapq.heappush(self._timers, (max(when, self.now), self._count, handle))
        return handle

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        future = self.create_future()

        def work() -> None:
            if future.done() or not self.may_run():
                return
            try:
                result = func(*args)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        delay = self.thread_delay()
        if delay:
            self.call_later(delay, work)
        else:
            self.call_soon(work)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None and "never retrieved" not in context.get("message", ""):
            self.problems.append(error)

    # Running ---------------------------------------------------------------------------------------------------------

    def run(self, done: Callable[[], bool], until: float) -> bool:
        """Run until `done` or the simulated time `until`; True where `done` came first."""
        before = events._get_running_loop()
        events._set_running_loop(self)
        try:
            while not done():
                if self.steps >= self.most or not self._step(until):
                    return False
            return True
        finally:
            events._set_running_loop(before)

    def _step(self, until: float) -> bool:
        ready, timers = self._ready, self._timers
        if not ready:
            while timers and timers[0][2].dead:
                heapq.heappop(timers)
            if not timers or timers[0][0] > until:
                self.now = max(self.now, until)
                return False
            self.now = timers[0][0]
            while timers and timers[0][0] <= self.now:
                ready.append(heapq.heappop(timers)[2])
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.dead:
                self.steps += 1
                handle.context.run(handle.callback, *handle.args)
        return True
