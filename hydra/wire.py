"""From and to the node's JSON: client inputs out, server outputs in. Unknown tags and fields are no error."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from fednode.errors import HeadError
from fednode.hydra.fields import Fields, parse_json
from fednode.hydra.messages import (
    ClientInput,
    CommitApproved,
    CommitFinalized,
    CommitRecorded,
    CommitRecovered,
    Decommit,
    DepositActivated,
    DepositExpired,
    Environment,
    EventLogRotated,
    Greetings,
    HeadIsClosed,
    HeadIsFinalized,
    HeadIsOpen,
    IgnoredHeadInitializing,
    Message,
    NetworkClusterIDMismatch,
    NetworkState,
    NetworkVersionMismatch,
    NewTx,
    NodeSynced,
    PeerState,
    ReadyToFanout,
    Received,
    Refusal,
    Snapshot,
    SnapshotConfirmed,
    SnapshotSideLoaded,
    TxInvalid,
    TxValid,
    Unknown,
)
from fednode.hydra.utxo import Utxo, parse_utxo
from fednode.types import HeadId, TxId

_ADVICE: Final = frozenset(
    {
        "CommandFailed",
        "RejectedInputBecauseUnsynced",
        "SideLoadSnapshotRejected",
        "PostTxOnChainFailed",
        "InvalidInput",
        "PeerConnected",
        "PeerDisconnected",
    }
)
"""What no decision hangs on: where it cannot be read it is passed over."""
_MAX_REASON: Final = 2000
"""Characters kept of a reason: the node prints whole ledger states."""


def encode(message: ClientInput) -> str:
    """The JSON text of a client input."""
    body: dict[str, object] = {"tag": type(message).__name__}
    if isinstance(message, NewTx):
        body["transaction"] = envelope(message.cbor)
    return json.dumps(body)


def envelope(cbor: str) -> dict[str, object]:
    """The text envelope of a transaction as the node takes it; it computes the id by itself."""
    return {"type": "Tx ConwayEra", "description": "", "cborHex": cbor}


def decode(frame: str | bytes) -> Received:
    """Read one frame. HeadError where it is no JSON object, or a message that matters lacks what it must have."""
    fields = Fields(parse_json(frame, "message"), "message")
    tag = fields.get("tag")
    if not isinstance(tag, str):
        # InvalidInput has no tag on the wire: it is known by its shape.
        tag = "InvalidInput" if "reason" in fields and "input" in fields else "?"
    fields.where = tag[:60]
    seq = fields.natural("seq") if "seq" in fields else None
    at = fields.time("timestamp") if "timestamp" in fields else None
    return Received(_read(tag, fields), seq, at)


def _read(tag: str, fields: Fields) -> Message:
    reader = _READERS.get(tag)
    try:
        return reader(fields) if reader else Unknown(tag[:60])
    except HeadError:
        if tag in _ADVICE:
            return Unknown(tag)
        raise


def read_snapshot(fields: Fields) -> Snapshot:
    """The snapshot of SnapshotConfirmed and of GET /snapshot."""
    return Snapshot(
        head_id=_head(fields),
        number=fields.natural("number"),
        version=fields.natural("version"),
        confirmed=tuple(item.raw_hex("cborHex") for item in fields.children("confirmed")),
        utxo=_optional_utxo(fields, "utxo"),
        to_commit=_optional_utxo(fields, "utxoToCommit"),
        to_decommit=_optional_utxo(fields, "utxoToDecommit"),
    )


def _head(fields: Fields) -> HeadId:
    return HeadId(fields.text("headId"))


def _utxo(fields: Fields, name: str) -> Utxo:
    return parse_utxo(fields.get(name), f"{fields.where}.{name}")


def _optional_utxo(fields: Fields, name: str) -> Utxo | None:
    return _utxo(fields, name) if name in fields else None


def _greetings(fields: Fields) -> Message:
    environment = fields.child("env") if "env" in fields else None
    return Greetings(
        me=fields.child("me").text("vkey"),
        status=fields.text("headStatus"),
        head_id=HeadId(fields.text("hydraHeadId")) if "hydraHeadId" in fields else None,
        version=fields.text("hydraNodeVersion"),
        in_sync=fields.get("chainSyncedStatus") in (None, "InSync"),
        environment=_environment(environment) if environment else None,
        unconnected=_unconnected(fields),
    )


def _unconnected(fields: Fields) -> tuple[str, ...]:
    network = fields.child("networkInfo") if "networkInfo" in fields else None
    peers = network.child("peersInfo") if network and "peersInfo" in network else None
    return tuple(peer[:260] for peer, connected in peers.items() if connected is False) if peers else ()


def _environment(fields: Fields) -> Environment:
    return Environment(
        party=fields.child("party").text("vkey"),
        other_parties=tuple(party.text("vkey") for party in fields.children("otherParties")),
        participants=fields.texts("participants"),
        contestation_period=fields.number("contestationPeriod"),
        deposit_period=fields.number("depositPeriod"),
        configured_peers=_peers(fields.text("configuredPeers")) if "configuredPeers" in fields else None,
    )


def _peers(text: str) -> tuple[str, ...]:
    """`host:port=http://host:port,...`, etcd's list of the cluster."""
    return tuple(part.partition("=")[0].strip() for part in text.split(",") if part.strip())


def _closed(fields: Fields, *, contested: bool) -> Message:
    return HeadIsClosed(_head(fields), fields.natural("snapshotNumber"), fields.time("contestationDeadline"), contested)


