"""The agreement's [model] and [training] tables and the private [data] table as typed values. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np

from fednode.errors import ConfigError
from fednode.training.settings import Table
from fednode.types import TrainerSetup

Format = Literal["text", "jsonl"]
Quantisation = Literal["nf4", "int8", "none"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one local phase trains."""

    steps: int
    batch: int
    sequence: int
    learning_rate: float
    weight_decay: float
    clip_norm: float
    """0 = no clipping."""


@dataclass(frozen=True, slots=True)
class Lora:
    """The adapter's form (LoRA, arXiv 2106.09685)."""

    rank: int
    alpha: float
    dropout: float
    target_modules: str | tuple[str, ...]
    """`all-linear` or names of modules."""


@dataclass(frozen=True, slots=True)
class DataSettings:
    """The party's own data and what only its machine cares about."""

    path: Path
    format: Format
    field: str
    micro_batch: int | None
    """Sequences that go through the model at once; None = the whole batch. Changes memory, not the gradient."""
    checkpointing: bool
    """Recompute activations in the backward pass: less memory, more time."""


def recipe_of(setup: TrainerSetup) -> Recipe:
    """The [training] table. Raises ConfigError for a missing or senseless value."""
    table = Table("training", setup.training)
    optimiser = table.text("optimiser", "adamw")
    if optimiser != "adamw":
        raise ConfigError(f"training.optimiser is {optimiser!r}, expected 'adamw'")
    return Recipe(
        steps=table.whole("steps", least=1),
        batch=table.whole("batch", least=1),
        sequence=table.whole("sequence", least=1, default=128),
        learning_rate=table.number("learning_rate"),
        weight_decay=table.number("weight_decay", 0.0),
        clip_norm=table.number("clip_norm", 0.0),
    )


def lora_of(setup: TrainerSetup) -> Lora:
    """The adapter's part of the [model] table. Raises ConfigError."""
    table = Table("model", setup.model)
    found = setup.model.get("target_modules", "all-linear")
    if not found or not isinstance(found, str | list | tuple):
        raise ConfigError(f"model.target_modules is {found!r}, expected 'all-linear' or a list of module names")
    targets = found if isinstance(found, str) else tuple(str(item) for item in cast("list[object]", found))
    rank = table.whole("rank", least=1)
    return Lora(rank, table.number("alpha", 2.0 * rank), table.number("dropout", 0.0), targets)


def quantisation_of(setup: TrainerSetup) -> Quantisation:
    """`model.quantisation`. Raises ConfigError."""
    name = setup.model.get("quantisation", "nf4")
    if name not in ("nf4", "int8", "none"):
        raise ConfigError(f"model.quantisation is {name!r}, expected 'nf4', 'int8' or 'none'")
    return name


def data_of(setup: TrainerSetup) -> DataSettings:
    """The private [data] table. Raises ConfigError."""
    table = Table("data", setup.data)
    path = table.text("path", "")
    if not path:
        raise ConfigError("data.path is missing in fednode.toml", hint="name the file or folder with your own texts")
    format_name = table.text("format", "jsonl" if path.endswith(".jsonl") else "text")
    if format_name not in ("text", "jsonl"):
        raise ConfigError(f"data.format is {format_name!r}, expected 'text' or 'jsonl'")
    kind: Format = "jsonl" if format_name == "jsonl" else "text"
    micro = table.whole("micro_batch", least=1) if setup.data.get("micro_batch") else None
    return DataSettings(
        Path(path), kind, table.text("field", "text"), micro, setup.data.get("checkpointing", False) is True
    )


def round_random(setup: TrainerSetup, round_number: int) -> np.random.Generator:
    """All randomness of one local phase: from (seed, party index, round) and nothing else (protocol.md section 3.1)."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([setup.seed, setup.party_index, round_number])))
