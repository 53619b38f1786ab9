"""Programs that these tests build or install once, in a cache folder by the hash of what they are made from."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

HERE = Path(__file__).parent
SECONDS = 600


def cache() -> Path:
    """$XDG_CACHE_HOME/fednode-tests, or ~/.cache/fednode-tests."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(root) / "fednode-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def cached(name: str, sources: list[Path], make: Callable[[Path], None]) -> Path:
    """The folder that `make` filled for these sources. It is made under another name, so it is whole or absent."""
    state = hashlib.sha256()
    for source in sorted(sources):
        state.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    folder = cache() / f"{name}-{state.hexdigest()[:20]}"
    if not folder.is_dir():
        made = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=cache()))
        try:
            make(made)
            made.rename(folder)
        except OSError:
            # Another run of the tests was first.
            if not folder.is_dir():
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return folder


def run(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command with its output; never waits for input."""
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


_UNREACHABLE: Final = (
    "dial tcp", "i/o timeout", "connection refused", "no such host", "TLS handshake timeout", "proxyconnect",
    "ENOTFOUND", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "EAI_AGAIN", "ENETUNREACH", "requires go >=",
)  # fmt: skip


def succeed(done: subprocess.CompletedProcess[str], what: str) -> None:
    """Skip where `what` cannot be had for want of a network or of a newer tool; any other failure is ours."""
    if done.returncode:
        said = (done.stderr + done.stdout).strip()
        if any(words in said for words in _UNREACHABLE):
            pytest.skip(f"{what} cannot be had, this comparison is left out: {said[-300:]}")
        raise RuntimeError(f"{done.args}: {said[-3000:]}")


def need(*programs: str) -> None:
    """Skip where a program is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: this comparison is left out")
