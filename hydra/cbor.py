"""A CBOR reader (RFC 8949) for hostile bytes that keeps the original bytes of every part.

A general decoder gives meaning to tags (big floats, regular expressions, shared references), which costs unbounded
time on hostile input, merges duplicate keys, and loses the bytes that a transaction id is the hash of. This one does
no more than a transaction needs: all values are hashable, tags stay tags, work is linear in the input.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

MAX_DEPTH: Final = 64
_BREAK: Final = 0xFF


class CborError(ValueError):
    """The bytes are not one well-formed CBOR item of at most MAX_DEPTH levels, or not of the expected shape."""


@dataclass(frozen=True, slots=True)
class Tag:
    number: int
    value: Value


@dataclass(frozen=True, slots=True)
class Simple:
    """false, true, null, floats and the other values of major type 7: `info` and the bits that follow it."""

    info: int
    bits: int


@dataclass(frozen=True, slots=True)
class Map:
    """The pairs in their order, duplicate keys included."""

    pairs: tuple[tuple[Value, Value], ...]

    def unique(self) -> dict[Value, Value]:
        """As a dict. CborError where a key occurs twice."""
        result = dict(self.pairs)
        if len(result) != len(self.pairs):
            raise CborError("a map has the same key twice")
        return result


Value: TypeAlias = "int | bytes | str | tuple[Value, ...] | Map | Tag | Simple"

FALSE: Final = Simple(20, 20)
TRUE: Final = Simple(21, 21)
NULL: Final = Simple(22, 22)


def decode(data: bytes) -> Value:
    """The one value that `data` holds. CborError for anything else, trailing bytes included."""
    reader = _Reader(data)
    value = reader.value(0)
    reader.expect_end()
    return value


def array_items(data: bytes) -> list[bytes]:
    """The original bytes of each element of the array that `data` holds."""
    reader = _Reader(data)
    items = [reader.slice() for _ in reader.counted(reader.container(4))]
    reader.expect_end()
    return items


def array_parts(data: bytes) -> list[tuple[bytes, Value]]:
    """The original bytes and the value of each element of the array that `data` holds, read once."""
    reader = _Reader(data)
    items = [reader.part() for _ in reader.counted(reader.container(4))]
    reader.expect_end()
    return items


def map_items(data: bytes) -> list[tuple[bytes, bytes]]:
    """The original bytes of each key and value of the map that `data` holds."""
    reader = _Reader(data)
    items = [(reader.slice(), reader.slice()) for _ in reader.counted(reader.container(5))]
    reader.expect_end()
    return items


def untag(data: bytes, number: int) -> tuple[bytes, bytes]:
    """(original bytes of the tag head, rest) where `data` starts with tag `number`; (empty, data) otherwise."""
    reader = _Reader(data)
    major, argument = reader.head()
    if major == 6 and argument == number:
        return data[: reader.position], data[reader.position :]
    return b"", data


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def expect_end(self) -> None:
        if self.position != len(self._data):
            raise CborError(f"{len(self._data) - self.position} bytes follow the item")

    def head(self) -> tuple[int, int | None]:
        """(major type, argument); the argument is None for an indefinite length."""
        initial = self._take(1)[0]
        major, info = initial >> 5, initial & 31
        if info < 24:
            return major, info
        if info < 28:
            return major, int.from_bytes(self._take(1 << (info - 24)), "big")
        if info == 31 and major in (2, 3, 4, 5):
            return major, None
        raise CborError(f"reserved initial byte {initial:#04x}")

    def container(self, major: int) -> int | None:
        found, count = self.head()
        if found != major:
            raise CborError(f"expected {'an array' if major == 4 else 'a map'}, found major type {found}")
        return count

    def counted(self, count: int | None) -> Iterator[None]:
        """One step per element; ends at the break byte where the length is indefinite."""
        if count is None:
            while self._peek() != _BREAK:
                yield
            self._take(1)
        elif count > len(self._data) - self.position:
            raise CborError("a length exceeds the input")
        else:
            for _ in range(count):
                yield

    def slice(self) -> bytes:
        return self.part()[0]

    def part(self) -> tuple[bytes, Value]:
        start = self.position
        value = self.value(1)
        return self._data[start : self.position], value

    def value(self, depth: int) -> Value:
        if depth > MAX_DEPTH:
            raise CborError(f"nested deeper than {MAX_DEPTH} levels")
        initial = self._peek()
        info = initial & 31
        if initial < 24:  # most values of a transaction are small numbers and short strings: no calls for these
            self.position += 1
            return initial
        if initial >> 5 == 2 and info < 25:
            start = self.position + 1 + (info == 24)
            end = start + (info if info < 24 else self._data[start - 1] if start <= len(self._data) else 0)
            if start <= end <= len(self._data):
                self.position = end
                return self._data[start:end]
        major, argument = self.head()
        if major == 4:
            return tuple([self.value(depth + 1) for _ in self.counted(argument)])
        if major == 5:
            return Map(tuple([(self.value(depth + 1), self.value(depth + 1)) for _ in self.counted(argument)]))
        if argument is None:
            return self._chunks(major)
        if major == 0:
            return argument
        if major == 1:
            return -1 - argument
        if major in (2, 3):
            return self._string(major, argument)
        return Tag(argument, self.value(depth + 1)) if major == 6 else Simple(info, argument)

    def _chunks(self, major: int) -> bytes | str:
        parts: list[bytes] = []
        for _ in self.counted(None):
            found, length = self.head()
            if found != major or length is None:
                raise CborError("a chunk of a string has another type")
            parts.append(self._take(length))
        return b"".join(parts) if major == 2 else _text(b"".join(parts))

    def _string(self, major: int, length: int) -> bytes | str:
        data = self._take(length)
        return data if major == 2 else _text(data)

    def _peek(self) -> int:
        if self.position >= len(self._data):
            raise CborError("the input ends early")
        return self._data[self.position]

    def _take(self, length: int) -> bytes:
        end = self.position + length
        if end > len(self._data):
            raise CborError("the input ends early")
        data = self._data[self.position : end]
        self.position = end
        return data


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise CborError("a text string is not UTF-8") from None
