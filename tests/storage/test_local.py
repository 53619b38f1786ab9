"""The folder bucket against hostile folders, full disks and missing permissions."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fednode.errors import Conflict, Denied, NotFound, QuotaExceeded, StorageError, StorageTimeout, Unavailable
from fednode.storage.local import LocalBucket
from fednode.storage.retry import Deadlines
from fednode.types import Digest

DIGEST = Digest(hashlib.sha256(b"secret").hexdigest())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "bucket"
    (path / "p").mkdir(parents=True)
    return path


async def refused(folder: Path, key: str, target: Path, kind: type[StorageError] = Unavailable) -> None:
    bucket = LocalBucket(folder)
    with pytest.raises(kind):
        await bucket.get(key, target, size=6, sha256=DIGEST)
    with pytest.raises(kind):
        await bucket.read(key, limit=100)
    with pytest.raises(kind):
        await bucket.head(key)
    assert not target.exists()


async def test_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / "p" / "x").symlink_to(tmp_path / "secret")
    await refused(folder, "p/x", tmp_path / "t")


async def test_a_linked_folder_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x").write_bytes(b"secret")
    (folder / "q").symlink_to(tmp_path / "elsewhere")
    await refused(folder, "q/x", tmp_path / "t")


async def test_a_pipe_does_not_block(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(folder / "p" / "x")
    await refused(folder, "p/x", tmp_path / "t")


async def test_a_socket_and_a_folder_are_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "p" / "dir").mkdir()
    await refused(folder, "p/dir", tmp_path / "t")
    monkeypatch.chdir(folder / "p")  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("sock")
        await refused(folder, "p/sock", tmp_path / "t")


async def test_a_file_in_place_of_a_folder(folder: Path, tmp_path: Path) -> None:
    (folder / "file").write_bytes(b"x")
    await refused(folder, "file/x", tmp_path / "t")


async def test_a_missing_folder_is_tried_again_and_a_missing_key_is_not_found(folder: Path, tmp_path: Path) -> None:
    await refused(tmp_path / "nowhere", "p/x", tmp_path / "t", Unavailable)
    await refused(folder, "p/x", tmp_path / "t", NotFound)
    assert Unavailable.retryable
    assert NotFound.retryable


async def test_a_sparse_giant_is_read_to_its_bound_only(folder: Path, tmp_path: Path) -> None:
    with (folder / "p" / "x").open("wb") as handle:
        handle.truncate(1 << 40)
    bucket = LocalBucket(folder)
    with pytest.raises(StorageError):
        await bucket.get("p/x", tmp_path / "t", size=1000, sha256=DIGEST)
    assert (tmp_path / "t.kept").stat().st_size == 1001
    with pytest.raises(StorageError):
        await bucket.read("p/x", limit=1000)


@pytest.mark.parametrize("kind", ["folder", "link", "dangling"])
async def test_put_never_writes_through_what_stands_there(folder: Path, tmp_path: Path, kind: str) -> None:
    source, victim = tmp_path / "source", tmp_path / "victim"
    source.write_bytes(b"secret")
    if kind == "folder":
        (folder / "p" / "x").mkdir()
    else:
        if kind == "link":
            victim.write_bytes(b"secret")
        (folder / "p" / "x").symlink_to(victim)
    with pytest.raises(Conflict):
        await LocalBucket(folder).put("p/x", source)
    assert victim.exists() == (kind == "link")


async def test_put_makes_folders_in_the_bucket_and_leaves_no_temporary_file(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"secret")
    await LocalBucket(folder).put("a/b/c", source)
    assert [path.name for path in (folder / "a" / "b").iterdir()] == ["c"]


@pytest.mark.parametrize("kind", ["missing", "file"])
async def test_put_never_makes_the_bucket_itself(tmp_path: Path, kind: str) -> None:
    """What is not mounted must not look like a new bucket."""
    source, folder = tmp_path / "source", tmp_path / "mount" / "bucket"
    source.write_bytes(b"secret")
    if kind == "file":
        folder.parent.mkdir()
        folder.touch()
    with pytest.raises(Unavailable, match="no such folder") as caught:
        await LocalBucket(folder).put("a/b/c", source)
    assert "mounted" in caught.value.hint
    assert not folder.is_dir()


async def test_an_unreadable_source_says_so(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="missing cannot be read"):
        await LocalBucket(folder).put("p/x", tmp_path / "missing")
    assert list((folder / "p").iterdir()) == []


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, QuotaExceeded),
        (errno.EDQUOT, QuotaExceeded),
        (errno.EIO, Unavailable),
        (errno.EROFS, Denied),
        (errno.EACCES, Denied),
        (errno.EBADMSG, StorageError),
    ],
)
@pytest.mark.parametrize("call", ["fsync", "link"])
async def test_failing_disk_while_putting(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[StorageError], call: str
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"secret")

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(kind) as caught:
            await LocalBucket(folder).put("p/x", source)
    assert type(caught.value) is kind
    assert list((folder / "p").iterdir()) == []
    await LocalBucket(folder).put("p/x", source)
    assert await LocalBucket(folder).read("p/x", limit=6) == b"secret"


async def test_a_folder_that_hangs_meets_the_deadline_and_harms_no_other(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a mount does whose server is gone: every look into it waits."""
    (folder / "p" / "x").write_bytes(b"secret")
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    back, opened = threading.Event(), os.open

    def hangs(path: str | Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == folder:
            back.wait()
        return opened(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", hangs)
    hasty = LocalBucket(folder, Deadlines(0.1, slowest=1 << 40))
    try:
        for _ in range(10):
            with pytest.raises(StorageTimeout, match="longer than"):
                await hasty.get("p/x", tmp_path / "t", size=6, sha256=DIGEST)
        assert await LocalBucket(other).read("p/x", limit=6) == b"secret"
    finally:
        back.set()
    assert await LocalBucket(folder).read("p/x", limit=6) == b"secret"


async def test_a_listing_beside_whoever_writes_and_deletes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that are gone again when they are looked at: a writer's temporary file, an object of the janitor."""
    (folder / "p" / "x").write_bytes(b"secret")
    (folder / "going").mkdir()
    walk = os.walk

    def racing(top: Path, onerror: Callable[[OSError], object]) -> Iterator[tuple[str, list[str], list[str]]]:
        for path, folders, names in walk(top, onerror=onerror):
            yield path, folders, [*names, ".x.1234", "deleted"]
            if "going" in folders:
                (folder / "going").rmdir()

    monkeypatch.setattr(os, "walk", racing)
    assert ("p/x", 6) in [entry async for entry in LocalBucket(folder).list()]


async def test_failing_own_disk_while_getting_names_the_target(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "p" / "x").write_bytes(b"secret")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target = tmp_path / "cache" / "t"
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(QuotaExceeded, match=str(target)):
            await LocalBucket(folder).get("p/x", target, size=6, sha256=DIGEST)
    assert list(target.parent.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0 or sys.platform == "win32", reason="root reads everything")
async def test_no_permission_is_denied(folder: Path, tmp_path: Path) -> None:
    (folder / "p" / "x").write_bytes(b"secret")
    (folder / "p" / "x").chmod(0)
    await refused(folder, "p/x", tmp_path / "t", Denied)


async def test_no_descriptor_is_leaked(folder: Path, tmp_path: Path) -> None:
    (folder / "p" / "dir").mkdir()
    (folder / "p" / "x").write_bytes(b"secret")
    bucket = LocalBucket(folder)
    before = len(os.listdir("/proc/self/fd"))
    for key in ("p/dir", "p/x", "p/none", "none/x", "p/x/below"):
        for _ in range(3):
            try:
                await bucket.read(key, limit=3)
            except StorageError:
                continue
    assert len(os.listdir("/proc/self/fd")) == before
