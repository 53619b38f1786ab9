"""Look-ups in the settings tables that a trainer is given: [model], [training] and the private [data]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fednode.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Table:
    """Typed look-ups in one settings table; a wrong value is a ConfigError that names table and key."""

    name: str
    values: Mapping[str, object]

    def number(self, key: str, default: float | None = None) -> float:
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise ConfigError(f"{self.name}.{key} is {value!r}, expected a number >= 0")
        return float(value)

    def positive(self, key: str, default: float) -> float:
        value = self.number(key, default)
        if value == 0:
            raise ConfigError(f"{self.name}.{key} is 0, expected a number above 0")
        return value

    def whole(self, key: str, *, least: int, default: int | None = None) -> int:
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(f"{self.name}.{key} is {value!r}, expected a whole number >= {least}")
        return value

    def text(self, key: str, default: str) -> str:
        value = self.values.get(key, default)
        if value is None:
            return default
        if not isinstance(value, str):
            raise ConfigError(f"{self.name}.{key} is {value!r}, expected a text")
        return value
