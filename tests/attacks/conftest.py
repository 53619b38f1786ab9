"""Federations to attack, prepared once; the table of attacks and outcomes; no secret anywhere afterwards."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from fednode.node import app, fetching
from fednode.node.site import Site

from . import federation as f

OUTCOMES: list[tuple[str, str, str]] = []
"""(family, attack, outcome) of every attack so far."""
Record = Callable[[str, str], None]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def trainers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[f.Trainers]:
    found = f.Trainers(tmp_path_factory.mktemp("trainers"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "_trainer", found.of)
        yield found
    await found.aclose()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def opened(trainers: f.Trainers, tmp_path_factory: pytest.TempPathFactory) -> f.Federation:
    """Head open, deposits in."""
    found = f.Federation.create(tmp_path_factory.mktemp("opened") / "f")
    await f.open_head(found)
    return found


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def round_zero(opened: f.Federation, tmp_path_factory: pytest.TempPathFactory) -> f.Federation:
    found = opened.copy(tmp_path_factory.mktemp("zero") / "f")
    await f.play_round_zero(found)
    return found


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def round_one(opened: f.Federation, tmp_path_factory: pytest.TempPathFactory) -> f.Federation:
    found = opened.copy(tmp_path_factory.mktemp("one") / "f")
    await f.play_until_round_one(found)
    return found


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def closing(trainers: f.Trainers, tmp_path_factory: pytest.TempPathFactory) -> f.Federation:
    """As `round_one`, with on_fault = close."""
    found = f.Federation.create(tmp_path_factory.mktemp("closing") / "f", on_fault="close")
    await f.open_head(found)
    await f.play_until_round_one(found)
    return found


@pytest_asyncio.fixture(loop_scope="session")
async def zero(round_zero: f.Federation, tmp_path: Path, secrets_stay: None) -> f.Federation:
    return round_zero.copy(tmp_path / "f")


@pytest_asyncio.fixture(loop_scope="session")
async def one(round_one: f.Federation, tmp_path: Path, secrets_stay: None) -> f.Federation:
    return round_one.copy(tmp_path / "f")


@pytest.fixture
def quick_fetches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three fetches without the ten seconds between them; that these are ten is asserted where this is used."""
    assert fetching.BETWEEN_FETCHES_S >= 10
    monkeypatch.setattr(fetching, "BETWEEN_FETCHES_S", 0.02)


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    family = request.module.__name__.rpartition(".")[2].removeprefix("test_")

    def note(attack: str, outcome: str) -> None:
        OUTCOMES.append((family, attack, outcome))

    return note


@pytest.fixture
def secrets_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, trainers: f.Trainers, request: pytest.FixtureRequest
) -> Iterator[None]:
    """After every attack: no file but the key files, no log line and no process shows a secret key."""
    caplog.set_level(logging.DEBUG)
    yield
    canaries = [form for secret in secrets(tmp_path / "f") for form in forms(secret)]
    assert len(canaries) >= 3 * 3 * len(f.NAMES)
    places = {"the log": caplog.text.encode()}
    places |= {str(p): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and not p.is_symlink() and small(p)}
    for pid in trainers.processes():
        child = psutil.Process(pid)
        places[f"process {pid}"] = " ".join([*child.cmdline(), *child.environ().values()]).encode()
    for place, content in places.items():
        assert place.endswith(".sk") or not any(canary in content for canary in canaries), place


def small(path: Path) -> bool:
    return path.stat().st_size < 64 << 20


def secrets(folder: Path) -> list[bytes]:
    """The 32 secret bytes of every key file."""
    files = list(folder.glob("*/keys/*.sk"))
    return [bytes.fromhex(json.loads(path.read_text())["cborHex"])[2:34] for path in files]


def forms(secret: bytes) -> list[bytes]:
    return [secret, secret.hex().encode(), base64.b64encode(secret)[:40]]


def site_of(found: f.Federation, name: str) -> Site:
    return found.site(name)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table, where output is wanted (-s)."""
    if not OUTCOMES or terminalreporter.config.option.capture != "no":
        return
    terminalreporter.section("attacks")
    for family, attack, outcome in OUTCOMES:
        terminalreporter.write_line(f"{family:10} {attack:52} {outcome}")
    terminalreporter.write_line(f"{len(OUTCOMES)} attacks")
