"""What the owner of a Storj bucket does: ask for the first grant, make the bucket, give narrower grants, revoke them.

Grants are bearer secrets: the callers keep them in files of mode 0600 and show them nowhere.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Final

from fednode.errors import UsageError
from fednode.storage.retry import within
from fednode.storage.uplink.access import Permission
from fednode.storage.uplink.client import Shared
from fednode.storage.uplink.failures import error_from_json
from fednode.storage.uplink.frames import Message
from fednode.storage.uplink.library import find_library

_CALL_S: Final = 60.0


class StorjSharer:
    """Errors of every call: Denied, Unavailable, StorageTimeout, Throttled; KeyFileError for what is no grant or key.

    `grant` is the parent: what is made from it can do no more than it, and is revoked with it.
    """

    def __init__(self, library: Path | None = None) -> None:
        """ConfigError where the native library (None: the one that was built here) or uplink-python is missing."""
        self._shared = Shared(find_library(library))

    async def request_access(self, satellite: str, api_key: str, passphrase: str) -> str:
        """A grant with all that the API key allows. `satellite`: NODE_ID@HOST:PORT, or a known HOST:PORT; asked once.

        Whoever has the passphrase and the key has everything. The same three give equivalent grants again.
        """
        asked = {"op": "request_access", "satellite": satellite, "api_key": api_key, "passphrase": passphrase}
        reply = await self._call(f"request of an access grant from {satellite[-60:]}", asked)
        return str(reply["grant"])

    async def ensure_bucket(self, grant: str, bucket: str) -> None:
        """Create it unless it exists."""
        await self._call(f"creating the bucket {bucket}", {"op": "ensure_bucket", "grant": grant, "bucket": bucket})

    async def share(
        self,
        grant: str,
        bucket: str,
        prefix: str,
        *,
        read: bool = False,
        write: bool = False,
        list_: bool = False,
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
            bucket, prefix, read=read, write=write, list=list_, delete=delete,
            not_before=math.ceil(not_before or 0), not_after=math.floor(not_after or 0),
            max_object_ttl_s=math.ceil(max_object_ttl_s or 0),
        )  # fmt: skip
        asked = {"op": "share", "grant": grant, "permission": asdict(permission)}
        return str((await self._call(f"sharing sj://{bucket}/{prefix}", asked))["grant"])

    async def revoke(self, grant: str, granted: str) -> None:
        """End `granted`, which was made from `grant`, and every one made from it; others go on.

        A satellite may need some minutes to heed it, and it cannot take back what was read. A grant cannot end itself.
        """
        await self._call("revoking a grant", {"op": "revoke", "grant": grant, "revoked": granted})

    async def aclose(self) -> None:
        """The last user of the native library in this event loop ends its process."""
        await self._shared.release()

    async def _call(self, what: str, request: Message) -> Message:
        reply = await within(_CALL_S, self._shared.client().call(request), what)
        if "error" in reply:
            raise error_from_json(reply["error"], what, None, None)
        return dict(reply["ok"])
