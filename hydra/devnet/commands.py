"""Client inputs: parsed strictly, allowed by the state of node and head, else answered as a node does."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

from fednode.hydra.devnet import views, wire
from fednode.hydra.devnet.cborview import CborError
from fednode.hydra.devnet.chainside import ChainSide
from fednode.hydra.devnet.network import Network
from fednode.hydra.devnet.protocol import Status
from fednode.hydra.devnet.txview import TxView, parse_transaction
from fednode.hydra.devnet.world import World

_Value: TypeAlias = TxView | str | Mapping[str, object] | None
_Content: TypeAlias = Mapping[str, object]


class InputError(ValueError):
    """An input that cannot be read; the message says why."""


class Commands:
    """What clients may ask of their node."""

    def __init__(self, world: World, network: Network, chain: ChainSide) -> None:
        self._world = world
        self._network = network
        self._chain = chain
        self._inputs: dict[str, tuple[Callable[[_Content], _Value], Callable[[int, Any], bool]]] = {
            "Init": (_nothing, self._init),
            "NewTx": (lambda content: read_transaction(content.get("transaction")), self._new_tx),
            "Close": (_nothing, self._close),
            "SafeClose": (_nothing, self._close),
            "Contest": (_nothing, _refuse),
            "Decommit": (lambda content: read_transaction(content.get("decommitTx")), _refuse),
            "Fanout": (_nothing, self._fanout),
            "Recover": (_txid, self._recover),
            "SideLoadSnapshot": (_snapshot, self._side_load),
        }

    def handle(self, party: int, data: str | bytes) -> str | None:
        """One frame of a client. The answer for the sender alone where the input is invalid, in whatever state."""
        text = data if isinstance(data, str) else data.decode(errors="replace")
        try:
            content = read_object(text)
            tag = content.get("tag")
            if not isinstance(tag, str) or tag not in self._inputs:
                raise InputError(f"unknown tag {str(tag)[:80]!r}, expected one of {', '.join(self._inputs)}")
            value = self._inputs[tag][0](content)
        except InputError as error:
            return wire.encode({"reason": str(error), "input": text})
        self.submit(party, tag, value)
        return None

    def submit(self, party: int, tag: str, value: _Value) -> bool:
        """A well-formed input, by whatever way it came. False where the party's clients are told that it failed."""
        if not self._world.synced >> party & 1:
            echo = {"clientInput": _echo(tag, value)}
            self._world.tell(party, wire.message("RejectedInputBecauseUnsynced", {"drift": 0}, echo))
            return False
        _, act = self._inputs[tag]
        if not act(party, value):
            echo = {"clientInput": _echo(tag, value), "state": views.head_state(self._world, party)}
            self._world.tell(party, wire.message("CommandFailed", {}, echo))
            return False
        return True

    def side_load(self, party: int, snapshot: Mapping[str, object]) -> dict[str, object] | None:
        """Adopt the last confirmed snapshot again: pending transactions go. The failed requirement, or None."""
        world = self._world
        known = cast("Mapping[str, object]", json.loads(views.confirmed_snapshot(world, party)))
        if known.get("tag") == "InitialSnapshot" or snapshot.get("tag") == "InitialSnapshot":
            if dict(snapshot) != dict(known):
                return {"tag": "SideLoadInitialSnapshotMismatch"}
        elif snapshot.get("snapshot") != known.get("snapshot") or snapshot.get("signatures") != known.get("signatures"):
            inner = snapshot.get("snapshot")
            number = cast("Mapping[str, object]", inner).get("number") if isinstance(inner, dict) else None
            return {"tag": "SideLoadSnNumberInvalid", "requestedSn": number, "lastSeenSn": world.head.number}
        self._network.drop_pending()
        with world.unit():
            fields = {"headId": world.head.head_id, "snapshotNumber": world.head.number}
            world.emit(wire.opened("SnapshotSideLoaded", fields), parties=1 << party)
        self._network.poke()
        return None

    def _init(self, party: int, _: None) -> bool:
        if self._world.head.status is not Status.IDLE:
            return False
        self._chain.init(party)
        return True

    def _new_tx(self, party: int, tx: TxView) -> bool:
        if self._world.head.status is not Status.OPEN:
            return False
        self._network.submit(party, tx)
        return True

    def _close(self, party: int, _: None) -> bool:
        if self._world.head.status is not Status.OPEN:
            return False
        self._chain.close(party)
        return True

    def _fanout(self, party: int, _: None) -> bool:
        if self._world.head.status is not Status.FANOUT_POSSIBLE:
            return False
        self._chain.fanout(party)
        return True

    def _recover(self, party: int, txid: str) -> bool:
        if self._chain.unrecoverable(txid) is not None:
            return False
        self._chain.recover(party, txid)
        return True

    def _side_load(self, party: int, snapshot: Mapping[str, object]) -> bool:
        if self._world.head.status is not Status.OPEN:
            return False
        failure = self.side_load(party, snapshot)
        if failure is not None:
            echo = {"clientInput": _echo("SideLoadSnapshot", snapshot)}
            self._world.tell(party, wire.message("SideLoadSnapshotRejected", {"requirementFailure": failure}, echo))
        return True


def _refuse(party: int, value: object) -> bool:
    """Contest is automatic and has no handler in any version; decommits are not simulated."""
    del party, value
    return False


def _nothing(content: _Content) -> None:
    del content


def _txid(content: _Content) -> str:
    txid = content.get("recoverTxId")
    if not isinstance(txid, str) or len(txid) != 64 or txid.strip("0123456789abcdef"):
        raise InputError("recoverTxId is not a transaction id")
    return txid


def _snapshot(content: _Content) -> Mapping[str, object]:
    snapshot = content.get("snapshot")
    if not isinstance(snapshot, dict):
        raise InputError("snapshot is not a ConfirmedSnapshot")
    return cast("Mapping[str, object]", snapshot)


def _echo(tag: str, value: _Value) -> str:
    """The input as a node writes it again: with every field that it knows, whatever the client left out."""
    match value:
        case None:
            return wire.message(tag)
        case TxView():
            return wire.message(tag, {}, {"decommitTx" if tag == "Decommit" else "transaction": value.envelope()})
        case str():
            return wire.message(tag, {"recoverTxId": value})
        case _:
            return wire.message(tag, {"snapshot": value})


def read_object(text: str | bytes) -> dict[str, object]:
    """A JSON object. InputError for anything else."""
    try:
        content: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}") from None
    if not isinstance(content, dict):
        raise InputError("expected a JSON object")
    return cast("dict[str, object]", content)


def read_transaction(value: object) -> TxView:
    """A transaction from a text envelope: an object with `cborHex`; a `txId`, if given, must match."""
    raw = read_envelope(value)
    try:
        tx = parse_transaction(raw)
    except CborError as error:
        raise InputError(f"cborHex is not a Conway transaction: {error}") from None
    claimed = cast("Mapping[str, object]", value).get("txId")
    if claimed is not None and claimed != tx.id:
        raise InputError(f"txId is {str(claimed)[:80]!r}, the transaction's id is {tx.id}")
    return tx


def read_envelope(value: object) -> bytes:
    """The bytes of a text envelope. InputError where it is none."""
    cbor = cast("Mapping[str, object]", value).get("cborHex") if isinstance(value, dict) else None
    if not isinstance(cbor, str):
        raise InputError("a transaction is an object with the key cborHex")
    try:
        raw = bytes.fromhex(cbor)
    except ValueError:
        raw = b""
    if not raw or 2 * len(raw) != len(cbor):  # fromhex skips white space
        raise InputError("cborHex is not hexadecimal")
    return raw
