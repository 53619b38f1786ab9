"""The programs that a network needs: three built here from one Go module, and PostgreSQL's from the machine."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .cached import cached, place

MODULE: Final = Path(__file__).parents[1] / "devnet"
BUILD: Final = "scripts/storj-devnet build"
_NAME: Final = "storj"
_MEND: Final = "it takes Go 1.25.10 or newer (https://go.dev/dl/) and a module proxy"
_FLAGS: Final = ("-mod=readonly", "-tags=noquic", "-gcflags=all=-dwarf=false", "-ldflags=-s -w")
# No -trimpath: testplanet looks for files beside its own source. noquic: no UDP socket on all interfaces.
_COMMANDS: Final = {
    "devnet": ("test", "-c", "."),
    "uplink": ("build", "storj.io/storj/cmd/uplink"),
    "gateway": ("build", "storj.io/gateway"),
}
_POSTGRES: Final = ("initdb", "postgres", "pg_isready")
DEBIAN: Final = Path("/usr/lib/postgresql")
_USERS: Final = ("postgres", "nobody")


class CannotRun(Exception):
    """What is missing on this machine, and the command that mends it."""


@dataclass(frozen=True)
class Programs:
    """Paths of everything that a network runs."""

    devnet: Path
    uplink: Path
    gateway: Path
    postgres: Path


def find() -> Programs:
    """The programs, which must all be here already. Raises CannotRun."""
    postgres = _postgres()
    folder = place(_NAME, _sources(), _go_version())
    if not folder.is_dir():
        raise CannotRun(f"the programs of the Storj network are not built; run: {BUILD}")
    return Programs(folder / "devnet", folder / "uplink", folder / "gateway", postgres)


def missing() -> str:
    """Why no Storj network can run here; empty where it can."""
    try:
        find()
    except CannotRun as reason:
        return str(reason)
    return ""


def build() -> Path:
    """Build what is missing, some minutes when nothing is there yet; the folder. Raises CannotRun."""
    version = _go_version()
    if shutil.which("gcc") is None and "CC" not in os.environ:
        raise CannotRun("no C compiler, which the storage nodes' SQLite needs; run: apt-get install gcc libc6-dev")
    return cached(_NAME, _sources(), _make, version)


def _make(folder: Path) -> None:
    for name, (verb, *rest) in _COMMANDS.items():
        sys.stderr.write(f"storj-devnet: builds {name}\n")
        command = ["go", verb, *_FLAGS, "-o", str(folder / name), *rest]
        done = subprocess.run(command, cwd=MODULE, env=os.environ | {"CGO_ENABLED": "1"}, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise CannotRun(f"{name} was not built, go ended with status {done.returncode} (see above); {_MEND}")


def _sources() -> list[Path]:
    return [MODULE / "go.mod", MODULE / "go.sum", *MODULE.glob("*.go")]


def _go_version() -> str:
    if shutil.which("go") is None:
        raise CannotRun(f"Go is not on PATH; {_MEND}")
    done = subprocess.run(["go", "version"], cwd=MODULE, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise CannotRun(f"Go does not take the module of the Storj network ({done.stderr.strip()[:200]}); {_MEND}")
    return done.stdout.strip()


def _postgres() -> Path:
    """The folder of PostgreSQL's programs: Debian keeps the server's off PATH. The newest release wins."""
    if sys.platform != "linux":
        raise CannotRun("the Storj network of the tests runs on Linux only")
    beside = sorted(DEBIAN.glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    on_path = [Path(found).parent for name in _POSTGRES[:1] if (found := shutil.which(name))]
    for folder in [*on_path, *beside]:
        if all((folder / name).exists() for name in _POSTGRES):
            database_user()
            return folder
    raise CannotRun("PostgreSQL's server is not installed; run: apt-get install postgresql")


def database_user() -> pwd.struct_passwd | None:
    """Whom the database runs as where we are root, whom it refuses; None where we are not. Raises CannotRun."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    for name in _USERS:
        if name in known:
            return known[name]
    raise CannotRun("PostgreSQL does not run as root and there is no user postgres or nobody; run: adduser postgres")
