"""The demo itself: every daemon a process, started by the commands that a user types, over real sockets."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fednode.node import app
from fednode.node.demo.lone import Judge
from fednode.node.demo.prepare import Federation
from fednode.node.demo.processes import Child, stop_all
from fednode.node.demo.show import Show
from fednode.node.demo.summary import Timing, summary
from fednode.node.protocol.outcome import unfunded
from fednode.node.site import replay


@dataclass(slots=True)
class Demo:
    """One demo run. `started` is the monotonic time at which the demo process began."""

    federation: Federation
    show: Show
    started: float
    children: list[Child] = field(default_factory=list[Child])

    async def run(self) -> dict[str, Any]:
        """The whole job; returns the summary of docs/json.md. Every child is gone when it returns or raises."""
        timing = Timing(setup=time.monotonic() - self.started)
        judge = Judge(self.federation)
        try:
            with self.show:
                await self._judge_alone(judge, timing)
                adapter = await self.operate(timing)
                self.show.stage("judging the federated adapter")
                federated = await judge.federated(adapter)
            timing.total = time.monotonic() - self.started
            return summary(self.federation, judge, federated, timing)
        finally:
            await judge.aclose()

    async def operate(self, timing: Timing) -> Path:
        """Head, deposits, rounds, payout, without any comparison; returns the final adapter's file."""
        try:
            await self._serve_head()
            await self._open(timing)
            return await self._rounds(timing)
        finally:
            await stop_all(self.children)

    async def _judge_alone(self, judge: Judge, timing: Timing) -> None:
        self.show.stage("every party alone, for comparison")
        began = time.monotonic()
        await judge.measure()
        timing.alone = time.monotonic() - began

    async def _serve_head(self) -> None:
        self.show.stage("embedded head: starting")
        server = await self._start("devnet", self.federation.devnet, self.federation.dir / "devnet.log", None)
        await server.first_line()

    async def _open(self, timing: Timing) -> None:
        self.show.stage("opening the head, deposits")
        began = time.monotonic()
        missing = [name for name in self.federation.parties if not self._funded(name)]
        await self._all("init-head", {name: self.federation.parties[name].init_head for name in missing})
        timing.open = time.monotonic() - began

    def _funded(self, name: str) -> bool:
        """A repeated demo goes on where the first one stopped."""
        home = self.federation.home(name)
        if not home.journal.exists():
            return False
        state = replay(app.open_site(home, peers=self.federation.dir / "peers.toml", epochs=None))
        return state.head.id is not None and not unfunded(state)

    async def _rounds(self, timing: Timing) -> Path:
        self.show.stage(f"{self.federation.rounds} rounds")
        timing.run_began = time.time()
        answers = await self._all("run", {name: p.run for name, p in self.federation.parties.items()})
        timing.run_ended = time.time()
        adapters = {name: Path(answer["adapter"]) for name, answer in answers.items()}
        for name, adapter in adapters.items():
            beside = self.federation.dir / name / f"S_{self.federation.rounds}.safetensors"
            await asyncio.to_thread(shutil.copyfile, adapter, beside)
        return next(iter(adapters.values()))

    async def _all(self, what: str, commands: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Any]]:
        """The same command at every party, as processes; the answers. The first failure stops the others."""
        children: dict[str, Child] = {}
        for name, argv in commands.items():
            log = self.federation.dir / name / f"{what}.log"
            children[name] = await self._start(f"{name} {what}", argv, log, name)
        tasks = {name: asyncio.ensure_future(child.result()) for name, child in children.items()}
        try:
            await asyncio.gather(*tasks.values())
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
        return {name: task.result() for name, task in tasks.items()}

    async def _start(self, name: str, argv: Sequence[str], log: Path, party: str | None) -> Child:
        talk = self.show.listener(party) if party is not None else None
        child = Child(name, argv, {**self.federation.env, app.PROGRESS: "json"}, log, talk)
        await child.start()
        self.children.append(child)
        return child
