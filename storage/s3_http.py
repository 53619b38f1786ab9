"""Signed requests to an S3 store that may be hostile: nothing of an answer is held but what was asked for, whatever
length it claims. Nothing is followed or decoded, and a body never sent twice (aiohttp asks once more without one, where
the connection closes without an answer); deadlines are RemoteBucket's, which knows the size."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import re
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, Protocol
from urllib.parse import SplitResult, quote
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from fednode.errors import ConfigError, Unavailable
from fednode.storage.credentials import Credentials
from fednode.storage.s3_errors import no_connection

_CONNECT_S: Final = 10.0
_UNTAKEN_MS: Final = 60_000
_MOST_ERROR: Final = 64 << 10
"""Bytes of a refusal that are read: its code is among the first."""
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_BROKEN: Final = (aiohttp.ClientError, ssl.SSLError)


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


def proxy_of_environment(scheme: str, place: str) -> URL | None:
    """The proxy that HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names for HOST:PORT, unless NO_PROXY lists that.

    ConfigError where it is of a kind that cannot be used.
    """
    said = getproxies()
    named = said.get(scheme) or said.get("all")
    if not named or proxy_bypass(place):
        return None
    try:
        proxy = URL(named if "://" in named else f"http://{named}")
        if proxy.scheme in ("http", "https") and proxy.host:
            return proxy
    except ValueError:
        pass
    raise ConfigError(  # from nothing: the address of a proxy may hold a password
        "the proxy that ALL_PROXY, HTTPS_PROXY or HTTP_PROXY names cannot be used, expected http://HOST:PORT",
        hint="change the variable, or except the store with NO_PROXY=HOST",
    )


def _socket(address: tuple[int, int, int, str, object]) -> socket.socket:
    """A connection that is given up waits until what was written is taken: not for ever."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNTAKEN_MS)
    return made


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

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.status = response.status
        self._response = response

    def length(self, where: str) -> int:
        """Of the object that it brings or tells of, in bytes. Unavailable where that is not said: a body that broke
        off would look whole."""
        said = self._response.headers.get("Content-Length", "")
        if not _LENGTH.fullmatch(said):
            raise Unavailable(f"{where}: the store does not say how long it is", hint="is a proxy in between?")
        return int(said)

    def parts(self) -> AsyncIterator[bytes]:
        """The body as it comes, in small parts; once."""
        return self._response.content.iter_any()

    async def beginning(self) -> str:
        """Of the body of a refusal. One that breaks off says what it said."""
        data = bytearray()
        with contextlib.suppress(*_BROKEN):
            async for part in self.parts():
                data += part
                if len(data) >= _MOST_ERROR:
                    break
        return data[:_MOST_ERROR].decode(errors="replace")


class S3Client:
    """Requests to one bucket, addressed by path, from one event loop. Connections are kept until `aclose`."""

    def __init__(self, endpoint: SplitResult, bucket: str, region: str, context: ssl.SSLContext) -> None:
        self._scheme = endpoint.scheme
        host = (endpoint.hostname or "").encode("idna").decode()
        standard = 443 if endpoint.scheme == "https" else 80
        port = endpoint.port or standard
        self._place = f"{host}:{port}"
        named = f"[{host}]" if ":" in host else host
        # The port is part of the signed name unless it is the scheme's own.
        self._netloc = named if port == standard else f"{named}:{port}"
        self._bucket = f"{endpoint.path.rstrip('/')}/{bucket}"
        self._region = region
        self._context = context
        self._session: aiohttp.ClientSession | None = None

    @contextlib.asynccontextmanager
    async def answered(self, call: Call, credentials: Credentials) -> AsyncGenerator[Answer]:
        """The answer to `call`, its body to be read inside the block; whatever is left of that drops the connection.

        It may come before all of `call.body` was taken. Unavailable without connection, or where it breaks off inside
        the block, or where `call.body` raises.
        """
        target = quote(f"{self._bucket}/{call.key}" if call.key else self._bucket, safe="/-_.~%")
        target += f"?{call.query}" if call.query else ""
        url = f"{self._scheme}://{self._netloc}{target}"
        headers = await self._signed(call, url, credentials)
        body = call.body.parts if call.body else None
        try:
            async with self._connections().request(
                call.method, URL(url, encoded=True), headers=headers, data=body, allow_redirects=False
            ) as response:
                yield Answer(response)
        except _BROKEN as error:
            # From None: the text of the cause holds what the store sent, and addresses.
            raise no_connection(call.where, str(error)) from None

    async def aclose(self) -> None:
        """Close what is open."""
        made, self._session = self._session, None
        if made is not None:
            await made.close()

    def _connections(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._context, limit=0, socket_factory=_socket),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                proxy=proxy_of_environment(self._scheme, self._place),
                skip_auto_headers=("Content-Type", "Accept"),
                auto_decompress=False,
            )
        return self._session

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
        headers |= {"Accept-Encoding": "identity", "User-Agent": "fednode"}
        return headers | ({"Content-Length": str(call.body.size)} if call.body else {})