def _recorded(fields: Fields) -> Message:
    return CommitRecorded(
        _head(fields), TxId(fields.text("pendingDeposit")), _utxo(fields, "utxoToCommit"), fields.time("deadline")
    )


def _recovered(fields: Fields) -> Message:
    utxo = _optional_utxo(fields, "recoveredUTxO") or {}
    return CommitRecovered(_head(fields), TxId(fields.text("recoveredTxId")), utxo)


def _tx_invalid(fields: Fields) -> Message:
    reason = fields.child("validationError").text("reason")[:_MAX_REASON]
    return TxInvalid(_head(fields), fields.child("transaction").raw_hex("cborHex"), reason)


def _open(fields: Fields) -> Message:
    return HeadIsOpen(_head(fields), tuple(party.text("vkey") for party in fields.children("parties")))


def _refused_input(fields: Fields) -> Message:
    """CommandFailed and RejectedInputBecauseUnsynced echo the input; the state beside it may be megabytes."""
    command = fields.child("clientInput").get("tag") if "clientInput" in fields else None
    reason = "the node is not in sync with layer 1" if "drift" in fields else "not possible in the head's state"
    return Refusal(fields.where, command if isinstance(command, str) else "", reason)


def _post_failed(fields: Fields) -> Message:
    command = fields.child("postChainTx").get("tag") if "postChainTx" in fields else None
    reason = fields.child("postTxError").get("tag") if "postTxError" in fields else None
    return Refusal(fields.where, str(command or "")[:60], str(reason or "unknown")[:60])


def _side_load_rejected(fields: Fields) -> Message:
    return Refusal(fields.where, "SideLoadSnapshot", fields.child("requirementFailure").text("tag")[:60])


def _peer(fields: Fields, *, connected: bool) -> Message:
    peer = fields.child("peer")
    return PeerState(f"{peer.text('hostname')[:255]}:{peer.natural('port')}", connected)


def _decommit(fields: Fields) -> Message:
    return Decommit(_head(fields), fields.where)


def _version_mismatch(fields: Fields) -> Message:
    theirs = fields.natural("theirVersion") if "theirVersion" in fields else None
    return NetworkVersionMismatch(fields.natural("ourVersion"), theirs)


def _cluster_mismatch(fields: Fields) -> Message:
    ours, theirs = (fields.text(name) if name in fields else "" for name in ("clusterPeers", "misconfiguredPeers"))
    return NetworkClusterIDMismatch(ours[:_MAX_REASON], theirs[:_MAX_REASON])


def _finalised(fields: Fields) -> Message:
    """Releases before 2.2 have another name for the same field."""
    return HeadIsFinalized(_head(fields), _utxo(fields, "utxo" if "utxo" in fields else "finalizedUTxO"))


def _invalid_input(fields: Fields) -> Message:
    return Refusal("InvalidInput", "", fields.text("reason")[:_MAX_REASON])


_READERS: Final[dict[str, Callable[[Fields], Message]]] = {
    "Greetings": _greetings,
    "HeadIsOpen": _open,
    "IgnoredHeadInitializing": lambda fields: IgnoredHeadInitializing(_head(fields)),
    "TxValid": lambda fields: TxValid(_head(fields), TxId(fields.text("transactionId"))),
    "TxInvalid": _tx_invalid,
    "SnapshotConfirmed": lambda fields: SnapshotConfirmed(read_snapshot(fields.child("snapshot"))),
    "SnapshotSideLoaded": lambda fields: SnapshotSideLoaded(_head(fields), fields.natural("snapshotNumber")),
    "CommitRecorded": _recorded,
    "DepositActivated": lambda fields: DepositActivated(_head(fields), TxId(fields.text("depositTxId"))),
    "DepositExpired": lambda fields: DepositExpired(_head(fields), TxId(fields.text("depositTxId"))),
    "CommitApproved": lambda fields: CommitApproved(_head(fields), _utxo(fields, "utxoToCommit")),
    "CommitFinalized": lambda fields: CommitFinalized(_head(fields), TxId(fields.text("depositTxId"))),
    "CommitRecovered": _recovered,
    "HeadIsClosed": lambda fields: _closed(fields, contested=False),
    "HeadIsContested": lambda fields: _closed(fields, contested=True),
    "ReadyToFanout": lambda fields: ReadyToFanout(_head(fields)),
    "HeadIsFinalized": _finalised,
    "NetworkVersionMismatch": _version_mismatch,
    "NetworkClusterIDMismatch": _cluster_mismatch,
    "PeerConnected": lambda fields: _peer(fields, connected=True),
    "PeerDisconnected": lambda fields: _peer(fields, connected=False),
    "NetworkConnected": lambda _: NetworkState(connected=True),
    "NetworkDisconnected": lambda _: NetworkState(connected=False),
    "EventLogRotated": lambda _: EventLogRotated(),
    "DecommitRequested": _decommit,
    "DecommitApproved": _decommit,
    "DecommitInvalid": _decommit,
    "DecommitFinalized": _decommit,
    "NodeSynced": lambda fields: NodeSynced(in_sync=True),
    "NodeUnsynced": lambda fields: NodeSynced(in_sync=False),
    "CommandFailed": _refused_input,
    "RejectedInputBecauseUnsynced": _refused_input,
    "SideLoadSnapshotRejected": _side_load_rejected,
    "PostTxOnChainFailed": _post_failed,
    "InvalidInput": _invalid_input,
}
