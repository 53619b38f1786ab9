"""A smaller world that still fails: fewer kinds of faults, fewer rounds, fewer parties."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .plan import FAULTS, Limits, plan_of
from .world import Outcome, simulate


def command(seed: int, limits: Limits, *, trace: bool = True) -> str:
    """The command that runs this seed again."""
    words = ["scripts/simulate", f"--seed {seed}"]
    if limits.parties is not None:
        words.append(f"--parties {limits.parties}")
    if limits.rounds is not None:
        words.append(f"--rounds {limits.rounds}")
    if limits.without:
        words.append(f"--without {','.join(sorted(limits.without))}")
    if limits.lie is not None:
        words.append(f"--lie {limits.lie}")
    return " ".join([*words, "--trace"] if trace else words)


def shrink(
    seed: int, limits: Limits | None = None, fails: Callable[[int, Limits], Outcome] = simulate
) -> tuple[Limits, Outcome]:
    """Greedily: drop each kind of fault, then rounds and parties, as long as the seed fails in any way."""
    best = limits or Limits()
    outcome = fails(seed, best)
    if outcome.problem is None:
        return best, outcome
    plan = plan_of(seed, best)
    kinds = [kind for kind in FAULTS if kind in plan.rates or kind in plan.chaos or kind in plan.slow]
    extra = ["files"] if plan.files else []
    extra += ["lie"] if plan.lie is not None and best.lie is None else []
    candidates = [lambda now, kind=kind: replace(now, without=now.without | {kind}) for kind in (*extra, *kinds)]
    candidates += [lambda now, n=n: replace(now, rounds=n) for n in range(1, plan.terms.rounds)]
    candidates += [lambda now, n=n: replace(now, parties=n) for n in range(2, plan.terms.parties)]
    for change in candidates:
        smaller = change(best)
        if smaller == best:
            continue
        found = fails(seed, smaller)
        if found.problem is not None:
            best, outcome = smaller, found
    return best, outcome
