"""The torch side of `export`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from fednode.training.arrays import F32
from fednode.training.settings import Table
from fednode.training.trainers.causal import adapted
from fednode.training.trainers.model import load_base, model_folder
from fednode.types import TrainerSetup


def write_adapter(state: Mapping[str, F32], folder: Path, setup: TrainerSetup) -> None:
    """`adapter_config.json` and `adapter_model.safetensors`; the config names the base as the agreement does."""
    base = load_base(setup)
    adapter = adapted(base, setup)
    adapter.put(state)
    table = Table("model", setup.model)
    for config in adapter.model.peft_config.values():
        config.base_model_name_or_path = hub_name(setup) or str(model_folder(setup))
        config.revision = table.text("revision", "") or None
        config.inference_mode = True
    # peft would look the base up on the hub to see whether its vocabulary changed: ours never does
    adapter.model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card


def write_merged(state: Mapping[str, F32], folder: Path, setup: TrainerSetup) -> None:
    """The full model in the base's own number type, with the base's tokenizer."""
    base = load_base(setup, as_stored=True)
    adapter = adapted(base, setup)
    adapter.put(state)
    merged: Any = adapter.model.merge_and_unload()
    merged.config.use_cache = True  # off for training only
    merged.save_pretrained(str(folder), safe_serialization=True)
    if getattr(merged.config, "fednode_tokenizer", None) != "bytes":
        transformers: Any = import_module("transformers")
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(model_folder(setup)), local_files_only=True, trust_remote_code=False
        )
        tokenizer.save_pretrained(str(folder))


def hub_name(setup: TrainerSetup) -> str:
    """The base's name on the model hub, empty for a local base."""
    table = Table("model", setup.model)
    name = table.text("name", "")
    return "" if table.text("path", "") or name.startswith("builtin:") else name
