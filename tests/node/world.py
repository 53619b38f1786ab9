"""The daemon's ports in memory: one head for all, a bucket, a trainer and an aggregator each, and time that jumps.

Nothing here waits: `VirtualLoop` moves its clock to the next timer when there is nothing to do, so that a day of
back-off takes milliseconds and every run takes the same course.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import selectors
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from fednode import reports as r
from fednode.durable import write_atomic
from fednode.errors import Conflict, HeadUnavailable, Integrity, NotFound, ObjectRefused, TrainingError
from fednode.types import (
    AggregateResult,
    Digest,
    HeadId,
    HeadStatus,
    Lovelace,
    ModelFacts,
    PartyName,
    Phase,
    Progress,
    RunId,
    SignalContent,
    SignedTx,
    TrainRequest,
    TrainResult,
    Transaction,
    TxId,
    TxKind,
)

T = TypeVar("T")
HEAD = HeadId("aa" * 28)
DEPOSIT = Lovelace(10_000_000)


def sha256(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())


# Time ----------------------------------------------------------------------------------------------------------------


class _Jumping(selectors.SelectSelector):
    """Where the loop would sleep, its clock jumps instead."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everybody waits for ever")
        if not ready and timeout is not None:
            self.loop.seconds += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Jumps over idle time; what is given to a thread is done at once, in this one."""

    def __init__(self) -> None:
        selector = _Jumping()
        selector.loop = self
        self.seconds = 0.0
        super().__init__(selector)

    def time(self) -> float:
        return self.seconds

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]  # a wider signature
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


def run_virtual(work: Coroutine[Any, Any, T], *, days: float = 7.0) -> T:
    """Run to the end; TimeoutError where that takes more than so many days of virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(asyncio.wait_for(work, days * 86400))


class LoopClock:
    """The loop's own time, so that waiting and telling the time agree."""

    def now(self) -> float:
        return 1_700_000_000.0 + asyncio.get_running_loop().time()


# The head ------------------------------------------------------------------------------------------------------------


