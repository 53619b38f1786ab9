"""10,000 inputs for each target; a million and more: scripts/fuzz --target NAME --count 1000000."""

from __future__ import annotations

import pytest

from . import run
from .targets import TARGETS, Target

COUNT = 10_000


@pytest.mark.parametrize("name", TARGETS)
def test_only_the_documented_outcomes_exist(name: str) -> None:
    outcomes = run.fuzz(name, COUNT)
    assert sum(outcomes.values()) == COUNT
    assert min(outcomes["value"], outcomes["refused"]) > COUNT // 200, outcomes


def test_a_finding_is_shown_with_the_command_that_replays_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Input 7 is one that the reader would choke on."""

    def choke(made: int) -> str:
        return "value" if made != numbers[7] else str(1 // 0)

    numbers = [run.random.Random(f"bad/{number}").randrange(10**9) for number in range(10)]
    monkeypatch.setitem(TARGETS, "bad", Target(lambda rng: rng.randrange(10**9), choke))
    with pytest.raises(
        run.Finding, match=r"ZeroDivisionError.*\n.*\nreplay: scripts/fuzz --target bad --seed 7 --count 1"
    ):
        run.fuzz("bad", 10)
    with pytest.raises(run.Finding):
        run.fuzz("bad", 1, seed=7)
