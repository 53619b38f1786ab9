"""Durable before visible: a file appears under its name only when its bytes, and its name, would survive power loss."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path


def fsync_dir(folder: Path) -> None:
    """Make renames and new names in `folder` survive power loss."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folders(folder: Path, *, mode: int = 0o777) -> None:
    """Create `folder` (with `mode`) and its parents so that their names survive power loss. What exists is kept."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(mode=mode, parents=True, exist_ok=True)
    for path in missing:
        fsync_dir(path.parent)


def publish(temporary: Path, path: Path) -> None:
    """Move a finished temporary file of the same folder to `path`: fsync, atomic rename, fsync of the folder."""
    fd = os.open(temporary, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(temporary, path)
    fsync_dir(path.parent)


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Create or replace `path` with `data`, all or nothing. The folder must exist."""
    write_pieces(path, (data,), mode=mode)


def write_pieces(path: Path, pieces: Iterable[bytes], *, mode: int = 0o644) -> None:
    """`write_atomic` for what is too long to be held in memory at once."""
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(fd, "wb") as handle:
            os.fchmod(handle.fileno(), mode)
            for piece in pieces:
                handle.write(piece)
        publish(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
