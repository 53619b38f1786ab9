"""Every key of peers.toml and fednode.toml doubled, missing, misspelt and of every other type, generated from files
that hold all of them: a good file still, or one sentence with file, key, line and expectation, and a hint."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fednode.errors import ConfigError
from fednode.node.agreement import load_agreement
from fednode.node.agreement_tables import Tables
from fednode.node.config import SettingsTables, load_settings
from fednode.node.setup import check_address
from tests.fuzz.targets import good_peers, good_settings

FILES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "peers.toml": (good_peers(), lambda path: load_agreement(path, check_address=check_address)),
    "fednode.toml": (good_settings(), load_settings),
}
OTHER_TYPES = [
    "7",
    "-1",
    "1.5",
    "nan",
    '"text"',
    '""',
    "true",
    "[]",
    '["a"]',
    "{ a = 1 }",
    "1979-05-27",
    "2" + "0" * 30,
]
_HEADER = re.compile(r"\[\[?([a-z.]+)\]\]?")


def keys(name: str) -> list[tuple[int, str, str]]:
    """(line number from 0, table, key) of every key in the file."""
    found, table = [], ""
    for number, line in enumerate(FILES[name][0].split("\n")):
        header = _HEADER.match(line)
        if header:
            table = header[1]
        elif match := re.match(r"([a-z_0-9]+) = ", line):
            found.append((number, table, match[1]))
    return found


CASES = [(name, *case) for name in FILES for case in keys(name)]


def test_the_files_hold_every_key() -> None:
    """So that nothing is left out of the cases."""
    for name, model in (("peers.toml", Tables), ("fednode.toml", SettingsTables)):
        tables = {table for _, table, _ in keys(name)}
        assert {table.split(".")[0] for table in tables} == set(model.model_fields)
    assert len(CASES) > 80


def with_line(name: str, number: int, *lines: str) -> bytes:
    text = FILES[name][0].split("\n")
    return "\n".join([*text[:number], *lines, *text[number + 1 :]]).encode()


def outcome(folder: Path, name: str, data: bytes) -> ConfigError | None:
    """None where the file is good; else the error, which must be fit to be read."""
    path = folder / name
    path.write_bytes(data)
    try:
        FILES[name][1](path)
    except ConfigError as error:
        return fit(error, path)
    return None


def fit(error: ConfigError, path: Path) -> ConfigError:
    assert error.message.startswith(f"{path}: "), error.message
    assert "\n" not in error.message + error.hint
    assert "expected" in error.message or "not valid TOML" in error.message, error.message
    assert error.hint, error.message
    return error


@pytest.mark.parametrize(("name", "number", "table", "key"), CASES)
def test_a_key_that_is_wrong_in_any_way(tmp_path: Path, name: str, number: int, table: str, key: str) -> None:
    line = FILES[name][0].split("\n")[number]
    assert outcome(tmp_path, name, with_line(name, number, line)) is None

    doubled = outcome(tmp_path, name, with_line(name, number, line, line))
    assert doubled is not None
    assert f"line {number + 2}" in doubled.message

    missing = outcome(tmp_path, name, with_line(name, number))
    if missing is not None:
        assert f"{key} " in missing.message

    misspelt = outcome(tmp_path, name, with_line(name, number, line.replace(key, key + "x", 1)))
    assert misspelt is not None
    if "sha256" not in table:  # its keys are names of files, and any is good
        assert key in misspelt.message + misspelt.hint

    refused = 0
    for literal in OTHER_TYPES:
        wrong: Any = outcome(tmp_path, name, with_line(name, number, f"{key} = {literal}"))
        refused += wrong is not None
        if wrong is not None:
            assert f"{key}" in wrong.message
            assert f"(line {number + 1})" in wrong.message, wrong.message
    assert refused >= len(OTHER_TYPES) // 2
