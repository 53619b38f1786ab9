"""A peer's store may answer what it likes: every call ends in one of our errors, in bounded memory."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fednode.errors import Denied, NotFound, StorageError, Throttled, Unavailable

from .http_stub import certificates
from .raw_server import Connection, Raw, raw
from .stores import opened

KEY = "alice/000001/signal.cbor"
BIG = 48 << 20
LIE = 10**18

CALLS = """
import asyncio, json, resource, sys
from pathlib import Path
from fednode.errors import StorageError
from fednode.storage.credentials import CredentialsFile
from fednode.storage.s3 import S3Wire
from fednode.storage.settings import S3Settings

url, credentials, source, target, most = sys.argv[1:]

async def listed(wire):
    return [entry async for entry in wire.list("alice/")]

async def main():
    wire = S3Wire(S3Settings("bucket", Path(credentials), url), CredentialsFile(Path(credentials)))
    size = Path(source).stat().st_size
    calls = {
        "HEAD": lambda: wire.stat("alice/x"),
        "GET": lambda: wire.download("alice/x", Path(target), limit=1000, progress=None),
        "PUT": lambda: wire.upload("alice/x", Path(source), size, None),
        "LIST": lambda: listed(wire),
        "DELETE": lambda: wire.delete("alice/x"),
    }
    said = {}
    for name, call in calls.items():
        try:
            found = await asyncio.wait_for(call(), 60)
            said[name] = "done" if found is None else str(found)
        except StorageError as error:
            said[name] = type(error).__name__
    await wire.aclose()
    print(json.dumps(said))

