"""What goes over the wire to an S3, and what its answers become."""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from fednode.errors import (
    ConfigError,
    Conflict,
    Denied,
    FednodeError,
    Integrity,
    NotFound,
    QuotaExceeded,
    StorageError,
    StorageTimeout,
    Throttled,
    Unavailable,
)
from fednode.storage.credentials import CredentialsFile
from fednode.storage.remote import RemoteBucket
from fednode.storage.retry import Deadlines, RetryPolicy
from fednode.storage.s3 import S3Wire
from fednode.storage.settings import S3Settings
from fednode.types import Digest

from .http_stub import Answer, Asked, Says, certificates, forward, stub
from .services import Service

KEY = "alice/000001/signal.cbor"
BODY = bytes(range(256)) * 5000
CANARY = "CANARYsecretCANARYsecretCANARYsecret1234"
ONCE = RetryPolicy(attempts=1)


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    path = tmp_path / "s3.toml"
    path.touch(mode=0o600)
    path.write_text(f'access_key_id = "AKIDCANARY"\nsecret_access_key = "{CANARY}"\nsession_token = "TOKENCANARY"\n')
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(BODY)
    return path


OPENED: list[S3Wire] = []


@pytest.fixture(autouse=True)
async def closed_afterwards() -> AsyncIterator[None]:
    yield
    while OPENED:
        await OPENED.pop().aclose()


def wire(url: str, credentials: Path, *, ca_file: Path | None = None, allow_plain: bool = False) -> S3Wire:
    settings = S3Settings("bucket", credentials, url, ca_file=ca_file, allow_plain=allow_plain)
    OPENED.append(S3Wire(settings, CredentialsFile(credentials)))
    return OPENED[-1]


def bucket(url: str, credentials: Path, policy: RetryPolicy = ONCE, call_s: float = 20.0) -> RemoteBucket:
    return RemoteBucket(wire(url, credentials), deadlines=Deadlines(call_s), policy=policy)


