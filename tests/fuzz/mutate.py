"""Mutators: bytes, JSON and TOML text, CBOR values. All randomness comes from the given generator."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import cbor2

NUMBERS = [0, 1, -1, 2, 63, 64, 127, 128, 255, 256, 4096, 2**31, 2**32, 2**53, 2**63, 2**64 - 1, 2**64, 10**40, 10**400]
TEXTS = ["", "a", "A", "é", "\x1b[2J", "\n", "\u202e", "x" * 300, "0" * 64, "ab" * 32, "../..", "auto", "1e999", "-"]
VALUES: list[Any] = [
    *NUMBERS,
    *TEXTS,
    None,
    True,
    False,
    1.5,
    -0.0,
    1e308,
    float("inf"),
    float("nan"),
    [],
    {},
    [[]],
    {"a": 1},
]


def some_bytes(rng: random.Random, data: bytes) -> bytes:
    """One to four small changes."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        rng.choice(_BYTES)(rng, found)
    return bytes(found)


def _flip(rng: random.Random, data: bytearray) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set(rng: random.Random, data: bytearray) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice(
            (0, 1, 0x7F, 0x80, 0xFF, 0x22, 0x5C, 0x9F, 0xBF, rng.randrange(256))
        )


def _delete(rng: random.Random, data: bytearray) -> None:
    at = rng.randrange(len(data) + 1)
    del data[at : at + rng.choice((1, 1, 2, 8, 64))]


def _insert(rng: random.Random, data: bytearray) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(rng.choice((1, 1, 2, 8, 64)))


def _repeat(rng: random.Random, data: bytearray) -> None:
    at, size = rng.randrange(len(data) + 1), rng.choice((1, 4, 16, 64))
    data[at:at] = data[at : at + size] * rng.choice((1, 1, 2, 50))


def _move(rng: random.Random, data: bytearray) -> None:
    at, size = rng.randrange(len(data) + 1), rng.choice((1, 4, 16, 64))
    piece = data[at : at + size]
    del data[at : at + size]
    to = rng.randrange(len(data) + 1)
    data[to:to] = piece


def _cut(rng: random.Random, data: bytearray) -> None:
    del data[rng.randrange(len(data) + 1) :]


_BYTES: list[Callable[[random.Random, bytearray], None]] = [
    _flip,
    _flip,
    _set,
    _set,
    _delete,
    _insert,
    _repeat,
    _move,
    _cut,
]


def value(rng: random.Random, tree: Any, values: list[Any] = VALUES) -> Any:
    """A tree of dicts and lists with one node changed; the original stays as it is."""
    paths = list(_paths(tree))
    return _changed(rng, tree, rng.choice(paths), values)


def _paths(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(tree, dict):
        for key, item in tree.items():
            found += _paths(item, (*path, key))
    elif isinstance(tree, list | tuple):
        for index, item in enumerate(tree):
            found += _paths(item, (*path, index))
    return found


def _changed(rng: random.Random, tree: Any, path: tuple[Any, ...], values: list[Any]) -> Any:
    if not path:
        return _other(rng, tree, values)
    key, *rest = path
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    if not rest and rng.random() < 0.25:
        del copy[key]
    elif not rest and isinstance(copy, dict) and rng.random() < 0.15:
        copy[rng.choice(TEXTS)] = copy.pop(key)
    else:
        copy[key] = _changed(rng, copy[key], tuple(rest), values)
    return copy


def _other(rng: random.Random, old: Any, values: list[Any]) -> Any:
    kind = rng.randrange(6)
    if kind == 0 and isinstance(old, dict):
        return old | {rng.choice(TEXTS): rng.choice(values)}
    if kind == 0 and isinstance(old, list) and old:
        return old + [rng.choice(old)] * rng.choice((1, 40))
    if kind == 1 and isinstance(old, str):
        return some_bytes(rng, old.encode()).decode(errors="replace")
    if kind == 1 and isinstance(old, bytes):
        return some_bytes(rng, old)
    if kind == 2 and isinstance(old, int):
        return old + rng.choice((-1, 1, 1 << 32, -old - 1))
    if kind == 3:
        return [old]
    return rng.choice(values)


def json_text(rng: random.Random, text: str) -> str | bytes:
    """A JSON text with changed values, sometimes with duplicate keys, sometimes no JSON any more."""
    kind = rng.randrange(10)
    if kind == 0:
        return some_bytes(rng, text.encode())
    tree = json.loads(text)
    for _ in range(rng.choice((1, 1, 2, 3))):
        tree = value(rng, tree)
    found = json.dumps(tree)
    if kind == 1 and found.startswith("{"):
        return found[:-1] + ("," if len(found) > 2 else "") + '"tag":' + json.dumps(rng.choice(VALUES)) + "}"
    if kind == 2:
        return some_bytes(rng, found.encode())
    return found


LITERALS = [
    "0", "1", "-1", "9223372036854775807", "9223372036854775808",
    "1" + "0" * 4400, "0.0", "-0.5", "1e308", "inf", "nan",
    '""', '"a"', '"A B"', '"\\u001b[2J"', '"é"', '"../x"', '"auto"', '"' + "x" * 300 + '"', '"' + "0" * 64 + '"',
    "true",
    "false", "[]", '["a"]', "[1, [2]]", "{}", "{a = 1}", "1979-05-27", "07:32:00", "'''\n'''", "0x10", '"null\\u0000"',
    "[" * 300,
]  # fmt: skip


def toml_text(rng: random.Random, text: str) -> bytes:
    """A TOML text with lines changed, doubled, removed, exchanged, or with values of other types."""
    lines = text.split("\n")
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(lines))
        kind = rng.randrange(9)
        if kind < 4:
            lines[at] = _assigned(rng, lines[at])
        elif kind == 4:
            lines.insert(rng.randrange(len(lines)), lines[at])
        elif kind == 5:
            del lines[at : at + rng.choice((1, 1, 5))]
            lines = lines or [""]
        elif kind == 6:
            lines.insert(at, f"{rng.choice(TEXTS)} = {rng.choice(LITERALS)}")
        elif kind == 7:
            lines.insert(
                at, rng.choice(("[party]", "[[party]]", "[run]", "[x]", "[peers.bob]", "[head.url]", "[[run]]"))
            )
        else:
            lines[at] = some_bytes(rng, lines[at].encode()).decode(errors="replace")
    found = "\n".join(lines).encode(errors="replace")
    return some_bytes(rng, found) if rng.random() < 0.1 else found


def _assigned(rng: random.Random, line: str) -> str:
    key, equals, _ = line.partition("=")
    if not equals:
        return line
    if rng.random() < 0.15:
        key = rng.choice((key.strip().upper(), key.strip()[:-1], f'"{key.strip()}"', f"a.{key.strip()}"))
    return f"{key.strip()} = {rng.choice(LITERALS)}"


CBOR_VALUES: list[Any] = [
    *NUMBERS[:-1],
    "", "a", "é", "x" * 65, b"", b"\0", bytes(16), bytes(28), bytes(32), bytes(64), None, True, False, 1.5,
    float("nan"), [], {}, [1], {1: 2}, {"v": 1}, cbor2.CBORTag(258, []), cbor2.CBORTag(2, b"\1"),
    cbor2.CBORTag(259, {0: {}}),
]  # fmt: skip


def cbor_value(rng: random.Random, tree: Any) -> Any:
    return value(rng, tree, CBOR_VALUES)
