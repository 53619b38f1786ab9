"""Keys of objects in a bucket: relative, `/`-separated, of a charset that every store takes literally."""

from __future__ import annotations

import re
from typing import Final

from fednode.errors import ConfigError, StorageError

MAX_KEY: Final = 512
_SEGMENT: Final = re.compile(r"[a-z0-9_-][a-z0-9._-]{0,199}\Z")
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z")


def segments(key: str) -> tuple[str, ...]:
    """The parts of a checked key. StorageError for an empty, absolute, dotted, too long or otherwise unsafe key."""
    parts = tuple(key.split("/"))
    if len(key) > MAX_KEY or not all(_SEGMENT.match(part) for part in parts):
        raise StorageError(
            f"bucket key {key[:120]!r}: expected at most {MAX_KEY} characters, parts of a-z 0-9 . _ - between single"
            " slashes, none starting with a dot"
        )
    return parts


def check_prefix(prefix: str) -> None:
    """StorageError unless `prefix` is empty or a checked key with a `/` behind it: it names a folder of keys."""
    if not prefix:
        return
    segments(prefix.removesuffix("/"))
    if not prefix.endswith("/"):
        raise StorageError(f"prefix {prefix!r}: expected it to end in / (it names a folder of keys)")


def check_bucket_name(name: str) -> None:
    """ConfigError unless every store would take `name` for a bucket."""
    if not _BUCKET.match(name):
        raise ConfigError(f"bucket name {name[:80]!r}: expected 3 to 63 of a-z 0-9 . -, a letter or digit at both ends")
