"""What a trainer must be able to do. The three kinds are `lm`, `digits` (both torch) and `linear` (plain numpy).

A task knows models and data; it knows nothing of rounds' objects, residuals or files: the worker turns its weights
into an encoded update. Tasks run in the trainer child only, and are imported only when they are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

from fednode.errors import ConfigError
from fednode.training.arrays import F32 as F32
from fednode.training.arrays import AnyArray as AnyArray
from fednode.types import ModelFacts, Phase, Progress, TrainerSetup

MODULES: Mapping[str, str] = {
    "linear": "fednode.training.trainers.linear",
    "digits": "fednode.training.trainers.digits",
    "lm": "fednode.training.trainers.lm",
}


@dataclass(frozen=True, slots=True)
class Trained:
    """The outcome of one local phase."""

    weights: Mapping[str, F32]
    """Every LoRA tensor by its PEFT state-dict name, float32, in the shape of `ModelFacts.tensors`."""
    optimiser: Mapping[str, AnyArray]
    """Optimiser state as arrays (float32 or int64). Keys start with `A/` or `B/`: the state of a factor that does not
    move in a round is kept by the worker, and comes back with the next round in which the factor moves."""
    loss: float
    """Mean training loss of the phase."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Held-out quality of one adapter."""

    loss: float
    """Mean loss: natural log per token (lm), cross-entropy per image (digits), mean squared error (linear)."""
    accuracy: float | None
    """In 0..1, None where the task has none."""
    count: int
    """Tokens, images or rows that were evaluated."""


class Task(Protocol):
    """One trainer: a loaded base model with a LoRA adapter and the party's own data."""

    def facts(self) -> ModelFacts:
        """LoRA tensors and weight files: the inputs of the schema (protocol.md section 2)."""
        ...

    def train(
        self,
        start: Mapping[str, F32],
        *,
        round_number: int,
        phase: Phase,
        optimiser: Mapping[str, AnyArray],
        progress: Progress,
        learning_rate: float | None = None,
    ) -> Trained:
        """One local phase from the adapter `start`; only the factors of `phase` may differ in the result.

        All randomness and the data order come from (seed, party index, round): the same call gives the same bytes.
        `optimiser` is what an earlier call returned (empty = fresh); `learning_rate` replaces the agreement's.
        Raises TrainingError.
        """
        ...

    def evaluate(self, state: Mapping[str, F32], path: str) -> Evaluation:
        """Quality of the adapter `state` on the held-out file `path`; an empty `state` is the base model alone.

        `linear` makes its held-out data from the seed and ignores `path`.
        """
        ...


class TaskModule(Protocol):
    """A module in `MODULES`."""

    def load(self, setup: TrainerSetup) -> Task: ...


def load(setup: TrainerSetup) -> Task:
    """Load base model and data of `setup.task`. Slow for the torch tasks. Raises ConfigError, TrainingError."""
    name = MODULES.get(setup.task)
    if name is None:
        raise ConfigError(
            f"training.task is {setup.task!r}, expected one of {', '.join(sorted(MODULES))}",
            hint="correct training.task in peers.toml",
        )
    return cast(TaskModule, import_module(name)).load(setup)
