"""Hostile objects: every byte of a bucket is a peer's to choose (protocol.md sections 3.6 and 5)."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle  # noqa: TID251  # an attacker may use it
import struct
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_asyncio

from fednode.node.protocol.facts import Fetched

from . import federation as f
from . import verdicts
from .conftest import Record
from .mallory import Mallory

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("quick_fetches")]
Forge = Callable[[bytes], bytes]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def good(round_one: f.Federation, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Mallory's honest object of round 1."""
    found = round_one.copy(tmp_path_factory.mktemp("good") / "f")
    async with found.serving(), Mallory.at_work(found.site("mallory")) as mallory:
        return await mallory.honest_object()


def header(data: bytes) -> dict[str, object]:
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])


def with_header(data: bytes, text: bytes) -> bytes:
    """The object with another header of the same length, so that its size stays as agreed."""
    length = int.from_bytes(data[:8], "little")
    assert len(text) <= length, "the forged header must not be longer"
    return data[:8] + text.ljust(length) + data[8 + length :]


def replaced(old: str, new: str) -> Forge:
    def forge(data: bytes) -> bytes:
        length = int.from_bytes(data[:8], "little")
        text = data[8 : 8 + length]
        assert old.encode() in text
        return with_header(data, text.replace(old.encode(), new.encode(), 1).rstrip())

    return forge


def metadata(name: str, value: str) -> Forge:
    def forge(data: bytes) -> bytes:
        known = header(data)
        assert isinstance(known["__metadata__"], dict)
        known["__metadata__"][name] = value
        return with_header(data, json.dumps(known, sort_keys=True, separators=(",", ":")).encode())

    return forge


def code(value: int) -> Forge:
    def forge(data: bytes) -> bytes:
        at = 8 + int.from_bytes(data[:8], "little")
        return data[:at] + struct.pack("b", value) + data[at + 1 :]

    return forge


def zero_block(data: bytes) -> bytes:
    """The scale of the first block is 0, its codes are not."""
    at = 8 + int.from_bytes(data[:8], "little")
    size = header(data)["q"]["shape"][0]  # type: ignore[index]
    return data[:at] + b"\x01" + data[at + 1 : at + size] + b"\0" + data[at + size + 1 :]


def a_pickle(data: bytes) -> bytes:
    """Would make a file when loaded."""

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, ("touch /tmp/fednode-was-tricked",)

    return pickle.dumps(Trap()).ljust(len(data), b"\0")


def a_zip(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"\0" * 100_000)
    return buffer.getvalue().ljust(len(data), b"\0")


def duplicate_key(data: bytes) -> bytes:
    text = data[8 : 8 + int.from_bytes(data[:8], "little")].rstrip()
    return with_header(
        data, text.replace(b'"phase":"B"', b'"phase":"A","phase":"B"').replace(b'"fmt":"fednode/1",', b"")
    )


FORGED: dict[str, tuple[Forge, str]] = {
    "schema of another adapter": (metadata("schema", "ab" * 32), "schema"),
    "dtype other than agreed": (replaced('"dtype":"I8"', '"dtype":"U8"'), "header"),
    "shape other than agreed": (replaced('"shape":[256]', '"shape":[128]'), "header"),
    "phase of the other factor": (metadata("phase", "A"), "phase"),
    "codec other than agreed": (metadata("codec", "i4"), "codec"),
    "run of another federation": (metadata("run", "cd" * 16), "run"),
    "round before": (metadata("round", "0"), "round"),
    "round to come": (metadata("round", "2"), "round"),
    "base of another state": (metadata("base", "ef" * 32), "base"),
    "party is another": (metadata("party", "alice"), "party"),
    "code -128": (code(-128), "code"),
    "codes in a zero block": (zero_block, "scale"),
    "header with a key twice": (duplicate_key, "header"),
    "header with overlapping tensors": (replaced('"data_offsets":[256,260]', '"data_offsets":[0,4]'), "header"),
    "header padded with tabs": (lambda d: d.replace(b"}} ", b"}}\t", 1), "header"),
    "header length of 100 MB": (lambda d: (100 << 20).to_bytes(8, "little") + d[8:], "header"),
    "header that nests 200 deep": (lambda d: with_header(d, b"[" * 200 + b"]" * 200), "header"),
    "a pickle in its place": (a_pickle, "header"),
    "a zip in its place": (a_zip, "header"),
}


