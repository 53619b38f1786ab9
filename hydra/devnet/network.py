"""The messages between the nodes: transactions in one order for all, snapshot requests, signatures.

Every node of this process keeps the same ledger, so a transaction is checked once and said valid at every party that
lacks nothing (`nodes`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fednode.hydra.devnet import views, wire
from fednode.hydra.devnet.layer1 import Posted
from fednode.hydra.devnet.ledger import Failure
from fednode.hydra.devnet.protocol import Request, Status
from fednode.hydra.devnet.txview import TxView
from fednode.hydra.devnet.world import Party, World

RETRIES: Final = 5
RETRY_S: Final = 0.1
"""A transaction that does not apply is tried again this often, this far apart, before it is said invalid."""

_NOT_HERE: Final = Failure("BadInputsUTxO", "ConwayUtxowFailure (UtxoFailure (BadInputsUTxO (fromList [])))")
"""What a node says that lacks the transaction's inputs."""


@dataclass(slots=True)
class _Arrival:
    party: int
    tx: TxView
    undecided: int
    """Bit i: party i has neither taken it in nor said it invalid."""
    tries: int = 0


class Network:
    """The running protocol of one head."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._inbox: list[_Arrival] = []
        self._waiting: dict[int, list[_Arrival]] = {}
        """What a party without network has to send, by party."""
        self._retrying: list[_Arrival] = []
        self._scheduled = False

    def submit(self, party: int, tx: TxView) -> None:
        """NewTx of a client: broadcast, one hop away. Arrivals within a hop are persisted together."""
        self._enqueue(_Arrival(party, tx, self._world.everyone))

    def faults_changed(self) -> None:
        """Look at the faults again: who is cut off, who has come back, who signs now, who restarts."""
        world = self._world
        before, connected = world.cut, [world.connected(party.index) for party in world.parties]
        world.cut = sum(1 << each.index for each in world.parties if world.faults.is_offline(each.name))
        restarts, rotations = world.faults.take_restarts(), world.faults.take_rotations()
        with world.unit():
            if before != world.cut:
                self._tell_connections(before, connected)
            for party in world.parties:
                if world.cut >> party.index & 1:
                    world.head.behind.setdefault(party.name, (world.head.number, world.head.last_event))
                else:
                    self._come_back(party)
                if party.name in restarts:
                    self._restart(party.index)
                if party.name in rotations:
                    self._rotate(party.index)
        if world.quorum():
            self._send_waiting()
        self.resume()

    def poke(self) -> None:
        """Let the leader of the next snapshot ask for it, where there is need and the network carries messages."""
        world, head = self._world, self._world.head
        if head.status is not Status.OPEN or not world.connected(head.leader(head.number + 1)):
            return
        deposit = world.chain.active_deposit(head.head_id)
        leader = head.leader(head.number + 1)
        if not world.nodes.signs(leader, ()):
            return
        offered = None if deposit is None else (deposit.txid, deposit.utxo)
        request = head.request(offered, lambda txid: world.nodes.lacks(leader, txid))
        if request is None or len(request.utxo | request.commit) > world.settings.max_utxo:
            # Too many outputs for the accumulator: the request fails at every node and nobody hears of it.
            return
        world.scheduler.later(world.settings.hop_s, lambda: self._seen(request))

    def resume(self) -> None:
        """A node lacks less than before: it may sign or ask now."""
        self.sign()
        self.poke()

    def drop_pending(self) -> None:
        """A side-load: every transaction that is not confirmed must be sent anew."""
        world = self._world
        with world.unit():
            dropped = world.head.drop_pending()
            world.store.drop_pending(dropped)
            world.nodes.settle([tx.id for tx in dropped])

    def sign(self) -> None:
        """Collect the signatures of those who sign at once, and confirm where they are complete."""
        world, request = self._world, self._world.head.in_flight
        if request is None or not request.seen or not world.quorum():
            return
        for party in world.parties:
            if party.index not in request.signatures and self._signs(party, request):
                delay = world.faults.delay(party.name)
                if delay > 0:
                    self._sign_later(request, party.index, delay)
                else:
                    request.signatures[party.index] = party.hydra.sign(request.message)
        if len(request.signatures) == len(world.parties):
            self._confirm()

    def _enqueue(self, arrival: _Arrival) -> None:
        if not self._world.connected(arrival.party):
            self._waiting.setdefault(arrival.party, []).append(arrival)
            return
        self._inbox.append(arrival)
        if not self._scheduled:
            self._scheduled = True
            self._world.scheduler.later(self._world.settings.hop_s, self._flush)

    def _signs(self, party: Party, request: Request) -> bool:
        return self._world.faults.signs(party.name) and self._world.nodes.signs(
            party.index, (tx.id for tx in request.txs)
        )

    def _flush(self) -> None:
        """One batch of arrivals, in order: on disk together, then said valid."""
        self._scheduled = False
        batch, self._inbox = self._inbox, []
        world, head = self._world, self._world.head
        if not batch or head.status is not Status.OPEN:
            return
        with world.unit():
            accepted: list[TxView] = []
            for arrival in batch:
                failure = self._apply(arrival, accepted)
                if arrival.undecided:
                    self._undecided(arrival, failure)
            world.store.add_pending(accepted)
        self.sign()

    def _apply(self, arrival: _Arrival, accepted: list[TxView]) -> Failure:
        """Take it in wherever it can be; what the other nodes think of it."""
        world, head, tx = self._world, self._world.head, arrival.tx
        failure = head.receive(tx, world.chain.slot, world.rules)
        taken = 0
        if failure is None:
            accepted.append(tx)
            taken = arrival.undecided
            if not world.nodes.even or taken != world.everyone:
                world.nodes.lose(world.everyone, [tx.id])
                taken = world.nodes.receive(tx, arrival.undecided)
        elif not world.nodes.even and tx.id in head.pending:
            taken = world.nodes.receive(tx, arrival.undecided)
        if taken:
            arrival.undecided &= ~taken
            body = wire.opened("TxValid", {"headId": head.head_id, "transactionId": tx.id})
            world.emit_heard(body, parties=taken, note=("TxValid", (tx.id,)))
            # The first one is snapshotted alone; those behind it gather for the next snapshot.
            self.poke()
        return failure or _NOT_HERE

    def _undecided(self, arrival: _Arrival, failure: Failure) -> None:
        arrival.tries += 1
        if arrival.tries <= RETRIES:
            self._retrying.append(arrival)
            self._world.scheduler.later(RETRY_S, lambda: self._retry(arrival))
            return
        head = self._world.head
        body = wire.opened(
            "TxInvalid",
            {"headId": head.head_id, "validationError": {"reason": failure.reason}},
            {"utxo": wire.utxo_text(head.local), "transaction": arrival.tx.envelope()},
        )
        note = ("TxInvalid", (arrival.tx.id, failure.reason))
        self._world.emit_heard(body, parties=arrival.undecided, note=note)

    def _retry(self, arrival: _Arrival) -> None:
        # It has travelled already: it is looked at again wherever its sender is now.
        self._retrying.remove(arrival)
        self._inbox.append(arrival)
        self._flush()

    def _seen(self, request: Request) -> None:
        if self._world.head.in_flight is request:
            request.seen = True
            # Signatures travel one hop too.
            self._world.scheduler.later(self._world.settings.hop_s, self.sign)

    def _sign_later(self, request: Request, index: int, delay: float) -> None:
        party = self._world.parties[index]

        def signed() -> None:
            if self._world.head.in_flight is request and self._signs(party, request):
                request.signatures[index] = party.hydra.sign(request.message)
                if len(request.signatures) == len(self._world.parties) and self._world.quorum():
                    self._confirm()

        self._world.scheduler.later(delay, signed)

    def _confirm(self) -> None:
        world, head = self._world, self._world.head
        with world.unit():
            before, commit_before, was_final = head.snapshot, head.commit, head.finalized
            request = head.confirm()
            old = before | commit_before if was_final else before
            if was_final:
                world.store.change_utxo("snapshot", (), commit_before)
            spent = [txin for txin in old if txin not in request.utxo]
            produced = {txin: output for txin, output in request.utxo.items() if txin not in old}
            world.store.change_utxo("snapshot", spent, produced)
            world.store.change_utxo("commit", commit_before, request.commit)
            world.store.drop_pending(request.txs)
            world.nodes.settle([tx.id for tx in request.txs])
            head.last_event = world.emit_heard(
                snapshot_body(world, request),
                wire.utxo_text(request.utxo),
                unwritten=request.unwritten,
                note=("SnapshotConfirmed", (str(request.number), *(tx.id for tx in request.txs))),
            )
            if request.deposit is not None:
                self._approve(request)
            world.save_head()
        self.poke()

    def _approve(self, request: Request) -> None:
        world, head = self._world, self._world.head
        body = wire.opened("CommitApproved", {"headId": head.head_id}, {"utxoToCommit": wire.utxo_text(request.commit)})
        world.emit_heard(body)
        world.chain.posted.append(Posted("Increment", head.leader(request.number), request.deposit or ""))
        world.save_chain()

    def _tell_connections(self, before: int, connected: list[bool]) -> None:
        world = self._world
        for party in world.parties:
            now = world.connected(party.index)
            if now != connected[party.index]:
                tag = "NetworkConnected" if now else "NetworkDisconnected"
                world.emit(wire.opened(tag), parties=1 << party.index)
            if (before ^ world.cut) >> party.index & 1:
                tag = "PeerDisconnected" if world.cut >> party.index & 1 else "PeerConnected"
                peer = {"peer": {"hostname": "127.0.0.1", "port": party.port}}
                world.emit(wire.opened(tag, peer), parties=world.everyone & ~(1 << party.index))

    def _come_back(self, party: Party) -> None:
        """What was held back for a node; where the head has closed meanwhile it never hears it."""
        for body, utxo in self._world.store.take_backlog(party.index):
            self._world.emit(body, utxo, parties=1 << party.index)
        if self._world.head.status is Status.OPEN:
            self._world.head.behind.pop(party.name, None)

    def _restart(self, party: int) -> None:
        """Its clients are cut off, what it had not written is gone, and it must catch up with layer 1 first."""
        world, head, bit = self._world, self._world.head, 1 << party
        request = head.in_flight
        signed = request.txs if request is not None and party in request.signatures else ()
        world.nodes.lose(bit, head.pending.keys() - {tx.id for tx in signed})
        for arrival in [*self._inbox, *self._retrying]:
            arrival.undecided &= ~bit
        world.synced &= ~bit
        world.outlet.disconnect(party)

    def _rotate(self, party: int) -> None:
        world, request = self._world, self._world.head.in_flight
        if request is not None and request.seen:
            request.unwritten |= 1 << party
        body = wire.opened("EventLogRotated", {}, {"checkpoint": views.node_state(world, party)})
        world.rotated[world.parties[party].name] = world.emit(body, parties=1 << party)
        world.store.write("rotated", world.rotated)

    def _send_waiting(self) -> None:
        for party in [each for each in self._waiting if self._world.connected(each)]:
            for arrival in self._waiting.pop(party):
                self._enqueue(arrival)


def snapshot_body(world: World, request: Request) -> str:
    """The SnapshotConfirmed event, open where the UTxO goes."""
    head_id = world.head.head_id
    commit = wire.utxo_text(request.commit) if request.commit else "null"
    snapshot = (
        f'{{"accumulator":"{request.accumulator}","confirmed":{wire.transactions_text(request.txs)},'
        f'"headId":"{head_id}","number":{request.number},"utxoToCommit":{commit},"utxoToDecommit":null,'
        f'"version":{request.version}'
    )
    signatures = [request.signatures[index].hex() for index in world.head.order]
    raw = {"signatures": wire.encode({"multiSignature": signatures}), "snapshot": snapshot}
    return wire.opened("SnapshotConfirmed", {"headId": head_id}, raw)
