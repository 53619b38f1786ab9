"""Where the shipped modules meet the simulated world: names that they import from outside are replaced, once.

Only what talks to the machine is replaced: the clock, the socket, the REST client, files in memory, crash points.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import lru_cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import fednode.hydra.client
import fednode.hydra.head
import fednode.hydra.sender
import fednode.hydra.session
import fednode.node.app
import fednode.node.daemon
import fednode.node.effects
import fednode.node.evidence
import fednode.node.runfolder
import fednode.training.exact.aggregate
import fednode.training.exact.next_state
import fednode.training.exact.writer
from fednode import durable
from fednode.hydra.head import HydraHead
from fednode.hydra.judge import Judge
from fednode.hydra.messages import SnapshotConfirmed
from fednode.hydra.signals import build_signal
from fednode.types import SignalContent, SignedTx, Transaction

from .disk import MemPath
from .ledger import parsed

if TYPE_CHECKING:
    from .party import Process

PROCESS: ContextVar[Process] = ContextVar("PROCESS")
"""Whose code is running."""
TICK_S = 20.0
"""The daemon looks at the clock every second where nothing happens; here that often is enough."""


class SimHead(HydraHead):
    """The shipped head. A dishonest party's is altered where it signs."""

    def build_signal(self, content: SignalContent) -> SignedTx:
        process = PROCESS.get()
        content = process.world.adversary.content(process.party, content)
        signed = super().build_signal(content)
        return process.world.adversary.signed(process.party, content, signed)


_judges: dict[tuple[object, ...], _MemoJudge] = {}


class _MemoJudge:
    """The shipped judge; what it said of the same bytes is remembered."""

    def __init__(self, members: tuple[Any, ...], magic: int) -> None:
        self._judge = Judge(members, magic)
        self._known: dict[bytes, Transaction] = {}

    def judge_raw(self, raw: Any, cbor: bytes) -> Transaction:
        found = self._known.get(cbor)
        if found is None:
            if len(self._known) > 20_000:
                self._known.clear()
            found = self._known[cbor] = self._judge.judge_raw(raw, cbor)
        return found

    def judge(self, cbor: bytes) -> Transaction:
        return self._judge.judge(cbor)


def judge_of(members: tuple[Any, ...], magic: int) -> _MemoJudge:
    """One judge for each agreement."""
    what = (members, magic)
    if what not in _judges:
        _judges[what] = _MemoJudge(members, magic)
    return _judges[what]


@lru_cache(maxsize=1 << 14)
def _built(content_key: object, owned: tuple[tuple[str, int], ...], me: Any, members: Any, key: Any) -> SignedTx:
    content = SignalContent(*content_key[:-1], sections=None if content_key[-1] is None else dict(content_key[-1]))  # type: ignore[index, misc]
    return build_signal(content, dict(owned), me=me, members=members, key=key)


def _build_signal(content: SignalContent, owned: Any, *, me: Any, members: Any, key: Any) -> SignedTx:
    """The shipped one: signatures are deterministic, so the same signal is signed once."""
    c = content
    sections = None if c.sections is None else tuple(c.sections.items())
    return _built((c.run, c.round, c.base, c.object, c.size, sections), tuple(owned.items()), me, members, key)


def _write_atomic(path: Any, data: bytes, **options: Any) -> None:
    process = PROCESS.get()
    process.guard()
    if isinstance(path, MemPath):
        path.write_bytes(data)
    else:
        durable.write_atomic(path, data, **options)


def _write_pieces(path: Any, pieces: Any, **options: Any) -> None:
    _write_atomic(path, b"".join(pieces), **options)


def _publish(temporary: Any, path: Any) -> None:
    if isinstance(path, MemPath):
        path.write_bytes(temporary.read_bytes())
        temporary.unlink()
    else:
        durable.publish(temporary, path)


def _make_folders(path: Any, **options: Any) -> None:
    if not isinstance(path, MemPath):  # in memory folders exist by themselves
        durable.make_folders(path, **options)


def _path(text: str) -> Any:
    party = PROCESS.get().party
    return party.root.__class__(text) if party.folder is not None else MemPath(party.disk, text)


def _reach(where: str, things: Iterable[object]) -> None:
    process = PROCESS.get(None)
    if process is not None:
        process.world.crash_point(process, where, things)


def _rest(*_: object) -> Any:
    from .wire import SimRest

    return SimRest(PROCESS.get())


def _dial(*_: object, history: bool, **__: object) -> Any:
    from .wire import Socket

    return Socket(PROCESS.get(), history)


def _snapshot_number(received: Any) -> int | None:
    message = received.message
    plain = isinstance(message, SnapshotConfirmed) and not message.snapshot.to_commit
    return message.snapshot.number if plain else None


class _Inline:
    """A thread pool of no threads: most worlds need none."""

    def __enter__(self) -> _Inline:
        return self

    def __exit__(self, *_: object) -> None: ...

    def map(self, work: Any, items: Iterable[Any]) -> list[Any]:
        return [work(item) for item in items]


def _pool(count: int) -> Any:
    process = PROCESS.get(None)
    return ThreadPoolExecutor(count) if process is not None and process.world.plan.exact else _Inline()


_TIME = SimpleNamespace(
    time=lambda: PROCESS.get().wall(),
    monotonic=lambda: PROCESS.get().world.loop.now,
    clock_gettime=lambda _: PROCESS.get().world.loop.now,
    CLOCK_MONOTONIC=1,
)

_SEAMS: tuple[tuple[Any, str, Any], ...] = (
    (fednode.node.app, "time", _TIME),
    (fednode.node.daemon, "reach", _reach),
    (fednode.node.daemon, "TICK_S", TICK_S),
    (fednode.node.effects, "write_atomic", _write_atomic),
    (fednode.node.effects, "write_pieces", _write_pieces),
    (fednode.node.evidence, "write_atomic", _write_atomic),
    (fednode.node.evidence, "make_folders", _make_folders),
    (fednode.node.runfolder, "make_folders", _make_folders),
    (fednode.node.evidence, "publish", _publish),
    (fednode.node.evidence, "Path", _path),
    (fednode.node.evidence, "shutil", SimpleNamespace(copyfile=lambda a, b: b.write_bytes(_path(str(a)).read_bytes()))),
    (fednode.hydra.client, "dial", _dial),
    (fednode.hydra.client, "encode", lambda message: message),
    (fednode.hydra.client, "time", _TIME),
    (fednode.hydra.client, "random", random),
    (fednode.hydra.sender, "time", _TIME),
    (fednode.hydra.head, "time", _TIME),
    (fednode.hydra.head, "Rest", _rest),
    (fednode.hydra.head, "Judge", judge_of),
    (fednode.hydra.head, "build_signal", _build_signal),
    (fednode.hydra.session, "Judge", judge_of),
    (fednode.hydra.session, "decode", lambda frame: frame),
    (fednode.hydra.session, "snapshot_number", _snapshot_number),
    (fednode.hydra.session, "parse", parsed),
    (fednode.hydra.sender, "parse", parsed),
    (fednode.training.exact.aggregate, "ThreadPoolExecutor", _pool),
    (fednode.training.exact.next_state, "ThreadPoolExecutor", _pool),
    (fednode.training.exact.writer, "ThreadPoolExecutor", _pool),
)


class Seams:
    """The replacements, for as long as the block lasts."""

    def __enter__(self) -> None:
        self._before = [(module, name, getattr(module, name)) for module, name, _ in _SEAMS]
        for module, name, value in _SEAMS:
            setattr(module, name, value)

    def __exit__(self, *_: object) -> None:
        for module, name, value in self._before:
            setattr(module, name, value)
