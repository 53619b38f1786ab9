"""Signed requests to an S3 store that may be hostile: nothing of an answer is held but what was asked for, whatever
length it claims. Nothing is followed, decoded or tried again; deadlines are RemoteBucket's, which knows the size."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, Protocol, cast
from urllib.parse import SplitResult, quote

import httpcore

from fednode.errors import ConfigError, Unavailable
from fednode.storage.credentials import Credentials
from fednode.storage.s3_connections import new_pool
from fednode.storage.s3_errors import no_connection

_CONNECT_S: Final = 10.0
_MOST_ERROR: Final = 64 << 10
"""Bytes of a refusal that are read: its code is among the first."""
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_BROKEN: Final = (
    httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, httpcore.ProxyError, ssl.SSLError
)  # fmt: skip


class _Request(Protocol):
    headers: Mapping[str, str]


class _Signer(Protocol):
    def add_auth(self, request: _Request) -> None: ...


# botocore has no types; these are the calls of it that we make. What it writes at level debug holds session tokens.
logging.getLogger("botocore.auth").setLevel(logging.INFO)
_auth = importlib.import_module("botocore.auth")
_awsrequest = importlib.import_module("botocore.awsrequest")
_keys = importlib.import_module("botocore.credentials")


def trusted(ca_file: Path | None) -> ssl.SSLContext:
    """The authorities of this machine, and the one in `ca_file` (PEM). ConfigError where that holds none."""
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except ssl.SSLError:
            raise ConfigError(f"ca_file {ca_file}: expected a certificate in PEM form") from None
        except OSError as error:
            raise ConfigError(f"ca_file {ca_file} cannot be read: {error.strerror}") from None
    return context


@dataclass(frozen=True, slots=True)
class Body:
    """What a request sends: `size` bytes, which `file` holds for the signature and `parts` gives for sending."""

    file: BinaryIO
    size: int
    parts: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `key`: of an object; empty: the bucket. `where`: what messages call it."""

    method: str
    key: str
    where: str
    query: str = ""
    """Percent-encoded, its names sorted."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: Body | None = None


class Answer:
    """Status and headers of an answer, its body still to be read."""

    def __init__(self, response: httpcore.Response, method: str) -> None:
        self.status = response.status
        self._response = response
        self._method = method
        self._begun = False

    def length(self, where: str) -> int:
        """Of the object that it brings or tells of, in bytes. Unavailable where that is not said: a body that broke
        off would look whole."""
        said = self._told()
        if not _LENGTH.fullmatch(said):
            raise Unavailable(f"{where}: the store does not say how long it is", hint="is a proxy in between?")
        return int(said)

    async def parts(self) -> AsyncGenerator[bytes]:
        """The body as it comes, in parts of at most 64 KiB; once."""
        self._begun = True
        async with contextlib.aclosing(cast(AsyncGenerator[bytes], self._response.aiter_stream())) as parts:
            async for part in parts:
                yield part

    async def beginning(self) -> str:
        """Of the body of a refusal. One that breaks off says what it said."""
        data = bytearray()
        with contextlib.suppress(*_BROKEN):
            async with contextlib.aclosing(self.parts()) as parts:
                async for part in parts:
                    data += part
                    if len(data) >= _MOST_ERROR:
                        break
        return data[:_MOST_ERROR].decode(errors="replace")

    async def over(self) -> None:
        """Come to the end of an answer that has no body, so that its connection can be used again."""
        if not self._begun and (self._method == "HEAD" or self.status == 204 or self._told() == "0"):
            with contextlib.suppress(*_BROKEN):
                async for _ in self.parts():
                    return

    def _told(self) -> str:
        said = (value for name, value in self._response.headers if name.lower() == b"content-length")
        return next(said, b"").decode("latin-1")


class S3Client:
    """Requests to one bucket, addressed by path. Connections are kept until `aclose`, for the loop that made them."""

    def __init__(self, endpoint: SplitResult, bucket: str, region: str, context: ssl.SSLContext) -> None:
        self._scheme = endpoint.scheme
        self._host = (endpoint.hostname or "").encode("idna").decode()
        self._port = endpoint.port or (443 if endpoint.scheme == "https" else 80)
        named = f"[{self._host}]" if ":" in self._host else self._host
        # The port is part of the signed name unless it is the scheme's own.
        standard = (self._scheme, self._port) in (("https", 443), ("http", 80))
        self._netloc = named if standard else f"{named}:{self._port}"
        self._bucket = f"{endpoint.path.rstrip('/')}/{bucket}"
        self._region = region
        self._context = context
        self._pool: tuple[asyncio.AbstractEventLoop, httpcore.AsyncConnectionPool] | None = None

    @contextlib.asynccontextmanager
    async def answered(self, call: Call, credentials: Credentials) -> AsyncGenerator[Answer]:
        """The answer to `call`, its body to be read inside the block; whatever is left of that drops the connection.

        Unavailable without connection, or where it breaks off inside the block. Errors of `call.body` pass through.
        """
        target = quote(f"{self._bucket}/{call.key}" if call.key else self._bucket, safe="/-_.~%")
        target += f"?{call.query}" if call.query else ""
        headers = await self._signed(call, f"{self._scheme}://{self._netloc}{target}", credentials)
        url = httpcore.URL(scheme=self._scheme, host=self._host, port=self._port, target=target)
        body = call.body.parts if call.body else None
        timeouts = {"timeout": {"connect": _CONNECT_S}}
        try:
            async with self._connections().stream(
                call.method, url, headers=list(headers.items()), content=body, extensions=timeouts
            ) as response:
                answer = Answer(response, call.method)
                yield answer
                await answer.over()
        except _BROKEN as error:
            # From None: the text of the cause holds what the store sent, and addresses.
            raise no_connection(call.where, str(error)) from None

    async def aclose(self) -> None:
        """Close what is open. Connections of a loop that is over went with it."""
        pool, self._pool = self._pool, None
        if pool is not None and pool[0] is asyncio.get_running_loop():
            await pool[1].aclose()

    def _connections(self) -> httpcore.AsyncConnectionPool:
        loop = asyncio.get_running_loop()
        if self._pool is None or self._pool[0] is not loop:
            self._pool = loop, new_pool(self._context, self._scheme, self._host, self._port)
        return self._pool[1]

    async def _signed(self, call: Call, url: str, credentials: Credentials) -> dict[str, str]:
        """All headers of the request. The signature covers what is sent, whole: no trailers, no unsigned bodies."""
        first = {"Host": self._netloc, **call.headers}
        said = (credentials.access_key_id, credentials.secret_access_key, credentials.session_token or None)

        def sign() -> dict[str, str]:
            # Without a checksum header of its own, botocore signs the sha256 of a body also over https.
            file = call.body.file if call.body else None
            request: _Request = _awsrequest.AWSRequest(method=call.method, url=url, headers=first, data=file)
            signer: _Signer = _auth.S3SigV4Auth(_keys.Credentials(*said), "s3", self._region)
            signer.add_auth(request)
            return dict(request.headers.items())

        headers = await asyncio.to_thread(sign) if call.body else sign()
        headers |= {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "fednode"}
        return headers | ({"Content-Length": str(call.body.size)} if call.body else {})
