"""Secret keys are nowhere but in their files: not in a log, an answer, a journal, a bucket, the folder of the head, a
process list or an environment."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

LARGEST = 64 << 20
"""Files above this are models."""


def canaries(folder: Path) -> list[bytes]:
    """Every form of the 32 secret bytes of every key file below `folder`."""
    secrets = [bytes.fromhex(json.loads(path.read_text())["cborHex"])[2:34] for path in folder.rglob("keys/*.sk")]
    return [form for s in set(secrets) for form in (s, s.hex().encode(), base64.b64encode(s)[:40])]


def places(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of all that could show a secret."""
    for path in folder.rglob("*"):
        plain = path.is_file() and not path.is_symlink() and path.suffix != ".sk"
        if plain and path.stat().st_size <= LARGEST:
            yield str(path), path.read_bytes()
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                yield str(process / name), (process / name).read_bytes()
            except OSError:
                continue  # it has ended, or is not ours


def shown(folder: Path) -> list[str]:
    """Where a secret is shown; the names of the files count too."""
    forms = canaries(folder)
    return [place for place, content in places(folder) if any(x in content or x in place.encode() for x in forms)]
