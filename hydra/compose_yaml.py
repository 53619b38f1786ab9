"""YAML text of plain values, as much of it as compose files need. Every scalar that could be misread is quoted."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

Yaml: TypeAlias = "str | int | bool | Sequence[Yaml] | Mapping[str, Yaml]"

_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*([-_][A-Za-z0-9]+)*")
_WORDS: Final = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
"""What YAML 1.1 or 1.2 takes for something else than text."""


def to_yaml(value: Mapping[str, Yaml]) -> str:
    """Block style, two spaces, keys in the given order; text of several lines as a literal block."""
    return "".join(f"{line}\n" if line else "\n" for line in _mapping(value, ""))


def literal(text: str) -> str:
    """`text` safe from compose's own interpolation of `$`."""
    return text.replace("$", "$$")


def _mapping(value: Mapping[str, Yaml], indent: str) -> list[str]:
    lines: list[str] = []
    for key, item in value.items():
        lines += _entry(f"{indent}{_scalar(key)}:", item, indent)
    return lines


def _sequence(value: Sequence[Yaml], indent: str) -> list[str]:
    lines: list[str] = []
    for item in value:
        lines += _entry(f"{indent}-", item, indent)
    return lines


def _entry(head: str, item: Yaml, indent: str) -> list[str]:
    deeper = indent + "  "
    if isinstance(item, str) and "\n" in item:
        return [f"{head} |", *(deeper + line if line else "" for line in item.strip("\n").split("\n"))]
    if isinstance(item, str | bool | int):
        return [f"{head} {_scalar(item)}"]
    if not item:
        return [f"{head} {{}}" if isinstance(item, Mapping) else f"{head} []"]
    if isinstance(item, Mapping):
        lines = _mapping(item, deeper)
        return [f"{head} {lines[0].strip()}", *lines[1:]] if head.endswith("-") else [head, *lines]
    return [head, *_sequence(item, deeper)]


def _scalar(value: str | bool | int) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    # A JSON string is a double-quoted YAML scalar.
    return value if _PLAIN.fullmatch(value) and value.lower() not in _WORDS else json.dumps(value)
