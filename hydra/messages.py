"""What a hydra-node 2.3 and its client say to each other on the websocket (docs: hydra-node api.yaml, tag 2.3.0)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from fednode.hydra.utxo import Utxo
from fednode.types import HeadId, TxId


@dataclass(frozen=True, slots=True)
class Greetings:
    """The end of the history. Holds no key: releases before 2.2 leak the Hydra signing key in this message."""

    me: str
    status: str
    head_id: HeadId | None
    version: str
    in_sync: bool
    environment: Environment | None
    unconnected: tuple[str, ...] = ()
    """host:port of the peers' nodes that the own node does not reach."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What the node was started with. Keys in hex, periods in seconds."""

    party: str
    other_parties: tuple[str, ...]
    participants: tuple[str, ...]
    contestation_period: float
    deposit_period: float
    configured_peers: tuple[str, ...] | None = None
    """host:port of every node of the cluster, the own one included; None where the node does not say."""


@dataclass(frozen=True, slots=True)
class HeadIsOpen:
    head_id: HeadId
    parties: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IgnoredHeadInitializing:
    head_id: HeadId


@dataclass(frozen=True, slots=True)
class TxValid:
    """One node's opinion, not final."""

    head_id: HeadId
    id: TxId


@dataclass(frozen=True, slots=True)
class TxInvalid:
    head_id: HeadId
    cbor: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    head_id: HeadId
    number: int
    version: int
    """Grows by one with each finalised deposit or decommit."""
    confirmed: tuple[bytes, ...]
    """Original bytes of each transaction."""
    utxo: Utxo | None
    """None where the connection asked for messages without it."""
    to_commit: Utxo | None
    to_decommit: Utxo | None


@dataclass(frozen=True, slots=True)
class SnapshotConfirmed:
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class SnapshotSideLoaded:
    head_id: HeadId
    number: int


@dataclass(frozen=True, slots=True)
class CommitRecorded:
    head_id: HeadId
    deposit: TxId
    utxo: Utxo
    deadline: float


@dataclass(frozen=True, slots=True)
class DepositActivated:
    head_id: HeadId
    deposit: TxId


@dataclass(frozen=True, slots=True)
class DepositExpired:
    head_id: HeadId
    deposit: TxId


@dataclass(frozen=True, slots=True)
class CommitApproved:
    head_id: HeadId
    utxo: Utxo


@dataclass(frozen=True, slots=True)
class CommitFinalized:
    head_id: HeadId
    deposit: TxId


@dataclass(frozen=True, slots=True)
class CommitRecovered:
    head_id: HeadId
    deposit: TxId
    utxo: Utxo
    """What was paid back; empty where the node does not say."""


@dataclass(frozen=True, slots=True)
class HeadIsClosed:
    """`contested`: it was HeadIsContested, a newer snapshot replaced the first one."""

    head_id: HeadId
    number: int
    deadline: float
    contested: bool


@dataclass(frozen=True, slots=True)
class ReadyToFanout:
    head_id: HeadId


@dataclass(frozen=True, slots=True)
class HeadIsFinalized:
    head_id: HeadId
    utxo: Utxo
    """References may be of layer 1 or 2; only the multiset of outputs means something."""


@dataclass(frozen=True, slots=True)
class NodeSynced:
    in_sync: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """CommandFailed, RejectedInputBecauseUnsynced, InvalidInput or PostTxOnChainFailed: advice, never a proof.

    `command` is the tag of the refused input, where known.
    """

    tag: str
    command: str
    reason: str


@dataclass(frozen=True, slots=True)
class NetworkVersionMismatch:
    """A peer's node speaks another network protocol: it is of another release."""

    ours: int
    theirs: int | None


@dataclass(frozen=True, slots=True)
class NetworkClusterIDMismatch:
    """A peer's node was started with another list of peers."""

    ours: str
    theirs: str


@dataclass(frozen=True, slots=True)
class PeerState:
    """The own node has, or lost, the connection to a peer's. In the history it says nothing about now."""

    peer: str
    """host:port"""
    connected: bool


@dataclass(frozen=True, slots=True)
class NetworkState:
    """The own node reaches more than half of all nodes, or not: then no message gets through."""

    connected: bool


@dataclass(frozen=True, slots=True)
class EventLogRotated:
    """The node's history begins here; what was before is in its old-state/."""


@dataclass(frozen=True, slots=True)
class Decommit:
    """DecommitRequested, -Approved, -Invalid or -Finalized: a party takes money out of an open head."""

    head_id: HeadId
    tag: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """A message of another release, or an advice in a form that cannot be read."""

    tag: str


HeadMessage: TypeAlias = (
    TxValid
    | TxInvalid
    | SnapshotSideLoaded
    | CommitRecorded
    | DepositActivated
    | DepositExpired
    | CommitApproved
    | CommitFinalized
    | CommitRecovered
    | HeadIsClosed
    | ReadyToFanout
    | HeadIsFinalized
)
"""What happens inside one head, besides its opening and its snapshots."""

Message: TypeAlias = (
    HeadMessage
    | Greetings
    | HeadIsOpen
    | IgnoredHeadInitializing
    | SnapshotConfirmed
    | NodeSynced
    | NetworkVersionMismatch
    | NetworkClusterIDMismatch
    | PeerState
    | NetworkState
    | EventLogRotated
    | Decommit
    | Refusal
    | Unknown
)


@dataclass(frozen=True, slots=True)
class Received:
    """A message with the node's event number and time; both None for messages that are never in the history."""

    message: Message
    seq: int | None
    at: float | None


@dataclass(frozen=True, slots=True)
class Init:
    pass


@dataclass(frozen=True, slots=True)
class NewTx:
    cbor: str


@dataclass(frozen=True, slots=True)
class Close:
    pass


@dataclass(frozen=True, slots=True)
class Fanout:
    pass


ClientInput: TypeAlias = Init | NewTx | Close | Fanout
