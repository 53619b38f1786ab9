"""The uplink worker as a process: it hangs, crashes, is killed, gets old, and its parent dies; no secret is shown."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import cast

import pytest
import pytest_asyncio

from fednode.errors import ConfigError, Conflict, Denied, NotFound, QuotaExceeded, StorageError, Unavailable
from fednode.storage.remote import RemoteBucket
from fednode.storage.retry import Deadlines, RetryPolicy
from fednode.storage.uplink.access import Uplink
from fednode.storage.uplink.calls import Project
from fednode.storage.uplink.client import UplinkClient
from fednode.storage.uplink.failures import error_from_json, error_to_json
from fednode.storage.uplink.frames import Message
from fednode.storage.uplink.sharing import StorjSharer
from fednode.storage.uplink.wire import AT_ONCE, UplinkWire
from fednode.storage.uplink.worker import Call, Worker

from .uplink_support import GRANT, build_stub, grant_file, wire

pytestmark = pytest.mark.process
DATA = os.urandom(300_000)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_stub(tmp_path_factory.mktemp("stub"))


@pytest_asyncio.fixture
async def store(library: Path, tmp_path: Path) -> AsyncIterator[UplinkWire]:
    made = wire(library, grant_file(tmp_path))
    yield made
    await made.aclose()


@pytest_asyncio.fixture
async def client(library: Path) -> AsyncIterator[UplinkClient]:
    made = UplinkClient(library, recycle_after=3)
    yield made
    await made.aclose()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(DATA)
    return path


def pid_of(store: UplinkWire) -> int:
    found = store._shared.client().pid
    assert found is not None
    return found


def gone(pid: int) -> bool:
    """Whether the process ends within a minute."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 60)[0])
    finally:
        os.close(descriptor)


async def keys(store: UplinkWire, prefix: str) -> list[str]:
    return [entry.key async for entry in store.list(prefix)]


async def test_the_wire(store: UplinkWire, source: Path, tmp_path: Path) -> None:
    await store.upload("a/x", source, len(DATA), None)
    assert await store.stat("a/x") == len(DATA)
    target = tmp_path / "target"
    target.write_bytes(b"older and longer" * 100_000)
    await store.download("a/x", target, limit=len(DATA) + 1, progress=None)
    assert target.read_bytes() == DATA
    assert [(entry.key, entry.size) async for entry in store.list("a/")] == [("a/x", len(DATA))]
    await store.delete("a/x")
    await store.delete("a/x")
    with pytest.raises(NotFound, match="head of a/x"):
        await store.stat("a/x")


