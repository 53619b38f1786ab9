"""A bucket that is a folder: keys are paths in it. For demo, tests, and parties that share a file system.

What a peer's folder holds is hostile: nothing is followed (links), waited for (pipes) or read beyond its bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from fednode.durable import fsync_dir, make_folders
from fednode.errors import Conflict, Integrity, NotFound, StorageError, Unavailable
from fednode.storage.explained import explained
from fednode.storage.keys import check_prefix, segments
from fednode.storage.landing import landing, settle, size_of
from fednode.storage.retry import Deadlines, within
from fednode.storage.wire import Capabilities, Entry, harmless
from fednode.types import Digest, Transferred

T = TypeVar("T")
_CHUNK = 1 << 20
_THREADS: Final = 4
"""Of each bucket: a folder that hangs takes its own threads only."""
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class LocalBucket:
    """The bucket in `folder`. Satisfies the daemon's `Bucket` port; blocking work runs in threads.

    Every call raises StorageTimeout at its deadline, also where the folder hangs (a mount whose server is gone). What
    it had begun then ends by itself, and whole.
    """

    def __init__(self, folder: Path, deadlines: Deadlines | None = None) -> None:
        """`folder` is made by nobody here: where it is missing (not mounted, say) everything raises Unavailable."""
        self.folder = folder
        self._deadlines = deadlines or Deadlines()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="bucket")

    def __repr__(self) -> str:
        return f"LocalBucket({str(self.folder)!r})"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(conditional_put=True, native_encryption=False, share=False)

    async def put(self, key: str, source: Path, *, progress: Transferred | None = None) -> None:
        """Create `key` with the bytes of `source`, durably, or verify that the same bytes stand there.

        Conflict where other bytes (or no plain file) stand there; nothing is ever replaced. QuotaExceeded where the
        disk is full, Denied without permission, Unavailable without the bucket's folder, StorageError where `source`
        cannot be read.
        """
        size = await asyncio.to_thread(size_of, source)
        await self._within(size, key, lambda: self._put(key, source))
        if (told := harmless(progress)) is not None:
            told(size, size)

    async def get(
        self, key: str, target: Path, *, size: int, sha256: Digest, progress: Transferred | None = None
    ) -> None:
        """Copy exactly `size` bytes (at most size + 1 are read), verify, then appear atomically at `target` (fsynced).

        NotFound where the key is absent, Unavailable where the folder is absent or the key is no plain file. Other
        bytes: Integrity(kind="size" | "digest"), and they lie beside `target` as `<target>.kept`.
        """
        await self._within(size, key, lambda: self._get(key, target, size, sha256, harmless(progress)))

    async def read(self, key: str, *, limit: int) -> bytes:
        """A small object whole. NotFound where absent; Integrity(kind="size") where longer than `limit` bytes."""
        return await self._within(limit, key, lambda: self._read(key, limit))

    async def head(self, key: str) -> int:
        """Size in bytes; NotFound where absent."""
        return await self._within(0, key, lambda: self._head(key))

    async def list(self, prefix: str = "") -> AsyncIterator[Entry]:
        """Plain files below the folder `prefix` (empty, or ending in `/`), in any order; what is half written is not
        there. Unavailable without the bucket's folder."""
        for entry in await self._within(0, f"listing {prefix or 'everything'}", lambda: self._list(prefix)):
            yield entry

    async def delete(self, key: str) -> None:
        """Remove an object, and folders that it leaves empty; absent is fine. For the janitor only."""
        await self._within(0, key, lambda: self._delete(key))

    async def aclose(self) -> None:
        """Nothing is held open; idle threads end with this object."""

    async def _within(self, size: int, what: str, work: Callable[[], T]) -> T:
        """The result of `work` in a thread, in the time that `size` bytes may take."""
        running = asyncio.get_running_loop().run_in_executor(self._threads, work)
        return await within(self._deadlines.of(size), running, f"{self}: {what[:120]!r}")

    def _put(self, key: str, source: Path) -> None:
        path = self.folder.joinpath(*segments(key))
        with explained(f"{self}: {key}"):
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

    def _get(self, key: str, target: Path, size: int, sha256: Digest, progress: Transferred | None) -> None:
        where = f"{self}: {key}"
        with explained(where), self._open(key) as stored, explained(str(target)), landing(target) as temporary:
            with temporary.open("wb") as handle:
                _copy(stored, handle, size + 1, where, progress)
            settle(temporary, target, size=size, sha256=sha256, where=where)

    def _read(self, key: str, limit: int) -> bytes:
        with explained(f"{self}: {key}"), self._open(key) as stored:
            data = stored.read(limit + 1)
        if len(data) > limit:
            raise Integrity(f"{self}: {key} has more than {limit} bytes", kind="size")
        return data

    def _head(self, key: str) -> int:
        with explained(f"{self}: {key}"), self._open(key) as stored:
            return os.fstat(stored.fileno()).st_size

    def _list(self, prefix: str) -> Sequence[Entry]:
        check_prefix(prefix)
        found: list[Entry] = []

        def failed(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError):  # gone since its parent was read: a janitor is at work
                raise error

        with explained(f"{self}: listing {prefix or 'everything'}"):
            if not self.folder.is_dir():
                raise self._absent()
            start = self.folder / prefix
            for folder, _, names in os.walk(start, onerror=failed) if start.is_dir() else ():
                for path in (Path(folder, name) for name in names if not name.startswith(".")):
                    with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                        status = path.lstat()
                        if stat.S_ISREG(status.st_mode):
                            found.append(Entry(path.relative_to(self.folder).as_posix(), status.st_size))
        return found

    def _delete(self, key: str) -> None:
        path = self.folder.joinpath(*segments(key))
        with explained(f"{self}: {key}"):
            if not self.folder.is_dir():
                raise self._absent()
            path.unlink(missing_ok=True)
            for folder in path.relative_to(self.folder).parents[:-1]:
                with contextlib.suppress(OSError):  # not empty: something else is there
                    (self.folder / folder).rmdir()

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


def _copy(stored: BinaryIO, handle: BinaryIO, limit: int, where: str, progress: Transferred | None) -> None:
    """Copy at most `limit` bytes."""
    found = 0
    while found < limit:
        try:
            chunk = stored.read(min(_CHUNK, limit - found))
        except OSError as error:
            raise Unavailable(f"{where}: {error.strerror}") from error
        if not chunk:
            break
        handle.write(chunk)
        found += len(chunk)
        if progress is not None:
            progress(found, limit)


def _open_source(source: Path) -> BinaryIO:
    try:
        return source.open("rb")
    except OSError as error:
        raise StorageError(f"{source} cannot be read: {error.strerror}") from error