def error_body(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{CANARY}</Message></Error>".encode()


async def test_a_put_over_tls_is_whole_signed_and_without_trailer(
    tmp_path: Path, credentials: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "anothers")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    monkeypatch.setenv("AWS_UNSIGNED_PAYLOAD", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    authority, pair = certificates(tmp_path)
    with stub(lambda _: Answer(200, headers={"ETag": '"1"'}), pair) as server:
        await wire(server.url, credentials, ca_file=authority).upload(KEY, source, len(BODY), None)
        with pytest.raises(Unavailable, match="authority"):
            await wire(server.url, credentials).upload(KEY, source, len(BODY), None)
    (request,) = server.asked
    assert (request.method, request.path, request.body) == ("PUT", f"/bucket/{KEY}", BODY)
    assert request.headers["content-length"] == str(len(BODY))
    assert request.headers["if-none-match"] == "*"
    assert request.headers["x-amz-content-sha256"] == hashlib.sha256(BODY).hexdigest()
    assert request.headers["x-amz-security-token"] == "TOKENCANARY"
    assert request.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDCANARY/")
    assert not {"transfer-encoding", "content-encoding", "trailer", "x-amz-trailer"} & set(request.headers)
    assert not [name for name in request.headers if "checksum" in name]
    assert CANARY not in str(request.headers)


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://s3.example.org", "http://127.0.0.2.example.org", "http://192.168.0.9:9000", "ftp://127.0.0.1", "",
        "s3.example.org", "https://", "https://a:99999", "https://user:pass@s3.example.org", "https://s3.example.org?x=1",
        "https://a..b", "https://[::1",
    ],
)  # fmt: skip
def test_endpoints_that_cannot_do(credentials: Path, endpoint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        wire(endpoint, credentials)
    assert caught.value.hint
    assert "pass@" not in caught.value.message


def test_plain_http_stays_here_unless_allowed(credentials: Path) -> None:
    for endpoint in ("http://127.0.0.1:9000", "http://localhost", "http://[::1]:7777", "https://gateway.example.org"):
        assert endpoint in repr(wire(endpoint, credentials))
    wire("http://s3.example.org", credentials, allow_plain=True)


def test_an_authority_that_is_none(credentials: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        wire("https://s3.example.org", credentials, ca_file=tmp_path / "absent")
    with pytest.raises(ConfigError, match="PEM"):
        wire("https://s3.example.org", credentials, ca_file=credentials)


ANSWERS: list[tuple[int, str, type[StorageError]]] = [
    (400, "InvalidAccessKeyId", Denied),
    (400, "EntityTooLarge", StorageError),
    (400, "ExpiredToken", Denied),
    (400, "RequestTimeout", Unavailable),
    (400, "IncompleteBody", Unavailable),
    (400, "XAmzContentSHA256Mismatch", Unavailable),
    (401, "", Denied),
    (403, "AccessDenied", Denied),
    (403, "SignatureDoesNotMatch", Denied),
    (403, "QuotaExceeded", QuotaExceeded),
    (404, "NoSuchBucket", Unavailable),
    (409, "ConditionalRequestConflict", Unavailable),
    (412, "PreconditionFailed", Conflict),
    (429, "TooManyRequests", Throttled),
    (500, "InternalError", Unavailable),
    (502, "", Unavailable),
    (503, "ServiceUnavailable", Unavailable),
    (503, "SlowDown", Throttled),
    (507, "", QuotaExceeded),
    (507, "QuotaExceeded", QuotaExceeded),
]


@pytest.mark.parametrize(("status", "code", "expected"), ANSWERS)
async def test_a_refused_put(
    credentials: Path, source: Path, status: int, code: str, expected: type[StorageError]
) -> None:
    answer = Answer(status, error_body(code) if code else b"")
    with stub(lambda _: answer) as server, pytest.raises(StorageError) as caught:
        await wire(server.url, credentials).upload(KEY, source, len(BODY), None)
    assert type(caught.value) is expected
    assert len(server.asked) == 1  # no retries of the client's own
    shows_no_secret(caught.value)


@pytest.mark.parametrize(("status", "code", "expected"), [a for a in ANSWERS if a[0] not in (409, 412)])
async def test_a_refused_look(
    credentials: Path, tmp_path: Path, status: int, code: str, expected: type[StorageError]
) -> None:
    async def listed(store: S3Wire) -> object:
        return [entry async for entry in store.list("alice/")]

    calls: list[Callable[[S3Wire], Awaitable[object]]] = [
        lambda store: store.download(KEY, tmp_path / "t", limit=10, progress=None),
        listed,
        lambda store: store.delete(KEY),
        lambda store: store.stat(KEY),  # the answer to HEAD has no body, and the reason is told all the same
    ]
    with stub(lambda _: Answer(status, error_body(code) if code else b"")) as server:
        for call in calls:
            with pytest.raises(StorageError) as caught:
                await call(wire(server.url, credentials))
            assert type(caught.value) is expected
            shows_no_secret(caught.value)


async def test_a_wrong_clock_is_named_at_the_first_call_of_a_put(credentials: Path) -> None:
    with stub(lambda _: Answer(403, error_body("RequestTimeTooSkewed"))) as server, pytest.raises(Denied) as caught:
        await wire(server.url, credentials).stat(KEY)
    assert "clock" in caught.value.hint


async def test_absent_is_told_from_no_bucket(credentials: Path, tmp_path: Path) -> None:
    for code, expected in (("NoSuchKey", NotFound), ("NoSuchBucket", Unavailable)):
        with stub(lambda _, code=code: Answer(404, error_body(code))) as server:
            with pytest.raises(expected):
                await wire(server.url, credentials).stat(KEY)
            with pytest.raises(expected):
                await wire(server.url, credentials).download(KEY, tmp_path / "t", limit=1, progress=None)


async def test_nobody_there(credentials: Path) -> None:
    for url in ("http://127.0.0.1:1", "https://nowhere.invalid", "https://bücher.invalid", "http://[::1]:1"):
        with pytest.raises(Unavailable) as caught:
            await wire(url, credentials).stat(KEY)
        shows_no_secret(caught.value)


def shows_no_secret(error: BaseException | None) -> None:
    """Neither does what is shown of the error, nor of what it came from."""
    while error is not None and not error.__suppress_context__:
        assert "CANARY" not in f"{error!r} {error}"
        error = error.__cause__ or error.__context__
    assert error is None or "CANARY" not in f"{error!r} {error}"


async def test_a_server_that_never_answers(credentials: Path, source: Path, tmp_path: Path) -> None:
    with stub(lambda _: None) as server:
        store = bucket(server.url, credentials, call_s=0.2)
        for work in (store.head(KEY), store.put(KEY, source), store.read(KEY, limit=1), store.delete(KEY)):
            with pytest.raises(StorageTimeout, match="longer than"):
                await work
        with pytest.raises(StorageTimeout):
            _ = [entry async for entry in store.list()]


async def test_a_body_without_end_stops_at_one_byte_more(credentials: Path, tmp_path: Path) -> None:
    def endless(write: Callable[[bytes], object]) -> None:
        while True:
            write(b"x" * 65536)

    sized = {"Content-Length": str(1 << 40), "ETag": '"1"', "Last-Modified": "Thu, 01 Jan 1970 00:00:00 GMT"}
    with stub(lambda _: Answer(200, headers=sized, more=endless)) as server:
        with pytest.raises(Integrity) as caught:
            await bucket(server.url, credentials).get(KEY, tmp_path / "t", size=100_000, sha256=Digest("0" * 64))
        assert caught.value.kind == "size"
        assert Path(caught.value.kept).stat().st_size == 100_001


@pytest.mark.parametrize(
    ("status", "expected"), [(400, StorageError), (403, Denied), (404, NotFound), (429, Throttled), (500, Unavailable)]
)
async def test_a_refusal_that_claims_to_be_huge_is_read_in_part(
    credentials: Path, tmp_path: Path, status: int, expected: type[StorageError]
) -> None:
    """A peer's store may answer what it likes; memory for all of it is not even asked for."""

    def endless(write: Callable[[bytes], object]) -> None:
        while True:
            write(b"x" * 65536)

    huge = Answer(status, headers={"Content-Length": str(1 << 45)}, more=endless)
    with stub(lambda asked: huge if asked.method == "GET" else Answer(404)) as server:
        store = bucket(server.url, credentials)
        for work in (store.get(KEY, tmp_path / "t", size=1, sha256=Digest("0" * 64)), store.head(KEY)):
            with pytest.raises(expected):
                await work
    assert list(tmp_path.glob("*t*.kept")) == []


async def test_a_get_over_tls_is_signed_and_meets_the_right_store_only(tmp_path: Path, credentials: Path) -> None:
    authority, pair = certificates(tmp_path)
    with stub(lambda _: Answer(200, b"adapter"), pair) as server:
        await wire(server.url, credentials, ca_file=authority).download(KEY, tmp_path / "t", limit=5, progress=None)
        assert (tmp_path / "t").read_bytes() == b"adapt"
        with pytest.raises(Unavailable, match="authority") as caught:
            await wire(server.url, credentials).download(KEY, tmp_path / "u", limit=5, progress=None)
        shows_no_secret(caught.value)
    (request,) = server.asked
    assert request.path == f"/bucket/{KEY}"
    assert request.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDCANARY/")
    assert request.headers["x-amz-security-token"] == "TOKENCANARY"
    assert request.headers["accept-encoding"] == "identity"
    assert CANARY not in f"{request.path} {request.headers}"


@pytest.mark.parametrize("proxy", ["socks://user:CANARY@127.0.0.1:1", "socks5://user:CANARY@127.0.0.1:1"])
async def test_a_proxy_that_cannot_be_used(
    tmp_path: Path, credentials: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with stub(lambda _: Answer(200, b"adapter")) as server, pytest.raises(FednodeError) as caught:
        await wire(server.url, credentials).download(KEY, tmp_path / "t", limit=5, progress=None)
    assert isinstance(caught.value, ConfigError | Unavailable)
    shows_no_secret(caught.value)


async def test_a_get_that_is_sent_elsewhere_does_not_go_there(tmp_path: Path, credentials: Path) -> None:
    with stub(lambda _: Answer(200, b"another's")) as other:
        there = {"Location": f"{other.url}/bucket/{KEY}"}
        with stub(lambda _: Answer(307, headers=there)) as server, pytest.raises(StorageError, match="elsewhere"):
            await wire(server.url, credentials).download(KEY, tmp_path / "t", limit=5, progress=None)
    assert other.asked == []


async def test_a_body_of_untold_length_is_not_believed(credentials: Path, tmp_path: Path) -> None:
    """Its end is that of the connection: cut short it would look like another object, which is a peer's fault."""
    answer = Answer(200, b"x" * 10, {"Connection": "close"}, more=lambda _: None)
    with stub(lambda _: answer) as server, pytest.raises(Unavailable, match="how long"):
        await bucket(server.url, credentials).get(KEY, tmp_path / "t", size=1000, sha256=Digest("0" * 64))


async def test_a_listing_without_end(credentials: Path) -> None:
    keys = "".join(
        f"<Contents><Key>{number:06d}{'k' * 1000}</Key><LastModified>2026-01-01T00:00:00Z</LastModified>"
        f'<ETag>"1"</ETag><Size>{10**18 - 1}</Size></Contents>'
        for number in range(1000)
    )

    def says(request: Asked) -> Answer:
        more = "<IsTruncated>true</IsTruncated><NextContinuationToken>{}</NextContinuationToken>"
        return Answer(200, f"<ListBucketResult>{more.format(len(server.asked))}{keys}</ListBucketResult>".encode())

    with stub(says) as server, pytest.raises(StorageError, match="longer than 64 MiB"):
        _ = [entry async for entry in bucket(server.url, credentials).list()]
    assert 50 < len(server.asked) < 100


async def test_a_body_that_breaks_off(credentials: Path, tmp_path: Path) -> None:
    sized = {"Content-Length": "1000", "ETag": '"1"', "Last-Modified": "Thu, 01 Jan 1970 00:00:00 GMT"}
    sized["Connection"] = "close"
    with stub(lambda _: Answer(200, b"x" * 10, sized, more=lambda _: None)) as server, pytest.raises(Unavailable):
        await bucket(server.url, credentials).get(KEY, tmp_path / "t", size=1000, sha256=Digest("0" * 64))
    assert list(tmp_path.glob("*t*.kept")) == []


async def test_a_put_cancelled_in_the_middle_is_cut_off(credentials: Path, source: Path) -> None:
    arrived = threading.Event()

    def says(request: Asked) -> Answer | None:
        if request.method == "PUT":
            arrived.set()
            return None
        return Answer(404, error_body("NoSuchKey"))

    with stub(says) as server:
        put = asyncio.create_task(bucket(server.url, credentials).put(KEY, source))
        await asyncio.to_thread(arrived.wait, 30)
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put
    assert [request.method for request in server.asked] == ["HEAD", "GET", "PUT"]


def faulty(behind: str, chance: random.Random, written: Counter[str]) -> Says:
    """A fifth of all requests fail: refused, or done and the answer lost. Counts the writes that the store took."""
    lock = threading.Lock()

    def says(request: Asked) -> Answer | None:
        with lock:
            fault = chance.choice(["500", "503", "done, 500", "done, silence"]) if chance.random() < 0.2 else ""
        if fault == "500":
            return Answer(500, error_body("InternalError"))
        if fault == "503":
            return Answer(503, error_body("SlowDown"))
        answer = forward(behind, request)
        if request.method == "PUT" and answer.status == 200:
            with lock:
                written[request.path] += 1
        if fault == "done, 500":
            return Answer(500, error_body("InternalError"))
        return None if fault == "done, silence" else answer

    return says


@pytest.mark.process
async def test_a_fifth_of_everything_fails(moto_s3: Service, credentials: Path, tmp_path: Path) -> None:
    """Every put ends as created or verified, every get whole; no object is written twice."""
    written: Counter[str] = Counter()
    bodies = {f"faults/{number:06d}/object": bytes([number]) * 30_000 for number in range(12)}
    policy = RetryPolicy(attempts=12, first_s=0.01, most_s=0.05)
    with stub(faulty(moto_s3.endpoint, random.Random(7), written)) as server:
        store = bucket(server.url, credentials, policy, call_s=1.0)

        async def one(key: str, body: bytes) -> None:
            path, target = tmp_path / f"s{body[0]}", tmp_path / f"t{body[0]}"
            path.write_bytes(body)
            await store.put(key, path)
            await store.put(key, path)
            await store.get(key, target, size=len(body), sha256=Digest(hashlib.sha256(body).hexdigest()))
            path.write_bytes(b"other")
            with pytest.raises(Conflict):
                await store.put(key, path)

        await asyncio.gather(*(one(*item) for item in bodies.items()))
        assert {entry.key async for entry in store.list("faults/")} == set(bodies)
    assert written == {f"/bucket/{key}": 1 for key in bodies}