@dataclass
class Ledger:
    """One head as all its nodes see it: an order of reports, and which outputs of a party are unspent."""

    parties: tuple[PartyName, ...]
    log: list[Any] = field(default_factory=list)
    """Reports without a time, as functions of it."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    status: HeadStatus = HeadStatus.IDLE
    snapshots: int = 0
    confirmed: dict[str, Transaction] = field(default_factory=dict)
    spent: dict[PartyName, int] = field(default_factory=dict)
    sent: dict[tuple[PartyName, int, str], set[str]] = field(default_factory=dict)
    """Everything that was ever sent, by party, round and run."""
    deposits: dict[str, PartyName] = field(default_factory=dict)
    clock: LoopClock = field(default_factory=LoopClock)

    def report(self, make: Callable[[float], r.HeadReport]) -> None:
        self.log.append(make(self.clock.now()))
        self.changed.set()
        self.changed = asyncio.Event()

    def open(self) -> None:
        if self.status is HeadStatus.IDLE:
            self.status = HeadStatus.OPEN
            self.report(lambda at: r.HeadOpened(at, HEAD))

    def deposit(self, tx: SignedTx, party: PartyName) -> None:
        if tx.id not in self.deposits:
            self.deposits[tx.id] = party
            self.report(lambda at: r.DepositRecorded(at, tx.id, party, DEPOSIT, at + 600))
            self.report(lambda at: r.DepositFinalized(at, tx.id, party, DEPOSIT))

    def submit(self, tx: Transaction) -> None:
        """A snapshot of one transaction, if its inputs are unspent; nothing where it is confirmed or spent."""
        sender, what = tx.sender, tx.content
        assert sender is not None
        assert what is not None
        self.sent.setdefault((sender, what.round, what.run), set()).add(tx.id)
        if self.status is HeadStatus.OPEN and json.loads(bytes.fromhex(tx.cbor))["inputs"] == self.spent.get(sender, 0):
            self.confirm(tx)

    def confirm(self, *transactions: Transaction) -> None:
        for tx in transactions:
            assert tx.sender is not None
            self.spent[tx.sender] = self.spent.get(tx.sender, 0) + 1
            self.confirmed[tx.id] = tx
        self.snapshots += 1
        number = self.snapshots
        self.report(lambda at: r.SnapshotConfirmed(at, number, transactions))

    def close(self) -> None:
        if self.status is HeadStatus.OPEN:
            self.status = HeadStatus.CLOSED
            number = self.snapshots
            self.report(lambda at: r.HeadClosed(at, number, at + 20))
            asyncio.get_running_loop().call_later(20, self._over)

    def _over(self) -> None:
        self.status = HeadStatus.FANOUT_POSSIBLE
        self.report(r.FanoutPossible)

    def fanout(self) -> None:
        if self.status is HeadStatus.FANOUT_POSSIBLE:
            self.status = HeadStatus.FINALIZED
            paid = tuple((p, DEPOSIT) for p in sorted(self.parties))
            self.report(lambda at: r.HeadFinalized(at, paid, paid, True))


def encode(sender: PartyName, content: SignalContent, *, inputs: int, nonce: int) -> bytes:
    """The bytes of a signal: JSON here, CBOR elsewhere."""
    body = {"sender": sender, "content": asdict(content), "inputs": inputs, "nonce": nonce}
    return json.dumps(body, sort_keys=True).encode()


def decode(data: bytes) -> Transaction:
    tx = TxId(hashlib.blake2b(data, digest_size=32).hexdigest())
    try:
        body = json.loads(data)
        content = SignalContent(**body["content"])
        return Transaction(tx, data.hex(), TxKind.SIGNAL, PartyName(body["sender"]), content)
    except (ValueError, KeyError, TypeError):
        return Transaction(tx, data.hex(), TxKind.OTHER)


@dataclass
class Node:
    """One party's hydra-node: the port `Head`."""

    me: PartyName
    ledger: Ledger
    delay: float = 0.0
    """Seconds by which this node hears later than the others."""
    nonce: list[int] = field(default_factory=lambda: [0])
    """Two signatures of one content are never the same bytes."""
    refuse: list[Exception] = field(default_factory=list)
    """Errors that the next deliveries end with."""

    async def reports(self, after: int) -> AsyncIterator[r.HeadReport]:
        ledger, read, synced = self.ledger, 0, False
        head = None if ledger.status is HeadStatus.IDLE else HEAD
        yield r.HeadConnected(ledger.clock.now(), ledger.status, head, True, "in memory")
        while True:
            while read < len(ledger.log):
                report = ledger.log[read]
                read += 1
                if self.delay and synced:
                    await asyncio.sleep(self.delay)
                if not isinstance(report, r.SnapshotConfirmed) or report.number > after:
                    yield report
            if not synced:
                synced = True
                yield r.SnapshotsSynced(ledger.clock.now(), ledger.snapshots)
            else:
                await ledger.changed.wait()

    async def init(self) -> None:
        self.ledger.open()

    async def draft_deposit(self) -> SignedTx:
        data = f"deposit of {self.me}".encode()
        return SignedTx(TxId(sha256(data)), data.hex())

    async def submit_deposit(self, deposit: SignedTx) -> None:
        self.ledger.deposit(deposit, self.me)

    def build_signal(self, content: SignalContent) -> SignedTx:
        self.nonce[0] += 1
        data = encode(self.me, content, inputs=self.ledger.spent.get(self.me, 0), nonce=self.nonce[0])
        tx = decode(data)
        return SignedTx(tx.id, tx.cbor)

    def read_transaction(self, cbor: bytes) -> Transaction:
        return decode(cbor)

    async def deliver(self, signal: SignedTx) -> None:
        while True:
            if self.refuse:
                raise self.refuse.pop(0)
            self.ledger.submit(decode(bytes.fromhex(signal.cbor)))
            await asyncio.sleep(5)

    async def close(self) -> None:
        self.ledger.close()
        await asyncio.Event().wait()

    async def fanout(self) -> None:
        self.ledger.fanout()
        await asyncio.Event().wait()

    async def aclose(self) -> None: ...


# Buckets and journal -------------------------------------------------------------------------------------------------


@dataclass
class MemoryBucket:
    """Put-if-absent over a dict. `fail` holds errors that the next calls end with."""

    stored: dict[str, bytes] = field(default_factory=dict)
    fail: list[Exception] = field(default_factory=list)

    def _maybe_fail(self) -> None:
        if self.fail:
            raise self.fail.pop(0)

    async def put(self, key: str, source: Path, *, progress: object = None) -> None:
        self._maybe_fail()
        data = source.read_bytes()
        if self.stored.setdefault(key, data) != data:
            raise Conflict(f"{key}: other bytes")

    async def get(self, key: str, target: Path, *, size: int, sha256: Digest, progress: object = None) -> None:
        self._maybe_fail()
        data = await self.read(key, limit=size + 1)
        kept = target.with_suffix(".broken")
        if len(data) != size or hashlib.sha256(data).hexdigest() != sha256:
            write_atomic(kept, data)
            raise Integrity(f"{key}: other bytes", kind="size" if len(data) != size else "digest", kept=str(kept))
        write_atomic(target, data)

    async def read(self, key: str, *, limit: int) -> bytes:
        self._maybe_fail()
        if key not in self.stored:
            raise NotFound(f"{key} is absent")
        return self.stored[key][:limit]

    async def head(self, key: str) -> int:
        return len(await self.read(key, limit=1 << 30))

    async def aclose(self) -> None: ...


@dataclass
class MemoryJournal:
    """What survives a crash, as JSON text. `hook` is called with "before" and "after" of every append."""

    records: list[str] = field(default_factory=list)
    hook: Callable[[str], None] = lambda moment: None

    def append(self, records: Sequence[tuple[str, Mapping[str, object]]]) -> None:
        self.hook("before")
        self.records += [json.dumps([kind, body]) for kind, body in records]
        self.hook("after")

    def close(self) -> None: ...


