"""Files that hold a secret: private to their owner, bounded, checked and never changed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from fednode.errors import KeyFileError


def read_secret(path: Path, limit: int) -> bytes:
    """At most `limit` + 1 bytes of a file that only its owner may read.

    OSError where it cannot be read; KeyFileError, which names the command that mends it, where others may read it.
    """
    with path.open("rb") as file:
        # The mode is read from the open file, so that nobody swaps it between check and use.
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & 0o077:
            raise KeyFileError(
                f"{path} has mode {mode:04o}: others may read or write this secret, expected 0600",
                hint=f"chmod 600 {path}",
            )
        return file.read(limit + 1)


def check_secret_folder(folder: Path) -> None:
    """KeyFileError unless the folder is its owner's alone.

    Whoever may write into it may put another secret there; whoever may list it knows what to ask for.
    """
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077:
        raise KeyFileError(
            f"the folder {folder} has mode {mode:04o}: others may enter it, expected 0700 for secret keys",
            hint=f"chmod 700 {folder}",
        )
