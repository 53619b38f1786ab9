"""The head itself, pure: its ledger, its pending transactions, the snapshot in flight. No time, no disk, no wire."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from typing import Final

from fednode.hydra.devnet.ledger import Failure, Rules, apply, check
from fednode.hydra.devnet.txview import Output, TxView

BATCH: Final = 100
"""Transactions in one snapshot, at most (hydra-node up to 2.3.0)."""


class Status(StrEnum):
    IDLE = "Idle"
    OPEN = "Open"
    CLOSED = "Closed"
    FANOUT_POSSIBLE = "FanoutPossible"


@dataclass
class Request:
    """A snapshot that a leader asked for. `seen`: every party that hears has received it."""

    number: int
    version: int
    txs: tuple[TxView, ...]
    utxo: dict[str, Output]
    commit: dict[str, Output]
    """utxoToCommit: of `deposit`, or of an earlier one that is approved and not on layer 1 yet."""
    deposit: str | None
    message: bytes
    """What every party signs: our own canonical bytes, not hydra-node's accumulator."""
    accumulator: str
    seen: bool = False
    unwritten: int = 0
    """Bit i: the log of party i was rotated meanwhile, and its history will never hold this snapshot."""
    signatures: dict[int, bytes] = field(default_factory=dict[int, bytes])


@dataclass
class Head:
    """One head from Idle through Open and Closed to Idle again. UTxO maps keep their order."""

    status: Status = Status.IDLE
    head_id: str = ""
    seed: str = ""
    order: tuple[int, ...] = ()
    """Party indexes in protocol order: the initiator first."""
    version: int = 0
    number: int = 0
    snapshot: dict[str, Output] = field(default_factory=dict[str, Output])
    """utxo of the last confirmed snapshot."""
    commit: dict[str, Output] = field(default_factory=dict[str, Output])
    """utxoToCommit of the last confirmed snapshot."""
    finalized: bool = False
    """Whether `commit` has become spendable."""
    deposit: str | None = None
    """Approved deposit whose increment is not on layer 1 yet."""
    local: dict[str, Output] = field(default_factory=dict[str, Output])
    pending: dict[str, TxView] = field(default_factory=dict[str, TxView])
    """Valid, not confirmed; by id, in order."""
    in_flight: Request | None = None
    burned: int = 0
    """Lovelace that confirmed fees took from the head: the close check fails where it is not 0."""
    last_event: int = 0
    """Id of the event with the last confirmed snapshot; 0: none yet."""
    closed_number: int = 0
    deadline: float = 0.0
    """Contestation deadline, chain time."""
    behind: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    """Number and event of the last snapshot of every node that is offline, or was when the head closed."""

    def leader(self, number: int) -> int:
        """Party index that may ask for snapshot `number`."""
        return self.order[(number - 1) % len(self.order)]

    def base(self) -> dict[str, Output]:
        """What the next snapshot starts from: a new dict."""
        return self.snapshot | self.commit if self.finalized else dict(self.snapshot)

    def receive(self, tx: TxView, slot: int, rules: Rules) -> Failure | None:
        """Check a transaction against the local ledger and apply it; the failure where it does not."""
        failure = check(tx, self.local, slot, rules)
        if failure is None:
            apply(tx, self.local)
            self.pending[tx.id] = tx
        return failure

    def request(
        self, deposit: tuple[str, Mapping[str, Output]] | None, without: Callable[[str], bool] = lambda _: False
    ) -> Request | None:
        """Put the next snapshot in flight, where none is and there is need.

        `deposit`: the oldest active one; `without`: says of an id whether its leader lacks that transaction.
        """
        if self.status is not Status.OPEN or self.in_flight is not None:
            return None
        taken = deposit if self.deposit is None else None
        txs = tuple(islice((tx for tx in self.pending.values() if not without(tx.id)), BATCH))
        if not txs and taken is None:
            return None
        utxo = self.base()
        for tx in txs:
            apply(tx, utxo)
        commit = {} if self.finalized or self.deposit is None else dict(self.commit)
        if taken is not None:
            commit = dict(taken[1])
        accumulator = _digest(utxo)
        message = b"".join(
            (
                b"fednode devnet snapshot/1\0",
                bytes.fromhex(self.head_id),
                self.version.to_bytes(8),
                (self.number + 1).to_bytes(8),
                accumulator,
                _digest(commit),
            )
        )
        self.in_flight = Request(
            number=self.number + 1,
            version=self.version,
            txs=txs,
            utxo=utxo,
            commit=commit,
            deposit=None if taken is None else taken[0],
            message=message,
            accumulator=accumulator.hex(),
        )
        return self.in_flight

    def confirm(self) -> Request:
        """Take over the snapshot in flight, which every party has signed."""
        request = self.in_flight
        if request is None or len(request.signatures) != len(self.order):
            raise ValueError("no snapshot in flight that every party has signed")
        self.in_flight = None
        self.number = request.number
        self.snapshot, self.commit, self.finalized = dict(request.utxo), dict(request.commit), False
        self.deposit = request.deposit or self.deposit
        for tx in request.txs:
            del self.pending[tx.id]
            self.burned += tx.fee
        return request

    def finalize_deposit(self) -> None:
        """The increment is on layer 1: its UTxO becomes spendable. A snapshot of the old version is dropped."""
        self.finalized, self.deposit = True, None
        self.version += 1
        self.local |= self.commit
        self.in_flight = None

    def drop_pending(self) -> list[TxView]:
        """Back to the last confirmed snapshot (side-load). What was dropped."""
        dropped = list(self.pending.values())
        self.pending, self.in_flight, self.local = {}, None, self.base()
        return dropped


def _digest(utxo: Mapping[str, Output]) -> bytes:
    """sha256 over the sorted outputs: a stand-in for hydra-node's accumulator."""
    state = hashlib.sha256()
    for txin in sorted(utxo):
        state.update(txin.encode() + b"\0" + len(utxo[txin].raw).to_bytes(4) + utxo[txin].raw)
    return state.digest()
