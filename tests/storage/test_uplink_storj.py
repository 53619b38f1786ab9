"""Storj natively, against a real satellite and real storage nodes on this machine."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from fednode.errors import ConfigError, Conflict, Denied, NotFound, StorageError, StorageTimeout, Unavailable
from fednode.storage.landing import sha256_of
from fednode.storage.remote import RemoteBucket
from fednode.storage.retry import Deadlines, RetryPolicy
from fednode.storage.uplink.library import find_library
from fednode.storage.uplink.sharing import StorjSharer
from fednode.storage.uplink.wire import UplinkWire
from fednode.types import Digest, Transferred
from tests.storj.network import Network, missing, storj_network

from .uplink_support import grant_file, wire


def _lacking() -> str:
    try:
        find_library(None)
    except ConfigError as error:
        return f"{error.message}; {error.hint}"
    return missing()


pytestmark = [pytest.mark.process, pytest.mark.skipif(_lacking() != "", reason=f"no native Storj: {_lacking()}")]
BUCKET = "native-tests"
MIB = 1 << 20


class Site:
    """The owner of a bucket in a project, and whoever holds one of its grants."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.network = network
        self.folder = folder
        self.base = f"t{secrets.token_hex(6)}/"
        self.root = grant_file(folder, network.grant, "root.toml")
        self.sharer = StorjSharer(self.root)
        self.owner = wire(None, self.root, BUCKET)
        self._wires = [self.owner]

    async def holder(self, prefix: str = "", **allowed: Any) -> UplinkWire:
        """A bucket opened with a grant for our base, or for `prefix` below it."""
        grant = await self.sharer.share(BUCKET, self.base + prefix, **allowed)
        return self.opened(grant)

    def opened(self, grant: str) -> UplinkWire:
        made = wire(None, grant_file(self.folder, grant, f"{len(self._wires)}.toml"), BUCKET)
        self._wires.append(made)
        return made

    def file(self, data: bytes) -> Path:
        path = self.folder / f"source-{secrets.token_hex(4)}"
        path.write_bytes(data)
        return path

    async def put(self, key: str, data: bytes, by: UplinkWire | None = None) -> None:
        await (by or self.owner).upload(self.base + key, self.file(data), len(data), None)

    async def get(self, key: str, by: UplinkWire | None = None, limit: int = 2 * MIB) -> bytes:
        path = self.file(b"")
        await (by or self.owner).download(self.base + key, path, limit=limit, progress=None)
        return path.read_bytes()

    async def keys(self, by: UplinkWire | None = None, prefix: str = "") -> list[str]:
        return [entry.key.removeprefix(self.base) async for entry in (by or self.owner).list(self.base + prefix)]

    async def close(self) -> None:
        for each in self._wires:
            await each.aclose()
        await self.sharer.aclose()


@pytest_asyncio.fixture
async def site(storj: Network, tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(storj, tmp_path)
    await made.sharer.create_bucket(BUCKET)
    yield made
    await made.close()


@pytest.fixture
def own_storj(tmp_path: Path) -> Any:
    with storj_network(tmp_path / "net", gateway=False) as network:
        yield network


@pytest_asyncio.fixture
async def own_site(own_storj: Network, tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(own_storj, tmp_path)
    await made.sharer.create_bucket(BUCKET)
    yield made
    await made.close()


@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 100_000, MIB])
async def test_sizes(site: Site, size: int) -> None:
    data = os.urandom(size)
    await site.put("x", data)
    assert await site.get("x") == data
    assert await site.owner.stat(site.base + "x") == size
    assert await site.keys() == ["x"]


