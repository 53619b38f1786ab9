"""The simulated head: nodes that agree on snapshots in one total order, and the layer 1 beneath them.

The leader of snapshot n is node n mod N. A snapshot is confirmed when every node holds its transactions and stands at
its version; each node learns of it in its own time. Messages between nodes are late, reordered, doubled or lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from fednode.hydra import messages as m
from fednode.hydra.addresses import key_hash
from fednode.hydra.messages import HeadIsOpen
from fednode.hydra.utxo import Coin
from fednode.types import HeadId, Member, TxId

from .hydranode import HydraNode
from .ledger import Snapshot, Tx, Utxo, apply, problem

LATE_S = 3.0
"""A node sees what happens on layer 1 at most so much later than another; the embedded head is faster."""


@dataclass
class Deposit:
    id: str
    owner: int
    utxo: Utxo
    active: bool = False
    taken: bool = False
    final: bool = False


@dataclass
class Request:
    """A snapshot that the leader has asked for and that not everybody has signed."""

    leader: int
    snapshot: Snapshot


class Network:
    def __init__(
        self,
        members: tuple[Member, ...],
        rng: Random,
        *,
        now: Callable[[], float],
        later: Callable[[float, Callable[[], None]], None],
        count: Callable[[str], None],
        version: str,
        contestation_s: float,
        deposit_period_s: float,
    ) -> None:
        self.members, self.rng, self.now, self.later, self.count = members, rng, now, later, count
        self.late_s = LATE_S / 10 if "embedded" in version else LATE_S
        self.version, self.contestation_s, self.deposit_period_s = version, contestation_s, deposit_period_s
        self.head_id = HeadId("ab" * 28)
        self.participants = tuple(key_hash(member.fuel_vkey).hex() for member in members)
        self.status = "Idle"
        """On layer 1."""
        self.nodes = [HydraNode(self, i) for i in range(len(members))]
        self.log: list[Snapshot] = []
        self.confirmed: set[str] = set()
        self.request: Request | None = None
        self.deposits: dict[str, Deposit] = {}
        self.funding: Utxo = {}
        """Unspent layer-1 outputs of the parties."""
        self.loss = self.doubling = 0.0
        self.slow = 1.0
        self.late: dict[int, float] = {}
        """Nodes that learn of snapshots late, and by how many seconds on average."""
        self.closed_number = -1
        self.deadline = 0.0
        self.paid: Utxo | None = None
        self.confirmed_hook: Callable[[Snapshot], None] = lambda snapshot: None
        self._considering = False

    # Messages ---------------------------------------------------------------------------------------------------------

    def carry(self, source: HydraNode, target: HydraNode, act: Callable[[], None]) -> None:
        """A message from node to node."""
        if source is target:
            self.later(0.001, act)
            return
        if self.rng.random() < self.loss:
            self.count("message-lost")
            return
        copies = 1
        if self.rng.random() < self.doubling:
            self.count("message-doubled")
            copies = 2
        for _ in range(copies):
            self.later(self.rng.expovariate(1 / (0.05 * self.slow)), act)

    def everywhere(self, act: Callable[[HydraNode], None]) -> None:
        """Something on layer 1, which every node sees in its own time, in the chain's order."""
        for node in self.nodes:
            node.chain.append(act)
            self.later(self.rng.random() * self.late_s, node.follow)

    # Snapshots --------------------------------------------------------------------------------------------------------

    def consider(self) -> None:
        """Something changed: perhaps the leader asks for a snapshot, or the last signature is there."""
        if not self._considering:
            self._considering = True
            self.later(0.02 + self.rng.random() * 0.1 * self.slow, self._consider)

    def _consider(self) -> None:
        self._considering = False
        if self.status != "Open":
            return
        if self.request is not None:
            asked = self.request.snapshot
            if not self.nodes[self.request.leader].up or any(n.version > asked.version for n in self.nodes):
                self.request = None
        if self.request is None:
            self._ask()
        if self.request is not None and all(self.signs(node, self.request.snapshot) for node in self.nodes):
            self._confirm(self.request.snapshot)

    def _ask(self) -> None:
        leader = self.nodes[(len(self.log) + 1) % len(self.nodes)]
        if not leader.up or leader.status != "Open" or leader.applied != len(self.log):
            return
        last = self.log[-1] if self.log else None
        open_commit = last is not None and last.commit is not None and leader.version == last.version
        deposit = None
        if not open_commit:
            deposit = next((d for d in self.deposits.values() if d.active and not d.taken), None)
        leader.local()
        txs, utxo = list[Tx](), dict(leader.confirmed())
        for tx in leader.pending.values():
            if not problem(tx, utxo):
                txs.append(tx)
                apply(tx, utxo)
        if not txs and deposit is None:
            return
        commit, commit_utxo = (last.commit, last.commit_utxo) if open_commit and last else (None, None)
        if deposit is not None:
            commit, commit_utxo = deposit.id, deposit.utxo
        number = len(self.log) + 1
        self.request = Request(leader.index, Snapshot(number, leader.version, tuple(txs), utxo, commit, commit_utxo))

    def signs(self, node: HydraNode, asked: Snapshot) -> bool:
        return (
            node.up
            and node.status == "Open"
            and node.applied == asked.number - 1
            and node.version == asked.version
            and node.has(asked.txs)
        )

    def _confirm(self, snapshot: Snapshot) -> None:
        self.request = None
        self.log.append(snapshot)
        self.confirmed.update(tx.id for tx in snapshot.txs)
        if snapshot.commit is not None and not self.deposits[snapshot.commit].taken:
            self.deposits[snapshot.commit].taken = True
            self.later(1.0 + self.rng.random() * 4, lambda: self._increment(snapshot.commit or ""))
        self.confirmed_hook(snapshot)
        for node in self.nodes:
            mean = 0.1 * self.slow + self.late.get(node.index, 0.0)
            # Sooner than a closed head is over: a node that never learns of a snapshot cannot check the payout.
            self.later(min(self.rng.expovariate(1 / mean), 30.0), lambda node=node: self.catch_up(node))

    def catch_up(self, node: HydraNode) -> None:
        """The node learns of every snapshot that it lacks."""
        if not node.up:
            return
        while node.applied < len(self.log):
            node.apply_next()
        self._contest(node)
        self.consider()

    # Layer 1 ----------------------------------------------------------------------------------------------------------

    def block(self) -> float:
        """Seconds until a transaction is in a block."""
        return 0.5 + self.rng.random() * 4

    def init(self, node: HydraNode) -> None:
        def act() -> None:
            if self.status == "Idle":
                self.status = "Open"
                self.everywhere(opened)

        def opened(node: HydraNode) -> None:
            node.status = "Open"
            self.consider()
            node.emit(HeadIsOpen(self.head_id, tuple(member.hydra_vkey for member in self.members)))

        self.later(self.block(), act)

    def deposit(self, deposit: Deposit, inputs: tuple[str, ...]) -> None:
        """A deposit that layer 1 has taken in."""
        for reference in inputs:
            del self.funding[reference]
        self.deposits[deposit.id] = deposit
        recorded = m.CommitRecorded(self.head_id, TxId(deposit.id), deposit.utxo, self.now() + 1e6)

        def seen(node: HydraNode) -> None:
            node.deposits.add(deposit.id)
            node.emit(recorded)

        self.everywhere(seen)

        def active() -> None:
            deposit.active = True
            self.consider()

        self.later(self.late_s + self.deposit_period_s, active)

    def _increment(self, identifier: str) -> None:
        deposit = self.deposits[identifier]
        deposit.final = True

        def final(node: HydraNode) -> None:
            node.version += 1
            node.deposits.discard(identifier)
            node.changed()
            node.emit(m.CommitFinalized(self.head_id, TxId(identifier)))
            self.consider()

        self.everywhere(final)

    def close(self, node: HydraNode) -> None:
        if self.status != "Open" or node.status != "Open":
            node.tell(m.Refusal("CommandFailed", "Close", "not possible in the head's state"))
            return
        number = node.applied

        def act() -> None:
            if self.status == "Open":
                self.status, self.request = "Closed", None
                self._closed(number, contested=False)
                self.later(self.contestation_s, self._over)

        self.later(self.block(), act)

    def _closed(self, number: int, *, contested: bool) -> None:
        self.closed_number = number
        self.deadline = self.deadline or self.now() + self.contestation_s
        deadline = self.deadline

        def seen(node: HydraNode) -> None:
            if node.status == "Open":
                node.status = "Closed"
            node.emit(m.HeadIsClosed(self.head_id, number, deadline, contested))
            self._contest(node)

        self.everywhere(seen)

    def _contest(self, node: HydraNode) -> None:
        """A node that knows a newer snapshot than the closed one says so."""
        if self.status == "Closed" and node.status == "Closed" and node.applied > self.closed_number:
            number = node.applied

            def act() -> None:
                if self.status == "Closed" and number > self.closed_number:
                    self.count("contest")
                    self._closed(number, contested=True)

            self.later(self.block(), act)

    def _over(self) -> None:
        self.status = "FanoutPossible"

        def seen(node: HydraNode) -> None:
            node.status = "FanoutPossible"
            node.emit(m.ReadyToFanout(self.head_id))

        self.everywhere(seen)

    def fanout(self, node: HydraNode) -> None:
        if node.status != "FanoutPossible" or node.applied != self.closed_number:
            node.tell(m.Refusal("CommandFailed", "Fanout", "not possible in the head's state"))
            return
        paid = self.payout()

        def act() -> None:
            if self.status == "FanoutPossible":
                self.status, self.paid = "Final", paid
                self.everywhere(finalised)

        def finalised(node: HydraNode) -> None:
            node.status = "Final"
            node.emit(m.HeadIsFinalized(self.head_id, paid))

        self.later(self.block(), act)

    def payout(self) -> Utxo:
        """What layer 1 pays for the closed snapshot, under new references."""
        coins: list[Coin] = []
        if self.closed_number > 0:
            last = self.log[self.closed_number - 1]
            coins = list(last.utxo.values())
            if last.commit is not None and self.deposits[last.commit].final and last.commit_utxo:
                coins += last.commit_utxo.values()
        return {f"{'fa' * 32}#{i}": coin for i, coin in enumerate(coins)}
