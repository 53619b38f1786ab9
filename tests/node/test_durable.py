"""Names that survive power loss: every folder that is made is fsynced into the one above it."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

from fednode.durable import make_folders

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, set[str]]]:
    """Each fsync: the file, and for a folder the names that were in it then."""
    seen: list[tuple[Path, set[str]]] = []
    fsync = os.fsync

    def noted(fd: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        seen.append((path, {item.name for item in path.iterdir()} if path.is_dir() else set()))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noted)
    return seen


def test_every_new_name_is_synced_into_its_folder(tmp_path: Path, synced: list[tuple[Path, set[str]]]) -> None:
    (tmp_path / "there").mkdir()
    make_folders(tmp_path / "there" / "a" / "b" / "c", mode=0o700)
    for folder, name in ((tmp_path / "there", "a"), (tmp_path / "there/a", "b"), (tmp_path / "there/a/b", "c")):
        assert any(path == folder and name in names for path, names in synced), folder
    assert (tmp_path / "there/a/b/c").stat().st_mode & 0o777 == 0o700
    synced.clear()
    make_folders(tmp_path / "there" / "a" / "b" / "c")
    assert synced == []
    assert (tmp_path / "there/a/b/c").stat().st_mode & 0o777 == 0o700


def test_a_relative_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synced: list[tuple[Path, set[str]]]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_folders(Path("a/b"))
    assert (tmp_path / "a/b").is_dir()
    assert [path for path, _ in synced if path == tmp_path] == [tmp_path]


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_folders(tmp_path / "file")


def test_nothing_else_makes_folders() -> None:
    """A folder made by `mkdir` may be gone after power loss, and the durable files in it with it."""
    for place in ("node", "hydra", "storage"):
        for path in (ROOT / place).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                assert not (isinstance(node, ast.Attribute) and node.attr in ("mkdir", "makedirs")), path
