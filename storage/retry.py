"""When a call to a store is tried again, and when it is given up. The policy is pure; time is an argument."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from fednode.errors import StorageError, StorageTimeout, Throttled, Unavailable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Full jitter with a cap: attempt n waits for up to `first_s` * 2^n seconds. Throttled waits at least the half.

    (M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.)
    """

    attempts: int = 4
    first_s: float = 0.5
    most_s: float = 10.0

    def pause_s(self, attempt: int, error: StorageError, chance: float) -> float | None:
        """Seconds before the next attempt after the `attempt`-th (from 0) failed; None: give up.

        `chance` is uniform in [0, 1). Only what may pass by itself soon is tried again: an absent object is the
        caller's to wait for, and a refusal stays one.
        """
        if attempt + 1 >= self.attempts or not isinstance(error, Throttled | Unavailable | StorageTimeout):
            return None
        most = min(self.most_s, self.first_s * 2.0**attempt)
        return most * (0.5 + chance / 2) if isinstance(error, Throttled) else most * chance


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds that one call may take: a fixed part, and the bytes at the slowest speed that still counts as working."""

    call_s: float = 30.0
    slowest: int = 64 * 1024
    """Bytes per second."""

    def of(self, size: int) -> float:
        """Seconds for a transfer of `size` bytes."""
        return self.call_s + size / self.slowest


async def within(seconds: float, work: Awaitable[T], what: str) -> T:
    """The result of `work`, which is cancelled after `seconds`: then StorageTimeout."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise StorageTimeout(
            f"{what} took longer than {seconds:.0f} seconds", hint="look at the connection to the store"
        ) from None


async def persistently(policy: RetryPolicy, attempt: Callable[[], Awaitable[T]]) -> T:
    """The result of the first attempt that succeeds; the last error when the policy gives up."""
    number = 0
    while True:
        try:
            return await attempt()
        except StorageError as error:
            pause = policy.pause_s(number, error, random.random())
            if pause is None:
                raise
        number += 1
        await asyncio.sleep(pause)
