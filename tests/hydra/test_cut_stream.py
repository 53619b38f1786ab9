"""Any cut of the stream, at any message, by the node or by a restart of the daemon: the same facts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import cbor2
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from fednode import reports as r
from fednode.hydra import client as client_module
from fednode.hydra.head import HydraHead
from fednode.hydra.transactions import blake2b_256
from fednode.node.protocol import facts as f
from fednode.node.protocol.decide import decide
from fednode.node.protocol.events import Begin
from fednode.node.protocol.evolve import evolve
from fednode.node.protocol.records import from_record, to_record
from fednode.node.protocol.state import Rules, State, initial
from fednode.types import HeadStatus, Lovelace, PartyName, SignedTx, TxId

from . import node as model
from .node import DEPOSIT, Node
from .party import BO, CY, KEYS, MEMBERS, NAMES, RUN, content

FUNDED = 3
"""Snapshots of the funding; after them the client may skip the history."""


@dataclass(frozen=True)
class Cut:
    """After so many messages of a connection the node hangs up; or the daemon is started again."""

    after: int
    restart: bool


def story(node: Node) -> Iterator[list[str]]:
    """A head's life: funding, rounds, a forbidden transaction, a repeated signal, a contest, the fanout."""
    yield [node.open()]
    for index, member in enumerate(MEMBERS):
        yield node.deposit(member, f"{index + 1:064x}#0")
    for number in range(2):
        yield [node.round(number)]
    refused = node.signal(BO, content(2))
    told = {"transaction": {"cborHex": refused.cbor}, "utxo": {}, "validationError": {"reason": "BadInputsUTxO"}}
    yield [node.event("TxInvalid", **told)]
    yield [node.snapshot([refused]), node.snapshot([node.signal(BO, content(2))])]
    yield [node.snapshot([with_fee(node)])]
    yield [node.snapshot([])]
    node.status = "Closed"
    number = len(node.snapshots)
    times = ("2030-01-01T00:00:00Z", "2030-01-01T00:01:00Z")
    yield [node.event("HeadIsClosed", snapshotNumber=number - 1, contestationDeadline=times[0])]
    yield [node.event("HeadIsContested", snapshotNumber=number, contestationDeadline=times[1])]
    node.status = "FanoutPossible"
    yield [node.event("ReadyToFanout")]
    node.status = "Idle"
    paid = {f"{index:064x}#9": coin for index, coin in enumerate(node.utxo.values())}
    yield [node.event("HeadIsFinalized", finalizedUTxO=model.utxo_json(paid))]


def with_fee(node: Node) -> SignedTx:
    """Pays itself and burns one lovelace: the head could never be closed."""
    owned = {ref: coin.lovelace for ref, coin in node.utxo.items() if coin.address == CY.address}
    plain = node.signal(CY, content(2, last=True))  # a last signal has one output, to the sender
    outputs = cbor2.loads(bytes.fromhex(plain.cbor))[0][1]
    body = cbor2.dumps(
        {
            0: [[bytes.fromhex(ref[:64]), int(ref[65:])] for ref in owned],
            1: [{0: outputs[0][0], 1: sum(owned.values()) - 1}],
            2: 1,
        }
    )
    digest = blake2b_256(body)
    witness = cbor2.dumps({0: [[bytes.fromhex(CY.cardano_vkey), KEYS["cy"].sign(digest)]]})
    return SignedTx(TxId(digest.hex()), (b"\x84" + body + witness + b"\xf5\xf6").hex())


@dataclass
class CuttingServer:
    """Tells the story as fast as it can, and hangs up where the next cut says."""

    cuts: list[Cut]
    node: Node = field(default_factory=Node)
    restarts: int = 0
    connections: int = 0

    def __post_init__(self) -> None:
        self.plot = story(self.node)

    def http(self, connection: ServerConnection, request: Request) -> Response | None:
        path = urlsplit(request.path).path
        if path == "/":
            return None
        status, body = self.node.get(path)
        return connection.respond(status, json.dumps(body))  # type: ignore[arg-type]  # 200, 400 and 404

    async def session(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        history = parse_qs(urlsplit(connection.request.path).query)["history"] == ["yes"]
        cut = self.cuts.pop(0) if self.cuts else None
        self.connections += 1
        first = [*(self.node.history() if history else []), self.node.greetings()]
        for count, frame in enumerate(self._frames(first)):
            if cut is not None and count >= cut.after:
                self.restarts += cut.restart
                return
            await connection.send(frame)
        await connection.wait_closed()

    def _frames(self, first: list[str]) -> Iterator[str]:
        yield from first
        if len(first) > 1:
            yield first[-2]  # what was born during the replay comes twice
        for frames in self.plot:
            yield from frames

    @asynccontextmanager
    async def serving(self) -> Any:
        async with serve(self.session, "127.0.0.1", 0, process_request=self.http) as running:
            yield f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}"
            running.close(close_connections=True)


def rules() -> Rules:
    parties = tuple(PartyName(name) for name in NAMES)
    times: dict[str, Any] = {"deadline_s": 1e9, "settle_s": 0.0, "takeover_s": 1.0}
    modes: dict[str, Any] = {"on_deadline": "wait", "on_fault": "halt"}
    me, deposit = parties[0], Lovelace(DEPOSIT)
    return Rules(me, parties, rounds=5, run=RUN, binding="b", sections={}, deposit=deposit, **times, **modes)


