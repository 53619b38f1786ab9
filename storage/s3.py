"""A bucket at Storj's gateway or any other S3. One PUT per object, never multipart: a PUT can be conditional, and
nothing half is ever left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import SplitResult, urlsplit

from fednode.errors import ConfigError, NotFound, StorageError, Unavailable
from fednode.hosts import is_loopback
from fednode.storage.credentials import Credentials, CredentialsSource
from fednode.storage.explained import explained
from fednode.storage.keys import check_bucket_name
from fednode.storage.s3_errors import Of, refusal
from fednode.storage.s3_http import Answer, Body, Call, S3Client, trusted
from fednode.storage.s3_listing import Page, Pages
from fednode.storage.settings import S3Settings
from fednode.storage.wire import Capabilities, Entry
from fednode.types import Transferred

_PIECE: Final = 1 << 20


class S3Wire:
    """`Wire` over S3. Every call is signed with the newest credentials."""

    def __init__(self, settings: S3Settings, credentials: CredentialsSource) -> None:
        """ConfigError for an endpoint that cannot do, or a CA file that cannot be read."""
        check_bucket_name(settings.bucket)
        self._settings = settings
        self._credentials = credentials
        endpoint = _endpoint(settings)
        self._client = S3Client(endpoint, settings.bucket, settings.region, trusted(settings.ca_file))

    def __repr__(self) -> str:
        return f"S3Wire({self.name})"

    @property
    def name(self) -> str:
        return f"s3 bucket {self._settings.bucket} at {self._settings.endpoint}"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(conditional_put=True, native_encryption=False, share=False)

    async def stat(self, key: str) -> int:
        """Size in bytes; NotFound where the key is absent, Unavailable where the bucket is."""
        call = self._call("HEAD", key)
        async with self._client.answered(call, self._keys()) as answer:
            if answer.status == 200:
                return answer.length(call.where)
        # The answer to HEAD has no body: only GET tells why it was refused, or an absent key from an absent bucket.
        call = self._call("GET", key)
        async with self._answered(call, Of.OBJECT) as answer:
            return answer.length(call.where)

    async def upload(self, key: str, source: Path, size: int, progress: Transferred | None) -> None:
        """One conditional PUT (If-None-Match), streamed. StorageError if the file is not of `size` any more."""
        with explained(str(source)), source.open("rb") as handle:
            sending = _Sending(handle, size, progress)
            sending.check()
            body = Body(handle, size, sending.parts())
            call = replace(self._call("PUT", key), headers={"If-None-Match": "*"}, body=body)
            try:
                async with self._answered(call, Of.NEW):
                    if not sending.whole:
                        raise Unavailable(f"{call.where}: the store took it before it had it all")
            except Unavailable:
                sending.raise_own()
                raise
        if progress is not None:
            progress(size, size)

    async def download(self, key: str, target: Path, *, limit: int, progress: Transferred | None) -> None:
        """Stream into `target`; the connection is dropped at `limit`."""
        got, held = 0, bytearray()
        call = self._call("GET", key)
        with explained(str(target)), target.open("wb") as handle:
            async with self._answered(call, Of.OBJECT) as answer:
                total = min(answer.length(call.where), limit)
                async for chunk in answer.parts():
                    part = memoryview(chunk)[: limit - got]
                    held += part
                    got += len(part)
                    if len(held) >= _PIECE:  # each single part is not worth its way to a thread
                        await asyncio.to_thread(handle.write, held)
                        held = bytearray()
                    if progress is not None:
                        progress(got, total)
                    if got == limit:
                        break
            await asyncio.to_thread(handle.write, held)

    async def list(self, prefix: str) -> AsyncIterator[Entry]:
        """Raises where any page is refused, or is not one of an S3."""
        pages = Pages(f"{self.name}: listing {prefix or 'everything'}")
        token: str | None = None
        while True:
            page = await self._page(pages, prefix, token)
            for entry in page.entries:
                if entry.key.startswith(prefix):  # a store may send more than was asked for
                    yield entry
            token = pages.follow(page)
            if token is None:
                return

    async def delete(self, key: str) -> None:
        """One DELETE."""
        with contextlib.suppress(NotFound):
            async with self._answered(self._call("DELETE", key), Of.OBJECT):
                pass

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _call(self, method: str, key: str) -> Call:
        return Call(method, key, f"{self.name}: {key}")

    async def _page(self, pages: Pages, prefix: str, token: str | None) -> Page:
        parser = pages.parser()
        call = Call("GET", "", pages.where, query=pages.query(prefix, token))
        async with self._answered(call, Of.BUCKET) as answer:
            async for part in answer.parts():
                parser.feed(part)
        return parser.close()

    @contextlib.asynccontextmanager
    async def _answered(self, call: Call, of: Of) -> AsyncGenerator[Answer]:
        """The answer to a call that the store carried out; anything else raises."""
        credentials = self._keys()
        async with self._client.answered(call, credentials) as answer:
            done = range(200, 300) if call.method in ("PUT", "DELETE") else (200,)
            if answer.status not in done:
                raise refusal(answer.status, await answer.beginning(), call.where, credentials.refused, of)
            yield answer

    def _keys(self) -> Credentials:
        credentials = self._credentials.read()
        if not credentials.access_key_id:
            raise ConfigError(
                f"{credentials.source} holds a Storj grant, expected access_key_id and secret_access_key for an S3",
                hint='register the grant at the gateway for S3 keys, or set backend = "uplink" or "rclone"',
            )
        return credentials


class _Sending:
    """The bytes of a file, in pieces, that end with an error where they are not `size` many: then nothing is there."""

    def __init__(self, handle: BinaryIO, size: int, progress: Transferred | None) -> None:
        self._handle = handle
        self._left = self._size = size
        self._progress = progress
        self._failed: Exception | None = None

    @property
    def whole(self) -> bool:
        return not self._left

    def check(self) -> None:
        """Before anything is hashed."""
        found = os.fstat(self._handle.fileno()).st_size
        if found != self._size:
            raise self._changed(f"{found} bytes")

    def raise_own(self) -> None:
        """What reading raised: to whoever sends it is one more reason to break off."""
        if self._failed is not None:
            raise self._failed

    async def parts(self) -> AsyncGenerator[bytes]:
        try:
            while self._left:
                yield await self._next()
                if self._progress is not None and self._left:
                    self._progress(self._size - self._left, self._size)
        except Exception as error:
            self._failed = error
            raise

    async def _next(self) -> bytes:
        # One byte more than is left shows a file that grew, before the store has all that it waits for.
        wanted = _PIECE if self._left > _PIECE else self._left + 1
        piece = await asyncio.to_thread(self._handle.read, wanted)
        if not piece or len(piece) > self._left:
            raise self._changed("fewer bytes" if not piece else "more bytes")
        self._left -= len(piece)
        return piece

    def _changed(self, found: str) -> StorageError:
        return StorageError(f"{self._handle.name} has {found}, expected {self._size}: it changed while it was read")


def _endpoint(settings: S3Settings) -> SplitResult:
    where = f"the endpoint {settings.endpoint[:200]!r} of bucket {settings.bucket}"
    try:
        url = urlsplit(settings.endpoint)
        host = url.hostname or ""
        _ = url.port, host.encode("idna")  # a ValueError where they are none
    except ValueError:
        host, url = "", urlsplit("")
    if url.scheme not in ("https", "http") or not host or "@" in url.netloc or url.query or url.fragment:
        shown = where if "@" not in url.netloc else f"the endpoint of bucket {settings.bucket}"
        raise ConfigError(f"{shown}: expected https://HOST or https://HOST:PORT", hint="keys go into credentials")
    if url.scheme == "http" and not settings.allow_plain and not is_loopback(host):
        raise ConfigError(
            f"{where} is plain http to another machine: anybody on the way could read and change what passes",
            hint="write https://, or allow_plain = true where the network itself is private",
        )
    return url
