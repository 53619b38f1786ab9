"""Builds the native library into the user's data folder: `scripts/build-libuplink`, or this module by `python -m`."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fednode.durable import make_folders, publish
from fednode.errors import ConfigError, FednodeError
from fednode.storage.uplink.library import FILE, SOURCES, built_library

_BUILD_S = 1800
"""A cold module cache on a slow line counts as working; a hung proxy does not."""
_OLDEST_GO = (1, 21)
"""From here on, go fetches a newer version of itself where the sources want one."""


def build(folder: Path | None = None) -> tuple[Path, bool]:
    """(where the library lies, whether it was built just now). ConfigError where it cannot be built."""
    target = built_library(folder)
    if target.is_file():
        return target, False
    go = _tools()
    make_folders(target.parent)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=target.parent) as scratch:
        built = Path(scratch) / FILE
        _compile(go, built)
        # A half-written library under the final name would be loaded by whoever starts now.
        publish(built, target)
    return target, True


def _tools() -> str:
    go = shutil.which("go")
    if go is None:
        raise ConfigError("the program go is missing", hint="install Go 1.25 or newer (https://go.dev/dl/)")
    said = subprocess.run([go, "version"], capture_output=True, text=True, timeout=60, check=False).stdout
    version = re.search(r"go(\d+)\.(\d+)", said)
    if version is None or (int(version[1]), int(version[2])) < _OLDEST_GO:
        raise ConfigError(
            f"{go} is too old: it says {said.strip()[:60]!r}, expected Go 1.25",
            hint="install Go 1.25 or newer (https://go.dev/dl/)",
        )
    compiler = os.environ.get("CC", "gcc").split() or ["gcc"]
    if shutil.which(compiler[0]) is None:
        raise ConfigError(
            f"the C compiler {compiler[0]} is missing", hint="install gcc and the C library's headers (build-essential)"
        )
    return go


def _compile(go: str, target: Path) -> None:
    command = [go, "build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-tags", "noquic", "-ldflags=-s -w"]
    command += ["-buildmode=c-shared", "-o", str(target), "."]
    environment = {**os.environ, "CGO_ENABLED": "1", "GOFLAGS": "", "GOWORK": "off", "CC": os.environ.get("CC", "gcc")}
    try:
        done = subprocess.run(
            command, cwd=SOURCES, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", timeout=_BUILD_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ConfigError(f"go build took longer than {_BUILD_S} seconds", hint="look at the network") from None
    if done.returncode:
        raise ConfigError(
            "go build failed: " + " | ".join(done.stdout.strip().splitlines()[-8:]),
            hint="the first build fetches modules: look at the network and at `go env GOPROXY`",
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 also where nothing was to do."""
    parser = argparse.ArgumentParser(
        prog="build-libuplink",
        description="Builds Storj's native library (libuplinkc.so) for buckets with backend = uplink. Needs Go 1.25 or"
        " newer, gcc, and at the first time the Go module proxy. Does nothing where it is up to date.",
    )
    parser.add_argument(
        "--dir", type=Path, metavar="FOLDER", help="instead of ~/.local/share/fednode/libuplink; name FOLDER/<digest>/"
        "libuplinkc.so as `library` in fednode.toml then",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help='one line: {"library": PATH, "built": true|false}')
    options = parser.parse_args(arguments)
    try:
        library, built = build(options.dir)
    except FednodeError as error:
        told = {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
        sys.stdout.write(json.dumps(told) + "\n" if options.json else "")
        sys.stderr.write(f"error: {error.message}\n  {error.hint}\n")
        return error.exit_status
    if options.json:
        sys.stdout.write(json.dumps({"library": str(library), "built": built}) + "\n")
    else:
        sys.stdout.write(f"{library} {'is built' if built else 'is up to date'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
