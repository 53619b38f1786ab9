"""CBOR by hand, in every form that the ledger reads: definite and indefinite, minimal and wide, sets with tag 258."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Style:
    """How a transaction is written. All styles mean the same."""

    indefinite: bool = False
    """Lists and maps of indefinite length, metadata strings in chunks."""
    wide: bool = False
    """Integers in eight bytes."""
    tagged: bool = True
    """Sets with tag 258; else plain arrays."""
    legacy: bool = False
    """Outputs as arrays; else as maps."""


def head(major: int, argument: int, *, wide: bool = False) -> bytes:
    """The head of an item."""
    if argument < 24 and not wide:
        return bytes([major << 5 | argument])
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if (wide and size == 8) or (not wide and argument < 1 << 8 * size):
            return bytes([major << 5 | info]) + argument.to_bytes(size)
    raise ValueError(argument)


def integer(value: int, style: Style) -> bytes:
    """An integer; beyond 64 bits a big number."""
    magnitude = value if value >= 0 else -1 - value
    if magnitude >> 64:
        size = (magnitude.bit_length() + 7) // 8
        return head(6, 2 if value >= 0 else 3) + head(2, size) + magnitude.to_bytes(size)
    return head(0 if value >= 0 else 1, magnitude, wide=style.wide)


def octets(value: bytes) -> bytes:
    return head(2, len(value)) + value


def array(items: Sequence[bytes], style: Style) -> bytes:
    if style.indefinite:
        return b"\x9f" + b"".join(items) + b"\xff"
    return head(4, len(items)) + b"".join(items)


def mapping(pairs: Sequence[tuple[bytes, bytes]], style: Style) -> bytes:
    content = b"".join(key + value for key, value in pairs)
    return b"\xbf" + content + b"\xff" if style.indefinite else head(5, len(pairs)) + content


def members(items: Sequence[bytes], style: Style) -> bytes:
    """A set."""
    return (b"\xd9\x01\x02" if style.tagged else b"") + array(items, style)


def metadatum(value: Any, style: Style) -> bytes:
    """Integers, bytes, text, lists and dicts, as transaction metadata holds them."""
    if isinstance(value, int):
        return integer(value, style)
    if isinstance(value, bytes | str):
        major, raw = (2, value) if isinstance(value, bytes) else (3, value.encode())
        if style.indefinite and len(raw) > 1 and raw.isascii():
            half = len(raw) // 2
            chunks = head(major, half) + raw[:half] + head(major, len(raw) - half) + raw[half:]
            return bytes([major << 5 | 31]) + chunks + b"\xff"
        return head(major, len(raw)) + raw
    if isinstance(value, dict):
        return mapping([(metadatum(k, style), metadatum(v, style)) for k, v in value.items()], style)
    return array([metadatum(each, style) for each in value], style)
