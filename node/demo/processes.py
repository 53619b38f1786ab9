"""Child processes of the demo: started in their own sessions, watched line by line, always ended with the demo."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from fednode.errors import FednodeError

LINES_KEPT = 20
STOP_S = 10.0


class ChildFailed(FednodeError):
    code = "demo-child"


@dataclass(slots=True)
class Child:
    """One process; `talk` gets each JSON object that it writes to standard error."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    log: Path
    talk: Callable[[Mapping[str, Any]], None] | None = None
    process: asyncio.subprocess.Process | None = None
    tail: deque[str] = field(default_factory=lambda: deque[str](maxlen=LINES_KEPT))
    _reader: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *self.argv,
            env={**os.environ, **self.env},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=2**20,
        )
        self._reader = asyncio.ensure_future(self._read_talk())

    async def _read_talk(self) -> None:
        assert self.process is not None
        assert self.process.stderr is not None
        with self.log.open("ab") as log:
            async for line in self.process.stderr:
                log.write(line)
                log.flush()
                text = line.decode(errors="replace").rstrip()
                self.tail.append(text)
                if self.talk is not None and text.startswith("{"):
                    with contextlib.suppress(ValueError):
                        self.talk(cast("Mapping[str, Any]", json.loads(text)))

    async def first_line(self) -> dict[str, Any]:
        """The first line on standard output as JSON: how a server says that it is ready."""
        assert self.process is not None
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        return self._answer(line) if line else await self.result()

    async def result(self) -> dict[str, Any]:
        """Wait for the end; the JSON object on standard output. ChildFailed where it says so or has none."""
        assert self.process is not None
        assert self.process.stdout is not None
        data = await self.process.stdout.read()
        status = await self.process.wait()
        if self._reader is not None:
            await self._reader
        answer = self._answer(data) if data.strip() else {}
        if status != 0 or not answer.get("ok", False):
            error = cast("Mapping[str, str]", answer.get("error") or {})
            words = error.get("message") or " | ".join(list(self.tail)[-3:]) or "no output"
            raise ChildFailed(
                f"{self.name}: `{' '.join(self.argv[-6:])}` ended with status {status}: {words}",
                hint=error.get("hint") or f"its whole output is in {self.log}",
            )
        return answer

    def _answer(self, data: bytes) -> dict[str, Any]:
        try:
            return cast("dict[str, Any]", json.loads(data))
        except ValueError:
            return {}

    def interrupt(self) -> None:
        """Ask it to stop (SIGTERM to its session)."""
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGTERM)

    async def stop(self) -> None:
        """Ask, wait, then kill."""
        self.interrupt()
        if self.process is None:
            return
        try:
            await asyncio.wait_for(self.process.wait(), STOP_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            await self.process.wait()
        if self._reader is not None:
            await self._reader


async def stop_all(children: Sequence[Child]) -> None:
    """Stop them at the same time."""
    await asyncio.gather(*(child.stop() for child in children), return_exceptions=True)
