"""Thin calls of libuplinkc: streams between files and Storj by address, and frees everything. Blocking.

Not by uplink-python: it copies uploads byte by byte, loses errors of writes and listings, and frees nothing.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from typing import Any, Final

from fednode.storage.uplink.abi import Code, Count, ErrorStruct, ListOptions, ObjectStruct, Result

CHUNK: Final = 1 << 20
"""Bytes moved by one call."""
Moved = Callable[[int], None]
"""Told the bytes moved so far, from the thread of the call; what it raises ends the transfer."""


class StoreError(Exception):
    """What the library answered: a code of `abi.Code`, or one that came later."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code)
        self.code = code
        self.text = text


class SourceChangedError(Exception):
    """A file has not the size that it had when its upload was asked for."""


class Project:
    """An open project. One thread at a time, but `cancel` may come from any."""

    def __init__(self, library: Any, handle: int) -> None:
        self._library = library
        self._handle = handle

    def cancel(self) -> None:
        """End whatever is going on in it, at once and for good. The project is of no use afterwards, but for free."""
        self._library.uplink_free_error(self._library.uplink_close_project(self._handle))

    def free(self) -> None:
        """Close it and forget it. Nothing may be going on in it."""
        self.cancel()
        self._library.uplink_free_project_result(Result(self._handle, None))

    def stat(self, bucket: str, key: str) -> int:
        """Size in bytes."""
        result = self._library.uplink_stat_object(self._handle, bucket.encode(), key.encode())
        try:
            self._check(result.error)
            return ObjectStruct.from_address(result.value).content_length
        finally:
            self._library.uplink_free_object_result(result)

    def delete(self, bucket: str, key: str) -> None:
        result = self._library.uplink_delete_object(self._handle, bucket.encode(), key.encode())
        try:
            self._check(result.error)
        finally:
            self._library.uplink_free_object_result(result)

    def ensure_bucket(self, bucket: str) -> None:
        """Create it unless it exists."""
        result = self._library.uplink_ensure_bucket(self._handle, bucket.encode())
        try:
            self._check(result.error)
        finally:
            self._library.uplink_free_bucket_result(result)

    def revoke(self, access: int) -> None:
        self._finish(self._library.uplink_revoke_access(self._handle, access))

    def list(self, bucket: str, prefix: str) -> Iterator[tuple[str, int]]:
        """(key, size in bytes) of every object under a prefix (empty, or ending in `/`), keys whole."""
        options = ListOptions(prefix.encode(), b"", True, True, False)
        listing = self._library.uplink_list_objects(self._handle, bucket.encode(), ctypes.byref(options))
        try:
            while self._library.uplink_object_iterator_next(listing):
                item = self._library.uplink_object_iterator_item(listing)
                try:
                    seen = ObjectStruct.from_address(item)
                    key, size, whole = seen.key.decode(errors="replace"), seen.content_length, not seen.is_prefix
                finally:
                    self._library.uplink_free_object(item)
                if whole:
                    yield key, size
            # Refused or broken off looks like the end: only this tells them apart.
            self._finish(self._library.uplink_object_iterator_err(listing))
        finally:
            self._library.uplink_free_object_iterator(listing)

    def upload(self, bucket: str, key: str, source: int, size: int, moved: Moved) -> None:
        """Exactly `size` bytes of the open file `source`; visible when this returns, and never in part."""
        begun = self._library.uplink_upload_object(self._handle, bucket.encode(), key.encode(), None)
        try:
            self._check(begun.error)
            try:
                self._write(begun.value, source, size, moved)
                self._finish(self._library.uplink_upload_commit(begun.value))
            except BaseException:
                self._library.uplink_free_error(self._library.uplink_upload_abort(begun.value))
                raise
        finally:
            self._library.uplink_free_upload_result(begun)

    def _write(self, upload: int, source: int, size: int, moved: Moved) -> None:
        buffer = ctypes.create_string_buffer(min(CHUNK, max(size, 1)))
        view, done = memoryview(buffer), 0
        while done < size:
            filled = os.readv(source, [view[: size - done]])
            if not filled:
                raise SourceChangedError
            start = 0
            while start < filled:
                address = ctypes.addressof(buffer) + start
                start += self._count(self._library.uplink_upload_write(upload, address, filled - start))
            done += filled
            moved(done)
        if os.readv(source, [view[:1]]):
            raise SourceChangedError
        moved(done)

    def download(self, bucket: str, key: str, target: int, limit: int, moved: Moved) -> int:
        """At most `limit` bytes into the open file `target`; how many it were."""
        begun = self._library.uplink_download_object(self._handle, bucket.encode(), key.encode(), None)
        try:
            self._check(begun.error)
            try:
                return self._read(begun.value, target, limit, moved)
            finally:
                self._library.uplink_free_error(self._library.uplink_close_download(begun.value))
        finally:
            self._library.uplink_free_download_result(begun)

    def _read(self, download: int, target: int, limit: int, moved: Moved) -> int:
        buffer = ctypes.create_string_buffer(min(CHUNK, max(limit, 1)))
        view, done = memoryview(buffer), 0
        while done < limit:
            room = min(len(view), limit - done)
            result = self._library.uplink_download_read(download, ctypes.addressof(buffer), room)
            # The last bytes may come together with the end.
            try:
                filled, over = self._count(result), False
            except StoreError as error:
                if error.code != Code.EOF:
                    raise
                filled, over = result.count, True
            if filled > room:
                raise StoreError(Code.INTERNAL, "the library says that it read more than it may")
            written = 0
            while written < filled:
                written += os.write(target, view[written:filled])
            done += filled
            moved(done)
            if over:
                break
        return done

    def _count(self, result: Count) -> int:
        self._finish(result.error)
        return result.count

    def _finish(self, error: int | None) -> None:
        """Raise and free an error that no result holds."""
        try:
            self._check(error)
        finally:
            self._library.uplink_free_error(error)

    @staticmethod
    def _check(error: int | None) -> None:
        check(error)


def check(error: int | None) -> None:
    """StoreError where this is the address of an error, which is not freed."""
    if error:
        told = ErrorStruct.from_address(error)
        raise StoreError(told.code, (told.message or b"").decode(errors="replace"))
