"""A bucket in Storj, natively, as a wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from fednode.errors import KeyFileError, NotFound
from fednode.storage.credentials import Credentials, CredentialsFile
from fednode.storage.keys import check_bucket_name
from fednode.storage.settings import UplinkSettings
from fednode.storage.uplink.client import Heard, Shared
from fednode.storage.uplink.failures import error_from_json
from fednode.storage.uplink.frames import Message
from fednode.storage.uplink.library import find_library
from fednode.storage.wire import Capabilities, Entry
from fednode.types import Transferred

AT_ONCE: Final = 6
"""Calls of one bucket at a time, so that a bucket whose satellite hangs leaves the worker's threads to the others."""


class UplinkWire:
    """Satisfies `Wire`. Connects at the first call; a replaced credentials file counts from the next call on."""

    def __init__(self, settings: UplinkSettings, credentials: CredentialsFile) -> None:
        """ConfigError where the native library or uplink-python is missing, or the bucket's name is none."""
        check_bucket_name(settings.bucket)
        self._bucket = settings.bucket
        self._credentials = credentials
        self._shared = Shared(find_library(settings.library))
        self._turns = asyncio.Semaphore(AT_ONCE)

    def __repr__(self) -> str:
        return f"UplinkWire({self.name})"

    @property
    def name(self) -> str:
        return f"sj://{self._bucket}"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(conditional_put=False, native_encryption=True, share=True)

    async def stat(self, key: str) -> int:
        """Size in bytes. NotFound, Denied, Throttled, Unavailable."""
        reply = await self._call(f"head of {key}", {"op": "stat", "key": key})
        return int(reply["size"])

    async def upload(self, key: str, source: Path, size: int, progress: Transferred | None) -> None:
        """Visible as a whole or not at all. Conflict where the grant may not delete and something stands there."""
        request = {"op": "upload", "key": key, "source": str(source.absolute()), "size": size}

        def heard(message: Message) -> None:
            if progress is not None:
                progress(int(message["moved"]), size)

        await self._call(f"upload of {key}", request, heard, source)
        if progress is not None:
            progress(size, size)

    async def download(self, key: str, target: Path, *, limit: int, progress: Transferred | None) -> None:
        """At most `limit` bytes into the existing file `target`."""
        request = {"op": "download", "key": key, "target": str(target.absolute()), "limit": limit}

        def heard(message: Message) -> None:
            if progress is not None:
                progress(int(message["moved"]), limit)

        moved = int((await self._call(f"download of {key}", request, heard, target))["size"])
        if progress is not None:
            progress(moved, moved)

    async def list(self, prefix: str) -> AsyncIterator[Entry]:
        """All of it is asked for before the first entry: half a listing is none."""
        found: list[Entry] = []

        def heard(message: Message) -> None:
            found.extend(Entry(str(key), int(size)) for key, size in message["entries"])

        await self._call(f"listing of {prefix or 'everything'}", {"op": "list", "prefix": prefix}, heard)
        for entry in found:
            yield entry

    async def delete(self, key: str) -> None:
        """Absent is fine."""
        try:
            await self._call(f"delete of {key}", {"op": "delete", "key": key})
        except NotFound:
            return

    async def aclose(self) -> None:
        """The last bucket of this event loop ends the worker."""
        await self._shared.release()

    async def _call(self, what: str, request: Message, heard: Heard | None = None, path: Path | None = None) -> Message:
        async with self._turns:
            credentials = self._credentials.read()
            request |= {"grant": grant_of(credentials), "bucket": self._bucket}
            reply = await self._shared.client().call(request, heard)
        if "error" in reply:
            raise error_from_json(reply["error"], f"{self.name}: {what}", credentials, path)
        return dict(reply["ok"])


def grant_of(credentials: Credentials) -> str:
    """KeyFileError where the file holds no grant."""
    if not credentials.grant:
        raise KeyFileError(
            f'{credentials.source} holds no Storj grant, expected grant = "..." for backend = uplink',
            hint="S3 keys go with backend = s3",
        )
    return credentials.grant
