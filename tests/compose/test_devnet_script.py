"""scripts/hydra-devnet: which compose commands it gives, to a stand-in for docker that writes them down."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from .conftest import ROOT

DOCKER = '#!/bin/sh\necho "$FEDNODE_PARTIES $*" >> "$CALLS"\ncase $1 in compose) exit 0 ;; esac\nexit 1\n'
CHECKED_IN = ROOT / "docker-compose.hydra.yml"


@pytest.fixture
def homes(tmp_path: Path) -> Path:
    folder = tmp_path / "the homes"
    folder.mkdir()
    return folder


def devnet(tmp_path: Path, *words: str, docker: str = DOCKER) -> tuple[int, list[str], str]:
    """(exit status, calls of docker, stderr)"""
    program, calls = tmp_path / "bin" / "docker", tmp_path / "calls"
    program.parent.mkdir(exist_ok=True)
    program.write_text(docker)
    program.chmod(0o755)
    calls.write_text("")
    environment = {"PATH": f"{program.parent}:{os.environ['PATH']}", "CALLS": str(calls)}
    script = str(ROOT / "scripts" / "hydra-devnet")
    done = subprocess.run([script, *words], env=environment, capture_output=True, text=True, timeout=60)
    return done.returncode, calls.read_text().splitlines(), done.stderr


def test_up_waits_for_the_nodes_and_shows_the_funding(tmp_path: Path, homes: Path) -> None:
    status, calls, _ = devnet(tmp_path, "up", str(homes))
    compose = f"{homes} compose -f {CHECKED_IN} --project-directory {homes}"
    assert status == 0
    assert calls == [
        f"{homes} compose version",
        f"{compose} up --detach",
        f"{compose} exec -T cardano-node cat /devnet/funding.txt",
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [(("stop",), "stop"), (("down",), "down --volumes --remove-orphans"), (("compose", "logs", "-f"), "logs -f")],
)
def test_the_other_commands_use_the_file_of_the_folder(
    words: tuple[str, ...], expected: str, tmp_path: Path, homes: Path
) -> None:
    own = homes / "docker-compose.hydra.yml"
    own.write_text("services: {}\n")
    status, calls, _ = devnet(tmp_path, words[0], str(homes), *words[1:])
    assert status == 0
    assert calls[1:] == [f"{homes} compose -f {own} --project-directory {homes} {expected}"]


def test_what_is_missing_is_said(tmp_path: Path, homes: Path) -> None:
    status, calls, error = devnet(tmp_path, "up", str(homes / "nowhere"))
    assert (status, calls) == (1, [])
    assert "nowhere" in error
    status, _, error = devnet(tmp_path, "up", str(homes), docker="#!/bin/sh\nexit 1\n")
    assert status == 1
    assert "docker compose version" in error
    assert devnet(tmp_path, "start", str(homes))[0] == 2
