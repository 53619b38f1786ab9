"""What single nodes lack of what all of them share: transactions they lost, deposits that they do not see yet.

All nodes of this process keep one ledger. A node that lacks something refuses what is built on it and does not sign.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from fednode.hydra.devnet.txview import TxView


class Nodes:
    """In memory only: after a restart of the process every node knows everything. Parties by index, masks by bit."""

    def __init__(self, parties: int) -> None:
        self._lacking: list[set[str]] = [set() for _ in range(parties)]
        self._unseen: list[set[str]] = [set() for _ in range(parties)]
        self._everyone = (1 << parties) - 1

    @property
    def even(self) -> bool:
        """Whether no node lacks anything."""
        return not any(self._lacking) and not any(self._unseen)

    def lose(self, parties: int, ids: Iterable[str]) -> None:
        """These transactions, pending in the shared ledger, are not with the nodes in the mask `parties`."""
        lost = set(ids)
        for party, lacking in enumerate(self._lacking):
            if parties >> party & 1:
                lacking |= lost

    def receive(self, tx: TxView, parties: int) -> int:
        """A transaction that stands in the shared ledger comes to some nodes (again): those that take it in now."""
        taken = 0
        for party, lacking in enumerate(self._lacking):
            if parties >> party & 1 and tx.id in lacking and self._applies(party, tx):
                lacking.discard(tx.id)
                taken |= 1 << party
        return taken

    def lacks(self, party: int, txid: str) -> bool:
        return txid in self._lacking[party]

    def signs(self, party: int, ids: Iterable[str]) -> bool:
        """Whether the node can check a snapshot with these transactions."""
        return not self._unseen[party] and self._lacking[party].isdisjoint(ids)

    def hide(self, party: int, txins: Collection[str]) -> None:
        """The node does not see yet that these outputs have become spendable."""
        self._unseen[party].update(txins)

    def reveal(self, party: int, txins: Collection[str]) -> None:
        self._unseen[party].difference_update(txins)

    def settle(self, ids: Collection[str]) -> None:
        """These transactions are confirmed, or dropped everywhere: nobody needs them any more."""
        for lacking in self._lacking:
            lacking.difference_update(ids)

    def _applies(self, party: int, tx: TxView) -> bool:
        lacking, unseen = self._lacking[party], self._unseen[party]
        return not any(txin in unseen or txin[:64] in lacking for txin in tx.inputs)
