"""What the nodes see of deposits in the blocks of layer 1: recorded, active, expired, incremented, recovered."""

from __future__ import annotations

from functools import partial

from fednode.hydra.devnet import views, wire
from fednode.hydra.devnet.deposits import Deposit
from fednode.hydra.devnet.layer1 import Posted
from fednode.hydra.devnet.network import Network
from fednode.hydra.devnet.protocol import Status
from fednode.hydra.devnet.world import World


class DepositSide:
    """The life of deposits. Its methods run inside the step of one block."""

    def __init__(self, world: World, network: Network) -> None:
        self._world = world
        self._network = network

    def see_deposit(self, posted: Posted) -> None:
        deposit = self._world.chain.deposits.get(posted.subject)
        if deposit is None or deposit.head_id != self._world.head.head_id:
            return
        fields = {
            "headId": deposit.head_id,
            "pendingDeposit": deposit.txid,
            "deadline": wire.timestamp(deposit.deadline),
        }
        self._world.emit_seen(wire.opened("CommitRecorded", fields, {"utxoToCommit": wire.utxo_text(deposit.utxo)}))

    def by_time(self) -> bool:
        """Activate and expire deposits by chain time; whether any changed."""
        world, period, changed = self._world, self._world.settings.deposit_period_s, False
        in_flight = world.head.in_flight.deposit if world.head.in_flight is not None else None
        for deposit in list(world.chain.deposits.values()):
            if deposit.txid in {in_flight, world.head.deposit} or deposit.head_id != world.head.head_id:
                continue
            expired = world.chain.now > deposit.deadline - period
            if deposit.status == "Inactive" and not expired and world.chain.now > deposit.created + period:
                self._change_deposit(deposit, "Active", "DepositActivated")
                changed = True
            elif deposit.status != "Expired" and expired:
                self._change_deposit(deposit, "Expired", "DepositExpired")
                changed = True
        return changed

    def _change_deposit(self, deposit: Deposit, status: str, tag: str) -> None:
        deposit.status = status
        fields = {
            "headId": deposit.head_id,
            "depositTxId": deposit.txid,
            "deadline": wire.timestamp(deposit.deadline),
            "chainTime": wire.timestamp(self._world.chain.now),
        }
        self._world.emit_seen(wire.opened(tag, fields))

    def see_increment(self, posted: Posted) -> None:
        world, head = self._world, self._world.head
        if head.status is not Status.OPEN or head.deposit != posted.subject:
            return
        del world.chain.deposits[posted.subject]
        head.finalize_deposit()
        txins = list(head.commit)
        for party in world.parties:
            world.nodes.hide(party.index, txins)
            world.when_seen(party.index, partial(self._reveal, party.index, txins))
        world.emit_seen(wire.opened("CommitFinalized", {"headId": head.head_id, "depositTxId": posted.subject}))
        # Every node posts the increment; all but one lose the race and say so.
        for party in world.parties:
            if party.index != posted.party:
                world.tell(party.index, views.increment_failed(world, posted.subject))

    def _reveal(self, party: int, txins: list[str]) -> None:
        """A node sees that a deposit is final: it takes what spends it, signs and asks again."""
        self._world.nodes.reveal(party, txins)
        self._world.scheduler.later(0, self._network.resume)

    def see_recover(self, posted: Posted) -> None:
        world = self._world
        deposit = world.chain.deposits.pop(posted.subject, None)
        if deposit is None:
            return
        paid = world.chain.pay_out(world.chain.fresh_id("recover"), deposit.utxo)
        world.store.change_utxo("layer1", (), paid)
        body = wire.opened(
            "CommitRecovered",
            {"headId": deposit.head_id, "recoveredTxId": deposit.txid},
            {"recoveredUTxO": wire.utxo_text(paid)},
        )
        world.emit_seen(body, note=("CommitRecovered", (deposit.txid,)))
