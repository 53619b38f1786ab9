"""What every backend promises (`fednode.node.ports.Bucket`), over every store in `stores.STORES`."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import resource
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fednode.errors import Conflict, Integrity, NotFound, QuotaExceeded, StorageError
from fednode.storage.keys import MAX_KEY, segments
from fednode.storage.local import LocalBucket
from fednode.types import Digest

from .stores import STORES, Box, Makers

pytestmark = pytest.mark.process

DATA = bytes(range(256)) * 9000
"""More than two chunks of any backend."""


def digest(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())


@pytest.fixture(params=STORES)
async def box(request: pytest.FixtureRequest, makers: Makers) -> AsyncIterator[Box]:
    made = STORES[request.param](makers)
    yield made
    await made.bucket.aclose()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return file_of(tmp_path / "source", DATA)


def file_of(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


async def test_what_is_put_comes_back(box: Box, source: Path, tmp_path: Path) -> None:
    await box.bucket.put(box.key, source)
    target = tmp_path / "cache" / "object"
    await box.bucket.get(box.key, target, size=len(DATA), sha256=digest(DATA))
    assert target.read_bytes() == DATA
    assert await box.bucket.read(box.key, limit=len(DATA)) == DATA
    assert await box.bucket.head(box.key) == len(DATA)
    assert [path.name for path in target.parent.iterdir()] == ["object"]
    await box.bucket.put(box.key, source)  # again is harmless
    assert await box.names() == [box.key]


async def test_progress_that_fails_harms_no_transfer(box: Box, source: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    def fails(moved: int, _: int) -> None:
        seen.append(moved)
        raise BrokenPipeError

    await box.bucket.put(box.key, source, progress=fails)
    await box.bucket.get(box.key, tmp_path / "t", size=len(DATA), sha256=digest(DATA), progress=fails)
    assert (tmp_path / "t").read_bytes() == DATA
    assert len(seen) >= 2


@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 1 << 20])
async def test_sizes(box: Box, tmp_path: Path, size: int) -> None:
    await comes_back(box, tmp_path, size)


@pytest.mark.long
@pytest.mark.parametrize("size", [24 << 20, (64 << 20) - 1, (64 << 20) + 1, 200 << 20])
async def test_big_sizes(box: Box, tmp_path: Path, size: int) -> None:
    """Storj cuts objects into segments of 64 MiB; our own library, of 24 MiB."""
    await comes_back(box, tmp_path, size)


async def comes_back(box: Box, folder: Path, size: int) -> None:
    data = (hashlib.sha256(str(size).encode()).digest() * (size // 32 + 1))[:size]
    seen: list[tuple[int, int]] = []
    source, target = file_of(folder / "source", data), folder / "target"

    def progress(moved: int, whole: int) -> None:
        seen.append((moved, whole))

    await box.bucket.put(box.key, source, progress=progress)
    await box.bucket.get(box.key, target, size=size, sha256=digest(data), progress=progress)
    assert target.read_bytes() == data
    assert await box.bucket.head(box.key) == size
    assert all(0 <= moved <= max(whole, size) <= size + 1 for moved, whole in seen)
    assert not size or (size, size) in seen


OTHERS = {
    "empty": b"",
    "shorter": DATA[:-1],
    "longer": DATA + b"x",
    "first_other": b"\xff" + DATA[1:],
    "last_other": DATA[:-1] + b"\x00",
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
async def test_other_bytes_are_a_conflict_and_stay(box: Box, tmp_path: Path, source: Path, other: bytes) -> None:
    await box.bucket.put(box.key, file_of(tmp_path / "first", other))
    with pytest.raises(Conflict, match=r"signal\.cbor"):
        await box.bucket.put(box.key, source)
    assert await box.bucket.read(box.key, limit=len(DATA) + 1) == other


async def test_puts_at_once_have_one_winner(box: Box, tmp_path: Path) -> None:
    files = [file_of(tmp_path / f"source-{number}", bytes([number]) * 100_000) for number in range(8)]
    outcomes = await asyncio.gather(*(box.bucket.put(box.key, path) for path in files), return_exceptions=True)
    winners = [path for path, outcome in zip(files, outcomes, strict=True) if outcome is None]
    assert len(winners) == 1
    assert all(isinstance(outcome, Conflict) for outcome in outcomes if outcome is not None)
    assert await box.bucket.read(box.key, limit=100_000) == winners[0].read_bytes()


async def test_many_at_once(box: Box, tmp_path: Path) -> None:
    bodies = {f"{box.base}{number:06d}/object": bytes([number]) * 70_000 for number in range(16)}
    files = {key: file_of(tmp_path / f"many-{body[0]}", body) for key, body in bodies.items()}
    await asyncio.gather(*(box.bucket.put(key, path) for key, path in files.items()))

    async def get(key: str, body: bytes) -> None:
        target = tmp_path / f"got-{body[0]}"
        await box.bucket.get(key, target, size=len(body), sha256=digest(body))
        assert target.read_bytes() == body

    await asyncio.gather(*(get(*item) for item in bodies.items()))
    assert sorted(await box.names()) == sorted(bodies)


async def test_absent_keys(box: Box, source: Path, tmp_path: Path) -> None:
    await box.bucket.put(box.key, source)
    absent = [f"{box.base}nothing", box.base.removesuffix("/"), "no-such/thing"]
    for key in absent:
        for work in (
            box.bucket.read(key, limit=10),
            box.bucket.head(key),
            box.bucket.get(key, tmp_path / "t", size=1, sha256=digest(b"")),
        ):
            with pytest.raises(StorageError) as caught:
                await work
            # A folder of the local store is no object: that may mend itself, as absence may.
            assert caught.value.retryable or box.leaves_partial
    with pytest.raises(NotFound):
        await box.bucket.read(f"{box.base}nothing", limit=10)
    with pytest.raises(StorageError):
        await box.bucket.head(f"{box.key}/below")
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    ("size", "kind", "kept"), [(len(DATA) - 1, "size", len(DATA)), (len(DATA) + 1, "size", len(DATA)), (7, "size", 8)]
)
async def test_wrong_size_keeps_at_most_one_byte_more(
    box: Box, source: Path, tmp_path: Path, size: int, kind: str, kept: int
) -> None:
    await box.bucket.put(box.key, source)
    target = tmp_path / "t"
    with pytest.raises(Integrity) as caught:
        await box.bucket.get(box.key, target, size=size, sha256=digest(DATA))
    assert caught.value.kind == kind
    assert Path(caught.value.kept).read_bytes() == DATA[:kept]
    assert not target.exists()


async def test_wrong_digest_keeps_the_bytes(box: Box, source: Path, tmp_path: Path) -> None:
    await box.bucket.put(box.key, source)
    target = file_of(tmp_path / "t", b"older")
    with pytest.raises(Integrity) as caught:
        await box.bucket.get(box.key, target, size=len(DATA), sha256=Digest("0" * 64))
    assert caught.value.kind == "digest"
    assert Path(caught.value.kept).read_bytes() == DATA
    assert target.read_bytes() == b"older"


async def test_read_is_bounded(box: Box, source: Path) -> None:
    await box.bucket.put(box.key, source)
    with pytest.raises(Integrity) as caught:
        await box.bucket.read(box.key, limit=len(DATA) - 1)
    assert caught.value.kind == "size"


@pytest.mark.parametrize("after", [0.0, 0.02, 0.1, 0.3])
async def test_an_interrupted_put_is_whole_or_not_there(box: Box, tmp_path: Path, after: float) -> None:
    data = DATA * 4
    source = file_of(tmp_path / "source", data)
    put = asyncio.create_task(box.bucket.put(box.key, source))
    await asyncio.sleep(after)
    put.cancel()
    await asyncio.gather(put, return_exceptions=True)
    # A store that had all of it may still be at work: the object can appear, but only whole.
    found = await box.names()
    assert found in ([], [box.key])
    if found:
        assert await box.bucket.head(box.key) == len(data)
    await box.bucket.put(box.key, source)
    await box.bucket.get(box.key, tmp_path / "t", size=len(data), sha256=digest(data))


async def test_an_interrupted_get_leaves_nothing(box: Box, source: Path, tmp_path: Path) -> None:
    await box.bucket.put(box.key, source)
    target = tmp_path / "cache" / "t"
    get = asyncio.create_task(box.bucket.get(box.key, target, size=len(DATA), sha256=digest(DATA)))
    await asyncio.sleep(0.02)
    get.cancel()
    await asyncio.gather(get, return_exceptions=True)
    # A thread that copies in the local store ends by itself a moment later; until then its file has a dot before it.
    found = [path for path in target.parent.glob("*") if not path.name.startswith(".")]
    assert [path.name for path in found] in ([], ["t"])
    assert all(path.read_bytes() == DATA for path in found)


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """No file grows beyond 1 MiB, of this process or of those that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_while_getting(box: Box, source: Path, tmp_path: Path) -> None:
    """It is told as such, leaves nothing behind, and the same call works when there is room again."""
    await box.bucket.put(box.key, source)
    await box.bucket.aclose()  # whatever process serves it is started anew
    target = tmp_path / "cache" / "t"
    with full_disk():
        with pytest.raises(QuotaExceeded):
            await box.bucket.get(box.key, target, size=len(DATA), sha256=digest(DATA))
        if not isinstance(box.bucket, LocalBucket):  # that needs no room to read or compare
            with pytest.raises(QuotaExceeded):
                await box.bucket.read(box.key, limit=len(DATA))
            with pytest.raises(QuotaExceeded):
                await box.bucket.put(box.key, source)
        await box.bucket.aclose()
    assert list(target.parent.iterdir()) == []
    await box.bucket.get(box.key, target, size=len(DATA), sha256=digest(DATA))
    assert target.read_bytes() == DATA


