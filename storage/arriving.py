"""A file that is still being written: hashed and sent to disk as it arrives, with little left to do at its end."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import Final

from fednode.types import Digest

_CHUNK: Final = 1 << 20
_SYNC_EVERY: Final = 16 * _CHUNK
_LOOK_EVERY_S: Final = 0.02


class Arriving:
    """Reads a file in a thread of its own, behind whoever writes it once from its start to its end.

    As a context manager: leaving it early ends the thread, without waiting for a disk that hangs.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hash = hashlib.sha256()
        self._written = threading.Event()
        self._unwanted = False
        self._failed: Exception | None = None
        self._whole = False
        self._thread = threading.Thread(target=self._follow, name="arriving", daemon=True)

    def __enter__(self) -> Arriving:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._unwanted = True
        self._written.set()

    def digest(self) -> Digest:
        """SHA-256 in hex of the whole file, to which nobody may write any more. Blocking. Raises what reading did.

        Not after the context was left: RuntimeError.
        """
        self._written.set()
        self._thread.join()
        if self._failed is not None:
            raise self._failed
        if not self._whole:
            raise RuntimeError("the file was left before it was read to its end")
        return Digest(self._hash.hexdigest())

    def _follow(self) -> None:
        buffer, done = bytearray(_CHUNK), 0
        try:
            with self._path.open("rb", buffering=0) as handle:
                while not self._unwanted:
                    # Asked before the file is: what came between the two must not be missed.
                    whole = self._written.is_set()
                    if count := handle.readinto(buffer):
                        self._hash.update(memoryview(buffer)[:count])
                        done += count
                        if done >= _SYNC_EVERY and not whole:
                            done = 0
                            os.fdatasync(handle.fileno())
                    elif whole:
                        self._whole = True
                        return
                    else:
                        self._written.wait(_LOOK_EVERY_S)
        except Exception as error:
            # Whatever it was: the digest of a part must not pass for that of the whole.
            self._failed = error
