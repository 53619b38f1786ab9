"""The foreign client in a Node process: calls of its methods, and the messages that it received."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from . import tools

FOLDER = tools.HERE / "bridge"


def install() -> Path:
    """The folder node_modules of the lockfile. Skips where there is no Node 20, or the packages cannot be had."""
    tools.need("node", "npm")
    version = tools.run(["node", "--version"], FOLDER).stdout.strip()
    if int(version.removeprefix("v").partition(".")[0] or 0) < 20:
        pytest.skip(f"Node 20 is needed, found {version}: this comparison is left out")
    return tools.cached("bridge", [FOLDER / "package.json", FOLDER / "package-lock.json"], _make) / "node_modules"


def _make(folder: Path) -> None:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(FOLDER / name, folder / name)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
    tools.succeed(tools.run(command, folder), "the packages of the foreign client")


class CallFailed(Exception):
    """The client threw; `error` is what it threw, as JSON."""

    def __init__(self, error: Any) -> None:
        super().__init__(json.dumps(error))
        self.error = error


class Bridge:
    """One foreign client for every party."""

    def __init__(self, process: asyncio.subprocess.Process, parties: int) -> None:
        self._process = process
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._count = 0
        self._news = asyncio.Condition()
        self._ended = False
        self.messages: list[list[dict[str, Any]]] = [[] for _ in range(parties)]

    async def call(self, party: int, name: str, *args: Any) -> Any:
        """The value of `bridge.name(...args)`. CallFailed where it throws."""
        self._count += 1
        answer = self._waiting[self._count] = asyncio.get_running_loop().create_future()
        line = json.dumps({"id": self._count, "party": party, "call": name, "args": args})
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        return await answer

    async def until(self, party: int, tag: str, **fields: Any) -> dict[str, Any]:
        """The first message with this tag and these fields, from the beginning on."""

        def found() -> list[dict[str, Any]]:
            fits = [each for each in self.messages[party] if each.get("tag") == tag]
            return [each for each in fits if all(each.get(key) == value for key, value in fields.items())]

        async with self._news:
            await self._news.wait_for(lambda: self._ended or found())
        assert found(), f"the client ended before {tag}"
        return found()[0]

    async def read(self) -> None:
        """Take in its lines until it ends."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            content = json.loads(line)
            if "message" in content:
                async with self._news:
                    self.messages[content["party"]].append(content["message"])
                    self._news.notify_all()
            elif "error" in content:
                self._waiting.pop(content["id"]).set_exception(CallFailed(content["error"]))
            else:
                self._waiting.pop(content["id"]).set_result(content["value"])
        async with self._news:
            self._ended = True
            self._news.notify_all()
        for answer in self._waiting.values():
            answer.set_exception(CallFailed("the client ended"))


@asynccontextmanager
async def bridges(modules: Path, urls: list[str]) -> AsyncGenerator[Bridge]:
    """A foreign client for each URL, until the block ends."""
    process = await asyncio.create_subprocess_exec(
        "node", str(FOLDER / "driver.mjs"), str(modules), *urls,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 26,
    )  # fmt: skip
    bridge = Bridge(process, len(urls))
    reader = asyncio.create_task(bridge.read())
    try:
        yield bridge
    finally:
        process.kill()
        await process.wait()
        await reader
