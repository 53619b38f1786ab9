"""The bundle: what a trainer carries from round to round, kept beside the own objects (protocol.md section 3, step 2).

Per factor a residual and the optimiser's state. A factor that does not move in a round keeps its entries, so that
alternation loses neither. Names: `residual/A/<tensor>` and `optimiser/A/<key>`, the same with B.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from fednode.errors import TrainingError
from fednode.training.arrays import F32, AnyArray
from fednode.training.exact.schema import Schema, factor_of
from fednode.training.exact.tensors import damaged, read_tensors, write_tensors
from fednode.types import Digest, Phase

log = logging.getLogger("fednode.training")


@dataclass(frozen=True, slots=True)
class Bundle:
    """Residual per tensor name, optimiser arrays by keys that start with the factor."""

    residual: Mapping[str, F32] = field(default_factory=dict[str, F32])
    optimiser: Mapping[str, AnyArray] = field(default_factory=dict[str, AnyArray])

    def after(self, phase: Phase, residual: Mapping[str, F32], optimiser: Mapping[str, AnyArray]) -> Bundle:
        """The bundle of a round in which the factors of `phase` moved. Raises TrainingError for a key of no factor."""
        for key in optimiser:
            if key[:2] not in ("A/", "B/"):
                raise TrainingError(f"the trainer's optimiser state {key!r} names no factor: expected A/... or B/...")
        kept = {name: array for name, array in self.residual.items() if factor_of(name) not in phase}
        kept_state = {key: array for key, array in self.optimiser.items() if key[0] not in phase}
        moved = {key: array for key, array in optimiser.items() if key[0] in phase}
        return Bundle({**kept, **residual}, {**kept_state, **moved})

    def moving(self, phase: Phase) -> dict[str, AnyArray]:
        """The optimiser state of the factors of `phase`."""
        return {key: array for key, array in self.optimiser.items() if key[0] in phase}


def write_bundle(path: Path, bundle: Bundle) -> Digest:
    """Write durably; returns the sha256 of the file."""
    residual = {f"residual/{factor_of(name)}/{name}": array for name, array in bundle.residual.items()}
    return write_tensors(path, {**residual, **{f"optimiser/{key}": array for key, array in bundle.optimiser.items()}})


def read_bundle(path: Path | None, schema: Schema) -> Bundle:
    """Read a bundle; a lost one is zero residual and a fresh optimiser, and is logged. Raises TrainingError."""
    if path is None:
        return Bundle()
    try:
        arrays = read_tensors(path)
    except FileNotFoundError:
        log.warning("%s is lost: training goes on with zero residual and a fresh optimiser", path)
        return Bundle()
    shapes = {spec.name: spec.shape for spec in schema.tensors}
    residual: dict[str, F32] = {}
    optimiser: dict[str, AnyArray] = {}
    for name, array in arrays.items():
        kind, _, key = name.partition("/")
        if kind == "optimiser":
            optimiser[key] = array
        elif kind == "residual" and array.dtype.kind == "f" and shapes.get(key[2:]) == array.shape:
            residual[key[2:]] = cast(F32, array)
        else:
            raise damaged(path, f"{name!r} with shape {array.shape} is nothing of this run's adapter")
    return Bundle(residual, optimiser)
