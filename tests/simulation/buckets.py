"""Buckets in memory, shared by all parties, with the faults of stores; the shipped local bucket behind the same."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fednode.errors import Conflict, Denied, Integrity, NotFound, StorageTimeout, Unavailable
from fednode.storage.local import LocalBucket
from fednode.types import Digest, PartyName

if TYPE_CHECKING:
    from .party import Process


class Store:
    """One party's bucket: what it holds, and what a dishonest owner shows instead, to all or to one reader."""

    def __init__(self, folder: Path | None) -> None:
        self.objects: dict[str, bytes] = {}
        self.shown: dict[tuple[str, PartyName | None], bytes | None] = {}
        """(key, reader or None) to other bytes, or None for absent."""
        self.wrong: dict[tuple[PartyName, str], int] = {}
        """How often each reader got wrong bytes of an honest object."""
        self.local = LocalBucket(folder) if folder is not None else None

    def view(self, key: str, reader: PartyName) -> bytes | None:
        for name in (reader, None):
            if (key, name) in self.shown:
                return self.shown[key, name]
        return self.objects.get(key)


class SimBucket:
    """One process's access to one party's bucket. Satisfies `Bucket`."""

    def __init__(self, process: Process, owner: PartyName) -> None:
        self._process, self._owner = process, owner
        self._store = process.world.stores[owner]

    async def _arrive(self, key: str) -> None:
        world = self._process.world
        self._process.guard()
        await asyncio.sleep(world.bucket_latency())
        self._process.guard()
        if world.outages.get(self._owner, 0.0) > world.loop.now or world.chance("bucket-unavailable"):
            raise Unavailable(f"{key}: no answer")
        if self._owner != self._process.party.me and world.chance("bucket-denied"):
            raise Denied(f"{key}: denied")

    async def put(self, key: str, source: Any, *, progress: object = None) -> None:
        await self._arrive(key)
        world, objects = self._process.world, self._store.objects
        with world.pause():
            data = source.read_bytes()
        if self._store.local is not None:
            await self._store.local.put(key, source)
        if objects.setdefault(key, data) != data:
            raise Conflict(f"{key} holds other bytes")
        world.oracle.stored(self._process.party.me, key, data)
        if world.chance("bucket-timeout"):
            raise StorageTimeout(f"{key}: no answer in time")  # the bytes are there
        await asyncio.sleep(world.bucket_latency())

    async def get(self, key: str, target: Any, *, size: int, sha256: Digest, progress: object = None) -> None:
        await self._arrive(key)
        world = self._process.world
        data = self._store.view(key, self._process.party.me)
        if self._owner != self._process.party.me and world.chance("bucket-stale"):
            data = None
        if data is None:
            raise NotFound(f"there is no {key}")
        told = (self._process.party.me, key)
        if self._store.wrong.get(told, 0) < 2 and world.chance("bucket-wrong-bytes"):
            # Three wrong answers would be a fault of the owner (protocol.md section 3).
            self._store.wrong[told] = self._store.wrong.get(told, 0) + 1
            data = world.spoiled(data)
        if self._store.local is not None:
            await self._get_real(key, target, data, size, sha256)
            return
        found = data[: size + 1]
        digest = hashlib.sha256(found).hexdigest()
        if len(found) == size and digest == sha256:
            target.write_bytes(found)
            return
        kept = target.with_name(target.name + ".kept")
        kept.write_bytes(found)
        kind = "size" if len(found) != size else "digest"
        raise Integrity(f"{key} is not what it should be: {kind}", kind=kind, kept=str(kept))

    async def _get_real(self, key: str, target: Path, data: bytes, size: int, sha256: Digest) -> None:
        """The shipped bucket reads a file that holds what the store shows."""
        local = self._store.local
        assert local is not None
        path = local.folder / key
        shown = path.parent / f".{self._process.party.me}" / path.name
        with self._process.world.pause():
            shown.parent.mkdir(exist_ok=True, parents=True)
            shown.write_bytes(data)
        await LocalBucket(shown.parent).get(shown.name, target, size=size, sha256=sha256)

    async def read(self, key: str, *, limit: int) -> bytes:
        await self._arrive(key)
        if self._store.local is not None:
            return await self._store.local.read(key, limit=limit)
        data = self._store.view(key, self._process.party.me)
        if data is None:
            raise NotFound(f"there is no {key}")
        if len(data) > limit:
            raise Integrity(f"{key} is too long", kind="size")
        return data

    async def head(self, key: str) -> int:
        await self._arrive(key)
        if self._store.local is not None:
            return await self._store.local.head(key)
        data = self._store.view(key, self._process.party.me)
        if data is None:
            raise NotFound(f"there is no {key}")
        return len(data)

    async def aclose(self) -> None:
        """Nothing is held open."""
