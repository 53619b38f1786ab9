"""What every backend promises (`fednode.node.ports.Bucket`); a new backend adds one line to `BACKENDS`."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fednode.errors import Conflict, Integrity, NotFound, StorageError
from fednode.node.ports import Bucket
from fednode.storage.keys import MAX_KEY, segments
from fednode.storage.local import LocalBucket
from fednode.types import Digest


def _local(folder: Path) -> Bucket:
    (folder / "bucket").mkdir()
    return LocalBucket(folder / "bucket")


BACKENDS: dict[str, Callable[[Path], Bucket]] = {"local": _local}
KEY = "alice/0123456789abcdef/000001/signal.cbor"
DATA = bytes(range(256)) * 9000
"""More than two chunks of any backend."""
DIGEST = Digest(hashlib.sha256(DATA).hexdigest())


@pytest.fixture(params=BACKENDS)
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    return BACKENDS[request.param](tmp_path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(DATA)
    return path


async def test_what_is_put_comes_back(bucket: Bucket, source: Path, tmp_path: Path) -> None:
    await bucket.put(KEY, source)
    target = tmp_path / "cache" / "object"
    await bucket.get(KEY, target, size=len(DATA), sha256=DIGEST)
    assert target.read_bytes() == DATA
    assert await bucket.read(KEY, limit=len(DATA)) == DATA
    assert await bucket.head(KEY) == len(DATA)
    assert [path.name for path in target.parent.iterdir()] == ["object"]
    await bucket.aclose()


async def test_put_again_is_harmless(bucket: Bucket, source: Path) -> None:
    await bucket.put(KEY, source)
    await bucket.put(KEY, source)
    assert await bucket.read(KEY, limit=len(DATA)) == DATA


@pytest.mark.parametrize("other", [b"", DATA[:-1], DATA + b"x", b"\xff" + DATA[1:], DATA[:-1] + b"\x00"])
async def test_other_bytes_are_a_conflict_and_stay(bucket: Bucket, tmp_path: Path, source: Path, other: bytes) -> None:
    first = tmp_path / "first"
    first.write_bytes(other)
    await bucket.put(KEY, first)
    with pytest.raises(Conflict, match=r"signal\.cbor"):
        await bucket.put(KEY, source)
    assert await bucket.read(KEY, limit=len(DATA) + 1) == other


async def test_puts_at_once_have_one_winner(bucket: Bucket, tmp_path: Path) -> None:
    files = [tmp_path / f"source-{number}" for number in range(8)]
    for number, path in enumerate(files):
        path.write_bytes(bytes([number]) * 100_000)
    outcomes = await asyncio.gather(*(bucket.put(KEY, path) for path in files), return_exceptions=True)
    winners = [path for path, outcome in zip(files, outcomes, strict=True) if outcome is None]
    assert len(winners) == 1
    assert all(isinstance(outcome, Conflict) for outcome in outcomes if outcome is not None)
    assert await bucket.read(KEY, limit=100_000) == winners[0].read_bytes()


async def test_an_empty_object(bucket: Bucket, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    await bucket.put(KEY, empty)
    assert await bucket.read(KEY, limit=0) == b""
    await bucket.get(KEY, tmp_path / "t", size=0, sha256=Digest(hashlib.sha256().hexdigest()))
    assert (tmp_path / "t").read_bytes() == b""


async def test_absent_keys(bucket: Bucket, source: Path, tmp_path: Path) -> None:
    await bucket.put(KEY, source)
    for key in ("alice/nothing", KEY + "/below", "bob"):
        with pytest.raises((NotFound, StorageError)) as caught:
            await bucket.read(key, limit=10)
        assert caught.value.retryable
        with pytest.raises((NotFound, StorageError)):
            await bucket.head(key)
        with pytest.raises((NotFound, StorageError)):
            await bucket.get(key, tmp_path / "t", size=1, sha256=DIGEST)
    with pytest.raises(NotFound):
        await bucket.read("alice/nothing", limit=10)
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    ("size", "kind", "kept"), [(len(DATA) - 1, "size", len(DATA)), (len(DATA) + 1, "size", len(DATA)), (7, "size", 8)]
)
async def test_wrong_size_keeps_at_most_one_byte_more(
    bucket: Bucket, source: Path, tmp_path: Path, size: int, kind: str, kept: int
) -> None:
    await bucket.put(KEY, source)
    target = tmp_path / "t"
    with pytest.raises(Integrity) as caught:
        await bucket.get(KEY, target, size=size, sha256=DIGEST)
    assert caught.value.kind == kind
    assert Path(caught.value.kept).read_bytes() == DATA[:kept]
    assert not target.exists()


async def test_wrong_digest_keeps_the_bytes(bucket: Bucket, source: Path, tmp_path: Path) -> None:
    await bucket.put(KEY, source)
    target = tmp_path / "t"
    target.write_bytes(b"older")
    with pytest.raises(Integrity) as caught:
        await bucket.get(KEY, target, size=len(DATA), sha256=Digest("0" * 64))
    assert caught.value.kind == "digest"
    assert Path(caught.value.kept).read_bytes() == DATA
    assert target.read_bytes() == b"older"


async def test_read_is_bounded(bucket: Bucket, source: Path) -> None:
    await bucket.put(KEY, source)
    with pytest.raises(Integrity) as caught:
        await bucket.read(KEY, limit=len(DATA) - 1)
    assert caught.value.kind == "size"


BAD_KEYS = ["", "/", "/etc/passwd", "a//b", "a/", "../x", "a/../b", "a/./b", ".hidden", "a/.tmp", "A", "a b", "a\\b"]


@pytest.mark.parametrize("key", [*BAD_KEYS, "a\x00b", "a\nb", "a\n", "ä", "a" * 201, "a/" * 300 + "a"])
async def test_unsafe_keys_are_refused(bucket: Bucket, source: Path, tmp_path: Path, key: str) -> None:
    for work in (
        bucket.put(key, source),
        bucket.get(key, tmp_path / "t", size=1, sha256=DIGEST),
        bucket.read(key, limit=1),
        bucket.head(key),
    ):
        with pytest.raises(StorageError, match="bucket key"):
            await work


@given(st.text(max_size=40))
def test_a_key_is_refused_or_stays_below_the_folder(key: str) -> None:
    try:
        parts = segments(key)
    except StorageError:
        return
    root = Path("/root-of-bucket")
    assert root.joinpath(*parts).resolve().is_relative_to(root)
    assert "/".join(parts) == key
    assert len(key) <= MAX_KEY
