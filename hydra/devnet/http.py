"""The HTTP endpoints of one party, with the status codes and bodies of hydra-node 2.3.0."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, cast

from starlette.requests import Request
from starlette.responses import Response

from fednode.errors import ConfigError
from fednode.hydra.addresses import address_bytes
from fednode.hydra.devnet import views, wire
from fednode.hydra.devnet.chainside import ChainSide
from fednode.hydra.devnet.clients import Clients, Waiter
from fednode.hydra.devnet.commands import Commands, InputError, read_envelope, read_object, read_transaction
from fednode.hydra.devnet.deposits import DraftRefused
from fednode.hydra.devnet.network import Network
from fednode.hydra.devnet.protocol import Status
from fednode.hydra.devnet.txview import Output, parse_transaction
from fednode.hydra.devnet.world import World

MAX_BODY: Final = 16 * 1024 * 1024
_TXIN: Final = re.compile(r"[0-9a-f]{64}#(0|[1-9][0-9]{0,4})")
_UNSYNCED: Final = "out of sync with chain, drift: 0s"
_Answer = tuple[int, str]
_Handler = Callable[[Request], Awaitable[_Answer]]


class Endpoints:
    """Dispatches by method and path; anything unknown is 400, as at a node."""

    def __init__(
        self, party: int, world: World, network: Network, chain: ChainSide, commands: Commands, clients: Clients
    ) -> None:
        self._party = party
        self._world = world
        self._network = network
        self._chain = chain
        self._commands = commands
        self._clients = clients
        self._writes: dict[tuple[str, str], _Handler] = {
            ("POST", "/commit"): self._commit,
            ("POST", "/cardano-transaction"): self._submit,
            ("POST", "/transaction"): self._transaction,
            ("POST", "/snapshot"): self._side_load,
            ("POST", "/decommit"): self._decommit,
        }

    async def __call__(self, request: Request) -> Response:
        """Any request of this party's port."""
        path = request.url.path
        read = self._read(path) if request.method == "GET" else None
        if read is not None:
            status, body = read
        elif request.method == "DELETE" and path.startswith("/commits/"):
            status, body = await self._recover(path.removeprefix("/commits/"))
        else:
            handler = self._writes.get((request.method, path))
            try:
                status, body = (400, '"Resource not found"') if handler is None else await handler(request)
            except InputError as error:
                status, body = 400, wire.encode(str(error))
        return Response(body, status, media_type="application/json")

    def _read(self, path: str) -> _Answer | None:
        world = self._world
        idle = world.head.status is Status.IDLE
        if path == "/head":
            return 200, views.head_state(world, self._party)
        if path == "/snapshot":
            return (404, '""') if idle else (200, views.confirmed_snapshot(world, self._party))
        if path == "/snapshot/utxo":
            return (404, '""') if idle else (200, views.snapshot_utxo(world.head))
        if path == "/snapshot/last-seen":
            return 200, views.last_seen(world)
        if path == "/commits":
            return 200, wire.encode(list(world.chain.deposits))
        if path == "/protocol-parameters":
            return 200, views.parameters(world)
        if path == "/config":
            return 200, views.config(world, self._party)
        return None

    @property
    def _synced(self) -> bool:
        return bool(self._world.synced >> self._party & 1)

    async def _commit(self, request: Request) -> _Answer:
        content = read_object(await _body(request))
        if self._world.head.status is not Status.OPEN:
            return 400, '"Head is not open"'
        if "blueprintTx" in content:
            refused = {"tag": "FailedToConstructDepositTx", "failureReason": "blueprints: not in the embedded head"}
            return 400, wire.encode(refused)
        listed = content.get("utxoToCommit", content)
        if not isinstance(listed, dict):
            raise InputError("utxoToCommit is not a UTxO map")
        utxo: dict[str, Output] = {}
        for txin, shape in cast("Mapping[str, object]", listed).items():
            output = _read_output(txin, shape)
            if output is None:
                return 400, wire.encode({"tag": "UnsupportedLegacyOutput", "byronAddress": _address(shape)})
            utxo[txin] = output
        try:
            raw = self._chain.draft_deposit(self._party, utxo)
        except DraftRefused as refusal:
            return 400, wire.encode(refusal.error)
        return 200, parse_transaction(raw).envelope("Witnessed Tx ConwayEra")

    async def _submit(self, request: Request) -> _Answer:
        try:
            content: object = json.loads(await _body(request))
        except ValueError:
            raise InputError("not JSON") from None
        raw = read_envelope({"cborHex": content} if isinstance(content, str) else content)
        reason = self._chain.submit(raw)
        if reason is None:
            return 200, '{"tag":"TransactionSubmitted"}'
        failing = {"type": "Tx ConwayEra", "description": "", "cborHex": raw.hex()}
        return 400, wire.encode({"tag": "FailedToPostTx", "failureReason": reason, "failingTx": failing})

    async def _transaction(self, request: Request) -> _Answer:
        tx = read_transaction(read_object(await _body(request)))
        if not self._synced:
            self._commands.submit(self._party, "NewTx", tx)
            return 503, wire.encode({"tag": "SubmitTxRejected", "reason": f"Node is {_UNSYNCED}"})
        # Where no head is open a node tells its clients so, and nobody who waits here: it waits as long as it may.
        waiter = Waiter(self._party, lambda event: event.note[0] in {"TxValid", "TxInvalid"} and tx.id in event.note[1])
        event = await self._clients.wait(
            waiter, lambda: self._commands.submit(self._party, "NewTx", tx), views.API_TIMEOUT_S
        )
        if event is None:
            return _timed_out("SubmitTxSubmitted", "Transaction submission")
        if event.note[0] == "TxValid":
            return 202, '{"tag":"SubmitTxSubmitted"}'
        return 400, wire.encode({"tag": "SubmitTxInvalid", "validationError": event.note[1][1]})

    async def _side_load(self, request: Request) -> _Answer:
        content = read_object(await _body(request))
        if not self._synced or self._world.head.status is not Status.OPEN:
            why = "" if self._synced else f" because node is {_UNSYNCED}"
            self._commands.submit(self._party, "SideLoadSnapshot", content)
            return 400 if self._synced else 503, wire.encode(f"Side-load snapshot failed{why}")
        failure = self._commands.side_load(self._party, content)
        return (200, '"OK"') if failure is None else (400, wire.encode(failure))

    async def _decommit(self, request: Request) -> _Answer:
        read_transaction(read_object(await _body(request)))
        return 400, '"decommits are not simulated by the embedded head"'

    async def _recover(self, txid: str) -> _Answer:
        if not self._synced:
            self._commands.submit(self._party, "Recover", txid)
            return 503, wire.encode(f"Recover failed because node is {_UNSYNCED}")
        reason = self._chain.unrecoverable(txid)
        if reason is not None:
            return 400, wire.encode({"tag": "FailedToConstructRecoverTx", "failureReason": reason})
        waiter = Waiter(self._party, lambda event: event.note == ("CommitRecovered", (txid,)))
        event = await self._clients.wait(waiter, lambda: self._chain.recover(self._party, txid), views.API_TIMEOUT_S)
        return (200, '"OK"') if event is not None else _timed_out("RecoverSubmitted", "Operation")


