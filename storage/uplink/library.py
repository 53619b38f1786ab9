"""Which native library is used, and what to do where it is missing."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from pathlib import Path
from typing import Final

from fednode.errors import ConfigError

SOURCES: Final = Path(__file__).resolve().parent.parent / "libuplink"
"""The Go module that scripts/build-libuplink builds."""
FILE: Final = "libuplinkc.so"


def source_digest() -> str:
    """Of everything that the library is built from: another version of fednode finds its own build, not this one."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        if path.suffix in (".go", ".h", ".mod", ".sum"):
            data = path.read_bytes()
            digest.update(f"{path.name} {len(data)}\n".encode() + data)
    return digest.hexdigest()[:16]


def data_folder() -> Path:
    """Where this user's programs keep their data: $XDG_DATA_HOME/fednode, or ~/.local/share/fednode."""
    home = os.environ.get("XDG_DATA_HOME", "")
    # The specification wants relative values ignored.
    return (Path(home) if home.startswith("/") else Path.home() / ".local/share") / "fednode"


def built_library(folder: Path | None = None) -> Path:
    """Where the library of these sources lies once it was built: FOLDER/<digest of the sources>/libuplinkc.so."""
    return (folder or data_folder() / "libuplink") / source_digest() / FILE


def build_command() -> str:
    """How a user of this installation builds it."""
    script = SOURCES.parent.parent / "scripts" / "build-libuplink"
    return "scripts/build-libuplink" if script.exists() else "python -m fednode.storage.uplink.build"


def find_library(configured: Path | None) -> Path:
    """The library that the settings name, else the one that was built here. Loads nothing.

    ConfigError where it, or the package uplink-python, is missing.
    """
    if importlib.util.find_spec("uplink_python") is None:
        raise ConfigError(
            "the package uplink-python is not installed, expected for a bucket with backend = uplink",
            hint="pip install 'fednode[uplink]', or choose backend = rclone in fednode.toml",
        )
    path = configured or built_library()
    if not path.is_file():
        named = " (`library` in fednode.toml)" if configured else ""
        raise ConfigError(
            f"Storj's native library is missing: expected {path}{named}",
            hint=f"`{build_command()}` builds it (needs Go 1.25 or newer, and gcc); or choose backend = rclone",
        )
    return path.absolute()
