"""A 64-128-128-10 perceptron as a trainer task. Imported through `digits.load` only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fednode.training.arrays import F32
from fednode.training.exact.tensors import read_tensors
from fednode.training.settings import Table
from fednode.training.tasks import Evaluation, Trained
from fednode.training.trainers import images, loop
from fednode.training.trainers.adapter import attach
from fednode.training.trainers.builtin import DIGITS_MLP, builtin_folder
from fednode.training.trainers.device import deterministic, out_of_memory, seed_torch, to_device
from fednode.training.trainers.model import expected_digests
from fednode.training.trainers.recipe import lora_of, recipe_of, round_random
from fednode.training.trainers.weight_files import checked_digests
from fednode.types import ModelFacts, Phase, Progress, TrainerSetup

WIDTHS = (64, 128, 128, 10)
LAYERS = ("first", "second", "third")
CPU = torch.device("cpu")
ADVICE = "lower training.batch in the agreement"


class Network(torch.nn.Module):
    """Three linear layers with ReLU between: float32 [n, 64] -> logits [n, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(WIDTHS[0], WIDTHS[1])
        self.second = torch.nn.Linear(WIDTHS[1], WIDTHS[2])
        self.third = torch.nn.Linear(WIDTHS[2], WIDTHS[3])

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.second(torch.relu(self.first(pixels))))
        logits: torch.Tensor = self.third(hidden)
        return logits


def base_network(folder: Path) -> Network:
    """The frozen base from `model.safetensors` in `folder`."""
    network = Network()
    network.load_state_dict(
        {name: to_device(array, CPU) for name, array in read_tensors(folder / "model.safetensors").items()}
    )
    network.requires_grad_(False)
    return network


class Perceptron:
    """The base with a LoRA adapter, and the party's share of the images (satisfies tasks.Task)."""

    def __init__(self, setup: TrainerSetup) -> None:
        folder = builtin_folder(DIGITS_MLP)
        self._setup, self._recipe, lora = setup, recipe_of(setup), lora_of(setup)
        self._digests = checked_digests(folder, expected_digests(setup))
        deterministic(CPU, setup.threads)
        targets = list[str](LAYERS if isinstance(lora.target_modules, str) else lora.target_modules)
        self._adapter = attach(base_network(folder), lora, targets, None)
        _, self._held_out, shared = images.all_images()
        parties = Table("data", setup.data).whole("parties", least=1, default=10)
        self._own = images.share(shared, seed=setup.seed, parties=parties, index=setup.party_index)

    def facts(self) -> ModelFacts:
        """LoRA tensors and weight files."""
        return ModelFacts(self._adapter.shapes(), dict(self._digests))

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
        """One local phase, see tasks.Task. Raises TrainingError."""
        recipe = self._recipe
        random = round_random(self._setup, round_number)
        seed_torch(random)
        order = images.epochs(len(self._own.labels), recipe.steps * recipe.batch, random)
        self._adapter.put(start)
        self._adapter.model.train()
        with out_of_memory(ADVICE):
            loss, state = loop.run_phase(
                self._adapter.moving(phase),
                loop.micro_batches(order, recipe.batch, recipe.batch, 1),
                lambda rows: self._loss_sum(self._own, rows),
                recipe,
                learning_rate=recipe.learning_rate if learning_rate is None else learning_rate,
                state=optimiser,
                progress=progress,
            )
        return Trained(self._adapter.take(), state, loss)

    def evaluate(self, state: Mapping[str, F32], path: str) -> Evaluation:
        """Cross-entropy and accuracy on the 360 held-out images; `path` is not used."""
        model = self._adapter.model
        model.eval()
        if not state:
            with model.disable_adapter():
                return self._evaluate()
        self._adapter.put(state)
        return self._evaluate()

    def _evaluate(self) -> Evaluation:
        with torch.no_grad():
            logits: torch.Tensor = self._adapter.model(to_device(self._held_out.pixels, CPU))
        labels = to_device(self._held_out.labels, CPU)
        loss = float(torch.nn.functional.cross_entropy(logits, labels))
        return Evaluation(loss, float((logits.argmax(1) == labels).double().mean()), len(labels))

    def _loss_sum(self, own: images.Images, rows: NDArray[np.int64]) -> torch.Tensor:
        logits: torch.Tensor = self._adapter.model(to_device(own.pixels[rows], CPU))
        return torch.nn.functional.cross_entropy(logits, to_device(own.labels[rows], CPU), reduction="sum")
