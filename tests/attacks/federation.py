"""A federation in one process, for attacks: the daemons' shipped code over the embedded head, on loopback sockets.

alice and bob are honest; mallory is whatever the test makes of her. A federation is prepared once up to a point, its
folder is copied for every attack, and everybody starts again from there. Nothing waits by sleeping.
"""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fednode.hydra import devnet
from fednode.node import app
from fednode.node.home import Home
from fednode.node.protocol.facts import Fact
from fednode.node.protocol.state import State
from fednode.node.setup import own_card
from fednode.node.site import Site
from fednode.node.tomlwrite import agreement_text, settings_text
from fednode.node.watch import Talk
from fednode.training.client import TrainerProcess
from fednode.types import HeadStatus, ModelFacts, PartyName, TrainRequest, TrainResult

from .mallory import Mallory

HONEST = ("alice", "bob")
NAMES = (*HONEST, "mallory")
ROUNDS = 2
PATIENCE_S = 60.0
"""How long anything may take before a test gives up: far more than it takes on a busy machine."""
Predicate = Callable[[State], bool]


class Trainers:
    """Warm trainer children, one a party: the real ones, kept from one attack to the next."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._children: dict[tuple[str, str], TrainerProcess] = {}

    def of(self, site: Site) -> Warm:
        key = (site.rules.me, site.rules.run)
        if key not in self._children:
            log = self._folder / f"{'-'.join(key)}.log"
            self._children[key] = TrainerProcess(app.trainer_setup(site), log=log)
        return Warm(self._children[key])

    def processes(self) -> list[int]:
        return [child.pid for child in self._children.values() if child.pid is not None]

    async def aclose(self) -> None:
        for child in self._children.values():
            await child.aclose()


class Warm:
    """A trainer that outlives the daemon that uses it."""

    def __init__(self, child: TrainerProcess) -> None:
        self.child = child

    async def describe(self) -> ModelFacts:
        return await self.child.describe()

    async def train(
        self, request: TrainRequest, progress: Callable[[int, int, float], None] | None = None
    ) -> TrainResult:
        return await self.child.train(request, progress)

    async def aclose(self) -> None:
        """The next attack uses the same child."""


@dataclass(slots=True)
class Ear(Talk):
    """The daemon's own talk, kept, and a way to wait for what it says."""

    heard: asyncio.Event = field(default_factory=asyncio.Event)
    facts: list[Fact] = field(default_factory=list)

    def fact(self, state: State, fact: Fact) -> None:
        Talk.fact(self, state, fact)
        self.facts.append(fact)
        self.heard.set()

    def _write(self, text: str, **more: object) -> None:
        Talk._write(self, text, **more)
        self.heard.set()


