"""What is logged is talk: one line each, by the level of fednode.toml, as JSON where the talk is JSON, or silent."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import warnings
from pathlib import Path

import pytest

from fednode.errors import HeadError
from fednode.node import app
from fednode.node.cli import invoke
from fednode.node.home import Home
from fednode.node.logs import logged
from fednode.node.watch import LONGEST_RECORD, Style, Talk

OURS, THEIRS = logging.getLogger("fednode.head"), logging.getLogger("websockets.client")


def everything() -> None:
    for logger, who in ((OURS, "ours"), (THEIRS, "theirs")):
        for level in ("debug", "info", "warning", "error"):
            getattr(logger, level)("%s %s\x1b[2J\nnext", who, level)


def told(style: Style, level: str) -> list[str]:
    stream = io.StringIO()
    with logged(Talk(style, stream), level):
        everything()
    assert stream.getvalue() == "" or stream.getvalue().endswith("\n")
    return stream.getvalue().splitlines()


@pytest.mark.parametrize(
    ("level", "ours", "theirs"),
    [
        ("debug", ["debug", "info", "warning", "error"], ["warning", "error"]),
        ("info", ["info", "warning", "error"], ["warning", "error"]),
        ("warning", ["warning", "error"], ["warning", "error"]),
        ("error", ["error"], ["error"]),
    ],
)
def test_the_level_of_the_settings_counts(level: str, ours: list[str], theirs: list[str]) -> None:
    expected = [("ours", each) for each in ours] + [("theirs", each) for each in theirs]
    lines = told("plain", level)
    assert [line.split(" ", 2)[2] for line in lines] == [f"{x}: {who} {x}\\x1b[2J\\nnext" for who, x in expected]
    shown = [json.loads(line) for line in told("json", level)]
    assert [(entry["level"], entry["text"]) for entry in shown] == [
        (x, f"{x}: {who} {x}\\x1b[2J\\nnext") for who, x in expected
    ]
    assert told("none", level) == []


def test_nothing_is_left_behind() -> None:
    root, own = logging.getLogger(), logging.getLogger("fednode")
    before = root.level, own.level, list(root.handlers), warnings.showwarning
    told("plain", "debug")
    assert (root.level, own.level, root.handlers, warnings.showwarning) == before


def test_errors_warnings_and_long_records_are_one_line_each() -> None:
    stream = io.StringIO()
    with logged(Talk("plain", stream), "info"):
        try:
            raise ValueError("two\nlines")
        except ValueError:
            OURS.exception("it broke")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning("careful\nnow", UserWarning, "file.py", 3)
        OURS.warning("x" * 10_000)
    broke, careful, long = stream.getvalue().splitlines()
    assert broke.endswith("error: it broke (ValueError: two\\nlines)")
    assert "careful\\nnow" in careful
    assert LONGEST_RECORD < len(long) < LONGEST_RECORD + 50


def test_a_record_does_not_make_the_talk_repeat_itself() -> None:
    stream = io.StringIO()
    voice = Talk("plain", stream)
    voice.unreachable("no route")
    voice.log("info", "something else")
    voice.unreachable("no route")
    assert len(stream.getvalue().splitlines()) == 2


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Home:
    monkeypatch.chdir(tmp_path)
    for name in ("alice", "bob"):
        assert invoke(["init", "--home", name, "--name", name]) == 0
        assert invoke(["peers", "card", "--home", name, "-o", f"{name}.toml"]) == 0
    assert invoke(["peers", "add", "--home", "alice", "alice.toml", "bob.toml"]) == 0
    capsys.readouterr()
    return Home(tmp_path / "alice")


@pytest.mark.parametrize(("level", "shown"), [("debug", 6), ("error", 2)])
def test_a_daemon_logs_through_its_talk(
    home: Home, level: str, shown: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def speak(*_: object) -> None:
        everything()
        raise HeadError("as far as this test goes")

    monkeypatch.setattr(app, "_effects", speak)
    settings = home.settings.read_text()
    assert 'level = "info"' in settings
    home.settings.write_text(settings.replace('level = "info"', f'level = "{level}"'))
    site = app.open_site(home, peers=None, epochs=None)
    stream = io.StringIO()
    with pytest.raises(HeadError):
        asyncio.run(app.work(site, "open", Talk("json", stream)))
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(lines) == shown
    assert {line["party"] for line in lines} == {"alice"}
    with pytest.raises(HeadError):
        asyncio.run(app.work(site, "open", app.talk(quiet=True)))
    assert capsys.readouterr().err == ""