async def test_a_listing_of_many_pages(store: UplinkWire, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    for number in range(200):
        await store.upload(f"many/{number}", empty, 0, None)
    assert sorted(await keys(store, "many/")) == sorted(f"many/{number}" for number in range(200))
    with pytest.raises(Denied):
        await keys(store, "many/list-09/")


async def test_what_the_store_refuses(store: UplinkWire, source: Path, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="stands there"):
        await store.upload("a/begin-stands", source, len(DATA), None)
    with pytest.raises(Denied, match=r"grant\.toml"):
        await store.upload("a/begin-09", source, len(DATA), None)
    with pytest.raises(QuotaExceeded):
        await store.upload("a/commit-07", source, len(DATA), None)
    with pytest.raises(StorageError, match="changed"):
        await store.upload("a/x", source, len(DATA) - 1, None)
    with pytest.raises(StorageError, match="nowhere"):
        await store.upload("a/x", tmp_path / "nowhere", 1, None)
    assert await keys(store, "a/") == []


async def test_no_more_processes(client: UplinkClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuses(*_: object, **__: object) -> object:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr("asyncio.create_subprocess_exec", refuses)
        with pytest.raises(Unavailable, match="Too many open files"):
            await client.call({"op": "share"})
    assert "error" in await client.call({"op": "none"})


async def test_a_hung_call_ends_alone(store: UplinkWire, source: Path) -> None:
    """Another call in the same bucket goes on, in the same process."""
    other = asyncio.create_task(store.stat("stat-hang"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await store.upload("a/write-hang", source, len(DATA), None)
    worker = pid_of(store)
    assert not other.done()
    await store.upload("a/y", source, len(DATA), None)
    other.cancel()
    with pytest.raises(asyncio.CancelledError):
        await other
    assert pid_of(store) == worker
    assert await keys(store, "a/") == ["a/y"]


async def test_a_call_that_cannot_be_ended_ends_its_process(store: UplinkWire, source: Path) -> None:
    beside = asyncio.create_task(store.stat("stat-hang"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await store.upload("a/commit-stuck", source, len(DATA), None)
    with pytest.raises(Unavailable, match="SIGKILL"):
        await beside
    await store.upload("a/x", source, len(DATA), None)
    assert await keys(store, "a/") == ["a/x"]


@pytest.mark.parametrize("key", ["stat-crash", "stat-hang"])
async def test_a_dead_worker_is_started_again(store: UplinkWire, source: Path, key: str) -> None:
    await store.upload("a/x", source, len(DATA), None)
    first = pid_of(store)
    call = asyncio.create_task(store.stat(key))
    if key == "stat-hang":
        await asyncio.sleep(0)
        os.kill(first, signal.SIGKILL)
    with pytest.raises(Unavailable, match="SIG"):
        await call
    assert gone(first)
    assert await keys(store, "a/") == []
    assert pid_of(store) != first


async def test_the_bucket_tries_again_after_a_death(store: UplinkWire, source: Path, tmp_path: Path) -> None:
    bucket = RemoteBucket(store, policy=RetryPolicy(first_s=0.01))
    await bucket.put("a/x", source)
    os.kill(pid_of(store), signal.SIGKILL)
    await bucket.put("a/x", source)
    assert await bucket.read("a/x", limit=len(DATA)) == DATA


async def test_the_deadline_holds(store: UplinkWire, source: Path) -> None:
    bucket = RemoteBucket(store, deadlines=Deadlines(call_s=0.3, slowest=1 << 40), policy=RetryPolicy(attempts=1))
    with pytest.raises(StorageError, match="longer than"):
        await bucket.put("a/write-hang", source)
    assert await keys(store, "a/") == []


async def test_an_old_process_is_replaced_when_its_calls_are_done(client: UplinkClient) -> None:
    hung = asyncio.create_task(client.call({"op": "stat", "grant": GRANT, "bucket": "b", "key": "stat-hang"}))
    share = {"op": "delete", "grant": GRANT, "bucket": "b", "key": "x"}
    for _ in range(2):
        assert (await client.call(share))["ok"] == {}
    first = client.pid
    assert first is not None
    await client.call(share)
    assert client.pid != first
    assert Path(f"/proc/{first}").exists(), "a call is still going on in it"
    hung.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hung
    assert gone(first)


async def test_a_cancel_that_crosses_the_reply_ends_no_process(store: UplinkWire) -> None:
    """A deadline may pass in the moment in which the reply arrives: the worker knows the call no longer."""
    with pytest.raises(NotFound):
        await store.stat("x")
    first, process = pid_of(store), store._shared.client()._worker
    assert process is not None
    await process._cancel(1_000_000)
    assert process.idle
    assert pid_of(store) == first
    with pytest.raises(NotFound):
        await store.stat("x")


async def test_a_listing_without_end(library: Path, tmp_path: Path) -> None:
    class Endless:
        def list(self, bucket: str, prefix: str) -> Iterator[tuple[str, int]]:
            return itertools.repeat(("k" * 10_000, 1))

    pages: list[Mapping[str, object]] = []
    worker = Worker(cast(Uplink, None), pages.append)
    with pytest.raises(StorageError, match="longer than"):
        worker._list(cast(Project, Endless()), {"id": 1, "bucket": "bucket", "prefix": ""}, Call())
    assert 50 < len(pages) < 200
    told = error_from_json(error_to_json(StorageError("too long", hint="mend it")), "listing", None, None)
    assert (type(told), told.message, told.hint) == (StorageError, "listing: too long", "mend it")


@pytest.mark.parametrize("name", ["", "ab", "A-bucket", "a/b", "bucket\0evil"])
def test_names_that_are_no_bucket(library: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="bucket name"):
        wire(library, grant_file(tmp_path), name)


async def test_progress_that_fails_harms_no_call(
    store: UplinkWire, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A listing's page is told in the same way; the reply after it still arrives."""
    client = store._shared.client()

    def fails(message: Message) -> None:
        raise RuntimeError("told")

    listing = {"op": "list", "grant": GRANT, "bucket": "b", "prefix": ""}
    assert (await client.call(listing, fails))["ok"] == {}
    assert "progress failed" in caplog.text


async def test_more_calls_than_turns_wait(store: UplinkWire) -> None:
    hung = [asyncio.create_task(store.stat(f"stat-hang/{number}")) for number in range(AT_ONCE)]
    late = asyncio.create_task(store.stat("x"))
    await asyncio.wait([late], timeout=0.5)
    assert not late.done()
    hung[0].cancel()
    with pytest.raises(NotFound):
        await late
    for task in hung:
        task.cancel()
    ends = await asyncio.gather(*hung, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ends)


async def test_buckets_share_a_worker_and_the_last_one_ends_it(library: Path, tmp_path: Path) -> None:
    one, two = (wire(library, grant_file(tmp_path, name=name)) for name in ("one.toml", "two.toml"))
    for each in (one, two):
        with pytest.raises(NotFound):
            await each.stat("x")
    worker = pid_of(one)
    assert pid_of(two) == worker
    await one.aclose()
    with pytest.raises(NotFound):
        await two.stat("x")
    assert pid_of(two) == worker
    await two.aclose()
    assert gone(worker)
    await two.aclose()


async def test_a_new_grant_counts_from_the_next_call(library: Path, tmp_path: Path, source: Path) -> None:
    credentials = grant_file(tmp_path)
    store = wire(library, credentials)
    with pytest.raises(NotFound):
        await store.stat("x")
    fresh = grant_file(tmp_path, "1NfEF", "new.toml").path
    fresh.replace(credentials.path)
    with pytest.raises(Exception, match="not an access grant"):
        await store.stat("x")
    await store.aclose()


async def test_no_secret_where_others_can_see_it(
    store: UplinkWire, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(Unavailable) as caught:
        await store.stat("stat-02")
    shown = f"{caught.value!r} {caught.value.hint} {store!r} {store.__dict__!r}"
    worker = Path(f"/proc/{pid_of(store)}")
    shown += (worker / "cmdline").read_text() + (worker / "environ").read_text()
    os.kill(pid_of(store), signal.SIGKILL)
    with pytest.raises(Unavailable):
        await store.stat("x")
    assert "1NfEFS" not in shown + caplog.text


async def test_a_library_that_is_none(tmp_path: Path) -> None:
    bad = tmp_path / "bad.so"
    bad.write_bytes(b"no library")
    store = wire(bad, grant_file(tmp_path))
    for _ in range(2):
        with pytest.raises(ConfigError, match="cannot be loaded"):
            await store.stat("x")
    await store.aclose()


async def test_sharing(library: Path, tmp_path: Path) -> None:
    sharer = StorjSharer(grant_file(tmp_path), library)
    assert await sharer.request_access("satellite", "key", "passphrase") == "grant-root"
    await sharer.create_bucket("bucket")
    shared = await sharer.share("bucket", "a/", read=True, list=True, not_before=10.5, not_after=20.9)
    assert shared == f"{GRANT}|1010|11|20|1|bucket|a/"
    await sharer.revoke(shared)
    with pytest.raises(Denied):
        await sharer.revoke("grant-revoke-09")
    with pytest.raises(Denied):
        await sharer.request_access("denied", "key", "passphrase")
    with pytest.raises(Exception, match="`/` at the end"):
        await sharer.share("bucket", "a", read=True)
    with pytest.raises(Exception, match="api key"):
        await sharer.request_access("satellite", "bad", "passphrase")
    await sharer.aclose()


def test_the_worker_ends_with_its_parent(library: Path) -> None:
    """The parent is killed while a call is stuck in the library."""
    code = (
        "import asyncio, sys\nfrom pathlib import Path\n"
        "from fednode.storage.uplink.client import UplinkClient\n"
        "async def main():\n"
        f"    client = UplinkClient(Path({str(library)!r}))\n"
        f"    call = {{'grant': {GRANT!r}, 'bucket': 'b', 'key': 'x-stuck'}}\n"
        "    await client.call({**call, 'op': 'delete'})\n"
        "    stuck = asyncio.create_task(client.call({**call, 'op': 'stat', 'key': 'stat-stuck'}))\n"
        "    await client.call({**call, 'op': 'delete'})\n"
        "    print(client.pid, flush=True)\n"
        "    await stuck\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-P", "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert Path(f"/proc/{worker}").exists()
        parent.kill()
    assert gone(worker)
