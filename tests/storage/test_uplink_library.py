"""The native library: where it is looked for, what is said where it is missing, and how it is built."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fednode.errors import ConfigError
from fednode.storage.opening import open_bucket
from fednode.storage.settings import UplinkSettings
from fednode.storage.uplink import build as building
from fednode.storage.uplink import library
from fednode.storage.uplink.sharing import StorjSharer

from .uplink_support import ROOT

FAKE_GO = """#!/bin/sh
if [ "$1" = version ]; then echo "go version go{version} linux/amd64"; exit 0; fi
pwd > "{folder}/cwd"; echo "$CGO_ENABLED" "$@" > "{folder}/said"
while [ "$1" != -o ]; do shift; done
printf built > "$2"
exit {status}
"""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data"


def fake_go(folder: Path, monkeypatch: pytest.MonkeyPatch, version: str = "1.26.1", status: int = 0) -> Path:
    """A `go` that only writes down what it is asked for, first on PATH."""
    tools = folder / "tools"
    tools.mkdir()
    go = tools / "go"
    go.write_text(FAKE_GO.format(version=version, folder=folder, status=status))
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    return go


def test_one_message_where_it_is_missing(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        open_bucket(UplinkSettings("bucket", tmp_path / "grant"))
    assert str(data / "fednode" / "libuplink") in caught.value.message
    assert "scripts/build-libuplink" in caught.value.hint
    with pytest.raises(ConfigError) as again:
        StorjSharer(None)
    assert (again.value.message, again.value.hint) == (caught.value.message, caught.value.hint)
    with pytest.raises(ConfigError, match=r"other\.so .*fednode\.toml"):
        open_bucket(UplinkSettings("bucket", tmp_path / "grant", tmp_path / "other.so"))


def test_the_settings_come_first(data: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.so"
    mine.touch()
    assert library.find_library(mine) == mine
    built = library.built_library()
    built.parent.mkdir(parents=True)
    built.touch()
    assert library.find_library(None) == built
    assert built.is_relative_to(data / "fednode" / "libuplink")


def test_the_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="uplink-python is not installed") as caught:
        library.find_library(None)
    assert "fednode[uplink]" in caught.value.hint


def test_a_relative_data_folder_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "data")
    assert library.data_folder() == Path.home() / ".local/share/fednode"


def test_other_sources_are_another_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = library.source_digest()
    copy = tmp_path / "sources"
    copy.mkdir()
    for path in library.SOURCES.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(library, "SOURCES", copy)
    assert library.source_digest() == before
    (copy / "notes.txt").write_text("no source")
    assert library.source_digest() == before
    (copy / "values.go").write_text("package main")
    assert library.source_digest() != before


def test_it_is_built_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_go(tmp_path, monkeypatch)
    assert building.main(["--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    built = Path(told["library"])
    assert told == {"library": str(library.built_library()), "built": True}
    assert built.read_text() == "built"
    said = (tmp_path / "said").read_text()
    assert said.startswith("1 build -mod=readonly")
    assert "-buildmode=c-shared" in said
    assert "-tags noquic" in said
    assert Path((tmp_path / "cwd").read_text().strip()) == library.SOURCES
    assert [path.name for path in built.parent.iterdir()] == [library.FILE]
    monkeypatch.setenv("PATH", "/nonexistent")
    assert building.main(["--json"]) == 0
    assert json.loads(capsys.readouterr().out)["built"] is False
    assert building.main([]) == 0
    assert "up to date" in capsys.readouterr().out


def test_into_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_go(tmp_path, monkeypatch)
    path, built = building.build(tmp_path / "there")
    assert built
    assert path.is_relative_to(tmp_path / "there")


def test_a_build_that_fails_leaves_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_go(tmp_path, monkeypatch, status=1)
    assert building.main(["--json"]) == ConfigError.exit_status
    assert "go build failed" in json.loads(capsys.readouterr().out)["error"]["message"]
    assert not library.built_library().exists()
    assert list(library.built_library().parent.iterdir()) == []


def test_what_is_missing_is_named(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="program go is missing"):
        building.build()
    go = fake_go(tmp_path, monkeypatch)
    monkeypatch.setenv("PATH", str(go.parent))
    monkeypatch.setattr(building.subprocess, "run", _says("go version go1.26.1 linux/amd64"))
    with pytest.raises(ConfigError, match="C compiler gcc"):
        building.build()
    monkeypatch.setattr(building.subprocess, "run", _says("go version go1.19.8 linux/amd64"))
    with pytest.raises(ConfigError, match="too old"):
        building.build()


def _says(text: str) -> object:
    return lambda *_, **__: subprocess.CompletedProcess([], 0, stdout=text)


def test_the_sources_are_whole() -> None:
    """Pinned, with checksums, and inside the installed package."""
    module = (library.SOURCES / "go.mod").read_text()
    assert "storj.io/uplink v1." in module
    assert "replace" not in module
    assert "storj.io/uplink v1." in (library.SOURCES / "go.sum").read_text()
    assert library.SOURCES.name == "libuplink"
    script = ROOT / "scripts" / "build-libuplink"
    assert os.access(script, os.X_OK)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "fednode.storage.uplink.build", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert "--json" in done.stdout
