"""A simulated party: what outlives its process, and its process, which is the shipped daemon over simulated ports."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fednode.errors import FednodeError, JournalError, TrainingError
from fednode.hydra.settings import HeadSettings
from fednode.node.app import SystemClock
from fednode.node.daemon import Daemon
from fednode.node.effects import Effects
from fednode.node.journal import SqliteJournal, open_reader
from fednode.node.protocol.events import Begin, Goal
from fednode.node.protocol.evolve import evolve
from fednode.node.protocol.facts import Fact, SnapshotNoted
from fednode.node.protocol.pending import Command
from fednode.node.protocol.records import from_record
from fednode.node.protocol.state import State, initial
from fednode.node.runfolder import RunFolder
from fednode.types import AggregateResult, Digest, ModelFacts, PartyName, TrainRequest, TrainResult, TxId

from .buckets import SimBucket
from .disk import Disk, MemPath
from .seams import PROCESS, SimHead
from .setting import FACTS, NAMES, key

if TYPE_CHECKING:
    from .hydranode import HydraNode
    from .world import World


class Killed(BaseException):
    """This process is dead: nothing that it still tries has any effect."""


@dataclass
class Backup:
    records: int
    files: dict[str, bytes] | None


class Party:
    """Home, journal, node and clock of one party."""

    def __init__(self, world: World, index: int, folder: Path | None) -> None:
        self.world, self.index = world, index
        self.me = NAMES[index]
        self.member = world.setting.members[index]
        self.rules = world.setting.rules(self.me)
        self.node: HydraNode = world.network.nodes[index]
        self.disk = Disk()
        self.folder = folder
        """Real files, for the few worlds that use them."""
        self.root: Any = folder if folder is not None else MemPath(self.disk, "/home")
        self.records: list[str] = []
        """The journal: JSON of (kind, body)."""
        self.offset = 0.0
        """Of the own clock."""
        self.goal: Goal = "open"
        self.reason = ""
        self.process: Process | None = None
        self.starts = 0
        self.failed: list[FednodeError] = []
        """Errors that ended a process."""
        self.end: FednodeError | None = None
        self.finished = False
        self.state: State | None = None
        """The last one that a process showed."""
        self.shown = -1
        """How many records the journal had when `state` was shown."""
        self.crashes = 0
        self.backups: list[Backup] = []

    @property
    def run_root(self) -> Any:
        return self.root / "runs" / self.world.setting.run

    def facts(self) -> Iterator[Fact]:
        for text in self.records:
            kind, body = json.loads(text)
            yield from_record(kind, body)

    def fold(self) -> State:
        state = initial(self.rules)
        for fact in self.facts():
            state = evolve(state, fact)
        return state

    def confirmed(self) -> Iterator[tuple[TxId, str]]:
        for text in self.records:
            if text.startswith('["SnapshotNoted"'):
                fact = from_record(*json.loads(text))
                assert isinstance(fact, SnapshotNoted)
                yield from ((tx.id, tx.cbor) for tx in fact.transactions)

    def start(self) -> None:
        """Start the command anew, in a new process."""
        assert self.process is None
        self.starts += 1
        self.process = Process(self)
        self.process.start()


class Process:
    """One process of one party."""

    def __init__(self, party: Party) -> None:
        self.party, self.world, self.node = party, party.world, party.node
        self.alive = True
        self.task: asyncio.Task[State] | None = None
        self.daemon: Daemon | None = None
        self.training_failures = 0
        self._sqlite: SqliteJournal | None = None

    def guard(self) -> None:
        if not self.alive:
            raise Killed

    # The ports --------------------------------------------------------------------------------------------------------

    def wall(self) -> float:
        """The party's own clock, which somebody may set."""
        return self.world.loop.now + self.party.offset

    def now(self) -> float:
        """The shipped clock of a process."""
        return self._clock.now()

    def append(self, records: Sequence[tuple[str, Mapping[str, object]]]) -> None:
        """The journal, all or none."""
        self.guard()
        party, world = self.party, self.world
        if world.chance("journal-error"):
            raise JournalError("injected: no space left on device")
        texts = [json.dumps([kind, body], separators=(",", ":"), allow_nan=False) for kind, body in records]
        if self._sqlite is not None:
            self._sqlite.append(records)
        party.records += texts
        world.oracle.journalled(party, records)

    def close(self) -> None:
        """The journal is closed with the process."""

    async def describe(self) -> ModelFacts:
        await asyncio.sleep(self.world.train_seconds())
        self.guard()
        return FACTS

    async def train(self, request: TrainRequest, progress: object = None) -> TrainResult:
        world, party = self.world, self.party
        world.oracle.training(party, request)
        await asyncio.sleep(world.train_seconds())
        self.guard()
        if self.training_failures < 2 and world.chance("training-error"):
            self.training_failures += 1
            raise TrainingError("injected: the child was killed")
        self.training_failures = 0
        with world.pause():
            return self._train(request)

    def _train(self, request: TrainRequest) -> TrainResult:
        world, party, setting = self.world, self.party, self.world.setting
        state = self._bytes(request.state)
        bundle = None if request.bundle is None else self._bytes(request.bundle)
        variant = world.rng.randrange(2) if world.plan.noisy else 0
        data, kept, done = setting.train(party.me, party.index, request, state, bundle, variant, exact=world.plan.exact)
        data, done = world.adversary.trained(party, data, done)
        root = party.run_root
        (root / "objects" / f"{done.object}.safetensors").write_bytes(data)
        world.crash_point(self, "mid-train")
        (root / "bundles" / f"{request.round:06d}.safetensors").write_bytes(kept)
        return done

    async def aclose(self) -> None:
        """The trainer ends with the process."""

    def _bytes(self, path: str) -> bytes:
        return Path(path).read_bytes() if self.party.folder is not None else self.party.disk.files[path]

    # Its life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        party, world = self.party, self.world
        party.disk.guard = self.guard
        context = contextvars.copy_context()
        context.run(PROCESS.set, self)
        self._clock = context.run(SystemClock)
        coroutine = context.run(self._main)
        self.task = world.loop.create_task(coroutine, context=context)
        self.task.add_done_callback(lambda task: world.process_ended(self, task))

    async def _main(self) -> State:
        """What `fednode.node.app.work` does."""
        party, world, setting = self.party, self.world, self.world.setting
        state = party.fold()
        if party.state is not None and party.shown == len(party.records):
            world.oracle.replayed(party, state)
        self._sqlite = self._open_journal()
        a = setting.agreement
        head = SimHead(
            HeadSettings(
                url="http://127.0.0.1:4001",
                me=party.me,
                members=setting.members,
                magic=a.head.magic,
                version=a.head.hydra_node,
                funds_key=key("funds", party.me),
                funding=f"{party.index:064x}#0",
                deposit=party.rules.deposit,
                contestation_period_s=a.head.contestation_period_s,
                deposit_period_s=a.head.deposit_period_s,
                bound_head=state.head.id,
            )
        )
        run = setting.run
        effects = Effects(
            head=head,
            clock=self,
            folder=RunFolder(party.run_root),
            evidence_folder=party.root / "evidence",
            phase=a.training.phase,
            prefixes={m.name: f"{run}/" for m in setting.members},
            buckets={m.name: SimBucket(self, m.name) for m in setting.members},
            trainer=self,
            make_aggregator=lambda facts: PathAggregator(self),
            first_round_object=lambda schema: setting.first_object,
            sha256=world.sha256,
            confirmed=party.confirmed,
        )
        self.daemon = Daemon(state, journal=self, head=head, perform=effects.perform, clock=self, watcher=self)
        goal = party.goal
        running = goal == "run"
        begin = Begin(self.now(), goal, party.rules.binding, run if running else None, None, party.reason)
        if running:
            begin = Begin(self.now(), goal, party.rules.binding, run, a.run.rounds, "")
        return await self.daemon.run(begin)

    def _open_journal(self) -> SqliteJournal | None:
        """The shipped journal beside the one in memory, in worlds with real files: both must tell the same."""
        if self.party.folder is None:
            return None
        path = self.party.folder / "journal.sqlite3"
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            with open_reader(path) as reader:
                told = [json.dumps([kind, body], separators=(",", ":")) for _, kind, body in reader.read()]
            assert told == self.party.records, "the journal on disk is not what was appended"
        return SqliteJournal(path)

    def kill(self) -> None:
        """kill -9: from here on nothing that this process does has any effect."""
        if self.alive:
            self.alive = False
            for socket in self.node.sockets[:]:
                if socket._process is self:
                    socket.drop()
            if self.task is not None:
                self.task.cancel()

    def ended(self) -> None:
        self.alive = False
        if self._sqlite is not None:
            self._sqlite.close()

    # Watching: never influences the daemon ----------------------------------------------------------------------------

    def fact(self, state: State, fact: Fact) -> None:
        self.party.state, self.party.shown = state, len(self.party.records)
        self.world.fact(self.party, state, fact)

    def unreachable(self, reason: str) -> None:
        self.world.note(self.party.me, f"unreachable: {reason}")

    def refused(self, tx: str, reason: str) -> None:
        self.world.note(self.party.me, f"refused {tx[:12]}: {reason}")

    def retry(self, command: Command, error: FednodeError, delay_s: float) -> None:
        self.world.count("retry")
        self.world.note(self.party.me, f"retry {command} in {delay_s:.1f} s: {error.message}")


