"""The outer step: S_r from S_{r-1} and the average update (protocol.md section 6, step 5).

Every line is one float32 operation that is rounded once: no fused multiply-add, no `alpha`, so that numpy, torch and
other CPUs give the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fednode.errors import ConfigError, TrainingError
from fednode.training.arrays import F32

OuterKind = Literal["none", "nesterov"]


@dataclass(frozen=True, slots=True)
class Outer:
    """The agreement's outer optimiser."""

    kind: OuterKind
    lr: float
    momentum: float

    def __post_init__(self) -> None:
        if self.kind not in ("none", "nesterov"):
            raise ConfigError(f"aggregation.outer is {self.kind!r}, expected none or nesterov")

    def step(self, state: F32, average: F32, momentum: F32 | None) -> None:
        """Move `state` and `momentum` in place; `average` is overwritten where there is a momentum."""
        if momentum is None:
            np.add(state, average, out=state)
            return
        lr, mu = np.float32(self.lr), np.float32(self.momentum)
        t = np.multiply(momentum, mu)
        np.add(t, average, out=momentum)
        np.multiply(momentum, mu, out=t)
        np.add(average, t, out=t)
        np.multiply(t, lr, out=t)
        np.add(state, t, out=state)


def refuse_flush_to_zero() -> None:
    """Raise TrainingError where this thread flushes denormals to zero: its float32 results would be other ones."""
    tiny = np.array([2.0**-126] * 16, np.float32)
    if (np.multiply(tiny, np.float32(0.5)) == 0).any():
        raise TrainingError(
            "this process flushes small floating-point numbers to zero: aggregates would differ from other parties'",
            hint="do not load libraries that were built with -ffast-math into fednode",
        )
