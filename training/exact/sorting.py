"""Selecting the middle of N values elementwise, over whole arrays: a pruned sorting network.

Batcher's odd-even merge sort (Batcher 1968, in Knuth's form for any N) needs no data-dependent branch, so every
comparator is one vectorised minimum and maximum; comparators that only order what is dropped, or what is summed
anyway, are left out.
"""

from __future__ import annotations

from enum import Enum
from functools import cache
from typing import NamedTuple

import numpy as np

from fednode.training.arrays import I64


class Keep(Enum):
    """Which outputs of a comparator are used later."""

    BOTH = 0
    LOW = 1
    HIGH = 2


class Comparator(NamedTuple):
    """The smaller value goes to wire `low`, the larger to wire `high`."""

    low: int
    high: int
    keep: Keep


@cache
def network(count: int, first: int, end: int) -> tuple[Comparator, ...]:
    """Comparators after which wires first..end-1 hold, in any order, the values of these ranks (0 = smallest)."""
    dead, summed = -1, -2
    # What becomes of each wire's value: dropped, summed, or (its own number) compared again.
    fate = [summed if first <= wire < end else dead for wire in range(count)]
    kept: list[Comparator] = []
    for low, high in reversed(_merge_sort(count)):
        if fate[low] == fate[high] and fate[low] in (dead, summed):
            continue
        keep = Keep.HIGH if fate[low] == dead else Keep.LOW if fate[high] == dead else Keep.BOTH
        kept.append(Comparator(low, high, keep))
        fate[low], fate[high] = low, high
    return tuple(reversed(kept))


def sum_of_middle(rows: list[I64], first: int, end: int, spare: I64) -> I64:
    """Elementwise sum of the values of ranks first..end-1 of equally shaped int64 rows.

    The rows and `spare` (same shape) are overwritten; one of them is returned. The caller bounds the sum below 2^63.
    """
    wires = list(rows)
    for low, high, keep in network(len(rows), first, end):
        a, b = wires[low], wires[high]
        if keep is Keep.LOW:
            np.minimum(a, b, out=a)
        elif keep is Keep.HIGH:
            np.maximum(a, b, out=b)
        else:
            np.minimum(a, b, out=spare)
            np.maximum(a, b, out=b)
            wires[low], spare = spare, a
    total = wires[first]
    for wire in wires[first + 1 : end]:
        np.add(total, wire, out=total)
    return total


def _merge_sort(count: int) -> list[tuple[int, int]]:
    """Batcher's comparators (low wire, high wire) for any `count` (Knuth, volume 3, algorithm 5.2.2 M)."""
    pairs: list[tuple[int, int]] = []
    p = 1
    while p < count:
        k = p
        while k >= 1:
            for j in range(k % p, count - k, 2 * k):
                span = range(j, j + min(k, count - j - k))
                pairs.extend((i, i + k) for i in span if i // (2 * p) == (i + k) // (2 * p))
            k //= 2
        p *= 2
    return pairs
