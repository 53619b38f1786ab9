"""Every way to a bucket in Storj when its network freezes, dies or loses storage nodes in the middle of a transfer."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fednode.errors import ConfigError, NotFound, StorageTimeout, Unavailable
from fednode.storage import remote
from fednode.storage.local import LocalBucket
from fednode.storage.opening import open_bucket
from fednode.storage.remote import RemoteBucket
from fednode.storage.retry import Deadlines, RetryPolicy
from fednode.storage.settings import BucketSettings, RcloneSettings, S3Settings, UplinkSettings
from fednode.storage.uplink.library import find_library
from fednode.types import Digest

from .network import Network

pytestmark = pytest.mark.process

STORES = ["s3", "rclone", "uplink"]
SHORT = Deadlines(call_s=4.0, slowest=1 << 40)
MIB = 1 << 20
SIZE = 64 * MIB
Bucket = LocalBucket | RemoteBucket


@pytest.fixture(autouse=True)
def one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes of the first attempt is the outcome."""
    monkeypatch.setattr(remote, "RetryPolicy", partial(RetryPolicy, attempts=1))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(SIZE))
    return path


def opened(network: Network, folder: Path, store: str, bucket: str, deadlines: Deadlines | None = None) -> Bucket:
    """Through the gateway before the first project, or natively with its grant."""
    file = folder / f"{store}.toml"
    file.touch(mode=0o600)
    file.write_text(f'grant = "{network.grant}"\n')
    settings: BucketSettings
    match store:
        case "s3":
            keys = network.gateway
            file.write_text(f'access_key_id = "{keys.access_key}"\nsecret_access_key = "{keys.secret_key}"\n')
            settings = S3Settings(bucket, file, keys.endpoint, keys.region)
        case "rclone":
            settings = RcloneSettings(bucket, file)
        case _:
            settings = UplinkSettings(bucket, file)
            try:
                find_library(None)
            except ConfigError as error:
                pytest.skip(f"{error.message}; {error.hint}")
    return open_bucket(settings, deadlines)


def digest(path: Path) -> Digest:
    return Digest(hashlib.sha256(path.read_bytes()).hexdigest())


async def begun(network: Network, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """The transfer as a task, when satellite and nodes have moved some of it: an eighth of the object and more."""
    before = moved(network)
    task = asyncio.create_task(work)
    while moved(network) < before + SIZE // 8:
        assert not task.done(), "it ended before"
        await asyncio.sleep(0.002)
    return task


def moved(network: Network) -> int:
    """Bytes that satellite and storage nodes have read and written so far."""
    said = Path(f"/proc/{network.described.processes['planet'].pid}/io").read_text()
    return sum(int(line.split()[1]) for line in said.splitlines() if line.startswith(("rchar", "wchar")))


async def breaks_off(task: asyncio.Task[None]) -> None:
    """The transfer fails by itself: long before the test's own patience, as its deadline is of seconds."""
    async with asyncio.timeout(60):
        with pytest.raises((StorageTimeout, Unavailable)):
            await task


@pytest.mark.parametrize("store", STORES)
async def test_frozen_in_mid_transfer(storj: Network, tmp_path: Path, source: Path, store: str) -> None:
    """The deadline holds, nothing half is to be seen on either side, and the same call works after the thaw."""
    name, target, sha256 = storj.make_bucket(f"frozen-{store}"), tmp_path / "cache" / "t", digest(source)
    hasty, patient = (opened(storj, tmp_path, store, name, deadlines) for deadlines in (SHORT, None))
    work = await begun(storj, hasty.put("up/x", source))
    with storj.frozen():
        await breaks_off(work)
    try:
        assert await patient.head("up/x") == SIZE  # the gateway may have had the last byte
    except NotFound:
        assert [entry async for entry in patient.list("up/")] == []
    await patient.put("up/x", source)
    work = await begun(storj, hasty.get("up/x", target, size=SIZE, sha256=sha256))
    with storj.frozen():
        await breaks_off(work)
    assert list(target.parent.iterdir()) == []
    await patient.get("up/x", target, size=SIZE, sha256=sha256)
    assert digest(target) == sha256
    for bucket in (hasty, patient):
        await bucket.aclose()


@pytest.mark.parametrize("store", [pytest.param("s3", marks=pytest.mark.long), "rclone", "uplink"])
async def test_killed_in_mid_transfer(own_storj: Network, tmp_path: Path, source: Path, store: str) -> None:
    name, target = own_storj.make_bucket("killed"), tmp_path / "cache" / "t"
    bucket = opened(own_storj, tmp_path, store, name, Deadlines(call_s=15.0))
    await bucket.put("x", source)
    put = await begun(own_storj, bucket.put("y", source))
    get = await begun(own_storj, bucket.get("x", target, size=SIZE, sha256=digest(source)))
    assert not put.done()
    own_storj.kill()
    for task in (put, get):
        await breaks_off(task)
    assert list(target.parent.iterdir()) == []
    await bucket.aclose()


async def test_reads_go_on_without_a_storage_node(own_storj: Network, tmp_path: Path, source: Path) -> None:
    """One of four; without three nobody can read, and says so."""
    name, sha256 = own_storj.make_bucket("nodes"), digest(source)
    buckets = {store: opened(own_storj, tmp_path, store, name) for store in STORES}
    await buckets["rclone"].put("x", source)
    own_storj.stop_node(1)
    for store, bucket in buckets.items():
        await bucket.get("x", tmp_path / store, size=SIZE, sha256=sha256)
        assert digest(tmp_path / store) == sha256
    own_storj.stop_node(0)
    own_storj.stop_node(3)
    for store, bucket in buckets.items():
        with pytest.raises((StorageTimeout, Unavailable)):
            await bucket.get("x", tmp_path / f"{store}-none", size=SIZE, sha256=sha256)
        assert not (tmp_path / f"{store}-none").exists()
        await bucket.aclose()