class Running:
    """One honest daemon at work."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.stream = io.StringIO()
        self.ear = Ear("plain", self.stream)
        self.task = asyncio.ensure_future(app.work(site, "run", self.ear))

    @property
    def state(self) -> State:
        assert self.ear.state is not None
        return self.ear.state

    @property
    def talk(self) -> str:
        return self.stream.getvalue()

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait for a condition of state or talk; raises what ends the daemon before."""
        async with asyncio.timeout(PATIENCE_S):
            while not reached():
                self.ear.heard.clear()
                waiting = asyncio.ensure_future(self.ear.heard.wait())
                await asyncio.wait({waiting, self.task}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                if self.task.done() and not reached():
                    self.task.result()
                    raise AssertionError(f"{self.site.rules.me} ended before its time\n{self.talk}")

    async def said(self, words: str) -> None:
        await self.until(lambda: words in self.talk)

    async def reached(self, predicate: Predicate) -> None:
        await self.until(lambda: self.ear.state is not None and predicate(self.ear.state))

    async def error(self) -> BaseException:
        """How it ends, which must be an error."""
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait({self.task})
        error = self.task.exception()
        assert error is not None, f"{self.site.rules.me} ended well\n{self.talk}"
        return error

    async def stop(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await self.task


class Federation:
    """A folder with three homes and an embedded head."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemons: dict[str, Running] = {}

    @classmethod
    def create(cls, folder: Path, **run: object) -> Federation:
        """Homes, keys and the agreement; nothing runs yet."""
        settings = devnet.create(folder, NAMES, contestation_period_s=1, fund=30_000_000)
        for party in settings.parties:
            values: dict[str, dict[str, object]] = {
                "party": {"name": party.name},
                "head": {"url": party.url, "funding": party.funding},
                "train": {"threads": 1, "device": "cpu"},
            }
            peers = {name: f"../{name}/bucket" for name in NAMES if name != party.name}
            (folder / party.name / "fednode.toml").write_text(settings_text(values, peers))
        agreed: dict[str, dict[str, Any]] = {
            "run": {"name": "attacked", "rounds": ROUNDS, "seed": 7, **run},
            "model": {"name": "builtin:linear", "quantisation": "none", "rank": 4, "alpha": 8.0},
            "training": {"task": "linear", "steps": 5, "batch": 32, "learning_rate": 0.02},
            "head": {
                "network": "embedded",
                "deposit": 30_000_000,
                "takeover_s": 0.2,
                "magic": settings.magic,
                "contestation_period_s": settings.contestation_period_s,
                "deposit_period_s": settings.deposit_period_s,
            },
        }
        cards = [own_card(Home(folder / name)) for name in NAMES]
        for card in cards:
            card["read"] = ""  # the folder is copied: where a bucket lies is each home's own business
        text = agreement_text(agreed, cards)
        for name in NAMES:
            (folder / name / "peers.toml").write_text(text)
        return cls(folder)

    def copy(self, folder: Path) -> Federation:
        """The same federation elsewhere, at ports of its own."""
        shutil.copytree(self.folder, folder)
        path = folder / "devnet" / "settings.json"
        settings = json.loads(path.read_text())
        for party, port in zip(settings["parties"], free_ports(len(NAMES)), strict=True):
            toml = folder / party["name"] / "fednode.toml"
            toml.write_text(toml.read_text().replace(f"127.0.0.1:{party['port']}", f"127.0.0.1:{port}"))
            party["port"] = port
        path.write_text(json.dumps(settings))
        return Federation(folder)

    def home(self, name: str) -> Home:
        return Home(self.folder / name)

    def site(self, name: str) -> Site:
        return app.open_site(self.home(name), peers=None, epochs=None)

    def bucket(self, name: str) -> Path:
        return self.home(name).bucket

    def object_path(self, name: str, round_number: int, digest: str) -> Path:
        return self.bucket(name) / self.site(name).rules.run / f"{round_number:06d}" / f"{digest}.safetensors"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """The embedded head."""
        ready = asyncio.Event()
        task = asyncio.ensure_future(devnet.serve(devnet.load(self.folder), ready=ready.set))
        waiting = asyncio.ensure_future(ready.wait())
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if task.done():
            task.result()
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def start(self, *names: str) -> list[Running]:
        for name in names:
            self.daemons[name] = Running(self.site(name))
        return [self.daemons[name] for name in names]

    async def stop(self, *names: str) -> None:
        for name in names or tuple(self.daemons):
            await self.daemons[name].stop()

    @asynccontextmanager
    async def attacked(self, honest: Sequence[str] = HONEST) -> AsyncIterator[tuple[Mallory, list[Running]]]:
        """Head, honest daemons and mallory at work."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.serving())
            mallory = await stack.enter_async_context(Mallory.at_work(self.site("mallory")))
            stack.push_async_callback(self.stop)
            yield mallory, self.start(*honest)

    def status(self, name: str) -> Mapping[str, Any]:
        """What `fednode status` says."""
        from fednode.node.site import read_history
        from fednode.node.views import status

        return status(read_history(self.site(name)), pid=None)


async def open_head(federation: Federation) -> None:
    """What the users' `init-head` does: head open, every deposit in."""
    ears = {name: Ear("none") for name in NAMES}
    async with federation.serving():
        await asyncio.gather(*(app.work(federation.site(name), "open", ears[name]) for name in NAMES))


async def play_round_zero(federation: Federation) -> None:
    """The round-0 signals of alice and bob are final, mallory's is not sent."""
    async with federation.serving():
        running = federation.start(*HONEST)
        for daemon in running:
            await daemon.reached(lambda state: set(state.transcript.signals(0)) == set(HONEST))
        await federation.stop()


async def play_until_round_one(federation: Federation) -> None:
    """Round 1 of alice and bob is final and fetched, mallory has signalled round 0 only."""

    def ready(state: State) -> bool:
        return set(state.transcript.signals(1)) == set(HONEST) and bool(state.work.fetched)

    async with federation.attacked() as (mallory, running):
        await mallory.signal_round_zero()
        for daemon in running:
            await daemon.reached(ready)


def finished(state: State) -> bool:
    """Every round is done and every last signal final."""
    return state.certified


def paid(state: State) -> bool:
    return state.head.status is HeadStatus.FINALIZED


def party(name: str) -> PartyName:
    return PartyName(name)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
