"""Every option and argument of every command with every kind of wrong value, generated from the commands themselves:
exit status 2 or 3, one message, never a traceback; with --json one JSON object."""

from __future__ import annotations

import enum
import functools
import json
import os
import shutil
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from fednode.node import app
from fednode.node.cli import COMMANDS, build, invoke
from fednode.node.demo.federation import Demo

FLAGS = {"json", "quiet", "verbose"}
NUMBERS = ["x", "", " ", "1.5", "1e3", "0x10", "9" * 40, "nan", "--json", "\u0663x"]
BAD_TEXT = {
    "--name": ["", "A B", "x" * 33, "../x", "\x1b[2J"],
    "--network": ["mainnet", "", "preprod\n"],
    "--head-url": ["ftp://x:1", "", "http://u:p@h:1", "http://h:99999", "http://["],
    "--funding": ["x", "ab#0", "0" * 64 + "#x"],
    "--data": ["a\nb", "\x7f"],
    "--satellite": ["x", "x@", "@h:1", "n@h:99999", "n@h:x"],
    "reader": ["", "nobody", "\x1b[2J"],
    "run_id": ["x", "", "0" * 31, "g" * 32],
    "txid": ["x", "", "0" * 63, "g" * 64],
}
"""By option: texts that mean nothing there. --reason takes any text."""
ANY_TEXT = {"--reason"}


@functools.cache
def commands() -> list[tuple[list[str], Any]]:
    """(words, command) of every command."""
    return list(_commands())


def _commands() -> Iterator[tuple[list[str], Any]]:
    for name in COMMANDS:
        found: Any = typer.main.get_command(build(name))
        command = found.commands[name]
        if hasattr(command, "commands"):
            yield from (([name, below], each) for below, each in command.commands.items())
        else:
            yield [name], command


def kind_of(parameter: Any) -> Any:
    """The plain type of a parameter: int, str, Path, bool or an enum."""
    annotation = parameter.type_descriptor.annotation
    inner = [a for a in typing.get_args(annotation) if a is not type(None)]
    return inner[0] if inner else annotation


def wrong_values(parameter: Any, folder: Path) -> list[str]:
    kind, option = kind_of(parameter), parameter.opts[-1]
    if kind is int:
        bounds = [parameter.min - 1] if parameter.min is not None else []
        bounds += [parameter.max + 1] if parameter.max is not None else []
        return [*NUMBERS, *map(str, bounds)]
    if kind is float:
        return ["x", "", " ", "0x10", "nan", "inf", "-inf", "-1", "9" * 400, "--json", str(parameter.max * 2)]
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return ["nope", "", "LM"]
    if kind is Path:
        return wrong_paths(option, folder)
    return [] if option in ANY_TEXT else BAD_TEXT[option]


def wrong_paths(option: str, folder: Path) -> list[str]:
    """What an option that is a path must refuse. Where a folder is made, a file in its way; else nothing readable."""
    file = str(folder / "binary")
    if option == "--home":
        return [str(folder / "missing"), file, str(folder / "empty")]
    if option in ("--dir", "folder"):
        return [file, file + "/below"]
    if option in ("-o", "--output"):
        return [str(folder / "empty"), file + "/below", str(folder / "missing" / "below")]
    return [str(folder / "missing"), str(folder / "empty"), file, str(folder / "zero"), file + "/below", "a" * 5000]


def needed(command: Any, wrong: str, folder: Path) -> list[str]:
    """Good values for the other required parameters."""
    good = {"cards": str(folder / "card.toml"), "folder": str(folder / "new"), "txid": "ab" * 32}
    good |= {"reader": "bob", "run_id": "ab" * 16, "granted": str(folder / "card.toml")}
    good |= {"--parties": "3", "--dir": str(folder / "fed")}
    words = ["--store", "uplink"] if wrong == "--storj" else []  # it means something with these alone
    for parameter in command.params:
        if parameter.required and parameter.opts[-1] != wrong:
            name = parameter.opts[-1]
            words += [name, good[name]] if name.startswith("-") else [good[name]]
    return words


