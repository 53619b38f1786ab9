"""One seed's world: parties, head, buckets and faults on simulated time. A safety phase, then one without faults."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import itertools
import logging
import random
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from random import Random

from fednode.errors import FednodeError
from fednode.hydra.utxo import Coin
from fednode.node.protocol.facts import Fact
from fednode.node.protocol.outcome import ended
from fednode.node.protocol.pending import pending
from fednode.node.protocol.state import State
from fednode.types import Digest

from .adversary import Adversary
from .buckets import Store
from .chaos import CRASHES, Chaos
from .loop import VirtualLoop
from .network import Network
from .oracle import Oracle, Violation
from .party import Killed, Party, Process, remove_folder
from .plan import Limits, Plan, plan_of
from .seams import Seams
from .setting import NAMES, scratch, setting_of

START = 1_700_000_000.0
LIVENESS_S = 2 * 3600.0
"""Simulated seconds after the last fault within which everybody must have ended."""
OPERATOR_S = 2400.0
"""After so long somebody closes a head in which a liar keeps the others waiting."""
MAX_STEPS = 2_000_000


@dataclass
class Outcome:
    seed: int
    faults: Counter[str]
    steps: int
    seconds: float
    """Simulated."""
    lies: int = 0
    """How often the dishonest party lied."""
    problem: str | None = None


class World:
    def __init__(self, plan: Plan, trace: Callable[[str], None] | None = None) -> None:
        self.plan, self.trace = plan, trace
        self.setting = setting_of(plan.terms)
        self.loop = VirtualLoop(START, MAX_STEPS)
        self.loop.may_run = _alive
        self.rng = Random(f"{plan.seed}/world")
        self.faults: Counter[str] = Counter()
        self.streams: dict[str, Random] = {}
        self.safe = False
        """No more faults."""
        self.problem: BaseException | None = None
        self.over = False
        self.pause: Callable[[], AbstractContextManager[None]] = nullcontext
        """Round what is not the program's own work on files."""
        self.inspect: Callable[[World], None] = lambda world: None
        self.tolerates: Callable[[BaseException], bool] = lambda error: False
        """Errors that may end a process, which is then started again."""
        self.names = NAMES[: plan.terms.parties]
        self.outages: dict[str, float] = {}
        self.drafts: dict[bytes, float] = {}
        """When each deposit was drafted."""
        if "slow-disk" in plan.slow:
            self.loop.thread_delay = lambda: 0.0 if self.safe else self.rng.random() ** 4 * 2.0
        agreement = self.setting.agreement
        self.network = Network(
            self.setting.members,
            Random(f"{plan.seed}/network"),
            now=lambda: self.loop.now,
            later=self.later,
            count=self.count,
            version=plan.version,
            contestation_s=agreement.head.contestation_period_s,
            deposit_period_s=agreement.head.deposit_period_s,
        )
        self.adversary = Adversary(self)
        self.oracle = Oracle(self)
        self.network.confirmed_hook = self._confirmed
        self.network.loss = plan.rates.get("message-lost", 0.0)
        if "slow-node" in plan.slow:
            self.network.late[plan.seed % plan.terms.parties] = 0.5 if "embedded" in plan.version else 8.0
        self.network.doubling = plan.rates.get("message-doubled", 0.0)
        self.folder: Path | None = scratch() if plan.files else None
        self.stores = {n: Store(self.folder / "buckets" / n if self.folder else None) for n in self.names}
        self.parties = [Party(self, i, self.folder / n if self.folder else None) for i, n in enumerate(self.names)]
        for i, member in enumerate(self.setting.members):
            self.network.funding[f"{i:064x}#0"] = Coin(member.address, agreement.head.deposit)
            if self.folder is not None:
                (self.folder / "buckets" / member.name).mkdir(parents=True)
        self.chaos = Chaos(self)

    # What the simulated machines ask ----------------------------------------------------------------------------------

    def later(self, delay: float, act: Callable[[], None]) -> None:
        self.loop.call_later(delay, self._guarded, act)

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except BaseException as error:
            self.failed(error)

    def failed(self, error: BaseException) -> None:
        self.problem = self.problem or error
        self.over = True

    def count(self, kind: str) -> None:
        self.faults[kind] += 1

    def chance(self, kind: str) -> bool:
        """Whether a fault of a single operation happens now."""
        rate = self.plan.rates.get(kind)
        if rate is None or self.safe:
            return False
        stream = self.streams.get(kind)
        if stream is None:
            stream = self.streams[kind] = Random(f"{self.plan.seed}/{kind}")
        if stream.random() >= rate:
            return False
        self.count(kind)
        return True

    def latency(self) -> float:
        return 0.002 + self.rng.random() * 0.02 * self.network.slow

    def bucket_latency(self) -> float:
        return self.rng.random() * 0.3 * self.network.slow

    def train_seconds(self) -> float:
        slow = "slow-training" in self.plan.slow and not self.safe
        if slow and self.rng.random() < 0.3:
            self.count("slow-training")
            return self.rng.expovariate(1 / 120)
        return 1.0 + self.rng.random() * 4

    def spoiled(self, data: bytes) -> bytes:
        """Wrong bytes: torn, too long, or with a flipped bit."""
        return (data[: len(data) // 2], data + b"more", data[:-1] + bytes([data[-1] ^ 1]))[self.rng.randrange(3)]

    def sha256(self, data: bytes) -> Digest:
        return Digest(hashlib.sha256(data).hexdigest())

    def crash_point(self, process: Process, where: str, things: Iterable[object] = ()) -> None:
        """The process dies here, perhaps."""
        if not process.alive:
            return
        party = process.party
        if party.crashes < CRASHES and self.chance("crash-point"):
            party.crashes += 1
            self.count(f"crash {where}")
            if self.trace:
                self.note(party.me, f"CRASH {where} {', '.join(type(x).__name__ for x in things)}")
            process.kill()
            raise Killed

    # What they tell ---------------------------------------------------------------------------------------------------

    def note(self, who: str, text: str) -> None:
        if self.trace:
            self.trace(f"{self.loop.now - START:10.3f} {who:5} {text}")

    def fact(self, party: Party, state: State, fact: Fact) -> None:
        if self.trace:
            self.note(party.me, f"[{state.round}] {str(fact)[:200]}")
        try:
            self.oracle.fact(party, state, fact)
        except Violation as violation:
            self.failed(violation)
        self.chaos.fact(party)

    def _confirmed(self, snapshot: object) -> None:
        self.note("head", f"snapshot {len(self.network.log)}: {[tx.id[:8] for tx in self.network.log[-1].txs]}")
        try:
            self.oracle.confirmed(self.network.log[-1])
        except Violation as violation:
            self.failed(violation)
        self.adversary.confirmed(self.network.log[-1])

    def process_ended(self, process: Process, task: asyncio.Task[State]) -> None:
        """A process is gone: by itself, by an error, or killed."""
        party, was_alive = process.party, process.alive
        process.ended()
        party.process = None
        error = None if task.cancelled() else task.exception()
        if was_alive and task.cancelled():
            self.note(party.me, "stopped")
        elif not was_alive or isinstance(error, Killed):
            self.note(party.me, "is dead")
        elif error is None:
            self._reached(party)
            return
        else:
            self._broken(party, error)
            return
        self.chaos.again(party)

    def _reached(self, party: Party) -> None:
        self.note(party.me, f"reached its goal: {party.goal}")
        if party.goal == "open":
            party.goal = "run"
            self.later(self.rng.random() * 5, lambda: self.chaos.start(party))
        else:
            self.finish(party)

    def _broken(self, party: Party, error: BaseException) -> None:
        self.note(party.me, f"ended with {type(error).__name__}: {error}")
        if self.tolerates(error):
            self.count("ended by error")
            self.chaos.again(party)
            return
        if not isinstance(error, FednodeError):
            self.failed(error)
            return
        party.failed.append(error)
        try:
            again = self.oracle.exit(party, error)
        except Violation as violation:
            self.failed(violation)
            return
        if again:
            self.count("ended by error")
            self.chaos.again(party)
            return
        party.end = error
        state = party.state
        if state is not None and state.paid is None and party.goal in ("open", "run") and self.oracle.honest(party.me):
            # The operator reads the error, and closes the head some time later.
            party.goal, party.reason = "close", "fault"
            self.later(300 + self.rng.random() * 600, lambda: self.chaos.start(party))
        else:
            self.finish(party)

    # The phases -------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Raises what is wrong."""
        random.seed(self.plan.seed)
        try:
            for party in self.parties:
                self.later(self.rng.random() * 5, lambda party=party: self.chaos.start(party))
            self.chaos.begin()
            self._until(START + self.plan.safety_s)
            self.safe = True
            self.network.loss = self.network.doubling = 0.0
            self.network.late.clear()
            self.note("all", "no more faults")
            self.chaos.end()
            safe_at = self.loop.now
            if not self._until(safe_at + OPERATOR_S) and self.adversary.lie is not None:
                self.chaos.close_all()
            if not self._until(safe_at + LIVENESS_S):
                raise Violation(f"no end in sight: {self._waiting()}")
            self.oracle.at_end()
            self.inspect(self)
        finally:
            self._stop()
        if self.problem is not None:
            raise self.problem

    def finish(self, party: Party) -> None:
        """The party has nothing left to do."""
        party.finished = True
        self.over = self.over or all(p.finished for p in self.parties if self.oracle.honest(p.me))

    def _until(self, time: float) -> bool:
        done = self.loop.run(lambda: self.over, time)
        if self.problem is not None:
            raise self.problem
        if self.loop.problems:
            raise self.loop.problems[0]
        if self.loop.steps >= MAX_STEPS:
            raise Violation(f"spinning: {self.loop.steps} steps in {self.loop.now - START:.0f} s: {self._waiting()}")
        return done

    def _waiting(self) -> str:
        told: list[str] = []
        for p in self.parties:
            if p.finished or p.state is None:
                continue
            running = list(p.process.daemon._reconciler.running) if p.process and p.process.daemon else None
            told.append(
                f"{p.me}: goal {p.goal}, round {p.state.round}, head {p.state.head.status}, replayed "
                f"{p.state.head.replayed}, wants {pending(p.state)}, runs {running}, ended {ended(p.state)}"
            )
        return f"head {self.network.status}, " + "; ".join(told)

    def _stop(self) -> None:
        """End every process and task, so that nothing of this world is left that could still do something."""
        self.safe, self.chaos.restarts = True, False
        for party in self.parties:
            if party.process is not None:
                party.process.kill()
        self.loop.most += 100_000
        self.loop.run(lambda: all(p.process is None for p in self.parties), self.loop.now + 100)
        for _ in range(5):
            left = [task for task in asyncio.all_tasks(self.loop) if not task.done()]
            for task in left:
                task.cancel()
            if not left or self.loop.run(lambda left=left: all(task.done() for task in left), self.loop.now + 100):
                break
        if self.folder is not None:
            with self.pause():
                remove_folder(self.folder)


def _alive() -> bool:
    from .seams import PROCESS

    process = PROCESS.get(None)
    return process is None or process.alive


_worlds = itertools.count(1)


@contextmanager
def _without_collector() -> Iterator[None]:
    """A world is full of cycles: they are collected after some worlds, and not while one runs."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if next(_worlds) % 16 == 0:
            gc.collect()
        if before:
            gc.enable()


@contextmanager
def _quiet() -> Iterator[None]:
    """Thousands of faults are not worth a line each; afterwards the log is as it was."""
    logger = logging.getLogger("fednode")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def simulate(
    seed: int,
    limits: Limits | None = None,
    trace: Callable[[str], None] | None = None,
    inspect: Callable[[World], None] | None = None,
) -> Outcome:
    """Run one seed. Never raises for what goes wrong in it: `problem` says what.

    `inspect` sees the world when everybody has ended.
    """
    plan = plan_of(seed, limits)
    with _quiet(), _without_collector(), Seams():
        world = World(plan, trace)
        world.inspect = inspect or world.inspect
        problem = None
        try:
            world.run()
        except Violation as violation:
            problem = str(violation)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}\n" + "".join(traceback.format_exception(error)[-6:])
    return Outcome(seed, world.faults, world.loop.steps, world.loop.now - START, world.adversary.acted, problem)