@pytest.mark.long
@pytest.mark.parametrize("size", [64 * MIB - 1, 64 * MIB, 64 * MIB + 1, 130 * MIB])
async def test_segments(site: Site, size: int) -> None:
    data = os.urandom(size)
    await site.put("x", data)
    assert await site.get("x", limit=size + 1) == data
    assert len(await site.get("x", limit=size // 2)) == size // 2


async def test_an_access_is_asked_for_and_works(site: Site) -> None:
    project = site.network.projects[0]
    await site.put("x", b"data")
    grant = await site.sharer.request_access(site.network.satellite, project.api_key, project.passphrase)
    assert await site.get("x", site.opened(grant)) == b"data"
    other = await site.sharer.request_access(site.network.satellite, project.api_key, "another passphrase")
    with pytest.raises(NotFound):
        await site.get("x", site.opened(other))


async def test_a_wrong_key_or_address_says_so(site: Site) -> None:
    project = site.network.projects[0]
    with pytest.raises(Exception, match="api key"):
        await site.sharer.request_access(site.network.satellite, project.api_key[:-5], project.passphrase)
    for address in ("127.0.0.1:1", "x@127.0.0.1:1"):
        with pytest.raises(ConfigError, match=r"(?i)node ?id") as caught:
            await site.sharer.request_access(address, project.api_key, project.passphrase)
        assert "NODE_ID@HOST:PORT" in caught.value.hint


async def refused(site: Site, by: UplinkWire, key: str = "x", *, write: bool = True) -> None:
    """Whoever holds this grant gets Denied everywhere, and above all no empty listing."""
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: by.stat(site.base + key),
        lambda: site.get(key, by),
        lambda: site.keys(by),
        lambda: by.delete(site.base + key),
    ]
    if write:
        calls.append(lambda: site.put("new", b"new", by))
    for call in calls:
        with pytest.raises(Denied):
            await call()
    assert await site.keys() == [key]


async def test_an_expired_grant(site: Site) -> None:
    await site.put("x", b"data")
    everything = {"read": True, "write": True, "list": True, "delete": True}
    await refused(site, await site.holder(not_after=time.time() - 60, **everything))
    await refused(site, await site.holder(not_before=time.time() + 3600, **everything))
    assert await site.get("x", await site.holder(not_after=time.time() + 3600, **everything)) == b"data"


async def test_a_grant_for_another_place(site: Site) -> None:
    await site.put("x", b"data")
    await refused(site, await site.holder("elsewhere/", read=True, write=True, list=True, delete=True))


async def test_a_reader_reads_and_nothing_else(site: Site) -> None:
    await site.put("x", b"data")
    reader = await site.holder(read=True, list=True)
    assert await site.get("x", reader) == b"data"
    assert await site.keys(reader) == ["x"]
    for call in (site.put("y", b"y", reader), site.put("x", b"y", reader), reader.delete(site.base + "x")):
        with pytest.raises(Denied):
            await call
    with pytest.raises(Denied):
        await anext(reader.list(""))
    assert await site.get("x") == b"data"
    assert await site.keys() == ["x"]


async def test_a_writer_replaces_nothing(site: Site) -> None:
    writer = await site.holder(read=True, write=True, list=True)
    await site.put("x", b"first", writer)
    for data in (b"second", os.urandom(100_000)):
        with pytest.raises(Conflict):
            await site.put("x", data, writer)
    with pytest.raises(Denied):
        await writer.delete(site.base + "x")
    assert await site.get("x") == b"first"
    bucket = RemoteBucket(writer)
    await bucket.put(site.base + "x", site.file(b"first"))
    with pytest.raises(Conflict, match="other bytes"):
        await bucket.put(site.base + "x", site.file(b"other"))


async def test_a_janitor_deletes(site: Site) -> None:
    await site.put("x", b"data")
    janitor = await site.holder(list=True, delete=True)
    with pytest.raises(Denied):
        await site.get("x", janitor)
    await janitor.delete(site.base + "x")
    await janitor.delete(site.base + "x")
    assert await site.keys(janitor) == []


async def test_revoking_ends_one_grant_and_no_other(site: Site) -> None:
    await site.put("x", b"data")
    grants = [await site.sharer.share(BUCKET, site.base, read=True, list=True) for _ in range(2)]
    assert grants[0] != grants[1]
    first, second = (site.opened(grant) for grant in grants)
    child = StorjSharer(grant_file(site.folder, grants[0], "first.toml"))
    grandchild = site.opened(await child.share(BUCKET, site.base, read=True, list=True))
    for holder in (first, second, grandchild):
        assert await site.get("x", holder) == b"data"
    await site.sharer.revoke(grants[0])
    await refused(site, first)
    await refused(site, grandchild)
    assert await site.get("x", second) == b"data"
    with pytest.raises(Denied):
        await child.revoke(grants[0])
    await child.aclose()


async def test_a_dropped_file_renews_a_grant(site: Site) -> None:
    await site.put("x", b"data")
    over = await site.holder(read=True, not_after=time.time() - 60)
    with pytest.raises(Denied):
        await site.get("x", over)
    fresh = grant_file(site.folder, await site.sharer.share(BUCKET, site.base, read=True), "fresh.toml")
    fresh.path.replace(site.folder / "1.toml")
    assert await site.get("x", over) == b"data"


async def test_a_bucket_that_does_not_exist(site: Site) -> None:
    nowhere = wire(None, site.root, "no-such-bucket")
    with pytest.raises((NotFound, Unavailable)):  # a look-up does not always tell which of both is missing
        await nowhere.stat("x")
    with pytest.raises(Unavailable, match="no such bucket"):
        await anext(nowhere.list(""))
    with pytest.raises(StorageError):
        await nowhere.upload("x", site.file(b"x"), 1, None)
    await nowhere.aclose()


async def test_objects_may_be_given_a_short_life(site: Site) -> None:
    holder = await site.holder(read=True, write=True, max_object_ttl_s=3600)
    await site.put("x", b"data", holder)
    assert await site.get("x", holder) == b"data"


async def frozen_in_the_middle(site: Site, begin: Callable[[Transferred], Awaitable[None]]) -> BaseException | None:
    """How a transfer ends when its network freezes after the first bytes, and it is given one more second."""
    moving = asyncio.Event()
    work = asyncio.ensure_future(begin(lambda moved, whole: moving.set()))
    await moving.wait()
    with site.network.frozen():
        (end,) = await asyncio.gather(asyncio.wait_for(work, 1.0), return_exceptions=True)
    return end


async def test_a_frozen_network_in_mid_transfer(site: Site) -> None:
    """The deadline holds, nothing is half visible, other calls work at once after it thaws."""
    data = os.urandom(32 * MIB)
    source, target = site.file(data), site.folder / "target"
    bucket, sha256 = RemoteBucket(site.owner), Digest(hashlib.sha256(data).hexdigest())
    up, down = site.base + "up", site.base + "down"
    end = await frozen_in_the_middle(site, lambda told: site.owner.upload(up, source, len(data), told))
    assert isinstance(end, TimeoutError)
    assert await site.keys() == []
    await bucket.put(down, source)
    end = await frozen_in_the_middle(
        site, lambda told: bucket.get(down, target, size=len(data), sha256=sha256, progress=told)
    )
    assert isinstance(end, TimeoutError)
    assert not target.exists()
    await bucket.put(up, source)
    await bucket.get(up, target, size=len(data), sha256=sha256)
    assert await asyncio.to_thread(sha256_of, target) == sha256


async def test_a_frozen_satellite_and_short_calls(site: Site) -> None:
    await site.put("x", b"data")
    once = RetryPolicy(attempts=1)
    bucket = RemoteBucket(site.owner, deadlines=Deadlines(call_s=0.4, slowest=1 << 40), policy=once)
    with site.network.frozen():
        for call in (bucket.head(site.base + "x"), anext(bucket.list(site.base)), bucket.delete(site.base + "x")):
            with pytest.raises(StorageTimeout, match="longer than"):
                await call
    assert await site.keys() in (["x"], [])


async def test_cancelled_in_mid_upload(site: Site) -> None:
    data = os.urandom(8 * MIB)
    upload = asyncio.create_task(site.put("x", data))
    await asyncio.wait([upload], timeout=0.05)
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    # Visible as a whole if the satellite had heard of the end already, else not at all.
    assert await site.keys() in ([], ["x"])
    if await site.keys():
        assert await site.get("x", limit=len(data) + 1) == data


async def test_nodes_end_and_then_the_network(own_site: Site) -> None:
    """Reads go on without one node of four; without three, and without a satellite, all is Unavailable, not empty."""
    data = os.urandom(MIB)
    await own_site.put("x", data)
    own_site.network.stop_node(2)
    assert await own_site.get("x") == data
    own_site.network.stop_node(0)
    own_site.network.stop_node(1)
    with pytest.raises(Unavailable):
        await own_site.get("x")
    own_site.network.kill()
    ends = await asyncio.gather(own_site.get("x"), own_site.keys(), own_site.put("y", b"y"), return_exceptions=True)
    assert [type(end) for end in ends] == [Unavailable] * 3


FREED = """
import ctypes, os, sys
from pathlib import Path
from fednode.storage.uplink.access import Permission, Uplink
from fednode.storage.uplink.calls import StoreError
path, bucket, folder = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
grant = sys.stdin.readline().strip()
uplink = Uplink(path)
narrow = uplink.share(grant, Permission(bucket, "freed/", True, True, True, True, 0, 0, 0))
wrong = uplink.share(grant, Permission(bucket, "wrong/", True, True, True, True, 0, 0, 3600))
(folder / "data").write_bytes(os.urandom(100_000))
data = os.open(folder / "data", os.O_RDWR)
def refused(call):
    try:
        call()
    except StoreError as error:
        print(error.code, flush=True)
for given in (narrow, wrong):
    project = uplink.open_project(given)
    for call in (
        lambda: project.upload(bucket, "freed/x", data, 100_000, lambda _: None),
        lambda: project.stat(bucket, "freed/x"),
        lambda: list(project.list(bucket, "freed/")),
        lambda: os.lseek(data, 0, 0) or project.download(bucket, "freed/x", data, 50_000, lambda _: None),
        lambda: project.download(bucket, "freed/none", data, 50_000, lambda _: None),
        lambda: project.delete(bucket, "freed/x"),
    ):
        refused(call)
    project.free()
root = uplink.open_project(grant)
root.ensure_bucket(bucket)
uplink.revoke(root, narrow)
root.free()
empty = ctypes.CDLL(str(path)).uplink_internal_UniverseIsEmpty
empty.restype = ctypes.c_bool
print("freed" if empty() else "left")
"""


async def test_every_handle_is_freed(site: Site) -> None:
    """In a process of its own: Go must not be loaded here."""
    command = [sys.executable, "-P", "-c", FREED, str(find_library(None)), BUCKET, str(site.folder)]
    done = await asyncio.to_thread(
        subprocess.run, command, input=site.network.grant, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["33", *["9"] * 6, "freed"], done.stderr


async def test_the_worker_does_not_grow(site: Site) -> None:
    """A generous bound: uplink-python's own calls grow by more than a megabyte for every object of this size."""
    data = os.urandom(MIB)

    async def some(count: int) -> int:
        for number in range(count):
            await site.put(str(number), data)
            assert await site.get(str(number)) == data
            await site.keys()
        pages = Path(f"/proc/{site.owner._shared.client().pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGESIZE")

    before = await some(10)
    assert await some(30) < before + 30 * MIB
