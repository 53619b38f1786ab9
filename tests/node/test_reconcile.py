"""Commands to tasks, by hand."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from fednode.node.protocol.pending import Command, Fetch, InitHead, Send, Sign, Train
from fednode.node.reconcile import AGAIN_S, FIRST_DELAY_S, LONGEST_DELAY_S, Reconciler
from fednode.types import PartyName


@dataclass
class Bench:
    """A reconciler whose commands wait until they are let go."""

    started: list[Command] = field(default_factory=list)
    ended: list[tuple[Command, bool]] = field(default_factory=list)
    gates: dict[Command, asyncio.Future[None]] = field(default_factory=dict)
    stubborn: asyncio.Event | None = None
    """Where set, a cancelled command takes until this to leave."""

    def __post_init__(self) -> None:
        self.reconciler = Reconciler(start=self.start, done=self.done, jitter=lambda: 0.5)

    async def start(self, command: Command) -> None:
        self.started.append(command)
        self.gates[command] = asyncio.get_running_loop().create_future()
        try:
            await self.gates[command]
        finally:
            if self.stubborn is not None:
                await self.stubborn.wait()

    def done(self, command: Command, task: asyncio.Task[object]) -> None:
        failed = task.exception() is not None
        self.ended.append((command, failed))
        self.reconciler.ended(command, task, failed=failed, now=100.0)

    async def update(self, *wanted: Command, now: float = 100.0) -> float | None:
        wake = self.reconciler.update(wanted, now)
        await settle()
        return wake


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_is_wanted_runs_once_and_what_is_not_is_cancelled() -> None:
    bench = Bench()
    await bench.update(Train(1), Fetch(1, PartyName("bert")))
    await bench.update(Train(1), Fetch(1, PartyName("bert")))
    assert bench.started == [Train(1), Fetch(1, PartyName("bert"))]
    await bench.update(Train(1))
    assert bench.gates[Fetch(1, PartyName("bert"))].cancelled()
    assert bench.ended == []
    await bench.reconciler.aclose()
    assert bench.gates[Train(1)].cancelled()


async def test_a_command_waits_for_its_time() -> None:
    bench = Bench()
    assert await bench.update(Send(1, not_before=130.0), Sign(1, not_before=110.0)) == 110.0
    assert bench.started == []
    assert await bench.update(Send(1, not_before=130.0), now=131.0) is None
    assert bench.started == [Send(1)]
    await bench.update(Send(1, not_before=500.0), now=132.0)
    assert not bench.gates[Send(1)].cancelled()  # a later time does not call back what has begun
    await bench.reconciler.aclose()


async def test_a_command_that_ended_well_and_is_still_wanted_comes_again_later() -> None:
    bench = Bench()
    await bench.update(InitHead())
    bench.gates[InitHead()].set_result(None)
    await settle()
    assert bench.ended == [(InitHead(), False)]
    assert await bench.update(InitHead(), now=101.0) == 100.0 + AGAIN_S
    await bench.update(InitHead(), now=100.0 + AGAIN_S)
    assert bench.started == [InitHead(), InitHead()]
    await bench.reconciler.aclose()


async def test_delays_grow_to_a_bound_however_often_it_fails() -> None:
    bench = Bench()
    task = asyncio.ensure_future(asyncio.sleep(0))
    delays = [bench.reconciler.ended(Train(1), task, failed=True, now=0.0) for _ in range(1200)]
    assert delays[:4] == [FIRST_DELAY_S, 2 * FIRST_DELAY_S, 4 * FIRST_DELAY_S, 8 * FIRST_DELAY_S]
    assert max(delays) == delays[-1] == LONGEST_DELAY_S
    assert bench.reconciler._failures.get(Train(1), 0) == 1200
    bench.reconciler.update([], 0.0)
    assert bench.reconciler._failures.get(Train(1), 0) == 0
    await task


async def test_success_forgets_failures() -> None:
    bench = Bench()
    task = asyncio.ensure_future(asyncio.sleep(0))
    bench.reconciler.ended(Train(1), task, failed=True, now=0.0)
    bench.reconciler.ended(Train(1), task, failed=False, now=0.0)
    assert bench.reconciler._failures.get(Train(1), 0) == 0
    await task


async def test_a_command_that_leaves_slowly_is_not_started_beside_itself() -> None:
    bench = Bench(stubborn=asyncio.Event())
    await bench.update(Train(1))
    await bench.update()
    await bench.update(Train(1))
    assert bench.started == [Train(1)]
    assert bench.stubborn is not None
    bench.stubborn.set()
    await settle()
    await bench.update(Train(1))
    assert bench.started == [Train(1), Train(1)]
    await bench.reconciler.aclose()


async def test_closing_waits_for_what_was_cancelled_before() -> None:
    bench = Bench(stubborn=asyncio.Event())
    await bench.update(Train(1))
    await bench.update()
    closing = asyncio.ensure_future(bench.reconciler.aclose())
    await settle()
    assert not closing.done()
    assert bench.stubborn is not None
    bench.stubborn.set()
    await closing


async def test_a_command_cancelled_from_within_is_started_again() -> None:
    bench = Bench()
    await bench.update(Train(1))
    bench.gates[Train(1)].cancel()
    await settle()
    await bench.update(Train(1))
    assert bench.started == [Train(1), Train(1)]
    await bench.reconciler.aclose()


async def test_an_error_after_the_cancellation_is_still_told() -> None:
    """The daemon decides whether it matters; nothing is lost in silence."""
    bench = Bench()
    await bench.update(Train(1))
    bench.gates[Train(1)].set_exception(ValueError("late"))
    bench.reconciler.update((), 100.0)
    with pytest.raises(ValueError, match="late"):
        await bench.gates[Train(1)]
    await settle()
    assert bench.ended in ([], [(Train(1), True)])