async def test_listing_200_keys(box: Box) -> None:
    keys = {f"{box.base}{number % 7:06d}/{number:03d}.x": b"x" * (number % 5) for number in range(200)}
    await box.seed(keys)
    found = [entry async for entry in box.bucket.list(box.base)]
    assert {entry.key: entry.size for entry in found} == {key: len(data) for key, data in keys.items()}
    assert len(found) == 200
    assert sorted(await box.names(f"{box.base}000003/")) == sorted(key for key in keys if "/000003/" in key)
    assert await box.names(f"{box.base}nothing/") == []
    assert set(keys) <= set(await box.names(""))


async def test_a_prefix_names_a_folder(box: Box) -> None:
    await box.seed({f"{box.base}ab/x": b"1", f"{box.base}abc/x": b"2"})
    assert await box.names(f"{box.base}ab/") == [f"{box.base}ab/x"]
    for prefix in (f"{box.base}ab", "/", "../", "a//"):
        with pytest.raises(StorageError):
            await box.names(prefix)


async def test_delete(box: Box, source: Path) -> None:
    other = f"{box.base}other"
    await box.seed({other: b"stays"})
    await box.bucket.put(box.key, source)
    await box.bucket.delete(box.key)
    await box.bucket.delete(box.key)
    with pytest.raises(NotFound):
        await box.bucket.head(box.key)
    assert await box.names() == [other]


BAD_KEYS = ["", "/", "/etc/passwd", "a//b", "a/", "../x", "a/../b", "a/./b", ".hidden", "a/.tmp", "A", "a b", "a\\b"]


async def test_unsafe_keys_are_refused(box: Box, source: Path, tmp_path: Path) -> None:
    for key in [*BAD_KEYS, "a\x00b", "a\nb", "a\n", "ä", "a" * 201, "a/" * 300 + "a"]:
        for work in (
            box.bucket.put(key, source),
            box.bucket.get(key, tmp_path / "t", size=1, sha256=digest(b"")),
            box.bucket.read(key, limit=1),
            box.bucket.head(key),
            box.bucket.delete(key),
        ):
            with pytest.raises(StorageError, match="bucket key"):
                await work


async def test_a_source_that_is_not_there(box: Box, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="absent"):
        await box.bucket.put(box.key, tmp_path / "absent")
    assert await box.names() == []


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
