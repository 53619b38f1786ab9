"""The validator, built once for each content of its sources, and agreements as files."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conformance.tools import succeed

ROOT = Path(__file__).parents[2]
SOURCES = Path(__file__).parent / "validator"
NAMES = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy")
ENVIRONMENT = {"FEDNODE_PARTIES": "/homes", "FEDNODE_HOME": "/homes/alice", "FEDNODE_PEER_BIND": "10.0.0.1"}


@dataclass(frozen=True)
class Validator:
    """compose-go behind a command line: what `docker compose config` would say of a file."""

    program: Path

    def refusals(self, *files: Path, environment: Mapping[str, str] = ENVIRONMENT) -> dict[Path, str]:
        """File -> why it is refused; an accepted one is not in it."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("FEDNODE_", "COMPOSE_"))}
        done = subprocess.run(
            [self.program, *files], env=clean | dict(environment), capture_output=True, text=True, timeout=60
        )
        answers = [line.partition(" ") for line in done.stdout.splitlines()]
        assert len(answers) == len(files), done.stderr
        assert done.returncode == any(verdict == "bad" for verdict, _, _ in answers), done.stderr
        whys = {path: rest for path, (verdict, _, rest) in zip(files, answers, strict=True) if verdict == "bad"}
        return {path: rest.removeprefix(f"{path}: ") for path, rest in whys.items()}


@pytest.fixture(scope="session")
def validator() -> Validator:
    go = shutil.which("go")
    if go is None:
        pytest.skip("Go is not on PATH: no compose file was validated")
    content = hashlib.sha256()
    for name in ("go.mod", "go.sum", "main.go"):
        content.update((SOURCES / name).read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fednode-tests"
    program = cache / f"compose-validator-{content.hexdigest()[:16]}"
    if not program.exists():
        cache.mkdir(parents=True, exist_ok=True)
        fresh = program.with_suffix(f".{os.getpid()}")
        # A module graph other than the committed one is an error; two cores are enough.
        command = [go, "build", "-mod=readonly", "-trimpath", "-ldflags=-s -w", "-p", "2", "-o", fresh, "."]
        built = subprocess.run(command, cwd=SOURCES, capture_output=True, text=True, timeout=170)
        succeed(built, "compose-go")
        fresh.replace(program)
    return Validator(program)


def agreement(count: int, network: str = "devnet", *, host: bool = True) -> str:
    """The text of a peers.toml of `count` parties, everything that may be left to its default."""
    text = f'[model]\nname = "builtin:tiny"\n\n[head]\nnetwork = "{network}"\n'
    for name in NAMES[:count]:
        keys = {kind: hashlib.sha256(f"{name} {kind}".encode()).hexdigest() for kind in ("hydra", "cardano", "fuel")}
        address = "addr_test1v" + "".join("qpzry9x8gf2tvdw0s3jn54khce6mua7l"[int(c, 16)] for c in keys["cardano"][:52])
        text += f'\n[[party]]\nname = "{name}"\naddress = "{address}"\nbucket = "{name}"\n'
        text += f'host = "{name}.example:5001"\n' if host else ""
        text += "".join(f'{kind}_vkey = "{key}"\n' for kind, key in keys.items())
    return text


@dataclass(frozen=True)
class Generated:
    status: int
    stdout: str
    stderr: str


@pytest.fixture
def generate(tmp_path: Path) -> Callable[..., Generated]:
    """scripts/hydra-compose over an agreement; set-up left out."""

    def run(content: str, *arguments: str) -> Generated:
        peers = tmp_path / "peers.toml"
        peers.write_text(content)
        command = [sys.executable, str(ROOT / "scripts" / "hydra-compose.py"), "--peers", str(peers), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return Generated(done.returncode, done.stdout, done.stderr)

    return run
