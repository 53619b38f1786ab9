"""The simulation finds what it should: every planted bug fails within a bounded number of seeds."""

from __future__ import annotations

import pytest

from .planted import BOUND, BUGS, Bug, planted, seeds_needed
from .shrink import command, shrink
from .world import simulate


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_every_planted_bug_is_found(bug: Bug) -> None:
    assert seeds_needed(bug) is not None, f"{bug.name}: {bug.what} was not found within {BOUND} seeds"
    assert simulate(700_000, bug.limits).problem is None, "the shipped rule is not back in its place"


def test_a_failing_seed_shrinks() -> None:
    bug = next(b for b in BUGS if b.name == "signal-before-object")
    with planted(bug):
        seed = next(s for s in range(700_000, 700_100) if simulate(s).problem is not None)
        smaller, outcome = shrink(seed)
        assert outcome.problem is not None
        assert (smaller.parties or 5, smaller.rounds or 4) <= (5, 4)
        assert command(seed, smaller).startswith(f"scripts/simulate --seed {seed}")
        assert simulate(seed, smaller).problem == outcome.problem
