"""Connections to an S3 are kept, found dead without an error, and go by the proxy of the environment."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import string
from collections import Counter
from pathlib import Path

import pytest

from fednode.durable import write_atomic
from fednode.errors import ConfigError, Denied, NotFound, StorageError, Unavailable
from fednode.storage.credentials import CredentialsFile
from fednode.storage.keys import segments
from fednode.storage.remote import RemoteBucket
from fednode.storage.s3 import S3Wire
from fednode.storage.s3_http import proxy_of_environment
from fednode.storage.settings import S3Settings
from fednode.types import Digest

from .http_stub import Answer, Asked, certificates, stub
from .raw_server import Connection, raw
from .services import Service
from .stores import Makers, new_base, opened, s3_settings

KEY = "alice/000001/signal.cbor"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    path = tmp_path / "s3.toml"
    path.touch(mode=0o600)
    path.write_text('access_key_id = "AKIDONE"\nsecret_access_key = "secret"\nsession_token = "TOKENCANARY"\n')
    return path


PAGE = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"


def polite(connection: Connection) -> None:
    """Answers one request after the other, as an S3 with one object does."""
    while head := connection.request():
        said = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        connection.body(int(said.get(b"Content-Length", b"0")))
        if head.startswith(b"DELETE"):
            connection.say(b"HTTP/1.1 204 No Content\r\n\r\n")
            continue
        body = b"" if head.startswith(b"PUT") else PAGE if b"list-type" in head else b"adapter"
        connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        if not head.startswith(b"HEAD"):
            connection.say(body)


@pytest.mark.parametrize("secure", [False, True])
async def test_one_connection_for_many_calls(credentials: Path, tmp_path: Path, secure: bool) -> None:
    authority, pair = certificates(tmp_path)
    source = tmp_path / "source"
    source.write_bytes(b"x" * (3 << 20))
    with raw(polite, pair if secure else None) as server:
        async with opened(server.url, credentials, authority) as wire:
            for _ in range(3):
                assert await wire.stat(KEY) == 7
                await wire.upload(KEY, source, 3 << 20, None)
                await wire.download(KEY, tmp_path / "t", limit=8, progress=None)
                assert [entry async for entry in wire.list("")] == []
                await wire.delete(KEY)
        assert server.connections == 1
    assert (tmp_path / "t").read_bytes() == b"adapter"


async def test_a_connection_that_the_server_closed_meanwhile(credentials: Path) -> None:
    def once(connection: Connection) -> None:
        connection.request()
        connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n")

    with raw(once) as server:
        async with opened(server.url, credentials) as wire:
            for _ in range(5):
                assert await wire.stat(KEY) == 7
                await server.closed()
        assert server.connections == 5


def test_a_loop_after_the_other(credentials: Path) -> None:
    """Once it was closed in the first."""
    with raw(polite) as server:
        wire = S3Wire(S3Settings("bucket", credentials, server.url), CredentialsFile(credentials))

        async def size() -> int:
            try:
                return await wire.stat(KEY)
            finally:
                await wire.aclose()

        assert [asyncio.run(size()) for _ in range(3)] == [7, 7, 7]
        assert server.connections == 3


async def test_closed_twice_and_used_again(credentials: Path) -> None:
    with raw(polite) as server:
        async with opened(server.url, credentials) as wire:
            await wire.aclose()
            assert await wire.stat(KEY) == 7
            await wire.aclose()
            await wire.aclose()
            assert await wire.stat(KEY) == 7


async def test_credentials_replaced_between_calls(credentials: Path) -> None:
    with stub(lambda _: Answer(200, b"adapter")) as server:
        async with opened(server.url, credentials) as wire:
            await wire.stat(KEY)
            write_atomic(credentials, b'access_key_id = "AKIDTWO"\nsecret_access_key = "other"\n', mode=0o600)
            await wire.stat(KEY)
    first, second = (request.headers for request in server.asked)
    assert "Credential=AKIDONE/" in first["authorization"]
    assert first["x-amz-security-token"] == "TOKENCANARY"
    assert "Credential=AKIDTWO/" in second["authorization"]
    assert "x-amz-security-token" not in second


async def test_what_is_logged_holds_no_token(credentials: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with stub(lambda _: Answer(200, b"adapter")) as server:
        async with opened(server.url, credentials) as wire:
            await wire.stat(KEY)
    assert "CANARY" not in caplog.text


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (2 << 20) + 1])
async def test_a_file_that_is_not_of_its_size(credentials: Path, tmp_path: Path, size: int) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * size)
    with stub(lambda _: Answer(200)) as server:
        async with opened(server.url, credentials) as wire:
            for other in (size + 1, size - 1):
                with pytest.raises(StorageError, match="changed"):
                    await wire.upload(KEY, source, other, None)
            assert server.asked == []
            seen: list[tuple[int, int]] = []
            await wire.upload(KEY, source, size, lambda moved, whole: seen.append((moved, whole)))
            (request,) = server.asked
            assert request.body == source.read_bytes()
            assert request.headers["x-amz-content-sha256"] == hashlib.sha256(request.body).hexdigest()
            assert seen == [*((at, size) for at in range(1 << 20, size, 1 << 20)), (size, size)]


@pytest.mark.parametrize("change", [1, -1])
@pytest.mark.parametrize("size", [4 << 20, (4 << 20) + 5])
async def test_a_file_that_changes_while_it_is_sent(credentials: Path, tmp_path: Path, size: int, change: int) -> None:
    """The store never has as many bytes as were announced: nothing becomes visible."""
    source = tmp_path / "source"
    source.write_bytes(b"x" * size)
    taken: Counter[str] = Counter()

    def counting(connection: Connection) -> None:
        connection.request()
        taken["bytes"] += len(connection.left)
        while part := connection.socket.recv(65536):
            taken["bytes"] += len(part)

    def changing(moved: int, _: int) -> None:
        if moved == 1 << 20:
            with source.open("r+b") as handle:
                handle.truncate(size + change)

    with raw(counting) as server:
        async with opened(server.url, credentials) as wire:
            with pytest.raises(StorageError, match="it changed while it was read"):
                await wire.upload(KEY, source, size, changing)
    assert taken["bytes"] < size


async def test_a_store_below_a_path(credentials: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"adapter")
    with stub(lambda _: Answer(200, PAGE)) as server:
        async with opened(f"{server.url}/s3 store/", credentials) as wire:
            await wire.upload(KEY, source, 7, None)
            assert [entry async for entry in wire.list("alice/")] == []
    put, listing = server.asked
    assert put.path == f"/s3%20store/bucket/{KEY}"
    assert listing.path == ("/s3%20store/bucket?encoding-type=url&list-type=2&max-keys=1000&prefix=alice%2F")


CHARACTERS = string.ascii_lowercase + string.digits + "_-."
ODD_KEYS = [f"{CHARACTERS}/_.{CHARACTERS[::-1]}/--/__/a..b", "-", "_/-._", f"{'k' * 200}/{'l' * 200}/{'m' * 80}"]


@pytest.mark.process
@pytest.mark.parametrize("name", ["moto_s3", "served_s3"])
async def test_keys_of_every_character(name: str, makers: Makers, tmp_path: Path) -> None:
    """Signed as they are sent (`rclone serve s3` checks signatures), and listed as they were put."""
    settings = s3_settings(makers, makers.service(name))
    base, source = new_base(), tmp_path / "source"
    async with opened(settings.endpoint, settings.credentials) as wire:
        bucket = RemoteBucket(wire)
        for number, key in enumerate(ODD_KEYS):
            segments(base + key)
            source.write_bytes(bytes([number]))
            await bucket.put(base + key, source)
        assert sorted([entry async for entry in bucket.list(base)]) == sorted((base + key, 1) for key in ODD_KEYS)
        for number, key in enumerate(ODD_KEYS):
            digest = Digest(hashlib.sha256(bytes([number])).hexdigest())
            await bucket.get(base + key, tmp_path / "t", size=1, sha256=digest)
            await bucket.delete(base + key)
            with pytest.raises(NotFound):
                await bucket.head(base + key)


@pytest.mark.process
async def test_a_listing_of_many_pages(moto_s3: Service, makers: Makers, tmp_path: Path) -> None:
    settings = s3_settings(makers, moto_s3)
    base, source = new_base(), tmp_path / "source"
    source.write_bytes(b"xy")
    gate = asyncio.Semaphore(8)
    async with opened(settings.endpoint, settings.credentials) as wire:

        async def put(number: int) -> None:
            async with gate:
                await wire.upload(f"{base}{number:06d}", source, 2, None)

        await asyncio.gather(*(put(number) for number in range(2100)))
        found = [entry async for entry in RemoteBucket(wire).list(base)]
    assert sorted(found) == [(f"{base}{number:06d}", 2) for number in range(2100)]


async def test_by_the_proxy_of_the_environment(credentials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stub(lambda _: Answer(200, b"adapter")) as proxy, stub(lambda _: Answer(200, b"direct")) as store:
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//user:p%40ss@"))
        async with opened(store.url, credentials) as wire:
            assert await wire.stat(KEY) == 7
        monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
        async with opened(store.url, credentials) as wire:
            assert await wire.stat(KEY) == 6
    (asked,) = proxy.asked
    assert asked.path == f"{store.url}/bucket/{KEY}"
    assert asked.headers["proxy-authorization"] == "Basic dXNlcjpwQHNz"
    assert len(store.asked) == 1
    assert "proxy-authorization" not in store.asked[0].headers


async def test_a_proxy_that_refuses(credentials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def says(_: Asked) -> Answer:
        return Answer(407, b"<Error/>")

    with stub(says) as proxy:
        monkeypatch.setenv("all_proxy", proxy.url.removeprefix("http://"))
        async with opened("https://s3.invalid", credentials) as wire:
            with pytest.raises(Unavailable):
                await wire.stat(KEY)
        async with opened("http://127.0.0.1:1", credentials) as wire:
            with pytest.raises(StorageError) as caught:
                await wire.stat(KEY)
    assert not isinstance(caught.value, Denied | NotFound)


@pytest.mark.parametrize(
    ("scheme", "said", "proxy"),
    [
        ("https", {}, None),
        ("https", {"http": "http://a:1"}, None),
        ("https", {"https": "http://a:1", "all": "http://b:1"}, "http://a:1"),
        ("http", {"https": "http://a:1", "all": "b:1"}, "http://b:1"),
        ("https", {"all": "http://b:1", "no": "x, example.ORG"}, None),
        ("https", {"all": "http://b:1", "no": "s3.example.org:8443"}, "http://b:1"),
        ("https", {"all": "http://b:1", "no": "s3.example.org:443"}, None),
        ("https", {"all": "http://b:1", "no": "*"}, None),
        ("https", {"all": "http://b:1", "no": "ample.org"}, "http://b:1"),
    ],
)
def test_which_proxy(scheme: str, said: dict[str, str], proxy: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in said.items():
        monkeypatch.setenv(f"{name}_proxy", value)
    found = proxy_of_environment(scheme, f"s3.example.org:{443 if scheme == 'https' else 80}")
    assert (str(found).rstrip("/") if found else None) == proxy


@pytest.mark.parametrize("proxy", ["socks5://user:SECRET@a:1", "http://", "http://a:SECRET", "ftp://a"])
def test_a_proxy_that_cannot_be(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", proxy)
    with pytest.raises(ConfigError, match="ALL_PROXY") as caught:
        proxy_of_environment("https", "s3.example.org:443")
    assert "SECRET" not in str(caught.value)