@pytest.mark.parametrize("name", FORGED)
async def test_forged_bytes_that_she_signed_for(one: f.Federation, good: bytes, record: Record, name: str) -> None:
    forge, rule = FORGED[name]
    data = forge(good)
    assert len(data) == len(good)
    assert data != good
    async with one.attacked() as (mallory, running):
        await mallory.attack(data)
        await verdicts.fault(one, running, record, name, f"object-{rule}", proves="mallory signed")
        assert not os.path.exists("/tmp/fednode-was-tricked")
        for daemon in running:
            (kept,) = daemon.site.home.evidence.glob("*.object")
            assert kept.read_bytes() == data


@pytest.mark.parametrize("change", [-1, 1, 100 << 20])
async def test_a_signed_size_that_is_not_the_agreed_one(
    one: f.Federation, good: bytes, record: Record, change: int
) -> None:
    async with one.attacked() as (mallory, running):
        await mallory.attack(good, size=len(good) + change)
        await verdicts.fault(
            one, running, record, f"signed size {change:+}", "object-size", proves="the agreement fixes"
        )


@pytest.mark.parametrize(
    ("name", "forge", "kind"),
    [
        ("wrong digest", lambda d: d[:-1] + bytes([d[-1] ^ 1]), "digest"),
        ("empty file", lambda d: b"", "size"),
        ("one byte too short", lambda d: d[:-1], "size"),
        ("one byte too long", lambda d: d + b"\0", "size"),
    ],
)
async def test_other_bytes_than_signed_are_a_fault_after_three_fetches(
    one: f.Federation, good: bytes, record: Record, name: str, forge: Forge, kind: str
) -> None:
    async with one.attacked() as (mallory, running):
        mallory.store(1, forge(good), digest=hashlib.sha256(good).hexdigest())
        await mallory.confirm(mallory.signal(mallory.content(good)))
        await verdicts.fault(one, running, record, name, f"object-{kind}", proves="are not those")


async def test_an_endless_file_is_read_to_size_plus_one(one: f.Federation, good: bytes, record: Record) -> None:
    """A terabyte of holes: nobody reads, keeps or copies more than one byte beyond the agreed size."""
    async with one.attacked() as (mallory, running):
        name = mallory.store(1, b"", digest=hashlib.sha256(good).hexdigest())
        os.truncate(mallory.path(1, name), 1 << 40)
        await mallory.confirm(mallory.signal(mallory.content(good)))
        await verdicts.fault(
            one, running, record, "endless: a sparse file of 1 TB", "object-size", proves="are not those"
        )
        for daemon in running:
            kept = [*daemon.site.home.evidence.glob("*.object"), *daemon.site.folder.objects.glob("*.kept")]
            assert {path.stat().st_size for path in kept} == {len(good) + 1}


async def test_a_file_that_grows_while_it_is_read(one: f.Federation, good: bytes, record: Record) -> None:
    stop = threading.Event()

    def grow(path: str) -> None:
        with open(path, "ab", buffering=0) as handle:
            while not stop.is_set() and handle.tell() < 1 << 28:
                handle.write(b"\0" * 4096)

    async with one.attacked() as (mallory, running):
        name = mallory.store(1, good + b"\0", digest=hashlib.sha256(good).hexdigest())
        writer = threading.Thread(target=grow, args=(str(mallory.path(1, name)),))
        writer.start()
        try:
            await mallory.confirm(mallory.signal(mallory.content(good)))
            await verdicts.fault(one, running, record, "endless: a growing file", "object-size", proves="are not those")
        finally:
            stop.set()
            writer.join()


def fifo(path: str) -> None:
    os.mkfifo(path)


def link(path: str) -> None:
    os.symlink("/etc/passwd", path)


