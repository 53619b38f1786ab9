"""The base models that come with fednode. No torch.

`builtin:tiny-byte-llama` is the demo's language model (scripts/pretrain_base.py), `builtin:digits-mlp` the base of
the `digits` task (scripts/pretrain_digits.py).
"""

from __future__ import annotations

from pathlib import Path

from fednode.errors import ConfigError
from fednode.training.trainers.weight_files import sha256_of

PREFIX = "builtin:"
TINY_BYTE_LLAMA = PREFIX + "tiny-byte-llama"
DIGITS_MLP = PREFIX + "digits-mlp"


def builtin_folder(name: str) -> Path:
    """Folder of the base `name` (with its prefix). Raises ConfigError where there is none of that name."""
    assets = Path(__file__).parents[1] / "assets"
    known = sorted(path.name for path in assets.iterdir() if path.is_dir())
    short = name.removeprefix(PREFIX)
    if short not in known:
        raise ConfigError(
            f"model.name is {name!r}, but the base models that come with fednode are "
            + ", ".join(PREFIX + item for item in known),
            hint="correct model.name in peers.toml, or give model.path",
        )
    return assets / short


def builtin_sha256(name: str) -> dict[str, str]:
    """The `model.sha256` table of the base `name`: weight file -> hex sha256."""
    return {path.name: sha256_of(path) for path in sorted(builtin_folder(name).glob("*.safetensors"))}
