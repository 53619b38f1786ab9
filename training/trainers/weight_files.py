"""Weight files: which ones a model folder has, and their digests. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from fednode.errors import ConfigError, TrainingError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file, read in pieces."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that a transformers model in `folder` consists of, sorted by name.

    Raises ConfigError where the folder is missing and TrainingError where it holds no safetensors weights: pickled
    weights (`.bin`, `.pt`) are never read.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"model folder {folder} does not exist",
            hint="correct model.path in peers.toml, or download the model there",
        )
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        return [folder / name for name in indexed_files(folder / INDEX)]
    raise TrainingError(
        f"model folder {folder} has neither {SINGLE} nor {INDEX}; pickled weights are never loaded",
        hint="save the model with safetensors (save_pretrained writes them) and try again",
    )


def indexed_files(index: Path) -> list[str]:
    """File names in a shard index, sorted; each a plain name of an existing file beside the index."""
    try:
        names = set(cast("dict[str, str]", json.loads(index.read_bytes())["weight_map"]).values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(f"{index} is not a shard index: {error}", hint="download the model again") from error
    for name in names:
        if Path(name).name != name or not (index.parent / name).is_file():
            raise TrainingError(
                f"{index} names {name!r}, which is not a file beside it", hint="download the model again"
            )
    return sorted(names)


def checked_digests(folder: Path, expected: Mapping[str, str]) -> dict[str, str]:
    """Weight file -> hex sha256, equal to `expected` where that is not empty. Raises ConfigError otherwise."""
    found = {path.name: sha256_of(path) for path in weight_files(folder)}
    for name in sorted(expected.keys() | found.keys()) if expected else ():
        wanted, got = expected.get(name, "no such file"), found.get(name, "no such file")
        if wanted != got:
            raise ConfigError(
                f"weight file {name} in {folder}: sha256 is {got}, but model.sha256 in peers.toml says {wanted}",
                hint="all parties need the same weights: download the agreed revision, or agree on new digests",
            )
    return found
