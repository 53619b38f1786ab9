"""A strict CBOR reader that remembers where every item lies, so that original bytes are hashed and never re-encoded.

Only what a Cardano transaction may hold: integers, byte and text strings, arrays, maps, tags, booleans, null.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

MAX_DEPTH: Final = 24
_BREAK: Final = 0xFF


class CborError(ValueError):
    """The bytes are not the CBOR that was expected; the message says what and where."""


@dataclass(frozen=True, slots=True)
class Tag:
    number: int
    value: Item


@dataclass(frozen=True, slots=True)
class Map:
    """Pairs in their order on the wire; duplicates are kept for the caller to judge."""

    pairs: tuple[tuple[Item, Item], ...]

    def unique(self, what: str) -> dict[Item, Item]:
        """The pairs as a dict. CborError for a duplicate key."""
        found = dict(self.pairs)
        if len(found) != len(self.pairs):
            raise CborError(f"{what}: duplicate key")
        return found


Item: TypeAlias = int | bytes | str | bool | tuple["Item", ...] | Map | Tag | None


@dataclass(frozen=True, slots=True)
class Span:
    """An item and where it lies: data[start:end]."""

    item: Item
    start: int
    end: int


def decode(data: bytes) -> Item:
    """Exactly one item. CborError for anything else, trailing bytes included."""
    item, end = read(data, 0)
    if end != len(data):
        raise CborError(f"{len(data) - end} trailing bytes after the item")
    return item


def read(data: bytes, start: int, depth: int = 0) -> tuple[Item, int]:
    """The item at `start` and the position after it."""
    if depth > MAX_DEPTH:
        raise CborError(f"nested deeper than {MAX_DEPTH}")
    major, argument, position = _head(data, start)
    if major == 0:
        return _definite(argument), position
    if major == 1:
        return -1 - _definite(argument), position
    if major in {2, 3}:
        raw, position = _string(data, major, argument, position)
        return (raw if major == 2 else _text(raw)), position
    if major == 4:
        return _array(data, argument, position, depth)
    if major == 5:
        return _map(data, argument, position, depth)
    if major == 6:
        value, position = read(data, position, depth + 1)
        return _tagged(_definite(argument), value), position
    return _simple(argument, start), position


def array_spans(data: bytes, start: int) -> tuple[list[Span], int]:
    """The elements of the array at `start`, with their places, and the position after the array."""
    major, argument, position = _head(data, start)
    if major != 4:
        raise CborError(f"expected an array at byte {start}")
    spans: list[Span] = []
    while True:
        if argument is None and _peek(data, position) == _BREAK:
            return spans, position + 1
        if argument is not None and len(spans) == argument:
            return spans, position
        item, end = read(data, position, 1)
        spans.append(Span(item, position, end))
        position = end


def map_spans(data: bytes, start: int) -> tuple[list[tuple[Item, Span]], int]:
    """Keys and the places of their values for the map at `start`, and the position after the map."""
    major, argument, position = _head(data, start)
    if major != 5:
        raise CborError(f"expected a map at byte {start}")
    places: list[tuple[Item, Span]] = []
    while True:
        if argument is None and _peek(data, position) == _BREAK:
            return places, position + 1
        if argument is not None and len(places) == argument:
            return places, position
        key, position = read(data, position, 1)
        item, end = read(data, position, 1)
        places.append((key, Span(item, position, end)))
        position = end


def _peek(data: bytes, position: int) -> int:
    if position >= len(data):
        raise CborError("unexpected end of bytes")
    return data[position]


def _head(data: bytes, position: int) -> tuple[int, int | None, int]:
    """Major type, argument (None: indefinite length), position after the head."""
    first = _peek(data, position)
    major, info = first >> 5, first & 31
    if info < 24:
        return major, info, position + 1
    if info < 28:
        width = 1 << (info - 24)
        end = position + 1 + width
        if end > len(data):
            raise CborError("unexpected end of bytes")
        if major == 7:
            raise CborError(f"float or unknown simple value at byte {position}")
        return major, int.from_bytes(data[position + 1 : end]), end
    if info == 31 and 2 <= major <= 5:
        return major, None, position + 1
    raise CborError(f"invalid item head {first:#04x} at byte {position}")


def _definite(argument: int | None) -> int:
    if argument is None:
        raise CborError("indefinite length where a number was expected")
    return argument


def _string(data: bytes, major: int, argument: int | None, position: int) -> tuple[bytes, int]:
    if argument is not None:
        end = position + argument
        if end > len(data):
            raise CborError("unexpected end of bytes")
        return data[position:end], end
    chunks: list[bytes] = []
    while _peek(data, position) != _BREAK:
        chunk_major, length, position = _head(data, position)
        if chunk_major != major or length is None:
            raise CborError("wrong chunk in a string of indefinite length")
        chunk, position = _string(data, major, length, position)
        chunks.append(chunk)
    return b"".join(chunks), position + 1


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise CborError("a text string is not UTF-8") from None


def _array(data: bytes, argument: int | None, position: int, depth: int) -> tuple[Item, int]:
    items: list[Item] = []
    while True:
        if argument is None and _peek(data, position) == _BREAK:
            return tuple(items), position + 1
        if argument is not None and len(items) == argument:
            return tuple(items), position
        item, position = read(data, position, depth + 1)
        items.append(item)


def _map(data: bytes, argument: int | None, position: int, depth: int) -> tuple[Item, int]:
    pairs: list[tuple[Item, Item]] = []
    while True:
        if argument is None and _peek(data, position) == _BREAK:
            return Map(tuple(pairs)), position + 1
        if argument is not None and len(pairs) == argument:
            return Map(tuple(pairs)), position
        key, position = read(data, position, depth + 1)
        value, position = read(data, position, depth + 1)
        pairs.append((key, value))


def _tagged(number: int, value: Item) -> Item:
    if number in {2, 3}:
        if not isinstance(value, bytes):
            raise CborError("a big integer is not a byte string")
        magnitude = int.from_bytes(value)
        return magnitude if number == 2 else -1 - magnitude
    return Tag(number, value)


def _simple(argument: int | None, position: int) -> Item:
    if argument == 20:
        return False
    if argument == 21:
        return True
    if argument == 22:
        return None
    raise CborError(f"unknown simple value at byte {position}")
