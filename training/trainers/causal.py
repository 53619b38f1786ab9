"""A causal language model as a trainer task. Imported through `lm.load` only, which prepares the process first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from fednode.training.arrays import F32
from fednode.training.tasks import Evaluation, Trained
from fednode.training.trainers import data, loop
from fednode.training.trainers.adapter import Adapter, attach
from fednode.training.trainers.device import deterministic, out_of_memory, seed_torch, to_device
from fednode.training.trainers.model import Base, load_base
from fednode.training.trainers.recipe import data_of, lora_of, recipe_of, round_random
from fednode.types import ModelFacts, Phase, Progress, TrainerSetup

ADVICE = (
    "lower data.micro_batch or set data.checkpointing = true in fednode.toml (neither changes the result), or agree on "
    "a smaller training.sequence, or on model.quantisation = 'nf4'"
)


def adapted(base: Base, setup: TrainerSetup) -> Adapter:
    """A fresh LoRA adapter on `base` as the agreement wants it."""
    lora = lora_of(setup)
    targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    return attach(base.model, lora, targets, "CAUSAL_LM")


class LanguageModel:
    """A quantised base with a LoRA adapter, and the party's tokens (satisfies tasks.Task)."""

    def __init__(self, setup: TrainerSetup) -> None:
        self._setup = setup
        self._recipe = recipe_of(setup)
        self._settings = data_of(setup)
        self._micro = min(self._settings.micro_batch or self._recipe.batch, self._recipe.batch)
        with out_of_memory(ADVICE):
            self._base = load_base(setup)
            deterministic(self._base.device, setup.threads)
            self._adapter = adapted(self._base, setup)
        if self._settings.checkpointing:
            self._adapter.model.enable_input_require_grads()
            self._adapter.model.gradient_checkpointing_enable({"use_reentrant": False})
        self._tokens = self._read(self._settings.path, self._settings.format)

    def _read(self, path: Path, kind: Literal["text", "jsonl"]) -> data.Tokens:
        return data.read_tokens(path, kind, self._settings.field, self._base.encoder)

    def facts(self) -> ModelFacts:
        """LoRA tensors and weight files."""
        return ModelFacts(self._adapter.shapes(), dict(self._base.digests))

    def train(
        self,
        start: Mapping[str, F32],
        *,
        round_number: int,
        phase: Phase,
        optimiser: Mapping[str, NDArray[Any]],
        progress: Progress,
        learning_rate: float | None = None,
    ) -> Trained:
        """One local phase, see tasks.Task. Raises TrainingError (data, memory, loss not finite)."""
        recipe = self._recipe
        random = round_random(self._setup, round_number)
        seed_torch(random)
        windows = data.round_windows(self._tokens, recipe.sequence, recipe.steps * recipe.batch, random)
        self._adapter.put(start)
        self._adapter.model.train()
        with out_of_memory(ADVICE):
            loss, state = loop.run_phase(
                self._adapter.moving(phase),
                loop.micro_batches(windows, recipe.batch, self._micro, recipe.sequence),
                self._loss_sum,
                recipe,
                learning_rate=recipe.learning_rate if learning_rate is None else learning_rate,
                state=optimiser,
                progress=progress,
            )
        return Trained(self._adapter.take(), state, loss)

    def evaluate(self, state: Mapping[str, F32], path: str) -> Evaluation:
        """Natural-log loss per token over the whole text at `path`; an empty `state` is the base alone."""
        tokens = self._read(Path(path), "jsonl" if path.endswith(".jsonl") else "text")
        model = self._adapter.model
        model.eval()
        if state:
            self._adapter.put(state)
            total = self._total_loss(tokens)
        else:
            with model.disable_adapter():
                total = self._total_loss(tokens)
        return Evaluation(total / (len(tokens) - 1), None, len(tokens) - 1)

    def _total_loss(self, tokens: data.Tokens) -> float:
        total = 0.0
        with torch.no_grad(), out_of_memory(ADVICE):
            for windows in data.all_windows(tokens, self._recipe.sequence, self._micro):
                total += float(self._loss_sum(windows))
        return total

    def _loss_sum(self, windows: NDArray[np.int64]) -> torch.Tensor:
        """Sum over all targets of `windows` [n, length + 1] of -ln p(target)."""
        batch = to_device(windows, self._base.device)
        logits: torch.Tensor = self._adapter.model(input_ids=batch[:, :-1]).logits
        return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten(), reduction="sum")
