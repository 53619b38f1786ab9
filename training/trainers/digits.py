"""The task `digits`: a small image classifier, fine-tuned by LoRA in seconds on any machine."""

from __future__ import annotations

from fednode.errors import ConfigError
from fednode.training.tasks import Task
from fednode.training.trainers.quiet import quiet
from fednode.training.trainers.recipe import lora_of, quantisation_of, recipe_of
from fednode.types import TrainerSetup


def load(setup: TrainerSetup) -> Task:
    """Load the base and the party's images. Raises ConfigError (settings, digests) and TrainingError."""
    recipe_of(setup)
    lora_of(setup)
    if quantisation_of(setup) != "none":
        raise ConfigError("model.quantisation must be 'none' for the task digits", hint="correct it in peers.toml")
    quiet(offline=True, threads=setup.threads)
    from fednode.training.trainers.perceptron import Perceptron  # only now: torch reads at its import what `quiet` set

    return Perceptron(setup)