class Daemon:
    """The core over a journal: what it has written is all that a restart leaves."""

    def __init__(self) -> None:
        bound = f.RunBound(1.0, RUN, 5)
        self.journal = [(kind, json.dumps(body)) for kind, body in (to_record(bound),)]
        self.begin()

    def begin(self) -> None:
        state: State = initial(rules())
        for kind, body in self.journal:
            state = evolve(state, from_record(kind, json.loads(body)))
        self.state = state
        self.take(Begin(2.0, "open", "b"))

    def take(self, event: Any) -> None:
        for fact in decide(self.state, event):
            kind, body = to_record(fact)
            self.journal.append((kind, json.dumps(body)))
            self.state = evolve(self.state, fact)

    def facts(self) -> list[f.Fact]:
        return [from_record(kind, json.loads(body)) for kind, body in self.journal]


async def follow(server: CuttingServer) -> Daemon:
    """A party's daemon from the first connection to the payout, through every cut."""
    daemon = Daemon()
    async with server.serving() as url:
        while daemon.state.paid is None or not daemon.state.head.replayed:
            head = HydraHead(model.settings(url, bound_head=daemon.state.head.id))
            try:
                await _one_process(head, daemon, server)
            finally:
                await head.aclose()
    return daemon


async def _one_process(head: HydraHead, daemon: Daemon, server: CuttingServer) -> None:
    daemon.begin()
    started, stream = server.restarts, head.reports(daemon.state.head.snapshot)
    try:
        async with asyncio.timeout(20):
            async for report in stream:
                daemon.take(report)
                if server.restarts > started and isinstance(report, r.HeadUnreachable):
                    return
                if daemon.state.paid is not None and daemon.state.head.replayed:
                    return
    finally:
        await stream.aclose()


def told(daemon: Daemon) -> dict[str, Any]:
    """What the facts say, each kind in its order, without the times of this machine and without connections."""
    found = daemon.facts()

    def each(kind: type[f.Fact], *names: str) -> list[tuple[Any, ...]]:
        return [tuple(getattr(fact, name) for name in names) for fact in found if isinstance(fact, kind)]

    head = daemon.state.head
    return {
        "bound": each(f.HeadBound, "head_id"),
        "snapshots": each(f.SnapshotNoted, "number", "transactions"),
        "deposits": each(f.DepositChanged, "deposit", "party", "lovelace", "stage", "reason"),
        "faults": each(f.FaultFound, "party", "round", "kind", "message", "raw"),
        "repeats": each(f.RepeatSeen, "party", "round", "tx"),
        "paid": each(f.PaidOut, "paid", "expected", "verified"),
        "transcript": daemon.state.transcript,
        "head": (head.id, head.status, head.closed_snapshot, head.contestation_deadline, head.snapshot),
    }


def run(cuts: Sequence[Cut]) -> tuple[Daemon, CuttingServer]:
    server = CuttingServer(list(cuts))
    return asyncio.run(follow(server)), server


@pytest.fixture(scope="module")
def uncut() -> dict[str, Any]:
    daemon, server = run([])
    assert server.connections == 1
    return told(daemon)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_BACKOFF_FIRST", 0.0)
    monkeypatch.setattr(client_module, "_BACKOFF_MOST", 0.0)
    monkeypatch.setattr(client_module, "FUNDING_SNAPSHOTS", FUNDED - 8 * len(NAMES))


def test_the_story_itself(uncut: dict[str, Any]) -> None:
    assert uncut["bound"] == [(model.HEAD,)]
    assert [number for number, _ in uncut["snapshots"]] == list(range(1, 10))
    assert [(stage, lovelace) for _, _, lovelace, stage, _ in uncut["deposits"]] == [
        ("recorded", DEPOSIT), ("final", DEPOSIT),
    ] * 3  # fmt: skip
    assert [(party, kind) for party, _, kind, _, _ in uncut["faults"]] == [("cy", "dangerous-transaction")]
    assert uncut["faults"][0][3].startswith("fee")
    assert len(uncut["faults"][0][4]) == 1, "the transaction is the evidence"
    assert [(party, number) for party, number, _ in uncut["repeats"]] == [("bo", 2)]
    assert uncut["head"] == (model.HEAD, HeadStatus.FINALIZED, 9, 1893456060.0, 9)
    assert [verified for *_, verified in uncut["paid"]] == [True]


CUTS = st.lists(st.builds(Cut, after=st.integers(0, 40), restart=st.booleans()), min_size=1, max_size=6)


@example([Cut(after, restart=False) for after in range(30)])
@example([Cut(after, restart=True) for after in range(30)])
@example([Cut(1, restart=True)] * 12)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CUTS)
def test_any_cut_gives_the_same_facts(uncut: dict[str, Any], cuts: list[Cut]) -> None:
    daemon, _ = run(cuts)
    found = told(daemon)
    for kind, facts in uncut.items():
        assert found[kind] == facts, kind


def test_both_ways_of_connecting_are_used() -> None:
    """Otherwise the property would hold for one of them only."""
    ways: list[bool] = []

    class Noting(CuttingServer):
        async def session(self, connection: ServerConnection) -> None:
            assert connection.request is not None
            ways.append("history=yes" in connection.request.path)
            await super().session(connection)

    asyncio.run(follow(Noting([Cut(14, restart=False), Cut(2, restart=False), Cut(2, restart=True)])))
    assert set(ways) == {True, False}