def _not_counted(method: Callable[..., Any]) -> Callable[..., Any]:
    """What only simulates files is no operation of the program."""

    @functools.wraps(method)
    def paused(self: PathAggregator, *args: Any, **options: Any) -> Any:
        with self.process.world.pause():
            return method(self, *args, **options)

    return paused


@dataclass
class PathAggregator:
    """The shipped aggregator for files of a simulated disk."""

    process: Process
    known: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def _exact(self) -> bool:
        return self.process.world.plan.exact

    def schema(self) -> bytes:
        return self.process.world.setting.aggregator.schema()

    def object_size(self, round_number: int, party: PartyName) -> int:
        return self.process.world.setting.aggregator.object_size(round_number, party)

    @_not_counted
    def initial(self, state: Any) -> Digest:
        data, digest = self.process.world.setting.initial()
        self.process.guard()
        state.write_bytes(data)
        return digest

    @_not_counted
    def digest(self, state: Any, momentum: Any) -> Digest:
        try:
            return self.process.world.setting.digest(state.read_bytes(), momentum and momentum.read_bytes())
        except FileNotFoundError as error:
            raise TrainingError(f"{error} is missing") from None

    @_not_counted
    def momentum_digest(self, momentum: Any) -> Digest | None:
        try:
            return self.process.world.setting.momentum_digest(momentum.read_bytes())
        except FileNotFoundError as error:
            raise TrainingError(f"{error} is missing") from None

    @_not_counted
    def check(self, object_file: Any, *, run: Any, round_number: int, party: Any, phase: Any, base: Any) -> None:
        who = (run, round_number, party, phase, base)
        refused = self.process.world.setting.check(object_file.read_bytes(), who, exact=self._exact)
        if refused is not None:
            raise refused.with_traceback(None)

    @_not_counted
    def aggregate(
        self, round_number: int, objects: Any, *, state: Any, momentum: Any, new_state: Any, new_momentum: Any
    ) -> AggregateResult:
        setting = self.process.world.setting
        given = tuple((party, path.read_bytes()) for party, path in sorted(objects.items()))
        before = None if momentum is None else momentum.read_bytes()
        done = setting.aggregate(round_number, given, state.read_bytes(), before, exact=self._exact)
        if isinstance(done, Exception):
            raise done.with_traceback(None)
        data, speed, result = done
        self.process.guard()
        new_momentum.write_bytes(speed)
        self.process.world.crash_point(self.process, "mid-aggregate")
        new_state.write_bytes(data)
        return result


def copy_prefix(party: Party, count: int) -> None:
    """The journal as an older backup has it: its first `count` records."""
    party.records = party.records[:count]
    if party.folder is not None:
        path = party.folder / "journal.sqlite3"
        for name in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
            name.unlink(missing_ok=True)
        journal = SqliteJournal(path)
        journal.append([tuple(json.loads(text)) for text in party.records])
        journal.close()


def remove_folder(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
