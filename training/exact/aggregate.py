"""The exact aggregate of a round's objects: norms, clip, rule (protocol.md section 6, steps 1 to 4).

Everything up to the last rounding is integers, so order, threads and chunk size cannot change a bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import isqrt
from typing import Literal

import numpy as np

from fednode.errors import ConfigError
from fednode.training.arrays import F32, F64, I64
from fednode.training.exact.objects import CHUNK, ObjectFile
from fednode.training.exact.sorting import sum_of_middle

Rule = Literal["mean", "trimmed_mean", "median"]

FULL = 1024
"""The clip factor of an unclipped update: factors are in 1/1024."""
WEIGHT_LIMIT = 1 << 10


@dataclass(frozen=True, slots=True)
class Plan:
    """How the values x_p of N parties become one sum and divisor."""

    factors: tuple[int, ...]
    """Per party: the clip factor, times the weight where the rule is the mean."""
    ranks: tuple[int, int] | None
    """First and end rank that are summed; None = all."""
    divisor: int

    @property
    def constant(self) -> float:
        """k = float64(2^-38) / float64(divisor): one division on the host."""
        return 2.0**-38 / float(self.divisor)


def make_plan(rule: Rule, clips: Sequence[int], weights: Sequence[int]) -> Plan:
    """Step 3 for given clip factors. Raises ConfigError for weights that the rule does not know."""
    check_weights(rule, weights)
    n = len(clips)
    if rule == "mean":
        factors = tuple(clip * weight for clip, weight in zip(clips, weights, strict=True))
        return Plan(factors, None, FULL * sum(weights))
    dropped = (n - 1) // 3 if rule == "trimmed_mean" else (n - 1) // 2
    return Plan(tuple(clips), (dropped, n - dropped), FULL * (n - 2 * dropped))


def check_weights(rule: Rule, weights: Sequence[int]) -> None:
    """Raise ConfigError for weights outside protocol.md section 6."""
    if rule not in ("mean", "trimmed_mean", "median"):
        raise ConfigError(f"aggregation.rule is {rule!r}, expected mean, trimmed_mean or median")
    if not weights or min(weights) < 1 or sum(weights) > WEIGHT_LIMIT:
        raise ConfigError(f"the weights {list(weights)} must be at least 1 each and at most {WEIGHT_LIMIT} together")
    if rule != "mean" and set(weights) != {1}:
        raise ConfigError(f"aggregation.rule is {rule!r}, which knows no weights: expected weight = 1 for every party")


def clip_factors(norms: Sequence[int]) -> list[int]:
    """Step 2: factors in 1/1024 that bring every length down to the lower median of the non-zero ones.

    `norms` are squared lengths, exact.
    """
    non_zero = sorted(norm for norm in norms if norm)
    if not non_zero:
        return [FULL] * len(norms)
    median = non_zero[(len(non_zero) - 1) // 2]
    return [min(FULL, isqrt((median << 20) // norm)) if norm else FULL for norm in norms]


def square_norm(opened: ObjectFile, *, threads: int, chunk: int = CHUNK) -> int:
    """Step 1: the exact sum of x^2 over an object in units of 2^-76. Checks every code: raises ObjectRefused."""

    def one(bounds: tuple[int, int]) -> int:
        parts, gaps = opened.read(*bounds), opened.layout.padding(*bounds)
        opened.codec.check(parts, gaps)
        return opened.codec.squares(parts, gaps)

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(one, opened.chunks(chunk)))


class Combiner:
    """One thread's buffers for step 3: int64 rows of one chunk, one for the mean, one per party otherwise."""

    def __init__(self, plan: Plan, objects: Sequence[ObjectFile], chunk: int) -> None:
        self._plan = plan
        self._objects = objects
        rows = 1 if plan.ranks is None else len(objects)
        self._rows = [np.empty(chunk, np.int64) for _ in range(rows)]
        self._spare: I64 = np.empty(chunk, np.int64)
        self._floats: F64 = np.empty(chunk, np.float64)

    def combine(self, lo: int, hi: int) -> I64:
        """The integer sum of elements lo..hi-1; below 2^62 for every rule. Valid until the next call."""
        rows = [row[: hi - lo] for row in self._rows]
        spare = self._spare[: hi - lo]
        gaps = self._objects[0].layout.padding(lo, hi)
        pairs = zip(self._objects, self._plan.factors, strict=True)
        if self._plan.ranks is not None:
            for row, (opened, factor) in zip(rows, pairs, strict=True):
                opened.codec.scaled(opened.read(lo, hi), gaps, factor, row)
            return sum_of_middle(rows, *self._plan.ranks, spare)
        total = rows[0]
        total.fill(0)
        for opened, factor in pairs:
            opened.codec.scaled(opened.read(lo, hi), gaps, factor, spare)
            np.add(total, spare, out=total)
        return total

    def average(self, lo: int, hi: int, out: F32) -> None:
        """Step 4: g = float32(float64(sum) * k), into `out` (float32 [hi - lo])."""
        floats = self._floats[: hi - lo]
        floats[...] = self.combine(lo, hi)
        np.multiply(floats, np.float64(self._plan.constant), out=floats)
        out[...] = floats


def in_threads(
    threads: int, ranges: Sequence[tuple[int, int]], worker: Callable[[Sequence[tuple[int, int]]], None]
) -> None:
    """Run `worker` over disjoint shares of the ranges, each share in one thread with its own buffers."""
    threads = max(1, min(threads, len(ranges)))
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(worker, [ranges[at::threads] for at in range(threads)]):
            pass
