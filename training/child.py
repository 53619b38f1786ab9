"""The trainer child's process: its environment, its pipes, its log and its death."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from fednode.errors import TrainingError
from fednode.training.channel import LINE_LIMIT, Message, decode, encode, error_from_json
from fednode.types import Progress, TrainerSetup

LOG_LIMIT = 2 << 20
"""Bytes of a log before it is moved to `<name>.1`, where it replaces the one before."""
TAIL_BYTES, TAIL_LINES = 4096, 6
_LAST_WORDS_S = 5.0
"""How long a child that closed its pipe may take to exit before it is killed."""


def environment(setup: TrainerSetup, inherited: Mapping[str, str]) -> dict[str, str]:
    """Variables of the child. Threads are the party's share of the cores: more than that is far slower, not faster."""
    hub = bool(setup.model.get("name")) and not setup.model.get("path")
    threads = str(max(setup.threads, 1))
    fixed = {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONWARNINGS": "ignore",
        "PYTHONUNBUFFERED": "1",
    }
    return {**inherited, **fixed, **({} if hub else {"HF_HUB_OFFLINE": "1"})}


class ChildLog:
    """What the child says on stderr: to a bounded file, and its last lines for error messages."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tail = b""

    async def copy(self, source: asyncio.StreamReader) -> None:
        """Until the stream ends."""
        self._tail = b""
        while data := await source.read(1 << 16):
            self._tail = (self._tail + data)[-TAIL_BYTES:]
            if self._path.exists() and self._path.stat().st_size + len(data) > LOG_LIMIT:
                self._path.replace(self._path.with_name(self._path.name + ".1"))
            with self._path.open("ab") as log:
                log.write(data)

    def last_lines(self) -> str:
        """The last few lines, as one."""
        lines = self._tail.decode(errors="replace").splitlines()
        return " | ".join(line.strip() for line in lines[-TAIL_LINES:] if line.strip())


class Child:
    """One running child."""

    def __init__(self, process: asyncio.subprocess.Process, log: ChildLog) -> None:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise ValueError("the trainer child needs three pipes")
        self._process = process
        self._log = log
        self._requests, self._replies = process.stdin, process.stdout
        self._copying = asyncio.create_task(log.copy(process.stderr))

    @classmethod
    async def start(cls, setup: TrainerSetup, log: ChildLog) -> Child:
        """Start the interpreter; it loads nothing before its setup."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # a folder `training` in the working directory must not be imported
            "-m",
            "fednode.training.worker",
            str(os.getpid()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(setup, os.environ),
            limit=LINE_LIMIT,
            start_new_session=True,
        )
        return cls(process, log)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def exchange(self, message: Message, progress: Progress | None) -> Message:
        """Send a request and wait for its reply. Raises the child's own error, or TrainingError when it died."""
        try:
            self._requests.write(encode(message))
            await self._requests.drain()
            while True:
                line = await self._replies.readline()
                if not line.endswith(b"\n"):
                    raise await self._death()
                reply = decode(line)
                if "progress" not in reply:
                    break
                if progress is not None:
                    progress(*reply["progress"])
        except ConnectionError as error:
            raise await self._death() from error
        if reply.pop("ok", False):
            return reply
        raise error_from_json(reply.get("error", {}))

    async def kill(self) -> None:
        """End it and whatever it started, now; returns when it is gone."""
        if self.alive:
            # It leads its own process group.
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        await self._copying
        self._requests.close()

    async def _death(self) -> TrainingError:
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                await self._process.wait()
        await self.kill()
        code = self._process.returncode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
        words = self._log.last_lines()
        return TrainingError(
            f"the trainer {how}" + (f"; its last words: {words}" if words else ""),
            hint="SIGKILL is often the kernel's answer to too little memory: lower training.batch"
            if code == -9
            else "",
        )
