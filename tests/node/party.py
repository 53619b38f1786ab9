"""A party for tests: everything that outlives its process, and how its daemon is built and built again."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fednode.errors import FednodeError
from fednode.node.daemon import Daemon
from fednode.node.effects import Effects
from fednode.node.protocol.events import Begin, Event, Goal
from fednode.node.protocol.evolve import evolve
from fednode.node.protocol.facts import Fact, SnapshotNoted
from fednode.node.protocol.pending import Command
from fednode.node.protocol.records import from_record
from fednode.node.protocol.state import Rules, State, initial
from fednode.node.runfolder import RunFolder
from fednode.types import PartyName, RunId, TxId

from .world import (
    DEPOSIT,
    Ledger,
    LoopClock,
    MemoryBucket,
    MemoryJournal,
    MemoryTrainer,
    Node,
    VectorAggregator,
    sha256,
)

ANNA, BERT, CLEO = PartyName("anna"), PartyName("bert"), PartyName("cleo")
PARTIES = (ANNA, BERT, CLEO)
RUN = RunId("11" * 16)


class Crash(RuntimeError):
    """The process dies here."""


@dataclass
class Notes:
    """A watcher that remembers."""

    facts: list[Fact] = field(default_factory=list)
    retries: list[tuple[str, str]] = field(default_factory=list)

    def fact(self, state: State, fact: Fact) -> None:
        self.facts.append(fact)

    def unreachable(self, reason: str) -> None: ...

    def refused(self, tx: str, reason: str) -> None: ...

    def retry(self, command: Command, error: FednodeError, delay_s: float) -> None:
        self.retries.append((type(command).__name__, error.code))


@dataclass
class Party:
    me: PartyName
    ledger: Ledger
    buckets: dict[PartyName, MemoryBucket]
    root: Path
    rules: Rules
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    notes: Notes = field(default_factory=Notes)
    agreement: bytes = b"agreement 1, schema "
    """What stands before the schema in the object of round 0."""
    hook: Callable[[str, Command], None] = lambda moment, command: None
    """Called with "before" and "after" of every effect."""

    def __post_init__(self) -> None:
        self.node = Node(self.me, self.ledger)
        self.trainer = MemoryTrainer(self.me, RUN)

    @property
    def bucket(self) -> MemoryBucket:
        return self.buckets[self.me]

    def state(self) -> State:
        state = initial(self.rules)
        for kind, body in map(json.loads, self.journal.records):
            state = evolve(state, from_record(kind, body))
        return state

    def confirmed(self) -> Iterator[tuple[TxId, str]]:
        for kind, body in map(json.loads, self.journal.records):
            fact = from_record(kind, body)
            if isinstance(fact, SnapshotNoted):
                yield from ((tx.id, tx.cbor) for tx in fact.transactions)

    def effects(self) -> Effects:
        return Effects(
            head=self.node,
            clock=LoopClock(),
            folder=RunFolder(self.root / "runs" / RUN),
            evidence_folder=self.root / "evidence",
            phase="alternate",
            prefixes={p: f"{p}/{RUN}/" for p in self.rules.parties},
            buckets=self.buckets,
            trainer=self.trainer,
            make_aggregator=lambda facts: VectorAggregator(),
            first_round_object=lambda schema: self.agreement + schema,
            sha256=sha256,
            confirmed=self.confirmed,
        )

    def daemon(self) -> Daemon:
        """A fresh process over what the last one left."""
        effects = self.effects()

        async def perform(command: Command, state: State) -> Event | None:
            self.hook("before", command)
            work: Awaitable[Event | None] = effects.perform(command, state)
            event = await work
            self.hook("after", command)
            return event

        return Daemon(
            self.state(),
            journal=self.journal,
            head=self.node,
            perform=perform,
            clock=LoopClock(),
            watcher=self.notes,
        )

    async def work(self, goal: Goal = "run") -> State:
        """One process from start to end."""
        run = RUN if goal == "run" else None
        begin = Begin(LoopClock().now(), goal, self.rules.binding, run, self.rules.rounds if run else None)
        return await self.daemon().run(begin)

    async def work_through_crashes(self, goal: Goal = "run") -> State:
        """Processes one after the other until one ends by itself."""
        while True:
            try:
                return await self.work(goal)
            except Crash:
                await asyncio.sleep(1)


def build(root: Path, parties: tuple[PartyName, ...] = PARTIES, **changes: Any) -> list[Party]:
    """Parties over one head that is still idle. Must be called inside the loop."""
    base = Rules(
        me=parties[0],
        parties=parties,
        rounds=2,
        run=RUN,
        binding="b" * 64,
        sections={"run": "01" * 8},
        deposit=DEPOSIT,
        deadline_s=86400.0,
        on_deadline="wait",
        on_fault="halt",
        settle_s=3.0,
        takeover_s=30.0,
    )
    ledger = Ledger(parties)
    buckets = {p: MemoryBucket() for p in parties}
    made = [Party(p, ledger, buckets, root / p, replace(base, me=p, **changes)) for p in parties]
    for party in made:
        party.root.mkdir(parents=True, exist_ok=True)
    return made


async def open_head(parties: list[Party]) -> None:
    await asyncio.gather(*(party.work("open") for party in parties))


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder in memory where there is one: these tests fsync thousands of small files."""
    memory = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(prefix="fednode-", dir=memory if memory.is_dir() else None))
    try:
        yield root
    finally:
        shutil.rmtree(root)