def _timed_out(tag: str, what: str) -> _Answer:
    return 202, wire.encode({"tag": tag, "timeout": f"{what} timed out after {views.API_TIMEOUT_S:g}s seconds"})


async def _body(request: Request) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY:
            raise InputError(f"the body is over {MAX_BODY} bytes")
        parts.append(part)
    return b"".join(parts)


def _address(shape: object) -> str:
    return str(cast("Mapping[str, object]", shape).get("address")) if isinstance(shape, dict) else ""


def _read_output(txin: str, shape: object) -> Output | None:
    """An output as a client claims it, by address and value; None where it is at an unsupported address."""
    if not _TXIN.fullmatch(txin) or not isinstance(shape, dict):
        raise InputError(f"{txin[:80]!r} is not an entry of a UTxO map: expected txid#index and an output")
    value = cast("Mapping[str, object]", shape).get("value")
    lovelace = cast("Mapping[str, object]", value).get("lovelace") if isinstance(value, dict) else None
    if not isinstance(lovelace, int) or len(cast("Mapping[str, object]", value)) != 1:
        raise InputError(f"{txin}: value is not {{lovelace: integer}}")
    try:
        return Output(b"", address_bytes(_address(cast("object", shape))), lovelace, {})
    except ConfigError:
        return None
