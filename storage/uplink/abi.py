"""The C interface of libuplinkc (storj.io/uplink-c v1.2.2 and later; our own is storage/libuplink/uplink.h).

Handles and results are plain addresses here, which lets pointers of uplink-python pass through.
"""

from __future__ import annotations

import ctypes
from ctypes import c_bool, c_char_p, c_int32, c_int64, c_size_t, c_void_p
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

from fednode.errors import ConfigError


class Code(IntEnum):
    """Of an UplinkError."""

    EOF = -1
    INTERNAL = 0x02
    CANCELED = 0x03
    INVALID_HANDLE = 0x04
    TOO_MANY_REQUESTS = 0x05
    BANDWIDTH_LIMIT = 0x06
    STORAGE_LIMIT = 0x07
    SEGMENTS_LIMIT = 0x08
    PERMISSION_DENIED = 0x09
    BUCKET_NAME_INVALID = 0x10
    BUCKET_EXISTS = 0x11
    BUCKET_NOT_EMPTY = 0x12
    BUCKET_NOT_FOUND = 0x13
    KEY_INVALID = 0x20
    OBJECT_NOT_FOUND = 0x21
    UPLOAD_DONE = 0x22


class ErrorStruct(ctypes.Structure):
    code: int
    message: bytes | None
    _fields_ = [("code", c_int32), ("message", c_char_p)]


class Result(ctypes.Structure):
    """Every result that is a pointer."""

    value: int | None
    error: int | None
    _fields_ = [("value", c_void_p), ("error", c_void_p)]


class Count(ctypes.Structure):
    """Of a read or a write."""

    count: int
    error: int | None
    _fields_ = [("count", c_size_t), ("error", c_void_p)]


class ObjectStruct(ctypes.Structure):
    key: bytes
    is_prefix: bool
    content_length: int
    _fields_ = [
        ("key", c_char_p), ("is_prefix", c_bool), ("created", c_int64), ("expires", c_int64),
        ("content_length", c_int64), ("entries", c_void_p), ("count", c_size_t),
    ]  # fmt: skip


class ListOptions(ctypes.Structure):
    _fields_ = [
        ("prefix", c_char_p), ("cursor", c_char_p), ("recursive", c_bool), ("system", c_bool), ("custom", c_bool),
    ]  # fmt: skip


class PermissionStruct(ctypes.Structure):
    _fields_ = [
        ("allow_download", c_bool), ("allow_upload", c_bool), ("allow_list", c_bool), ("allow_delete", c_bool),
        ("not_before", c_int64), ("not_after", c_int64),
    ]  # fmt: skip


class PrefixStruct(ctypes.Structure):
    _fields_ = [("bucket", c_char_p), ("prefix", c_char_p)]


SIGNATURES: Final[dict[str, tuple[Any, ...]]] = {
    # name: (result, arguments...)
    "uplink_access_serialize": (Result, c_void_p),
    "uplink_close_project": (c_void_p, c_void_p),
    "uplink_revoke_access": (c_void_p, c_void_p, c_void_p),
    "uplink_ensure_bucket": (Result, c_void_p, c_char_p),
    "uplink_stat_object": (Result, c_void_p, c_char_p, c_char_p),
    "uplink_delete_object": (Result, c_void_p, c_char_p, c_char_p),
    "uplink_list_objects": (c_void_p, c_void_p, c_char_p, c_void_p),
    "uplink_object_iterator_next": (c_bool, c_void_p),
    "uplink_object_iterator_item": (c_void_p, c_void_p),
    "uplink_object_iterator_err": (c_void_p, c_void_p),
    "uplink_upload_object": (Result, c_void_p, c_char_p, c_char_p, c_void_p),
    "uplink_upload_write": (Count, c_void_p, c_void_p, c_size_t),
    "uplink_upload_commit": (c_void_p, c_void_p),
    "uplink_upload_abort": (c_void_p, c_void_p),
    "uplink_download_object": (Result, c_void_p, c_char_p, c_char_p, c_void_p),
    "uplink_download_read": (Count, c_void_p, c_void_p, c_size_t),
    "uplink_close_download": (c_void_p, c_void_p),
    "uplink_free_error": (None, c_void_p),
    "uplink_free_object": (None, c_void_p),
    "uplink_free_object_iterator": (None, c_void_p),
    **{
        f"uplink_free_{kind}_result": (None, Result)
        for kind in ("access", "string", "project", "bucket", "object", "upload", "download")
    },
}
_OURS_ONLY: Final[dict[str, tuple[Any, ...]]] = {
    "fednode_access_share": (Result, c_void_p, PermissionStruct, c_void_p, c_size_t, c_int64),
}


def load(path: Path) -> ctypes.CDLL:
    """The library with every signature declared: an undeclared call would cut addresses to 32 bits.

    Never in the daemon: Go must not be in a process that forks. ConfigError where it cannot be used.
    """
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be loaded: {error}", hint="a build for another machine or C library?"
        ) from None
    wanted = {**SIGNATURES, **{name: kinds for name, kinds in _OURS_ONLY.items() if hasattr(library, name)}}
    for name, (result, *arguments) in wanted.items():
        try:
            function = getattr(library, name)
        except AttributeError:
            raise ConfigError(f"{path} lacks {name}, expected libuplinkc v1.14 or newer") from None
        function.restype, function.argtypes = result, arguments
    return library
