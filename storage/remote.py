"""A bucket in a store that is reached over a wire: create-or-verify, bounded verified reads, deadlines, retries."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import weakref
from collections.abc import AsyncIterator, Generator
from pathlib import Path

from fednode.errors import Conflict, Integrity, NotFound
from fednode.storage.arriving import Arriving
from fednode.storage.explained import explained
from fednode.storage.keys import check_prefix, segments
from fednode.storage.landing import landing, settle, sha256_of, size_of
from fednode.storage.retry import Deadlines, RetryPolicy, persistently, within
from fednode.storage.wire import Capabilities, Entry, Listed, Wire, harmless
from fednode.types import Digest, Transferred


class RemoteBucket:
    """The daemon's `Bucket` port over any `Wire`.

    Several programs may write to one bucket only under different prefixes: where the store has no conditional put,
    only this process's own writes to one key wait for each other.
    """

    def __init__(self, wire: Wire, *, deadlines: Deadlines | None = None, policy: RetryPolicy | None = None) -> None:
        self._wire = wire
        self._deadlines = deadlines or Deadlines()
        self._policy = policy or RetryPolicy()
        self._writing: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    def __repr__(self) -> str:
        return f"RemoteBucket({self._wire.name})"

    @property
    def capabilities(self) -> Capabilities:
        return self._wire.capabilities

    async def put(self, key: str, source: Path, *, progress: Transferred | None = None) -> None:
        """Create `key` with the bytes of `source`, or verify that the same bytes stand there.

        Conflict where other bytes stand there; nothing is ever replaced. StorageError where `source` cannot be read.
        """
        segments(key)
        size = await asyncio.to_thread(size_of, source)
        lock = self._writing.setdefault(key, asyncio.Lock())
        async with lock:
            await persistently(self._policy, lambda: self._create_or_verify(key, source, size, harmless(progress)))

    async def get(
        self, key: str, target: Path, *, size: int, sha256: Digest, progress: Transferred | None = None
    ) -> None:
        """Download exactly `size` bytes (at most size + 1), verify, then appear atomically at `target` (fsynced).

        The deadline is for the store; the own disk takes as long as it takes.

        NotFound where the key is absent; other bytes: Integrity(kind="size" | "digest"), kept as `<target>.kept`.
        """
        segments(key)

        async def attempt() -> None:
            where = self._where(key)
            with explained(str(target)), landing(target) as temporary, Arriving(temporary) as arrived:
                await self._download(key, temporary, size + 1, harmless(progress))
                await asyncio.to_thread(
                    settle, temporary, target, size=size, sha256=sha256, where=where, arrived=arrived
                )

        await persistently(self._policy, attempt)

    async def read(self, key: str, *, limit: int) -> bytes:
        """A small object whole. NotFound where absent; Integrity(kind="size") where longer than `limit` bytes."""
        segments(key)
        with _scratch() as path:
            await persistently(self._policy, lambda: self._download(key, path, limit + 1, None))
            data = path.read_bytes()
        if len(data) > limit:
            raise Integrity(f"{self._where(key)} has more than {limit} bytes", kind="size")
        return data

    async def is_refused_again(self, key: str, source: Path) -> bool:
        """Whether the store itself refuses an upload as `key`, where the bytes of `source` stand. Sends them again."""
        segments(key)
        size = await asyncio.to_thread(size_of, source)
        try:
            await self._upload(key, source, size, None)
        except Conflict:
            return True
        return False

    async def head(self, key: str) -> int:
        """Size in bytes; NotFound where absent."""
        segments(key)
        return await persistently(self._policy, lambda: self._stat(key))

    async def list(self, prefix: str = "") -> AsyncIterator[Entry]:
        """Objects under `prefix` (empty, or ending in `/`) in any order; raises rather than end early."""
        check_prefix(prefix)
        what = f"{self._wire.name}: listing {prefix or 'everything'}"

        async def whole() -> list[Entry]:
            return await within(self._deadlines.of(0) * 4, _all(self._wire.list(prefix)), what)

        # Whole pages are kept until all are there: a retry in the middle would repeat or lose entries.
        for entry in await persistently(self._policy, whole):
            yield entry

    async def delete(self, key: str) -> None:
        """Remove an object; absent is fine. For a janitor's grant only."""
        segments(key)
        what = f"{self._where(key)}: delete"
        await persistently(self._policy, lambda: within(self._deadlines.of(0), self._wire.delete(key), what))

    async def aclose(self) -> None:
        await self._wire.aclose()

    def _where(self, key: str) -> str:
        return f"{self._wire.name}: {key}"

    async def _stat(self, key: str) -> int:
        return await within(self._deadlines.of(0), self._wire.stat(key), f"{self._where(key)}: head")

    async def _download(self, key: str, target: Path, limit: int, progress: Transferred | None) -> None:
        work = self._wire.download(key, target, limit=limit, progress=progress)
        await within(self._deadlines.of(limit), work, f"{self._where(key)}: download")

    async def _upload(self, key: str, source: Path, size: int, progress: Transferred | None) -> None:
        work = self._wire.upload(key, source, size, progress)
        await within(self._deadlines.of(size), work, f"{self._where(key)}: upload")

    async def _create_or_verify(self, key: str, source: Path, size: int, progress: Transferred | None) -> None:
        try:
            found = await self._create(key, source, size, progress)
        except Conflict:  # an earlier attempt that looked lost, or somebody else
            found = await self._stat(key)
        if found is not None and (found != size or not await self._holds(key, source, size)):
            raise self._conflict(key, source)

    async def _create(self, key: str, source: Path, size: int, progress: Transferred | None) -> int | None:
        """The size of what stood there already; None where it was created and has arrived whole."""
        looks = not self._wire.capabilities.looks_itself
        if looks:
            with contextlib.suppress(NotFound):
                return await self._stat(key)
        await self._upload(key, source, size, progress)
        if looks and await self._stat(key) != size:
            raise self._conflict(key, source)
        return None

    async def _holds(self, key: str, source: Path, size: int) -> bool:
        """Whether the stored bytes are those of `source`; the comparison lies on our own disk for a moment."""
        with _scratch() as path:
            await self._download(key, path, size + 1, None)
            with explained(str(source)):
                ours = await asyncio.to_thread(sha256_of, source)
            return await asyncio.to_thread(sha256_of, path) == ours

    def _conflict(self, key: str, source: Path) -> Conflict:
        return Conflict(
            f"{self._where(key)} holds other bytes than {source}; nothing was overwritten",
            hint="one bucket and prefix serves one party and run: look who wrote there, then move that object away",
        )


@contextlib.contextmanager
def _scratch() -> Generator[Path, None, None]:
    """An empty file in a private folder, gone afterwards. QuotaExceeded where the disk is full."""
    with explained(tempfile.gettempdir()), tempfile.TemporaryDirectory(prefix="fednode-") as folder:
        path = Path(folder) / "object"
        path.touch()
        yield path


async def _all(entries: AsyncIterator[Entry]) -> list[Entry]:
    listed = Listed()
    async for entry in entries:
        listed.add(entry)
    return listed.entries