def link_to_the_good_bytes(path: str) -> None:
    os.rename(path + ".good", path + ".hidden")
    os.symlink(path + ".hidden", path)


def device(path: str) -> None:
    os.symlink("/dev/zero", path)


def folder(path: str) -> None:
    os.mkdir(path)


@pytest.mark.parametrize("place", [fifo, link, link_to_the_good_bytes, device, folder], ids=lambda x: x.__name__)
async def test_what_is_no_plain_file_is_waited_for(
    one: f.Federation, good: bytes, record: Record, place: Callable[[str], None]
) -> None:
    """Unreachable is not a fault: the daemons say why and go on when the object lies there."""
    async with one.attacked() as (mallory, running):
        path = mallory.path(1, hashlib.sha256(good).hexdigest())
        path.parent.mkdir(parents=True, exist_ok=True)
        if place is link_to_the_good_bytes:
            path.with_name(path.name + ".good").write_bytes(good)
        place(str(path))
        await mallory.confirm(mallory.signal(mallory.content(good)))
        for daemon in running:
            await daemon.said("is no plain file")
            assert not daemon.task.done()
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        mallory.store(1, good)
        await verdicts.goes_on(
            running, record, f"in its place: {place.__name__}", "waited for, goes on with the object"
        )


async def test_a_missing_object_is_waited_for(one: f.Federation, good: bytes, record: Record) -> None:
    async with one.attacked() as (mallory, running):
        await mallory.confirm(mallory.signal(mallory.content(good)))
        for daemon in running:
            await daemon.said("Fetch failed and is tried again")
            assert "there is no" in daemon.talk
            assert one.status(daemon.site.rules.me)["waiting_for"] == ["mallory"]
        mallory.store(1, good)
        await verdicts.goes_on(running, record, "missing object", "waited for, goes on with the object")


@pytest.mark.parametrize("deleted", [True, False])
async def test_an_object_replaced_or_deleted_after_the_signal(
    one: f.Federation, good: bytes, record: Record, deleted: bool
) -> None:
    """The signal is final and the object was there; only then the honest daemons look."""
    async with one.attacked(honest=()) as (mallory, _):
        await mallory.attack(good)
        path = mallory.path(1, hashlib.sha256(good).hexdigest())
        path.unlink()
        if not deleted:
            path.write_bytes(bytes(len(good)))
        running = one.start(*f.HONEST)
        if not deleted:
            await verdicts.fault(
                one, running, record, "replaced after the signal", "object-digest", proves="are not those"
            )
            return
        for daemon in running:
            await daemon.said("there is no")
        mallory.store(1, good)
        await verdicts.goes_on(running, record, "deleted after the signal", "waited for, goes on with the object")


async def test_replaced_after_everybody_fetched_it(one: f.Federation, good: bytes, record: Record) -> None:
    """What was verified once lies in the own cache: later changes in the bucket change nothing."""
    async with one.attacked() as (mallory, running):
        await mallory.attack(good)
        for daemon in running:
            await daemon.until(
                lambda d=daemon: any(x.party == "mallory" for x in d.ear.facts if isinstance(x, Fetched))
            )
        mallory.path(1, hashlib.sha256(good).hexdigest()).write_bytes(b"changed my mind")
        await verdicts.goes_on(running, record, "replaced after it was fetched", "no effect")


async def test_on_fault_close_pays_everybody_out(
    closing: f.Federation, record: Record, tmp_path: Path, secrets_stay: None
) -> None:
    found = closing.copy(tmp_path / "f")
    async with found.attacked() as (mallory, running):
        good = await mallory.honest_object()
        await mallory.attack(code(-128)(good))
        for daemon in running:
            error = await daemon.error()
            assert "mallory broke the protocol in round 1 (object-code)" in str(error)
            verdicts.proof(found, daemon, "object-code")
            assert daemon.state.paid is not None
            assert daemon.state.paid.verified
            assert sum(amount for _, amount in daemon.state.paid.paid) == 3 * 30_000_000
        record("code -128 with on_fault = close", "fault, head closed, exact payout")
