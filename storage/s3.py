"""A bucket at Storj's gateway or any other S3, through obstore. One PUT per object, never multipart: a PUT can be
conditional, and nothing half is ever left behind."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, TypedDict, cast
from urllib.parse import urlsplit

import httpx
import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from fednode.errors import ConfigError, NotFound, StorageError
from fednode.hosts import is_loopback
from fednode.storage.credentials import Credentials, CredentialsSource
from fednode.storage.explained import explained
from fednode.storage.keys import check_bucket_name
from fednode.storage.s3_errors import explained_answer
from fednode.storage.s3_get import answered, trusted
from fednode.storage.settings import S3Settings
from fednode.storage.wire import Capabilities, Entry
from fednode.types import Transferred

if TYPE_CHECKING:  # names of obstore's stubs, not of obstore
    from obstore.store import ClientConfig, S3Credential

_CHUNK: Final = 1 << 20
_PAGE: Final = 1000
_MAPPED_FROM: Final = 1 << 20
"""Smaller files are read; bigger ones are mapped, and no copy of them is made."""
_NO_DEADLINE: Final = timedelta(days=7)
"""Deadlines are RemoteBucket's, which knows the size; the client's own would be 30 s for a transfer of any size."""


_SIGNED_FOR: Final = timedelta(hours=1)
"""How long a signed address may be used: it is, at once."""


class _Found(TypedDict):
    path: str
    size: int


class _Listing(Protocol):
    """What we use of a store's `list`; obstore's own types name a package that is not there."""

    def list(self, prefix: str | None, *, chunk_size: int) -> AsyncIterator[Sequence[_Found]]: ...


class S3Wire:
    """`Wire` over S3. The client is made anew when the credentials file is replaced."""

    def __init__(self, settings: S3Settings, credentials: CredentialsSource) -> None:
        """ConfigError for an endpoint that cannot do, or a CA file that cannot be read."""
        check_bucket_name(settings.bucket)
        self._settings = settings
        self._credentials = credentials
        self._trusted = trusted(settings.ca_file)
        self._options = _client_options(settings)
        self._made: tuple[Credentials, S3Store] | None = None

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
        with self._calling(key) as store, contextlib.suppress(FileNotFoundError):
            return (await obstore.head_async(store, key))["size"]
        # The answer to HEAD has no body: only GET tells an absent key from an absent bucket.
        async with self._get(key) as (_, size):
            return size

    async def upload(self, key: str, source: Path, size: int, progress: Transferred | None) -> None:
        """One conditional PUT (If-None-Match); the client keeps no copy of the file."""
        with explained(str(source)), source.open("rb") as handle:
            body = _body(handle, size)
        with self._calling(key, written=True) as store:
            await obstore.put_async(store, key, body, mode="create", use_multipart=False)
        if progress is not None:
            progress(size, size)

    async def download(self, key: str, target: Path, *, limit: int, progress: Transferred | None) -> None:
        """Stream into `target`; the connection is dropped at `limit`."""
        left = limit
        with explained(str(target)), target.open("wb") as handle:
            async with self._get(key) as (answer, size):
                total = min(size, limit)
                async for chunk in answer.aiter_raw(_CHUNK):
                    part = memoryview(chunk)[:left]
                    await asyncio.to_thread(handle.write, part)
                    left -= len(part)
                    if progress is not None:
                        progress(limit - left, total)
                    if not left:
                        break

    async def list(self, prefix: str) -> AsyncIterator[Entry]:
        """Raises where any page is refused."""
        with self._calling(f"listing {prefix or 'everything'}") as store:
            async for page in cast(_Listing, store).list(prefix or None, chunk_size=_PAGE):
                for found in page:
                    # obstore asks for whole path segments and a store may send more than was asked for
                    if found["path"].startswith(prefix):
                        yield Entry(found["path"], found["size"])

    async def delete(self, key: str) -> None:
        """One DELETE."""
        with contextlib.suppress(NotFound), self._calling(key) as store:
            await obstore.delete_async(store, key)

    async def aclose(self) -> None:
        """Connections close when the client is collected."""
        self._made = None

    @contextlib.asynccontextmanager
    async def _get(self, key: str) -> AsyncGenerator[tuple[httpx.Response, int]]:
        with self._calling(key) as store:
            url = await obstore.sign_async(store, "GET", key, _SIGNED_FOR)
        refused = self._credentials.read().refused
        async with answered(url, self._trusted, f"{self.name}: {key}", refused) as found:
            yield found

    @contextlib.contextmanager
    def _calling(self, what: str, *, written: bool = False) -> Generator[S3Store, None, None]:
        """The client of the newest credentials; its errors become ours."""
        credentials = self._credentials.read()
        where = f"{self.name}: {what}"
        try:
            yield self._store(credentials)
        except (BaseError, FileNotFoundError, ValueError) as error:
            # From None: the text of the cause holds what the store sent, and addresses.
            raise explained_answer(error, where, credentials.refused, written=written) from None

    def _store(self, credentials: Credentials) -> S3Store:
        if self._made is None or self._made[0] is not credentials:
            self._made = credentials, self._client(credentials)
        return self._made[1]

    def _client(self, credentials: Credentials) -> S3Store:
        if not credentials.access_key_id:
            raise ConfigError(
                f"{credentials.source} holds a Storj grant, expected access_key_id and secret_access_key for an S3",
                hint='register the grant at the gateway for S3 keys, or set backend = "uplink" or "rclone"',
            )

        def provided() -> S3Credential:
            return {
                "access_key_id": credentials.access_key_id,
                "secret_access_key": credentials.secret_access_key,
                "token": credentials.session_token or None,
                "expires_at": None,
            }

        # obstore takes AWS_* of the environment for whatever is not said here: a shell that talks to another S3 must
        # not change a thing.
        return S3Store(
            self._settings.bucket,
            endpoint=self._settings.endpoint,
            region=self._settings.region,
            credential_provider=provided,
            virtual_hosted_style_request=False,
            conditional_put="etag",
            skip_signature=False,
            unsigned_payload=False,
            request_payer=False,
            disable_tagging=True,
            disable_bulk_delete=True,
            client_options=self._options,
            retry_config={"max_retries": 0},
        )


def _client_options(settings: S3Settings) -> ClientConfig:
    where = f"the endpoint {settings.endpoint[:200]!r} of bucket {settings.bucket}"
    try:
        url = urlsplit(settings.endpoint)
        host = url.hostname or ""
        _ = url.port  # a ValueError where it is none
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
    options: ClientConfig = {
        "allow_http": url.scheme == "http",
        "allow_invalid_certificates": False,
        "timeout": _NO_DEADLINE,
        "connect_timeout": timedelta(seconds=10),
    }
    if settings.ca_file is not None:
        options["root_certificate"] = settings.ca_file.read_bytes()
    return options


def _body(handle: BinaryIO, size: int) -> bytes | memoryview:
    """The file's bytes; StorageError if it is not of `size`."""
    data = handle.read(size + 1) if size < _MAPPED_FROM else mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    if len(data) != size:
        raise StorageError(f"{handle.name} has {len(data)} bytes, expected {size}: it changed while it was read")
    # obstore would read a mapping like a file, into memory; of a view it takes no copy.
    return data if isinstance(data, bytes) else memoryview(data)
