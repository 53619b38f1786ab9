"""The task `lm`: QLoRA fine-tuning (arXiv 2305.14314) of a causal language model on the party's own texts."""

from __future__ import annotations

from fednode.training.tasks import Task
from fednode.training.trainers.builtin import PREFIX
from fednode.training.trainers.quiet import quiet
from fednode.training.trainers.recipe import data_of, lora_of, quantisation_of, recipe_of
from fednode.types import TrainerSetup


def load(setup: TrainerSetup) -> Task:
    """Load base and data. Raises ConfigError (settings, digests, folder) and TrainingError (weights, data, memory)."""
    # complain about settings before the imports, which take seconds
    recipe_of(setup)
    lora_of(setup)
    quantisation_of(setup)
    data_of(setup)
    prepare(setup)
    from fednode.training.trainers.causal import LanguageModel  # only now: torch reads at its import what `prepare` set

    return LanguageModel(setup)


def prepare(setup: TrainerSetup) -> None:
    """Environment of torch and its libraries; the model hub is forbidden unless the base has to come from it."""
    name = str(setup.model.get("name") or "")
    local = bool(setup.model.get("path")) or name.startswith(PREFIX)
    quiet(offline=local, threads=setup.threads)
