"""The words between the daemon and its uplink worker: JSON objects, each after its length (4 bytes, big-endian).

first       {"library": PATH}                       answered by {"ready": true} or {"error": {...}}
request     {"id": N, "op": "stat" | "upload" | ..., "grant": TEXT, ...}
cancel      {"cancel": N}
reply       {"id": N, "moved": BYTES} or {"id": N, "entries": [[KEY, SIZE], ...]} any number of times,
            then {"id": N, "ok": {...}} or {"id": N, "error": {"kind": ..., ...}}
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO, Final, cast

LIMIT: Final = 1 << 20
"""Longest message in bytes: a page of a listing."""
_LENGTH: Final = struct.Struct(">I")

Message = dict[str, Any]


class BrokenFrameError(Exception):
    """Something else than a message is on the pipe."""


def pack(message: Mapping[str, object]) -> bytes:
    """BrokenFrameError where it is too long."""
    data = json.dumps(message, separators=(",", ":")).encode()
    if len(data) > LIMIT:
        raise BrokenFrameError(f"a message of {len(data)} bytes, expected at most {LIMIT}")
    return _LENGTH.pack(len(data)) + data


def read(stream: BinaryIO) -> Message | None:
    """The next message; None at the end. Blocking."""
    head = _exactly(stream, _LENGTH.size)
    if head is None:
        return None
    data = _exactly(stream, _length(head))
    return None if data is None else _unpack(data)


async def receive(stream: asyncio.StreamReader) -> Message | None:
    """The next message; None at the end, also in the middle of one: the other side is gone then."""
    try:
        head = await stream.readexactly(_LENGTH.size)
        return _unpack(await stream.readexactly(_length(head)))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def _exactly(stream: BinaryIO, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        more = stream.read(size - len(data))
        if not more:
            return None
        data += more
    return bytes(data)


def _length(head: bytes) -> int:
    (size,) = _LENGTH.unpack(head)
    if size > LIMIT:
        raise BrokenFrameError(f"a message of {size} bytes, expected at most {LIMIT}")
    return int(size)


def _unpack(data: bytes) -> Message:
    try:
        message = json.loads(data)
    except ValueError:
        raise BrokenFrameError("not JSON") from None
    if not isinstance(message, dict):
        raise BrokenFrameError("not an object")
    return cast(Message, message)
