"""A Storj bucket, natively, by the program rclone: the way that needs nothing built.

Objects to read are named on stdin (`--files-from-raw`), not in the remote's path: there rclone takes a refused look-up
for an absent object, so that a revoked grant would look like an empty bucket.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Final, cast

from fednode.errors import ConfigError, Conflict, NotFound, StorageError, Unavailable
from fednode.storage.credentials import Credentials, CredentialsSource
from fednode.storage.explained import explained
from fednode.storage.keys import check_bucket_name
from fednode.storage.rclone_errors import NoFolder, explained_messages
from fednode.storage.rclone_process import REMOTE, Finished, find_program, run
from fednode.storage.settings import RcloneSettings
from fednode.storage.wire import Capabilities, Entry
from fednode.types import Transferred

RemoteOf = Callable[[Credentials], Mapping[str, str]]
"""The options of an rclone remote (`type` and whatever it takes) for some credentials."""

_LIST = ("lsjson", "-R", "--files-only", "--no-modtime", "--no-mimetype")
_NAMED = ("--files-from-raw=-", "--no-traverse")
_CREATE = ("--ignore-existing", "--error-on-no-transfer")
_NOTHING_MOVED: Final = 9
"""rclone's exit status for that, with `--error-on-no-transfer`."""


def storj_remote(credentials: Credentials) -> dict[str, str]:
    """rclone's Storj backend with an access grant."""
    if not credentials.grant:
        raise ConfigError(
            f"{credentials.source} holds S3 keys, expected a Storj access grant",
            hint='set backend = "s3", or put a file with the grant there',
        )
    return {"type": "storj", "access_grant": credentials.grant}


class RcloneWire:
    """`Wire` over rclone. Each call reads the credentials anew."""

    def __init__(
        self, settings: RcloneSettings, credentials: CredentialsSource, *, remote: RemoteOf = storj_remote
    ) -> None:
        """ConfigError where rclone is not installed, or the bucket's name is none."""
        check_bucket_name(settings.bucket)
        self._root = f"{REMOTE}:{settings.bucket}"
        self._credentials = credentials
        self._remote = remote
        self._program = find_program()
        self.name = f"storj bucket {settings.bucket} (rclone)"

    def __repr__(self) -> str:
        return f"RcloneWire({self.name})"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(conditional_put=False, native_encryption=True, share=False, looks_itself=True)

    async def stat(self, key: str) -> int:
        """Size in bytes; NotFound only where the look-up itself was answered."""
        done = await self._run(key, *_LIST, *_NAMED, self._root, stdin=f"{key}\n")
        for entry in _entries(done.output, "", self._where(key)):
            if entry.key == key:
                return entry.size
        raise NotFound(f"{self._where(key)}: there is no such object")

    async def upload(self, key: str, source: Path, size: int, progress: Transferred | None) -> None:
        """One process that looks, sends and compares the sizes: to start three takes longer than to send a megabyte.

        Between its look and the end only a grant without delete keeps it from replacing an object.
        """
        origin = str(source.absolute())  # absolute: a colon in it is no remote

        def check() -> None:
            with explained(origin):
                source.open("rb").close()
                if source.stat().st_size != size:
                    raise StorageError(f"{origin} is not of {size} bytes any more: it changed while it was uploaded")

        def moved(count: int) -> None:
            if progress is not None:
                progress(min(count, size), size)

        check()
        await self._run(key, "copyto", *_CREATE, origin, f"{self._root}/{key}", moved=moved)
        check()
        moved(size)

    async def download(self, key: str, target: Path, *, limit: int, progress: Transferred | None) -> None:
        """`rclone cat` into the file; it asks the store for `limit` bytes and stops there."""

        def moved(count: int) -> None:
            if progress is not None:
                progress(min(count, limit), limit)

        with explained(str(target)), target.open("wb") as handle:
            count = f"--count={limit}"
            output = handle.fileno()
            await self._run(key, "cat", count, *_NAMED, self._root, stdin=f"{key}\n", output=output, moved=moved)
        found = target.stat().st_size
        if not found and await self.stat(key):  # for an absent object `cat` says nothing and calls it success
            raise Unavailable(f"{self._where(key)}: the store sent nothing")
        moved(found)

    async def list(self, prefix: str) -> AsyncIterator[Entry]:
        """The whole listing is awaited before its first entry: only the exit status tells that it is whole."""
        what = f"listing {prefix or 'everything'}"
        try:
            done = await self._run(what, *_LIST, f"{self._root}/{prefix}".rstrip("/"))
        except NoFolder:
            if not prefix:
                raise
            await self._run(what, "lsjson", "--max-depth=1", self._root)  # it raises unless the bucket is there
            return
        for entry in _entries(done.output, prefix, self._where(what)):
            yield entry

    async def delete(self, key: str) -> None:
        """Look first: rclone cannot tell an absent object from a refused look-up here."""
        try:
            await self.stat(key)
        except NotFound:
            return
        await self._run(key, "deletefile", f"{self._root}/{key}")

    async def aclose(self) -> None:
        """Nothing is held open."""

    def _where(self, what: str) -> str:
        return f"{self.name}: {what}"

    async def _run(
        self,
        what: str,
        *arguments: str,
        stdin: str = "",
        output: int | None = None,
        moved: Callable[[int], None] | None = None,
    ) -> Finished:
        """A process that succeeded; otherwise the error for `what`."""
        credentials = self._credentials.read()
        remote = self._remote(credentials)
        try:
            done = await run(self._program, arguments, remote, stdin=stdin, output=output, moved=moved)
        except OSError as error:
            raise Unavailable(f"{self._where(what)}: {self._program} does not start: {error.strerror}") from None
        if done.status == _NOTHING_MOVED:
            raise Conflict(f"{self._where(what)}: something stands there already")
        if done.status != 0:
            raise explained_messages(done.said, self._where(what), credentials.refused)
        return done


def _entries(output: bytes, prefix: str, where: str) -> list[Entry]:
    """The files of `rclone lsjson`."""
    try:
        found = cast("list[dict[str, object]]", json.loads(output))
        entries = [(item["Path"], item["Size"]) for item in found]
    except (ValueError, TypeError, KeyError):
        raise StorageError(f"{where}: rclone's listing is not understood") from None
    return [Entry(prefix + str(path), size) for path, size in entries if isinstance(size, int)]
