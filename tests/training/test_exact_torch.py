"""torch gives the same bytes as numpy for every floating-point step of the aggregate (protocol.md section 6)."""

from __future__ import annotations

import numpy as np
import pytest

from fednode.errors import TrainingError
from fednode.training.exact.aggregate import Plan
from fednode.training.exact.outer_step import Outer, refuse_flush_to_zero

pytestmark = pytest.mark.torch


def test_torch_rounds_as_numpy() -> None:
    import torch

    rng = np.random.default_rng(0)
    sums = np.concatenate(
        [rng.integers(-(2**62), 2**62, 100_000), rng.integers(-(2**20), 2**20, 100_000), (1 << 53) + np.arange(-99, 99)]
    )
    for divisor in (1024, 3 * 1024, 1024 * 1024, 2048, 7 * 1024):
        k = Plan((), None, divisor).constant
        average = (sums.astype(np.float64) * np.float64(k)).astype(np.float32)
        other = (torch.from_numpy(sums).to(torch.float64) * k).to(torch.float32)
        assert other.numpy().tobytes() == average.tobytes()

        state, momentum = (rng.standard_normal(len(sums)).astype(np.float32) for _ in range(2))
        s, v, g = torch.from_numpy(state.copy()), torch.from_numpy(momentum.copy()), other
        Outer("nesterov", 0.7, 0.5).step(state, average, momentum)
        mu, lr = torch.tensor(np.float32(0.5)), torch.tensor(np.float32(0.7))
        t = torch.mul(mu, v)
        v = torch.add(t, g)
        t = torch.mul(mu, v)
        t = torch.add(g, t)
        t = torch.mul(lr, t)
        s = torch.add(s, t)
        assert s.numpy().tobytes() == state.tobytes()
        assert v.numpy().tobytes() == momentum.tobytes()


def test_flush_to_zero_is_refused() -> None:
    import torch

    refuse_flush_to_zero()
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormals to zero")
    try:
        with pytest.raises(TrainingError, match="flushes"):
            refuse_flush_to_zero()
    finally:
        torch.set_flush_denormal(False)
