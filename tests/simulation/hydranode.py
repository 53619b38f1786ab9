"""One party's simulated hydra-node: its own view of the head, its history of events, and who listens to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fednode.hydra import messages as m
from fednode.hydra.utxo import Coin
from fednode.types import TxId

from .ledger import Tx, Utxo, apply, problem, read_tx

if TYPE_CHECKING:
    from .network import Network
    from .wire import Socket

TRIES = 5
"""A transaction whose inputs are not there yet is tried so often, a second apart, before it is refused."""


class HydraNode:
    def __init__(self, network: Network, index: int) -> None:
        self.network, self.index = network, index
        self.up = True
        self.status = "Idle"
        self.applied = 0
        """Snapshots applied: a prefix of the network's log."""
        self.version = 0
        self.deposits: set[str] = set()
        """Recorded, and not finalised, as this node sees layer 1."""
        self.history: list[m.Received] = []
        self.sockets: list[Socket] = []
        self.pending: dict[str, Tx] = {}
        self.waiting: dict[str, int] = {}
        self.known: set[str] = set()
        """Ids of transactions whose bytes it holds, applicable or not."""
        self.chain: list[Callable[[HydraNode], None]] = []
        """What happened on layer 1, in order, and this node has not seen."""
        self._local: Utxo | None = None

    # Its view ---------------------------------------------------------------------------------------------------------

    def confirmed(self) -> Mapping[str, Coin]:
        log = self.network.log
        if not self.applied:
            return {}
        last = log[self.applied - 1]
        if self.version > last.version and last.commit_utxo:
            return {**last.utxo, **last.commit_utxo}
        return last.utxo

    def local(self) -> Utxo:
        """The confirmed state with the pending transactions on top; those that fit no longer are dropped."""
        if self._local is None:
            utxo = dict(self.confirmed())
            for tx in list(self.pending.values()):
                if problem(tx, utxo):
                    del self.pending[tx.id]
                else:
                    apply(tx, utxo)
            self._local = utxo
        return self._local

    def changed(self) -> None:
        self._local = None

    # Transactions -----------------------------------------------------------------------------------------------------

    def new_tx(self, cbor: str) -> None:
        """From the own client: told to every node."""
        tx = read_tx(bytes.fromhex(cbor))
        if tx is None:
            return
        for node in self.network.nodes:
            self.network.carry(self, node, lambda node=node: node.learn(tx))

    def learn(self, tx: Tx, tries: int = TRIES) -> None:
        network = self.network
        if not self.up or network.status != "Open" or tx.id in network.confirmed:
            self.waiting.pop(tx.id, None)
            return
        self.known.add(tx.id)
        network.consider()
        if tx.id in self.pending:
            return
        why = problem(tx, self.local())
        if not why:
            self.waiting.pop(tx.id, None)
            self.pending[tx.id] = tx
            apply(tx, self.local())
            self.emit(m.TxValid(network.head_id, TxId(tx.id)))
            network.consider()
        elif tries > 0:
            self.waiting[tx.id] = tries
            network.later(1.0, lambda: self.learn(tx, tries - 1))
        else:
            self.waiting.pop(tx.id, None)
            self.known.discard(tx.id)
            network.count("tx-invalid")
            self.emit(m.TxInvalid(network.head_id, tx.cbor, why))

    def has(self, txs: tuple[Tx, ...]) -> bool:
        return all(tx.id in self.known for tx in txs)

    def apply_next(self) -> None:
        """Take in the next snapshot of the log."""
        snapshot = self.network.log[self.applied]
        self.applied += 1
        for tx in snapshot.txs:
            self.pending.pop(tx.id, None)
        self.changed()
        self.emit(
            m.SnapshotConfirmed(
                m.Snapshot(
                    self.network.head_id,
                    snapshot.number,
                    snapshot.version,
                    tuple(tx.cbor for tx in snapshot.txs),
                    None,
                    snapshot.commit_utxo,
                    None,
                )
            )
        )

    def follow(self) -> None:
        """See the next thing on layer 1; what comes while the node is down is seen when it is up."""
        if self.up and self.chain:
            self.chain.pop(0)(self)

    # Its client -------------------------------------------------------------------------------------------------------

    def emit(self, message: m.Message) -> None:
        """Into the history, and to whoever listens."""
        received = m.Received(message, len(self.history), self.network.now())
        self.history.append(received)
        for socket in self.sockets:
            socket.push(received)

    def tell(self, message: m.Message) -> None:
        """To whoever listens, without a place in the history."""
        for socket in self.sockets:
            socket.push(m.Received(message, None, None))

    def greetings(self) -> m.Received:
        network = self.network
        members = network.members
        key = [member.hydra_vkey for member in members]
        me = key[self.index]
        environment = m.Environment(
            me,
            tuple(k for k in key if k != me),
            network.participants,
            network.contestation_s,
            network.deposit_period_s,
        )
        head = network.head_id if self.status not in ("Idle", "Final") else None
        status = "Idle" if self.status == "Final" else self.status
        return m.Received(m.Greetings(me, status, head, network.version, True, environment), None, None)

    def listen(self, socket: Socket, *, history: bool) -> None:
        for received in self.history if history else []:
            socket.push(received)
        socket.push(self.greetings())
        self.sockets.append(socket)

    def command(self, message: Any) -> None:
        """An input of the own client."""
        match message:
            case m.NewTx(cbor=cbor):
                self.new_tx(cbor)
            case m.Init():
                self.network.init(self)
            case m.Close():
                self.network.close(self)
            case m.Fanout():
                self.network.fanout(self)
            case _:
                raise AssertionError(message)

    # Crashes ----------------------------------------------------------------------------------------------------------

    def crash(self, *, forget: bool) -> None:
        """Connections are gone, and with `forget` every transaction that no snapshot holds."""
        self.up = False
        for socket in self.sockets[:]:
            socket.drop()
        if forget:
            self.pending.clear()
            self.waiting.clear()
            self.known.clear()
            self.changed()
            self.history = [x for x in self.history if not isinstance(x.message, m.TxValid | m.TxInvalid)]
            self.history = [m.Received(x.message, i, x.at) for i, x in enumerate(self.history)]

    def start(self) -> None:
        self.up = True
        while self.chain:
            self.follow()
        self.network.catch_up(self)
