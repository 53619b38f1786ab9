"""What the owner of a Storj bucket does: ask for the first grant, make the bucket, give narrower grants, revoke them.

Grants are bearer secrets: the callers write them to files of mode 0600 and show them nowhere.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable
from dataclasses import asdict
from pathlib import Path
from typing import Final

from fednode.errors import KeyFileError, UsageError
from fednode.storage.credentials import Credentials, CredentialsSource
from fednode.storage.retry import within
from fednode.storage.uplink.access import Permission
from fednode.storage.uplink.client import Shared
from fednode.storage.uplink.failures import error_from_json
from fednode.storage.uplink.frames import Message
from fednode.storage.uplink.library import find_library
from fednode.storage.uplink.wire import grant_of

_CALL_S: Final = 60.0


class StorjSharer:
    """Uses the grant in `credentials` as the parent of all that it makes; None will do for `request_access` alone.

    Errors of every call: Denied, Unavailable, StorageTimeout, Throttled; KeyFileError where there is no usable grant.
    """

    def __init__(self, credentials: CredentialsSource | None, library: Path | None = None) -> None:
        """ConfigError where the native library or uplink-python is missing."""
        self._credentials = credentials
        self._shared = Shared(find_library(library))

    async def request_access(self, satellite: str, api_key: str, passphrase: str) -> str:
        """A grant with all that the API key allows. `satellite`: NODE_ID@HOST:PORT, or a known HOST:PORT; asked once.

        Whoever has the passphrase and the key has everything. The same three give equivalent grants again.
        """
        asked = {"op": "request_access", "satellite": satellite, "api_key": api_key, "passphrase": passphrase}
        reply = await self._call(f"request of an access grant from {satellite[-60:]}", asked, None)
        return str(reply["grant"])

    async def create_bucket(self, bucket: str) -> None:
        """Create it; fine where it exists."""
        await self._with_grant(f"creating the bucket {bucket}", {"op": "ensure_bucket", "bucket": bucket})

    async def share(
        self,
        bucket: str,
        prefix: str,
        *,
        read: bool = False,
        write: bool = False,
        list: bool = False,
        delete: bool = False,
        not_before: float | None = None,
        not_after: float | None = None,
        max_object_ttl_s: float | None = None,
    ) -> str:
        """A grant for one prefix (ending in `/`; empty: the whole bucket). Asks nobody, so it works without network.

        Times are Unix seconds. Every call gives another grant, to be revoked alone. `write` without `delete` cannot
        replace what stands. `max_object_ttl_s`: how long what is written with it may live.
        """
        if prefix and not prefix.endswith("/"):
            raise UsageError(f"prefix {prefix!r}: expected a `/` at the end: Storj derives keys by folder")
        permission = Permission(
            bucket, prefix, read=read, write=write, list=list, delete=delete,
            not_before=math.ceil(not_before or 0), not_after=math.floor(not_after or 0),
            max_object_ttl_s=math.ceil(max_object_ttl_s or 0),
        )  # fmt: skip
        what = f"sharing sj://{bucket}/{prefix}"
        reply = await self._with_grant(what, {"op": "share", "permission": asdict(permission)})
        return str(reply["grant"])

    async def revoke(self, grant: str) -> None:
        """End a grant that was made from ours, and every one made from it; others go on.

        A satellite may need some minutes to heed it, and it cannot take back what was read.
        """
        await self._with_grant("revoking a grant", {"op": "revoke", "revoked": grant})

    async def aclose(self) -> None:
        await self._shared.release()

    async def _with_grant(self, what: str, request: Message) -> Message:
        if self._credentials is None:
            raise KeyFileError(f"{what}: no grant was given", hint="name the file with the owner's grant")
        credentials = await asyncio.to_thread(self._credentials.read)
        return await self._call(what, {**request, "grant": grant_of(credentials)}, credentials)

    async def _call(self, what: str, request: Message, credentials: Credentials | None) -> Message:
        work: Awaitable[Message] = self._shared.client().call(request)
        reply = await within(_CALL_S, work, what)
        if "error" in reply:
            raise error_from_json(reply["error"], what, credentials, None)
        return dict(reply["ok"])
