"""A bucket that is a folder: keys are paths in it. For demo, tests, and parties that share a file system.

What a peer's folder holds is hostile: nothing is followed (links), waited for (pipes) or read beyond its bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO

from fednode.durable import fsync_dir, make_folders, publish
from fednode.errors import Conflict, Denied, Integrity, NotFound, QuotaExceeded, StorageError, Unavailable
from fednode.storage.keys import segments
from fednode.types import Digest

_CHUNK = 1 << 20
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class LocalBucket:
    """The bucket in `folder`. Satisfies the daemon's `Bucket` port; blocking work runs in threads."""

    def __init__(self, folder: Path) -> None:
        """`folder` is made by nobody here: where it is missing (not mounted, say) everything raises Unavailable."""
        self.folder = folder

    def __repr__(self) -> str:
        return f"LocalBucket({str(self.folder)!r})"

    async def put(self, key: str, source: Path) -> None:
        """Create `key` with the bytes of `source`, durably, or verify that the same bytes stand there.

        Conflict where other bytes (or no plain file) stand there; nothing is ever replaced. QuotaExceeded where the
        disk is full, Denied without permission, Unavailable without the bucket's folder, StorageError where `source`
        cannot be read.
        """
        await asyncio.to_thread(self._put, key, source)

    async def get(self, key: str, target: Path, *, size: int, sha256: Digest) -> None:
        """Copy exactly `size` bytes (at most size + 1 are read), verify, then appear atomically at `target` (fsynced).

        NotFound where the key is absent, Unavailable where the folder is absent or the key is no plain file. Other
        bytes: Integrity(kind="size" | "digest"), and they lie beside `target` as `<target>.kept`.
        """
        await asyncio.to_thread(self._get, key, target, size, sha256)

    async def read(self, key: str, *, limit: int) -> bytes:
        """A small object whole. NotFound where absent; Integrity(kind="size") where longer than `limit` bytes."""
        return await asyncio.to_thread(self._read, key, limit)

    async def head(self, key: str) -> int:
        """Size in bytes; NotFound where absent."""
        return await asyncio.to_thread(self._head, key)

    async def aclose(self) -> None:
        """Nothing is held open."""

    def _put(self, key: str, source: Path) -> None:
        path = self.folder.joinpath(*segments(key))
        with _explained(f"{self}: {key}"):
            if not self.folder.is_dir():
                raise self._absent()
            make_folders(path.parent)
            if not os.path.lexists(path):
                self._create(path, source)
            self._verify(key, source)
            fsync_dir(path.parent)

    def _create(self, path: Path, source: Path) -> None:
        """Copy to a temporary file, then link it to its name: unlike a rename that never replaces anything."""
        fd, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", dir=path.parent)
        try:
            with os.fdopen(fd, "wb") as handle, _open_source(source) as origin:
                os.fchmod(handle.fileno(), 0o644)
                shutil.copyfileobj(origin, handle, _CHUNK)
                handle.flush()
                os.fsync(handle.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(name, path)
        finally:
            os.unlink(name)

    def _verify(self, key: str, source: Path) -> None:
        """Conflict unless the bytes under `key` are those of `source`."""
        conflict = Conflict(
            f"{self}: {key} holds other bytes than {source}; nothing was overwritten",
            hint="one bucket and prefix serves one party and run: look who wrote there, then move that object away",
        )
        try:
            stored = self._open(key)
        except Unavailable:
            raise conflict from None
        with stored, _open_source(source) as origin:
            while True:
                ours = origin.read(_CHUNK)
                if stored.read(len(ours) or 1) != ours:
                    raise conflict
                if not ours:
                    return

    def _get(self, key: str, target: Path, size: int, sha256: Digest) -> None:
        with _explained(f"{self}: {key}"), self._open(key) as stored, _explained(str(target)):
            make_folders(target.parent)
            fd, name = tempfile.mkstemp(prefix=f".{target.name[:40]}.", dir=target.parent)
            temporary = Path(name)
            try:
                with os.fdopen(fd, "wb") as handle:
                    found, digest = _copy(stored, handle, size + 1, f"{self}: {key}")
                if found == size and digest == sha256:
                    publish(temporary, target)
                    return
                kept = target.with_name(target.name + ".kept")
                publish(temporary, kept)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        if found != size:
            shown = f"{found} bytes" if found < size else f"more than {size} bytes"
            raise Integrity(f"{self}: {key} has {shown}, expected {size}", kind="size", kept=str(kept))
        raise Integrity(f"{self}: {key} has sha256 {digest}, expected {sha256}", kind="digest", kept=str(kept))

    def _read(self, key: str, limit: int) -> bytes:
        with _explained(f"{self}: {key}"), self._open(key) as stored:
            data = stored.read(limit + 1)
        if len(data) > limit:
            raise Integrity(f"{self}: {key} has more than {limit} bytes", kind="size")
        return data

    def _head(self, key: str) -> int:
        with _explained(f"{self}: {key}"), self._open(key) as stored:
            return os.fstat(stored.fileno()).st_size

    def _absent(self) -> Unavailable:
        return Unavailable(
            f"{self}: there is no such folder",
            hint="is the disk mounted, and does fednode.toml ([storage] bucket, [peers.NAME] bucket) name this folder?",
        )

    def _open(self, key: str) -> BinaryIO:
        """Open a plain file step by step from the folder, following no link on the way."""
        *folders, name = segments(key)
        try:
            fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise self._absent() from None
        try:
            for folder in folders:
                fd = _step(fd, folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            fd = _step(fd, name, _READ)
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                os.close(fd)
                raise Unavailable(f"{self}: {key} is no plain file")
        except FileNotFoundError:
            raise NotFound(f"{self}: there is no {key}") from None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EISDIR):
                raise Unavailable(f"{self}: {key} is no plain file, or a link leads to it") from None
            raise
        return os.fdopen(fd, "rb")


def _step(parent: int, name: str, flags: int) -> int:
    """Open `name` in the folder `parent`, which is closed in any case."""
    try:
        return os.open(name, flags, dir_fd=parent)
    finally:
        os.close(parent)


def _copy(stored: BinaryIO, handle: BinaryIO, limit: int, where: str) -> tuple[int, str]:
    """Copy at most `limit` bytes; (bytes copied, their sha256 in hex)."""
    digest, found = hashlib.sha256(), 0
    while found < limit:
        try:
            chunk = stored.read(min(_CHUNK, limit - found))
        except OSError as error:
            raise Unavailable(f"{where}: {error.strerror}") from error
        if not chunk:
            break
        digest.update(chunk)
        handle.write(chunk)
        found += len(chunk)
    return found, digest.hexdigest()


def _open_source(source: Path) -> BinaryIO:
    try:
        return source.open("rb")
    except OSError as error:
        raise StorageError(f"{source} cannot be read: {error.strerror}") from error


@contextlib.contextmanager
def _explained(where: str) -> Generator[None, None, None]:
    """Turn errors of the system into the storage errors that say what to do."""
    try:
        yield
    except OSError as error:
        message = f"{where}: {error.strerror or error}"
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise Denied(message, hint="look at the permissions of the folder") from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise QuotaExceeded(message, hint="free some disk space") from error
        if error.errno in (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.EMFILE, errno.ENFILE):
            raise Unavailable(message) from error
        raise StorageError(message) from error