used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(most), used + int(most)))
asyncio.run(main())
"""


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    path = tmp_path / "s3.toml"
    path.touch(mode=0o600)
    path.write_text('access_key_id = "AKID"\nsecret_access_key = "secret"\n')
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"adapter" * (BIG // 7))
    return path


def answering(status: int, headers: str, body: Callable[[Connection], None]) -> Callable[[Connection], None]:
    def serve(connection: Connection) -> None:
        while head := connection.request():
            said = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
            connection.body(int(said.get(b"Content-Length", b"0")))
            connection.say(f"HTTP/1.1 {status} X\r\n{headers}\r\n\r\n".encode())
            if not head.startswith(b"HEAD"):
                body(connection)

    return serve


def five_calls(server: Raw, credentials: Path, folder: Path) -> dict[str, str]:
    """What they come to, in a process that can have 256 MiB more than it starts with."""
    source = folder / "small"
    source.write_bytes(b"x" * 100_000)
    words = [server.url, str(credentials), str(source), str(folder / "t"), str(256 << 20)]
    done = subprocess.run([sys.executable, "-P", "-c", CALLS, *words], capture_output=True, timeout=120, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, str] = json.loads(done.stdout)
    return found


def endless(connection: Connection) -> None:
    while True:
        connection.say(b"<x>" * 20_000)


def silence(connection: Connection) -> None:
    """Claims a body, says the beginning of one, and hangs up."""
    connection.say(b"<Error><Code>SlowDown</Code>")
    raise ConnectionAbortedError


@pytest.mark.parametrize(
    ("status", "errors"),
    [
        (400, ["StorageError"] * 5),
        (403, ["Denied"] * 5),
        (404, ["NotFound", "NotFound", "Unavailable", "Unavailable", "done"]),
        (500, ["Unavailable"] * 5),
        (200, ["Unavailable", "Unavailable", "done", "StorageError", "done"]),  # no length of 19 digits is believed
    ],
)
def test_endless_bodies_of_a_claimed_length(credentials: Path, tmp_path: Path, status: int, errors: list[str]) -> None:
    with raw(answering(status, f"Content-Length: {LIE}", endless)) as server:
        found = five_calls(server, credentials, tmp_path)
    assert found == dict(zip(("HEAD", "GET", "PUT", "LIST", "DELETE"), errors, strict=True))


@pytest.mark.parametrize("status", [200, 403])
def test_endless_bodies_in_chunks(credentials: Path, tmp_path: Path, status: int) -> None:
    def chunks(connection: Connection) -> None:
        while True:
            connection.say(b"10000\r\n" + b"x" * 65536 + b"\r\n")

    with raw(answering(status, "Transfer-Encoding: chunked", chunks)) as server:
        found = five_calls(server, credentials, tmp_path)
    if status == 200:
        assert found == {
            "HEAD": "Unavailable", "GET": "Unavailable", "PUT": "done", "LIST": "StorageError", "DELETE": "done",
        }  # fmt: skip
    else:
        assert set(found.values()) == {"Denied"}


def test_a_body_that_breaks_off_after_a_huge_claim(credentials: Path, tmp_path: Path) -> None:
    with raw(answering(503, f"Content-Length: {LIE}", silence)) as server:
        found = five_calls(server, credentials, tmp_path)
    assert set(found.values()) == {"Throttled"}
    with raw(answering(200, f"Content-Length: {LIE - 1}", silence)) as server:
        found = five_calls(server, credentials, tmp_path)
    assert found == {
        "HEAD": str(LIE - 1), "GET": "Unavailable", "PUT": "done", "LIST": "Unavailable", "DELETE": "done",
    }  # fmt: skip


@pytest.mark.parametrize("line", [b"X-More: x\r\n", b"x" * 65536])
def test_headers_without_end(credentials: Path, tmp_path: Path, line: bytes) -> None:
    def serve(connection: Connection) -> None:
        connection.request()
        connection.say(b"HTTP/1.1 200 OK\r\n")
        while True:
            connection.say(line)

    with raw(serve) as server:
        assert set(five_calls(server, credentials, tmp_path).values()) == {"Unavailable"}


@pytest.mark.parametrize(
    "said",
    [
        b"", b"\x00" * 100, b"SSH-2.0-OpenSSH_9.9\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n",
    ],
)  # fmt: skip
async def test_what_is_no_http(credentials: Path, said: bytes) -> None:
    def serve(connection: Connection) -> None:
        connection.request()
        connection.say(said)

    with raw(serve) as server:
        async with opened(server.url, credentials) as wire:
            for work in (wire.stat(KEY), wire.delete(KEY)):
                with pytest.raises(Unavailable):
                    await work
            with pytest.raises(Unavailable):
                _ = [entry async for entry in wire.list("")]


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x16\x03\x03\xff\xff" + b"\x00" * 70_000])
async def test_what_is_no_tls(credentials: Path, said: bytes) -> None:
    def serve(connection: Connection) -> None:
        connection.socket.recv(65536)
        connection.say(said)

    with raw(serve) as server:
        async with opened(server.url.replace("http:", "https:"), credentials) as wire:
            for work in (wire.stat(KEY), wire.delete(KEY)):
                with pytest.raises(Unavailable):
                    await work


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_nobody_is_followed(credentials: Path, tmp_path: Path, status: int) -> None:
    source = tmp_path / "small"
    source.write_bytes(b"x" * 100_000)

    def elsewhere(connection: Connection) -> None:
        connection.request()
        connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with raw(elsewhere) as other:
        with raw(answering(status, f"Location: {other.url}/x\r\nContent-Length: 0", lambda _: None)) as server:
            async with opened(server.url, credentials) as wire:
                for work in (
                    wire.stat(KEY),
                    wire.download(KEY, tmp_path / "t", limit=1, progress=None),
                    wire.upload(KEY, source, source.stat().st_size, None),
                    wire.delete(KEY),
                ):
                    with pytest.raises(StorageError, match="elsewhere"):
                        await work
                with pytest.raises(StorageError, match="elsewhere"):
                    _ = [entry async for entry in wire.list("")]
        assert other.connections == 0


SAID = b"<Error><Code>%b</Code></Error>"


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("hangs_up", [True, False])
@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [(403, b"AccessDenied", Denied), (503, b"SlowDown", Throttled), (404, b"NoSuchBucket", Unavailable)],
)
async def test_an_early_refusal(
    credentials: Path, source: Path, tmp_path: Path, secure: bool, hangs_up: bool, status: int, code: bytes,
    expected: type[StorageError],
) -> None:  # fmt: skip
    """The store takes the beginning of an upload, says no, and reads no further. It closes its side, or does not."""
    body = SAID % code
    authority, pair = certificates(tmp_path)
    over = threading.Event()

    def serve(connection: Connection) -> None:
        connection.request()
        connection.say(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)), body)
        if hangs_up:
            connection.socket.shutdown(socket.SHUT_WR)
        over.wait(60)

    with raw(serve, pair if secure else None) as server:
        async with opened(server.url, credentials, authority) as wire:
            with pytest.raises(StorageError) as caught:
                await wire.upload(KEY, source, source.stat().st_size, None)
        over.set()
    assert type(caught.value) is expected
    assert server.connections == 1


async def test_an_answer_before_the_end_is_no_success(credentials: Path, source: Path) -> None:
    def serve(connection: Connection) -> None:
        connection.request()
        connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        over.wait(60)

    over = threading.Event()
    with raw(serve) as server:
        async with opened(server.url, credentials) as wire:
            with pytest.raises(Unavailable, match="before it had it all"):
                await wire.upload(KEY, source, source.stat().st_size, None)
        over.set()


@pytest.mark.parametrize("secure", [False, True])
async def test_interim_answers_are_none(credentials: Path, source: Path, tmp_path: Path, secure: bool) -> None:
    """A store may say `100 Continue` unasked, and then `103`; the upload goes on."""
    size = source.stat().st_size
    authority, pair = certificates(tmp_path)

    def serve(connection: Connection) -> None:
        connection.request()
        connection.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.body(size // 2)
        connection.say(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        connection.body(size - size // 2)
        connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    seen: list[int] = []
    with raw(serve, pair if secure else None) as server:
        async with opened(server.url, credentials, authority) as wire:
            await wire.upload(KEY, source, size, lambda moved, _: seen.append(moved))
    assert seen == sorted(seen)
    assert len(seen) > 40
    assert seen[-1] == size


async def test_a_server_that_hangs_up_while_we_send(credentials: Path, source: Path) -> None:
    def serve(connection: Connection) -> None:
        connection.request()

    with raw(serve) as server:
        async with opened(server.url, credentials) as wire:
            with pytest.raises(Unavailable):
                await wire.upload(KEY, source, source.stat().st_size, None)


@pytest.mark.parametrize("secure", [False, True])
async def test_an_upload_that_is_given_up(credentials: Path, source: Path, tmp_path: Path, secure: bool) -> None:
    """The store takes the beginning and no more; at the deadline the connection ends, and the next call has its own."""
    authority, pair = certificates(tmp_path)
    over = threading.Event()

    def serve(connection: Connection) -> None:
        if connection.number == 1:
            connection.request()
            over.wait(60)
        else:
            polite(connection)

    polite = answering(404, "Content-Length: 0", lambda _: None)
    with raw(serve, pair if secure else None) as server:
        async with opened(server.url, credentials, authority) as wire:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await wire.upload(KEY, source, source.stat().st_size, None)
            over.set()
            await server.closed()
            with pytest.raises(NotFound):
                await wire.stat(KEY)
    assert server.connections == 2
    assert {task for task in asyncio.all_tasks() if not task.done()} == {asyncio.current_task()}


async def test_what_was_given_up_is_not_kept_for_ever(
    credentials: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over plain http a closed connection waits for its last bytes to be taken."""
    monkeypatch.setattr("fednode.storage.s3_http._UNTAKEN_MS", 300)
    over = threading.Event()

    def serve(connection: Connection) -> None:
        connection.request()
        over.wait(120)

    def sockets() -> int:
        return sum(
            os.readlink(each).startswith("socket:") for each in Path("/proc/self/fd").iterdir() if each.is_symlink()
        )

    with raw(serve) as server:
        async with opened(server.url, credentials) as wire:
            before = sockets()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await wire.upload(KEY, source, source.stat().st_size, None)

            def gone() -> None:
                until = time.monotonic() + 30
                while sockets() > before + 1:  # the server's own end of it
                    assert time.monotonic() < until
                    time.sleep(0.05)

            await asyncio.to_thread(gone)
        over.set()


async def test_pages_in_a_circle(credentials: Path) -> None:
    tokens = itertools.cycle(["one", "two"])

    def serve(connection: Connection) -> None:
        while connection.request():
            more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{next(tokens)}</NextContinuationToken>"
            page = f"<ListBucketResult>{more}</ListBucketResult>".encode()
            connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(page), page)

    with raw(serve) as server:
        async with opened(server.url, credentials) as wire:
            with pytest.raises(StorageError, match="in a circle"):
                _ = [entry async for entry in wire.list("")]
        assert server.connections == 1


async def test_keys_outside_the_prefix_are_not_given(credentials: Path) -> None:
    keys = ["alice/1", "bob/1", "alicex", "alice/2/3"]
    inner = "".join(f"<Contents><Key>{key}</Key><Size>1</Size></Contents>" for key in keys)
    page = f"<ListBucketResult><IsTruncated>false</IsTruncated>{inner}</ListBucketResult>".encode()
    with raw(answering(200, f"Content-Length: {len(page)}", lambda found: found.say(page))) as server:
        async with opened(server.url, credentials) as wire:
            assert [entry.key async for entry in wire.list("alice/")] == ["alice/1", "alice/2/3"]
