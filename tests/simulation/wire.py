"""What the shipped client talks to instead of a websocket and a REST API: one simulated hydra-node."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from websockets.exceptions import ConnectionClosedError

from fednode.errors import FundsError, HeadUnavailable
from fednode.hydra import messages as m
from fednode.hydra.rest import HeadState
from fednode.hydra.seen import LastSeen
from fednode.hydra.stall import Sighting
from fednode.hydra.utxo import Coin

from .ledger import parsed, read_tx
from .network import Deposit
from .setting import draft

if TYPE_CHECKING:
    from .party import Process


VALID_S = 60.0
"""A draft is valid for so long."""


class Socket:
    """One connection: messages arrive in order, some time after they were sent."""

    def __init__(self, process: Process, history: bool) -> None:
        self._process, self._history = process, history
        self._queue: deque[m.Received] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._open = False
        self._stuck = False
        self._free = 0.0

    async def __aenter__(self) -> Socket:
        process = self._process
        process.guard()
        node = process.node
        await asyncio.sleep(process.world.latency())
        if not node.up:
            raise OSError("connection refused")
        self._open = True
        node.listen(self, history=self._history)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        self._open = False
        if self in self._process.node.sockets:
            self._process.node.sockets.remove(self)

    def drop(self) -> None:
        """The connection breaks."""
        self.leave()
        self._wake()

    def stick(self) -> None:
        """The other end is gone without a word."""
        self._stuck = True
        if self in self._process.node.sockets:
            self._process.node.sockets.remove(self)

    def push(self, received: m.Received) -> None:
        world = self._process.world
        self._free = max(self._free, world.loop.now + world.latency())
        world.loop.call_at(self._free, self._arrive, received)

    def _arrive(self, received: m.Received) -> None:
        if self._open and not self._stuck:
            self._queue.append(received)
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def recv(self) -> m.Received:
        while not self._queue:
            if not self._open:
                raise ConnectionClosedError(None, None)
            self._waiter = self._process.world.loop.create_future()
            await self._waiter
        return self._queue.popleft()

    async def send(self, message: Any) -> None:
        self._process.guard()
        if not self._open:
            raise ConnectionClosedError(None, None)
        if self._stuck:
            return
        if isinstance(message, m.NewTx):
            self._process.world.oracle.sent(self._process, message.cbor)
        self._process.node.command(message)

    async def ping(self) -> asyncio.Future[None]:
        pong = self._process.world.loop.create_future()
        if self._open and not self._stuck:
            pong.set_result(None)
        return pong

    async def close(self) -> None:
        self.drop()


class SimRest:
    """The HTTP side of the own node."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def aclose(self) -> None:
        """Nothing is held open."""

    async def _call(self) -> None:
        process = self._process
        process.guard()
        await asyncio.sleep(process.world.latency())
        self._answers()

    def _answers(self) -> None:
        process = self._process
        process.guard()
        if not process.node.up or process.world.chance("rest-error"):
            raise HeadUnavailable("hydra-node: no answer")

    async def head(self) -> HeadState:
        await self._call()
        node = self._process.node
        if node.status in ("Idle", "Final"):
            return HeadState("Idle", None, 0, frozenset())
        seen = frozenset((*node.pending, *node.waiting)) if node.status == "Open" else frozenset[str]()
        return HeadState(node.status, node.network.head_id, node.version, seen)

    async def snapshot(self) -> m.Snapshot | None:
        await self._call()
        node = self._process.node
        if not node.applied or node.status in ("Idle", "Final"):
            return None
        last = node.network.log[node.applied - 1]
        cbors = tuple(tx.cbor for tx in last.txs)
        head = node.network.head_id
        return m.Snapshot(head, last.number, last.version, cbors, dict(last.utxo), last.commit_utxo, None)

    async def last_seen(self) -> LastSeen:
        await self._call()
        return self._last_seen()

    def _last_seen(self) -> LastSeen:
        node = self._process.node
        request = node.network.request
        if request is None:
            return LastSeen("LastSeenSnapshot", node.applied)
        keys = [member.hydra_vkey for member in node.network.members]
        signed = {k for k, n in zip(keys, node.network.nodes, strict=True) if node.network.signs(n, request.snapshot)}
        return LastSeen("SeenSnapshot", request.snapshot.number, frozenset(signed))

    async def sighting(self) -> Sighting | None:
        self._answers()
        node = self._process.node
        if node.status != "Open":
            return None
        return Sighting(self._last_seen(), len(node.pending), tuple(m.hydra_vkey for m in node.network.members))

    async def pending_deposits(self) -> tuple[str, ...]:
        await self._call()
        return tuple(self._process.node.deposits)

    async def snapshot_utxo(self) -> dict[str, Coin] | None:
        """Also the deposit that is not spendable yet."""
        snapshot = await self.snapshot()
        return None if snapshot is None else {**self._process.node.confirmed(), **(snapshot.to_commit or {})}

    async def draft_commit(self, reference: str, coin: Coin) -> bytes:
        await self._call()
        if reference not in self._process.node.network.funding:
            raise FundsError("FailedToConstructDepositTx: no such output")
        world = self._process.world
        made = draft(self._process.party.index, reference, coin.lovelace, int(world.loop.now))
        world.drafts[parsed(made).body] = world.loop.now
        return made

    async def submit(self, cbor: str) -> None:
        await self._call()
        process = self._process
        network, tx = process.node.network, read_tx(bytes.fromhex(cbor))
        assert tx is not None
        if any(reference not in network.funding for reference in tx.raw.inputs):
            raise FundsError("FailedToPostTx: All inputs are spent")
        if process.world.loop.now - process.world.drafts.get(tx.raw.body, 0.0) > VALID_S:
            raise FundsError("FailedToPostTx: OutsideValidityInterval")
        if process.world.chance("layer1-lost"):
            return
        lovelace = sum(coin.lovelace for coin in tx.outputs.values())
        coins = {tx.raw.inputs[0]: Coin(process.party.member.address, lovelace)}

        def block() -> None:
            if all(reference in network.funding for reference in tx.raw.inputs):
                network.deposit(Deposit(tx.id, process.party.index, coins), tx.raw.inputs)

        network.later(network.block(), block)
