"""How downloaded bytes reach their place: beside the target first, verified, then by an atomic rename."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Generator
from pathlib import Path

from fednode.durable import make_folders, publish
from fednode.errors import Integrity, StorageError
from fednode.storage.arriving import Arriving
from fednode.types import Digest


@contextlib.contextmanager
def landing(target: Path) -> Generator[Path, None, None]:
    """An empty temporary file in the folder of `target`, gone afterwards unless it was settled."""
    make_folders(target.parent)
    fd, name = tempfile.mkstemp(prefix=f".{target.name[:40]}.", dir=target.parent)
    os.close(fd)
    temporary = Path(name)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def settle(
    temporary: Path, target: Path, *, size: int, sha256: Digest, where: str, arrived: Arriving | None = None
) -> None:
    """Publish `temporary` as `target` if it holds exactly these bytes. Blocking. `arrived` has hashed it on the way.

    Otherwise Integrity(kind="size" | "digest"), and the bytes lie beside `target` as `<target>.kept`.
    """
    found = temporary.stat().st_size
    digest = Digest("")
    if found == size:
        digest = sha256_of(temporary) if arrived is None else arrived.digest()
    if digest == sha256:
        publish(temporary, target)
        return
    kept = target.with_name(target.name + ".kept")
    publish(temporary, kept)
    if found != size:
        shown = f"{found} bytes" if found < size else f"more than {size} bytes"
        raise Integrity(f"{where} has {shown}, expected {size}", kind="size", kept=str(kept))
    raise Integrity(f"{where} has sha256 {digest}, expected {sha256}", kind="digest", kept=str(kept))


def sha256_of(path: Path) -> Digest:
    """Of a file's bytes, in hex."""
    with path.open("rb") as handle:
        return Digest(hashlib.file_digest(handle, "sha256").hexdigest())


def size_of(source: Path) -> int:
    """In bytes. StorageError where it cannot be told."""
    try:
        return source.stat().st_size
    except OSError as error:
        raise StorageError(f"{source} cannot be read: {error.strerror}") from error
