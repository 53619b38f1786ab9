"""The retry policy and the deadlines are pure; what runs them never turns one error into another."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fednode.errors import (
    Conflict,
    Denied,
    Integrity,
    NotFound,
    QuotaExceeded,
    StorageError,
    StorageTimeout,
    Throttled,
    Unavailable,
)
from fednode.storage.retry import Deadlines, RetryPolicy, persistently, within

PASSING = [Throttled("slow"), Unavailable("gone"), StorageTimeout("late")]
FINAL = [
    StorageError("x"), NotFound("x"), Denied("x"), Conflict("x"), Integrity("x", kind="size"), QuotaExceeded("x"),
]  # fmt: skip
policies = st.builds(
    RetryPolicy, attempts=st.integers(1, 30), first_s=st.floats(0.001, 5.0), most_s=st.floats(0.001, 60.0)
)
chances = st.floats(0.0, 1.0, exclude_max=True)


@given(policies, st.integers(0, 100), st.sampled_from(FINAL), chances)
def test_a_refusal_stays_one(policy: RetryPolicy, attempt: int, error: StorageError, chance: float) -> None:
    assert policy.pause_s(attempt, error, chance) is None


@given(policies, st.integers(0, 2000), st.sampled_from(PASSING), chances)
def test_a_pause_is_bounded_and_attempts_are(
    policy: RetryPolicy, attempt: int, error: StorageError, chance: float
) -> None:
    pause = policy.pause_s(attempt, error, chance)
    assert (pause is None) == (attempt + 1 >= policy.attempts)
    if pause is not None:
        most = min(policy.most_s, policy.first_s * 2.0**attempt)
        least = most / 2 if isinstance(error, Throttled) else 0.0
        assert least <= pause <= most


@given(policies, st.integers(0, 28), st.sampled_from(PASSING), chances)
def test_later_pauses_are_no_shorter(policy: RetryPolicy, attempt: int, error: StorageError, chance: float) -> None:
    first, second = (policy.pause_s(number, error, chance) for number in (attempt, attempt + 1))
    assert first is None or second is None or second >= first


@given(policies, chances)
def test_slowing_down_waits_longer_than_trying_again(policy: RetryPolicy, chance: float) -> None:
    pauses = [policy.pause_s(0, error, chance) for error in (Throttled("x"), Unavailable("x"))]
    slow, other = pauses
    assert (slow is None) == (other is None)
    assert slow is None or other is None or slow >= other


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_more_bytes_get_no_less_time(one: int, other: int) -> None:
    deadlines = Deadlines()
    assert (deadlines.of(one) <= deadlines.of(other)) == (one <= other) or one == other
    assert deadlines.of(one) >= deadlines.call_s


class Work:
    """Fails with each error in turn, then gives its number of calls."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> int:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.calls


AT_ONCE = RetryPolicy(attempts=4, first_s=0.0)


async def test_it_goes_on_until_success() -> None:
    assert await persistently(AT_ONCE, Work(*PASSING)) == 4


async def test_it_gives_up_with_the_last_error() -> None:
    errors = [Unavailable(str(number)) for number in range(9)]
    work = Work(*errors)
    with pytest.raises(Unavailable) as caught:
        await persistently(AT_ONCE, work)
    assert caught.value is errors[3]
    assert work.calls == 4


@pytest.mark.parametrize("error", [*FINAL, RuntimeError("a fault of ours"), asyncio.CancelledError()])
async def test_nothing_else_is_tried_again(error: BaseException) -> None:
    work = Work(Unavailable("x"), error)
    with pytest.raises(type(error)) as caught:
        await persistently(AT_ONCE, work)
    assert caught.value is error
    assert work.calls == 2


async def test_a_deadline_cancels_the_work() -> None:
    ended: list[str] = []

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    with pytest.raises(StorageTimeout, match="the call took longer than 0 seconds"):
        await within(0.01, hangs(), "the call")
    assert ended == ["cancelled"]


async def test_a_cancelled_caller_is_no_timeout() -> None:
    task = asyncio.create_task(within(60, asyncio.Event().wait(), "the call"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
