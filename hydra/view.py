"""The confirmed state of the head, folded from snapshots without their UTxO (protocol.md section 4).

A snapshot's transactions are applied in order; a deposit enters when it is finalised. Where the fold cannot go on (a
gap, a decommit, an unknown deposit) the view is stale until `load` gives it the node's own last snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fednode.hydra.messages import Snapshot
from fednode.hydra.transactions import RawTransaction
from fednode.hydra.utxo import Coin, Utxo, outputs_of


class View:
    """Unspent outputs of the newest confirmed snapshot, plus the deposits finalised since."""

    def __init__(self) -> None:
        self._utxo: dict[str, Coin] = {}
        self._pending: Utxo | None = None
        self._early: set[frozenset[str]] = set()
        """References of deposits that were finalised before the snapshot came that takes them in."""
        self._version: int = 0
        self.number: int = 0
        """The snapshot that the view stands at; 0 before the first."""
        self.stale: bool = False
        """True where outputs are unknown: spend nothing, load the node's snapshot."""

    @property
    def utxo(self) -> Mapping[str, Coin]:
        return self._utxo

    @property
    def pending(self) -> Utxo | None:
        """The deposit that the last snapshot takes in, not spendable yet."""
        return self._pending

    def load(self, snapshot: Snapshot | None, head_version: int) -> bool:
        """Take the node's last confirmed snapshot (None before the first), read before `head_version`.

        The head's version is above the snapshot's where its deposit is finalised and no newer snapshot exists.
        False where the view stood at the same number with other outputs.
        """
        if snapshot is None:
            if self.number == 0:
                self.stale = False
            return True
        if snapshot.utxo is None or snapshot.number < self.number:
            return True
        same = self.stale or snapshot.number != self.number
        before = dict(self._utxo)
        self._utxo = dict(snapshot.utxo)
        self.number, self._version, self.stale = snapshot.number, snapshot.version, False
        self._pending = snapshot.to_commit
        if head_version > snapshot.version:
            self._settle(snapshot.version + 1)
        # A deposit finalised after the node answered, but reported already, is the one lawful difference.
        return same or all(self._utxo.get(key, coin) == coin for key, coin in before.items())

    def fold(self, snapshot: Snapshot, transactions: Iterable[RawTransaction | None]) -> None:
        """Apply the next snapshot; None stands for an unreadable transaction. Older snapshots change nothing."""
        if snapshot.number <= self.number:
            return
        self.stale = self.stale or snapshot.number != self.number + 1 or snapshot.to_decommit is not None
        if snapshot.version > self._version:
            self._settle(snapshot.version)
        for transaction in transactions:
            if transaction is None:
                self.stale = True
                continue
            for reference in transaction.inputs:
                if self._utxo.pop(reference, None) is None:
                    self.stale = True
            self._utxo.update(outputs_of(transaction))
        self.number = snapshot.number
        self._pending = snapshot.to_commit
        if self._pending is not None and frozenset(self._pending) in self._early:
            self._settle(snapshot.version + 1)

    def finalise(self, deposited: Utxo | None) -> None:
        """A deposit of these outputs (None: not known) is in the head.

        Only the pending one can be settled. Any other is in the view or spent already, or layer 1 was faster than the
        snapshot that takes it in: then it is settled with that.
        """
        if self._pending is not None and deposited is None:
            self.stale = True
        elif self._pending is not None and deposited is not None and deposited.keys() == self._pending.keys():
            self._settle(self._version + 1)
        elif deposited:
            self._early.add(frozenset(deposited))

    @property
    def lags(self) -> bool:
        """Whether a finalised deposit may still be missing here."""
        return any(not references & self._utxo.keys() for references in self._early)

    def owned(self, address: str) -> dict[str, int]:
        """Plain lovelace outputs at `address`, by reference."""
        return {
            reference: coin.lovelace
            for reference, coin in self._utxo.items()
            if coin.address == address and not coin.assets
        }

    def balance(self, address: str) -> int:
        """Lovelace at `address`."""
        return sum(coin.lovelace for coin in self._utxo.values() if coin.address == address)

    def _settle(self, version: int) -> None:
        if self._pending is None:
            self.stale = self.stale or version > self._version + 1
        else:
            self._utxo.update(self._pending)
            self._early.discard(frozenset(self._pending))
        self._pending = None
        self._version = version
