"""Typed access to the JSON of a hydra-node. Whatever is not as expected becomes one HeadError that names the place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, cast

from fednode.errors import HeadError

_MANY: Final = 2_000_000
"""JSON values in one message. Each costs up to some 100 bytes; the largest head's whole state has some 100,000."""


class Fields:
    """One JSON object and where it stands (for messages). Values are never shown, only their types."""

    __slots__ = ("_values", "where")

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise malformed(where, "a JSON object", value)
        self._values = cast("dict[str, object]", value)
        self.where = where

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def items(self) -> Iterator[tuple[str, object]]:
        return iter(self._values.items())

    def get(self, name: str) -> object:
        return self._values.get(name)

    def text(self, name: str) -> str:
        value = self._values.get(name)
        if not isinstance(value, str):
            raise self._wrong(name, "a string")
        return value

    def natural(self, name: str) -> int:
        value = self._values.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 64:
            raise self._wrong(name, "a whole number from 0 to 2^64 - 1")
        return value

    def number(self, name: str) -> float:
        value = self._values.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1 << 64:
            raise self._wrong(name, "a number below 2^64")
        return float(value)

    def time(self, name: str) -> float:
        """An ISO-8601 time as Unix seconds (digits below a microsecond are dropped)."""
        try:
            parsed = datetime.fromisoformat(self.text(name))
            return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            raise self._wrong(name, "an ISO-8601 time") from None

    def raw_hex(self, name: str) -> bytes:
        try:
            return bytes.fromhex(self.text(name))
        except ValueError:
            raise self._wrong(name, "hex") from None

    def child(self, name: str) -> Fields:
        return Fields(self._values.get(name), f"{self.where}.{name}")

    def children(self, name: str) -> list[Fields]:
        value = self._values.get(name)
        if not isinstance(value, list):
            raise self._wrong(name, "an array")
        items = cast("list[object]", value)
        return [Fields(item, f"{self.where}.{name}[{index}]") for index, item in enumerate(items)]

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._values.get(name)
        items = cast("list[object]", value) if isinstance(value, list) else [None]
        if not all(isinstance(item, str) for item in items):
            raise self._wrong(name, "an array of strings")
        return tuple(str(item) for item in items)

    def _wrong(self, name: str, expected: str) -> HeadError:
        return malformed(f"{self.where}.{name}", expected, self._values.get(name))


def malformed(where: str, expected: str, found: object) -> HeadError:
    """The error for JSON that is not what hydra-node 2.3 sends."""
    return HeadError(
        f"hydra-node {where}: expected {expected}, found {type(found).__name__}",
        hint="is it a hydra-node 2.3? `fednode init-head --dry-run` shows its version",
    )


def parse_json(text: str | bytes, where: str) -> object:
    """HeadError where `text` is not JSON, or holds so many values that reading them would fill the memory."""
    if len(text) > _MANY and _values(text) > _MANY:
        raise HeadError(f"hydra-node {where}: expected at most {_MANY} values, found more in {len(text)} bytes")
    try:
        return cast("object", json.loads(text))
    except (ValueError, RecursionError):
        raise HeadError(f"hydra-node {where}: expected JSON, found {len(text)} bytes of something else") from None


def _values(text: str | bytes) -> int:
    """At least the number of values in a JSON text: each follows one of these."""
    if isinstance(text, str):
        return sum(text.count(sign) for sign in "[{,:")
    return sum(text.count(sign) for sign in (b"[", b"{", b",", b":"))
