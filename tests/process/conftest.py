"""Real federations for the tests of this folder; its helper modules are importable under their own names."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import canary
from federation import Federation, undisturbed


@pytest.fixture(autouse=True)
def secrets_stay(tmp_path: Path) -> Iterator[None]:
    """Set up before the federations of a test, and so looked at after they have ended."""
    yield
    assert canary.shown(tmp_path) == []


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Callable[..., Federation]]:
    """Makes prepared federations; every process of theirs is gone when the test is over."""
    made: list[Federation] = []

    def make(name: str = "f", **options: object) -> Federation:
        made.append(Federation.prepare(tmp_path / name, **options))  # type: ignore[arg-type]  # passed through
        return made[-1]

    try:
        yield make
    finally:
        for each in made:
            each.end()


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A federation of three with three rounds of `linear`, its head open and funded, nothing running: to be copied.

    Only the first party ends the head: the others would wait a minute before they take over.
    """
    whole = Federation.prepare(tmp_path_factory.mktemp("opened") / "f", rounds=3, takeover_s=60.0)
    try:
        whole.open()
    finally:
        whole.end()
    return whole.root


@pytest.fixture(scope="session")
def reference(opened: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the undisturbed run of `opened`."""
    return undisturbed(opened, tmp_path_factory.mktemp("reference") / "f")


@pytest.fixture
def copy(opened: Path, tmp_path: Path) -> Iterator[Callable[..., Federation]]:
    """Makes copies of the opened federation, each with ports of its own."""
    made: list[Federation] = []

    def make(name: str = "copy") -> Federation:
        made.append(Federation.copy(opened, tmp_path / name))
        return made[-1]

    try:
        yield make
    finally:
        for each in made:
            each.end()
