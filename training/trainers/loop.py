"""The inner loop: AdamW on the moving factors, one clipped step per batch, state in and out as numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fednode.errors import TrainingError
from fednode.training.exact.schema import factor_of
from fednode.training.trainers.device import to_device, to_numpy
from fednode.training.trainers.recipe import Recipe
from fednode.types import Progress

Batch = tuple[int, Sequence[NDArray[Any]]]
"""How many tokens (images) the whole batch predicts, and the micro-batches that it is computed in."""
LossSum = Callable[[NDArray[Any]], torch.Tensor]
"""Sum of the losses of one micro-batch, with gradient."""
MOMENTS = ("exp_avg", "exp_avg_sq")


def run_phase(
    parameters: Mapping[str, torch.nn.Parameter],
    batches: Iterable[Batch],
    loss_sum: LossSum,
    recipe: Recipe,
    *,
    learning_rate: float,
    state: Mapping[str, NDArray[Any]],
    progress: Progress,
) -> tuple[float, dict[str, NDArray[Any]]]:
    """`recipe.steps` AdamW steps (arXiv 1711.05101) on `parameters`; (mean loss, optimiser state).

    The loss of a batch is the mean over its tokens, however it is cut into micro-batches; the gradient is clipped
    once per step. Raises TrainingError for a loss that is not finite, with the step.
    """
    optimiser: Any = torch.optim.AdamW(
        list(parameters.values()), lr=learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    put_state(optimiser, parameters, state)
    losses: list[float] = []
    for step, (count, parts) in enumerate(batches, start=1):
        loss = 0.0
        for part in parts:
            mean = loss_sum(part) / count
            torch.autograd.backward([mean])
            loss += float(mean.detach())
        if not np.isfinite(loss):
            raise TrainingError(
                f"training loss is {loss} at step {step} of {recipe.steps}", hint="lower training.learning_rate"
            )
        if recipe.clip_norm > 0:
            torch.nn.utils.clip_grad_norm_(parameters.values(), recipe.clip_norm)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(loss)
        progress(step, recipe.steps, loss)
    return float(np.mean(losses)), take_state(optimiser, parameters)


def put_state(
    optimiser: torch.optim.Optimizer, parameters: Mapping[str, torch.nn.Parameter], state: Mapping[str, NDArray[Any]]
) -> None:
    """Load what `take_state` gave; a parameter without state starts fresh. Raises TrainingError for a wrong shape."""
    for name, parameter in parameters.items():
        prefix = f"{factor_of(name)}/{name}/"
        if prefix + "step" not in state:
            continue
        step = torch.tensor(float(state[prefix + "step"].item()), dtype=torch.float32, device=parameter.device)
        moments: dict[str, torch.Tensor] = {}
        for key in MOMENTS:
            values = np.array(state[prefix + key], dtype=np.float32)
            if values.shape != tuple(parameter.shape):
                raise TrainingError(f"optimiser state {prefix}{key} has shape {values.shape}, not {parameter.shape}")
            moments[key] = to_device(values, parameter.device)
        optimiser.state[parameter] = {"step": step, **moments}


def take_state(
    optimiser: torch.optim.Optimizer, parameters: Mapping[str, torch.nn.Parameter]
) -> dict[str, NDArray[Any]]:
    """Per parameter `<factor>/<name>/step` int64 [1], `/exp_avg` and `/exp_avg_sq` float32 in its shape."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, parameter in parameters.items():
        prefix = f"{factor_of(name)}/{name}/"
        moments = optimiser.state[parameter]
        arrays[prefix + "step"] = np.array([int(moments["step"])], dtype=np.int64)
        for key in MOMENTS:
            arrays[prefix + key] = to_numpy(moments[key])
    return arrays


def micro_batches(rows: NDArray[Any], batch: int, micro: int, per_row: int) -> Iterator[Batch]:
    """Cut `rows` [n, ...] into batches of `batch` rows, those into parts of at most `micro` rows."""
    for first in range(0, len(rows), batch):
        whole = rows[first : first + batch]
        yield len(whole) * per_row, [whole[start : start + micro] for start in range(0, len(whole), micro)]