# Training and tensors: vectors of four integers ----------------------------------------------------------------------

WIDTH = 4
SCHEMA = json.dumps({"width": WIDTH}).encode()
OBJECT_SIZE = 512


def write_object(
    folder: Path, *, run: str, round_number: int, party: str, phase: str, base: str, x: list[int]
) -> Digest:
    """An object: JSON, padded with spaces to its one size."""
    body = {"run": run, "round": round_number, "party": party, "phase": phase, "base": base, "x": x}
    data = json.dumps(body).encode().ljust(OBJECT_SIZE)
    digest = sha256(data)
    write_atomic(folder / f"{digest}.safetensors", data)
    return digest


@dataclass
class MemoryTrainer:
    """The same input gives the same object. `fail` holds errors that the next phases end with."""

    me: PartyName
    run: RunId
    seconds: float = 3.0
    fail: list[Exception] = field(default_factory=list)
    trained: list[int] = field(default_factory=list)
    active: int = 0
    started: asyncio.Event = field(default_factory=asyncio.Event)
    """Set from the first local phase on."""

    async def describe(self) -> ModelFacts:
        return ModelFacts((("lora_B.weight", (WIDTH,)),), {"base": "00" * 32})

    async def train(self, request: TrainRequest, progress: Progress | None = None) -> TrainResult:
        assert self.active == 0, "one local phase at a time"
        self.active += 1
        self.started.set()
        try:
            await asyncio.sleep(self.seconds)
            if self.fail:
                raise self.fail.pop(0)
            return self._write(request)
        finally:
            self.active -= 1

    def _write(self, request: TrainRequest) -> TrainResult:
        state = Path(request.state).read_bytes()
        if sha256(state) != request.base or request.schema != sha256(SCHEMA):
            raise TrainingError("the state is not the one the request names")
        residual = json.loads(Path(request.bundle).read_bytes()) if request.bundle else 0
        seed = sha256(f"{self.me} {request.round} {request.base}".encode())
        x = [int(seed[2 * i : 2 * i + 2], 16) + residual for i in range(WIDTH)]
        made = write_object(
            Path(request.objects),
            run=self.run,
            round_number=request.round,
            party=self.me,
            phase=request.phase,
            base=request.base,
            x=x,
        )
        bundle = json.dumps(x[0]).encode()
        write_atomic(Path(request.bundles) / f"{request.round:06d}.safetensors", bundle)
        self.trained.append(request.round)
        return TrainResult(request.round, made, OBJECT_SIZE, sha256(bundle), 0.5, self.seconds)

    async def aclose(self) -> None: ...


class VectorAggregator:
    """Sums of integers, with a momentum beside them, so that a lost file shows in the digest."""

    def schema(self) -> bytes:
        return SCHEMA

    def object_size(self, round_number: int, party: PartyName) -> int:
        return OBJECT_SIZE

    def initial(self, state: Path) -> Digest:
        data = json.dumps([0] * WIDTH).encode()
        write_atomic(state, data)
        return sha256(data)

    def digest(self, state: Path, momentum: Path | None) -> Digest:
        if momentum is not None and not momentum.exists():
            raise TrainingError(f"{momentum} is missing")
        return sha256(state.read_bytes())

    def momentum_digest(self, momentum: Path) -> Digest | None:
        return sha256(momentum.read_bytes())

    def check(
        self, object_file: Path, *, run: RunId, round_number: int, party: PartyName, phase: Phase, base: Digest
    ) -> None:
        try:
            body = json.loads(object_file.read_bytes())
        except ValueError as error:
            raise ObjectRefused("no object", rule="header") from error
        wanted = {"run": run, "round": round_number, "party": party, "phase": phase, "base": base}
        for rule, value in wanted.items():
            if body[rule] != value:
                raise ObjectRefused(f"{rule} is {body[rule]}, expected {value}", rule=rule)

    def aggregate(
        self,
        round_number: int,
        objects: Mapping[PartyName, Path],
        *,
        state: Path,
        momentum: Path | None,
        new_state: Path,
        new_momentum: Path,
    ) -> AggregateResult:
        updates = [json.loads(path.read_bytes())["x"] for path in objects.values()]
        before = json.loads(momentum.read_bytes()) if momentum else [0] * WIDTH
        v = [b // 2 + sum(column) for b, *column in zip(before, *updates, strict=True)]
        s = [a + b for a, b in zip(json.loads(state.read_bytes()), v, strict=True)]
        data = json.dumps(s).encode()
        write_atomic(new_momentum, json.dumps(v).encode())
        write_atomic(new_state, data)
        return AggregateResult(sha256(data), (), self.momentum_digest(new_momentum))


UNAVAILABLE = HeadUnavailable("the node is busy")
