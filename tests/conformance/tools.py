"""Programs that these tests build or install once, in a cache folder by the hash of what they are made from."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.storj.loopback.cached import cache, cached

__all__ = ["HERE", "SECONDS", "cache", "cached", "need", "run", "succeed"]

HERE = Path(__file__).parent
SECONDS = 600


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
