"""Hand the adapter over to others: as a peft folder, or merged into the full model. Torch is imported when called."""

from __future__ import annotations

from pathlib import Path

from fednode.errors import ConfigError
from fednode.training.exact.tensors import read_tensors
from fednode.training.trainers.lm import prepare
from fednode.training.trainers.recipe import lora_of
from fednode.types import TrainerSetup


def export(state_file: Path, folder: Path, setup: TrainerSetup, merge: bool) -> None:
    """Write the adapter of `state_file` (safetensors, PEFT state-dict names) into `folder`, which must be new or empty.

    `merge` false: `adapter_config.json` and `adapter_model.safetensors`, which `PeftModel.from_pretrained` loads on
    the same base. `merge` true: the full unquantised model with tokenizer and settings, weights in the type in which
    the base stores them; a model that trained on a quantised base answers slightly differently when merged.
    Needs no data. Raises ConfigError (task, folder, state, base) and TrainingError.
    """
    if setup.task != "lm":
        raise ConfigError(f"a run with training.task = {setup.task!r} has no language model to export")
    lora_of(setup)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists and is not an empty folder", hint="name a new folder")
    if not state_file.is_file():
        raise ConfigError(f"there is no adapter at {state_file}", hint="finish at least one round first")
    prepare(setup)
    from fednode.training.trainers import export_writer  # only now: torch reads at its import what `prepare` set

    state = read_tensors(state_file)
    folder.mkdir(parents=True, exist_ok=True)
    if merge:
        export_writer.write_merged(state, folder, setup)
    else:
        export_writer.write_adapter(state, folder, setup)
