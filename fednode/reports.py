"""What the Cardano adapter reports to the daemon about the head. `at` is Unix time in seconds, taken by our clock.

Every report may come twice, late or in another order after a reconnect; the protocol core ignores what is no news.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fednode.types import HeadId, HeadStatus, Lovelace, PartyName, Transaction, TxId


@dataclass(frozen=True, slots=True)
class HeadConnected:
    """Greetings arrived: the node's own view of the head, at any state."""

    at: float
    status: HeadStatus
    head_id: HeadId | None
    in_sync: bool
    node_version: str


@dataclass(frozen=True, slots=True)
class HeadUnreachable:
    """No connection; the adapter keeps trying. `reason` is for people."""

    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class HeadOpened:
    """HeadIsOpen, with the head's parties verified against the agreement by the adapter."""

    at: float
    head_id: HeadId


@dataclass(frozen=True, slots=True)
class DepositRecorded:
    """CommitRecorded: a deposit is on layer 1, not yet in the head."""

    at: float
    deposit: TxId
    party: PartyName | None
    """Owner of the deposited outputs; None where they belong to no party's funds address."""
    lovelace: Lovelace
    deadline: float
    """Unix time after which it can only be recovered."""


@dataclass(frozen=True, slots=True)
class DepositFinalized:
    """CommitFinalized: the money is in the head. `at` is the node's own timestamp of the message."""

    at: float
    deposit: TxId
    party: PartyName | None
    lovelace: Lovelace


@dataclass(frozen=True, slots=True)
class DepositFailed:
    """DepositExpired or CommitRecovered: this deposit will never enter the head."""

    at: float
    deposit: TxId
    reason: str


@dataclass(frozen=True, slots=True)
class SnapshotConfirmed:
    """A snapshot signed by all. Transactions stand in confirmed order, each read and judged from its own bytes."""

    at: float
    number: int
    transactions: tuple[Transaction, ...]


@dataclass(frozen=True, slots=True)
class SnapshotsSynced:
    """Every snapshot up to `number` has been reported: the replay is complete."""

    at: float
    number: int


StallKind = Literal["unsigned", "unanswered", "unrequested"]
"""A snapshot lacks signatures; one that the own node asked for does not come; nobody asks for one that is due."""


@dataclass(frozen=True, slots=True)
class HeadStalled:
    """No snapshot can be confirmed. Said again where the parties change."""

    at: float
    kind: StallKind
    snapshot: int
    """The one that is due."""
    parties: tuple[PartyName, ...]
    """unsigned: who has not signed; unanswered: the own party; unrequested: whose turn it is to ask for it."""
    since: float
    """Unix time."""


@dataclass(frozen=True, slots=True)
class HeadResumed:
    """What `HeadStalled` said is over."""

    at: float


@dataclass(frozen=True, slots=True)
class TransactionRefused:
    """TxInvalid for a transaction that no confirmed snapshot holds."""

    at: float
    id: TxId
    reason: str


@dataclass(frozen=True, slots=True)
class HeadClosed:
    """HeadIsClosed or HeadIsContested."""

    at: float
    snapshot: int
    deadline: float
    """Unix time of the end of the contestation period."""


@dataclass(frozen=True, slots=True)
class FanoutPossible:
    """The contestation period is over."""

    at: float


@dataclass(frozen=True, slots=True)
class HeadFinalized:
    """HeadIsFinalized. `paid` is what the fanout paid to each party's funds address, `expected` what the last
    confirmed snapshot says, both sorted by party; the adapter compared the full multisets of (address, value)."""

    at: float
    paid: tuple[tuple[PartyName, Lovelace], ...]
    expected: tuple[tuple[PartyName, Lovelace], ...]
    verified: bool


HeadReport = (
    HeadConnected
    | HeadUnreachable
    | HeadOpened
    | DepositRecorded
    | DepositFinalized
    | DepositFailed
    | SnapshotConfirmed
    | SnapshotsSynced
    | HeadStalled
    | HeadResumed
    | TransactionRefused
    | HeadClosed
    | FanoutPossible
    | HeadFinalized
)
