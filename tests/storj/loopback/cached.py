"""Programs that tests build or install once, in a cache folder by the hash of what they are made from."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache() -> Path:
    """$FEDNODE_TEST_CACHE, else $XDG_CACHE_HOME/fednode-tests, else ~/.cache/fednode-tests."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(os.environ.get("FEDNODE_TEST_CACHE") or Path(root) / "fednode-tests")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def place(name: str, sources: list[Path], tool: str = "") -> Path:
    """The folder for what is made from these sources with this version of a tool; it need not exist yet."""
    state = hashlib.sha256(tool.encode())
    for source in sorted(sources):
        state.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    return cache() / f"{name}-{state.hexdigest()[:20]}"


def cached(name: str, sources: list[Path], make: Callable[[Path], None], tool: str = "") -> Path:
    """The folder that `make` filled for these sources. It is made under another name, so it is whole or absent."""
    folder = place(name, sources, tool)
    if not folder.is_dir():
        made = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=cache()))
        try:
            make(made)
            made.rename(folder)
        except OSError:
            # Another run was first.
            if not folder.is_dir():
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return folder
