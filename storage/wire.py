"""What a store must be able to do, thinly. `RemoteBucket` builds every promise of a bucket on it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from fednode.errors import StorageError
from fednode.types import Transferred

_log = logging.getLogger("fednode.storage")


class Entry(NamedTuple):
    """One object of a listing."""

    key: str
    size: int
    """In bytes."""


MOST_LISTED: Final = 64 << 20
"""Of a listing, in characters of keys and 100 for each object beside them: some 400,000 objects."""


@dataclass(slots=True)
class Listed:
    """What came of a listing so far. A hostile store may list without end."""

    entries: list[Entry] = field(default_factory=list[Entry])
    room: int = MOST_LISTED

    def add(self, entry: Entry) -> None:
        """StorageError where it is too much."""
        self.room -= len(entry.key) + 100
        if self.room < 0:
            raise StorageError(f"the listing is longer than {MOST_LISTED >> 20} MiB", hint="whose bucket is it?")
        self.entries.append(entry)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store does for us by itself."""

    conditional_put: bool
    """It refuses to replace an object when asked so (S3: If-None-Match)."""
    native_encryption: bool
    """Bytes are encrypted before they leave this machine."""
    share: bool
    """Grants can be narrowed and revoked from here."""
    looks_itself: bool = False
    """An upload by itself raises Conflict before a byte is sent where something stands already, and succeeds only where
    the store has the whole size afterwards."""


def harmless(progress: Transferred | None) -> Transferred | None:
    """The same, but for what it raises: it is information only, and must not end a transfer."""
    if progress is None:
        return None

    def told(moved: int, whole: int) -> None:
        try:
            progress(moved, whole)
        except Exception:
            _log.exception("what was told about a transfer's progress failed")

    return told


class Wire(Protocol):
    """A store without memory: no verifying, no trying again. Keys are checked before they arrive.

    Every error is a leaf of StorageError. Cancelling a call ends it at once and for good. No message shows a secret.
    """

    @property
    def name(self) -> str:
        """How messages call this bucket."""
        ...

    @property
    def capabilities(self) -> Capabilities: ...

    async def stat(self, key: str) -> int:
        """Size in bytes. NotFound only where the store said so for certain."""
        ...

    async def upload(self, key: str, source: Path, size: int, progress: Transferred | None) -> None:
        """The whole file becomes visible under `key`, or nothing does.

        Conflict where the store itself refused because something stands there.
        """
        ...

    async def download(self, key: str, target: Path, *, limit: int, progress: Transferred | None) -> None:
        """Fill the existing empty file `target` with at most `limit` bytes, whatever the store sends.

        Each byte is written once, from the first to the last: they are hashed behind the writer.
        """
        ...

    def list(self, prefix: str) -> AsyncIterator[Entry]:
        """Every object whose key starts with `prefix` (empty, or ending in `/`), in any order, keys whole.

        A listing that is denied or breaks off raises; it never looks empty or complete.
        """
        ...

    async def delete(self, key: str) -> None:
        """Remove it; absent is fine. Denied without that permission."""
        ...

    async def aclose(self) -> None: ...