CASES = [
    (words, parameter.opts[-1])
    for words, command in commands()
    for parameter in command.params
    if parameter.name not in FLAGS
    and not parameter.is_eager
    and kind_of(parameter) is not bool
    and not (words[0] in ("devnet", "demo") and parameter.name == "home")  # these make homes of their own
    and (words, parameter.name) != (["bucket", "prune"], "credentials")  # a bucket that is a folder needs none
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home `alice` with an agreement, and things that are no homes, no agreements and no cards."""
    folder = tmp_path_factory.mktemp("prepared")
    home = str(folder / "alice")
    for name in ("alice", "bob"):
        assert invoke(["init", "--name", name, "--home", str(folder / name)]) == 0
        assert invoke(["peers", "card", "-o", str(folder / f"{name}.toml"), "--home", str(folder / name)]) == 0
    assert invoke(["peers", "add", str(folder / "alice.toml"), str(folder / "bob.toml"), "--home", home]) == 0
    (folder / "card.toml").write_bytes((folder / "bob.toml").read_bytes())
    (folder / "binary").write_bytes(bytes(range(256)) * 4)
    (folder / "zero").touch()
    (folder / "empty").mkdir()
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A copy of `prepared`; a command that would go to work fails instead."""

    async def started(*_: object, **__: object) -> None:
        raise AssertionError("the command went to work")

    for owner, name in ((app, "work"), (app, "serve_devnet"), (Demo, "run")):
        monkeypatch.setattr(owner, name, started)
    monkeypatch.delenv("FEDNODE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    capsys.readouterr()
    return tmp_path


@pytest.mark.parametrize(("words", "option"), CASES, ids=lambda x: "-".join(x) if isinstance(x, list) else x)
def test_a_wrong_value_is_one_message(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], option: str
) -> None:
    command = next(each for known, each in commands() if known == words)
    parameter = next(each for each in command.params if each.opts[-1] == option)
    values = wrong_values(parameter, folder)
    if words == ["peers", "add"] and option in ("--home", "--peers"):
        values = [value for value in values if "missing" not in value and "empty" not in value]  # it makes the file
    assert values or option in ANY_TEXT
    before = everything(folder)
    for value in values:
        given = [f"{option}={value}"] if option.startswith("--") else [option, value] if option[0] == "-" else [value]
        line = [*words, *needed(command, option, folder), *given]
        line += [] if option == "--home" else ["--home", str(folder / "alice")]
        refused(line, capsys)
    assert everything(folder) == before


@pytest.mark.parametrize("words", [words for words, _ in commands()], ids="-".join)
def test_unknown_options_missing_values_and_flags_with_values(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    command = next(each for known, each in commands() if known == words)
    rest = [*needed(command, "", folder), "--home", str(folder / "alice")]
    for more in (["--no-such-option"], ["--json=maybe"], ["-x"], ["surplus", "surplus", "surplus\x1b[2J"] * 9):
        if more[0] != "surplus" or words != ["peers", "add"]:
            refused([*words, *rest, *more], capsys)
    for parameter in command.params:
        if parameter.opts[-1].startswith("-") and kind_of(parameter) is not bool and parameter.nargs == 1:
            refused([*words, *needed(command, parameter.opts[-1], folder), parameter.opts[-1]], capsys)
        if parameter.required:
            refused([*words, "--home", str(folder / "alice")], capsys)


def refused(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """As words and as JSON."""
    status = invoke(line)
    out, err = capsys.readouterr()
    assert status in (2, 3), (line, status, err)
    assert out == ""
    errors = [text for text in err.splitlines() if text.startswith("error[")]
    assert len(errors) == 1, (line, err)
    assert "Traceback" not in err
    assert all(text.isprintable() for text in err.splitlines()), err
    assert invoke(["--json", *line]) == status, line
    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert answer["ok"] is False
    assert set(answer["error"]) == {"code", "message", "hint"}
    assert answer["error"]["code"] in ("usage", "config"), (line, answer)
    assert answer["error"]["message"]
    assert "Traceback" not in err


def everything(folder: Path) -> set[str]:
    """A wrong value makes nothing: no file appears."""
    return {os.path.join(at, name) for at, _, names in os.walk(folder) for name in names if name != "lock"}
