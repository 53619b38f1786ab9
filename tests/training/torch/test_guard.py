"""LoRA gradients before and after an evaluation pass, with the guard and without it."""

from __future__ import annotations

from typing import Any

import bitsandbytes
import numpy as np
import pytest
import torch
from bitsandbytes.functional import has_avx512bf16

from fednode.training.tasks import load
from fednode.training.trainers.causal import LanguageModel
from fednode.types import TrainerSetup
from tests.training.torch.conftest import start_of

pytestmark = pytest.mark.torch


def gradients(task: LanguageModel) -> np.ndarray[Any, Any]:
    """All gradients of one batch, in training mode."""
    adapter = task._adapter
    parameters = adapter.moving("AB")
    adapter.model.train()
    windows = np.arange(2 * 65, dtype=np.int64).reshape(2, 65) % 256
    task._loss_sum(windows).backward()
    return np.concatenate([p.grad.numpy().ravel() for p in parameters.values() if p.grad is not None])


def fresh(setup: TrainerSetup) -> tuple[LanguageModel, dict[str, Any]]:
    """A task of its own (the guard test may spoil it), with an adapter whose B is not zero."""
    task = load(setup)
    assert isinstance(task, LanguageModel)
    state = start_of(task)
    rng = np.random.default_rng(1)
    for name in state:
        if ".lora_B." in name:
            state[name] = rng.normal(0, 0.02, state[name].shape).astype(np.float32)
    task._adapter.put(state)
    return task, state


def four_bit_layers(task: LanguageModel) -> list[Any]:
    return [m for m in task._adapter.model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]


def test_gradients_and_weights_survive_an_evaluation(lm_setup: TrainerSetup, shares: Any) -> None:
    task, state = fresh(lm_setup)
    layers = four_bit_layers(task)
    assert len(layers) == 28
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)
    before, weights = gradients(task), [layer.weight.data.clone() for layer in layers]
    task.evaluate(state, str(shares.held_out))
    after = gradients(task)
    assert before.tobytes() == after.tobytes()
    assert float(np.abs(before).max()) > 0
    assert all(torch.equal(old, layer.weight.data) for old, layer in zip(weights, layers, strict=True))


@pytest.mark.filterwarnings("ignore:bitsandbytes..gemv_4bit:UserWarning")
def test_without_the_guard_gradients_are_wrong(lm_setup: TrainerSetup, shares: Any) -> None:
    """The reason for the guard. Once this fails on such a CPU, bitsandbytes is mended and the guard may go."""
    if not has_avx512bf16():
        pytest.skip("the defect shows on processors with AVX512-BF16 only")
    task, state = fresh(lm_setup)
    for layer in four_bit_layers(task):
        layer.support_avx512bf16_for_cpu = True
    before = gradients(task)
    task.evaluate(state, str(shares.held_out))
    after = gradients(task)
    cosine = float(before @ after / np.linalg.norm(before) / np.linalg.norm(after))
    assert cosine < 0.9
