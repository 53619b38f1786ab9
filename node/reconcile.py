"""Commands to tasks: starts what the state calls for and is not under way, cancels what it no longer calls for,
waits longer after each failure. Knows neither the protocol nor what a command does."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from fednode.node.protocol.pending import Command

FIRST_DELAY_S = 0.25
LONGEST_DELAY_S = 60.0
AGAIN_S = 5.0
"""A command that ended well and is still called for (Init sent, nothing happened yet) is started again after this."""


@dataclass(slots=True)
class Reconciler:
    """`start(command)` performs it; `done(command, task)` is called once when its task has ended, unless cancelled."""

    start: Callable[[Command], Awaitable[object]]
    done: Callable[[Command, asyncio.Task[object]], None]
    jitter: Callable[[], float] = random.random
    running: dict[Command, asyncio.Task[object]] = field(default_factory=dict[Command, "asyncio.Task[object]"])
    _leaving: dict[Command, asyncio.Task[object]] = field(default_factory=dict[Command, "asyncio.Task[object]"])
    """Cancelled, and not yet gone: the same command never runs twice at once."""
    _failures: dict[Command, int] = field(default_factory=dict[Command, int])
    _earliest: dict[Command, float] = field(default_factory=dict[Command, float])

    def update(self, wanted: Sequence[Command], now: float) -> float | None:
        """Bring tasks in line with `wanted`; returns when to call again (Unix seconds), None if nothing waits."""
        keep = set(wanted)
        for command in [c for c in self.running if c not in keep]:
            self._leaving[command] = self.running.pop(command)
            self._leaving[command].cancel()
        for known in [c for c in (*self._failures, *self._earliest) if c not in keep]:
            self._failures.pop(known, None)
            self._earliest.pop(known, None)
        wake: float | None = None
        for command in wanted:
            if command in self.running or command in self._leaving:
                continue
            at = max(command.not_before, self._earliest.get(command, 0.0))
            if at > now:
                wake = at if wake is None else min(wake, at)
                continue
            self._launch(command)
        return wake

    def ended(self, command: Command, task: asyncio.Task[object], *, failed: bool, now: float) -> float:
        """Note that a task has ended; returns the delay in seconds before the command may start again."""
        if self.running.get(command) is task:
            del self.running[command]
        if not failed:
            self._failures.pop(command, None)
            delay = AGAIN_S
        else:
            count = self._failures.get(command, 0)
            self._failures[command] = count + 1
            doublings = min(count, 16)  # a float has no room for the doublings of a long outage
            delay = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0**doublings) * (0.5 + self.jitter())
        self._earliest[command] = now + delay
        return delay

    async def aclose(self) -> None:
        """Cancel everything and wait for it."""
        for task in self.running.values():
            task.cancel()
        tasks = [*self.running.values(), *self._leaving.values()]
        self.running.clear()
        self._leaving.clear()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _launch(self, command: Command) -> None:
        async def work() -> object:
            return await self.start(command)

        task = asyncio.ensure_future(work())
        self.running[command] = task
        task.add_done_callback(lambda ended: self._over(command, ended))

    def _over(self, command: Command, task: asyncio.Task[object]) -> None:
        if self._leaving.get(command) is task:
            del self._leaving[command]
        if not task.cancelled():
            self.done(command, task)
        elif self.running.get(command) is task:
            del self.running[command]  # something inside it was cancelled, not the command: the next update starts it
