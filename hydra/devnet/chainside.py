"""What the nodes post to layer 1 and what they see in its blocks: init, close, fanout; deposits by `depositside`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Final

from fednode.hydra.devnet import views, wire
from fednode.hydra.devnet.deposits import DraftRefused
from fednode.hydra.devnet.depositside import DepositSide
from fednode.hydra.devnet.layer1 import Posted
from fednode.hydra.devnet.network import Network
from fednode.hydra.devnet.protocol import Head, Status
from fednode.hydra.devnet.txview import Output
from fednode.hydra.devnet.world import World

FANOUT_CHUNK: Final = 29
"""Outputs that one fanout transaction pays."""
_CLOSE_BOUND_S: Final = 200
_SPENT: Final = "ConwayUtxowFailure (UtxoFailure (BadInputsUTxO (fromList [])))"
"""The head's output on layer 1 was spent by another node's transaction."""
_SAVE_CLOCK_S: Final = 2.0


class ChainSide:
    """Layer 1 as the nodes use it. `tick` runs for ever once `start` was called."""

    def __init__(self, world: World, network: Network) -> None:
        self._world = world
        self._network = network
        self._deposits = DepositSide(world, network)
        self._last_block = world.scheduler.now()
        self._saved = self._last_block
        self._fanout_blocks = 0
        self._paying: Posted | None = None
        """The fanout whose chunks are being paid."""
        self._too_late = ""
        """What a node says whose fanout comes after the last one was paid."""

    def start(self) -> None:
        self._world.scheduler.later(self._world.settings.block_s, self._block)

    def init(self, party: int) -> None:
        """Post an Init; the first in a block wins."""
        self._post(Posted("Init", party))

    def close(self, party: int) -> None:
        """Post the last confirmed snapshot."""
        world, head = self._world, self._world.head
        if head.burned:
            # The head holds less ada than its transactions on layer 1 say: the script refuses.
            reason = f"H65 (ChangedHeadAdaOverhead): {head.burned} lovelace of fees burned"
            failed = {**views.failed_to_post(reason), "tag": "ScriptFailedInWallet", "redeemerPtr": "ConwaySpending 0"}
            world.tell(party, views.close_failed(world, failed))
            return
        if world.faults.take_lost_close():
            return
        stale = world.faults.take_stale_close() and head.number > 0
        self._post(Posted("Close", party, number=head.number - 1 if stale else head.number))

    def fanout(self, party: int) -> None:
        self._post(Posted("Fanout", party))

    def recover(self, party: int, txid: str) -> None:
        """Post the recovery of a deposit that `unrecoverable` does not name."""
        self._post(Posted("Recover", party, txid))

    def unrecoverable(self, txid: str) -> str | None:
        """Why a deposit cannot be recovered now; None where it can."""
        world = self._world
        deposit = world.chain.deposits.get(txid)
        if deposit is None or txid == world.head.deposit:
            return f"no pending deposit {txid}"
        if world.chain.now <= deposit.deadline:
            return f"the deadline of deposit {txid} is {wire.timestamp(deposit.deadline)}, it has not passed"
        return None

    def draft_deposit(self, party: int, commits: Mapping[str, Output]) -> bytes:
        """The draft of a deposit, signed with the party's fuel key. DraftRefused where impossible."""
        world = self._world
        missing = [txin for txin in commits if txin not in world.chain.utxo]
        wrong = [
            txin for txin, out in commits.items() if txin not in missing and not _same(out, world.chain.utxo[txin])
        ]
        if missing or wrong or not commits:
            reason = f"not on layer 1: {', '.join(missing)}" if missing else f"other content on layer 1: {wrong}"
            raise DraftRefused({"tag": "FailedToConstructDepositTx", "failureReason": reason if commits else "no UTxO"})
        actual = {txin: world.chain.utxo[txin] for txin in commits}
        return world.chain.draft_deposit(world.head.head_id, actual, world.parties[party].fuel)

    def submit(self, raw: bytes) -> str | None:
        """A transaction for layer 1; the reason where it is refused. On disk when this returns."""
        world = self._world
        with world.unit():
            failure, spent, produced = world.chain.submit(raw)
            if failure is not None:
                return failure.reason
            world.store.change_utxo("layer1", spent, produced)
            world.save_chain()
        return None

    def _post(self, posted: Posted) -> None:
        with self._world.unit():
            self._world.chain.posted.append(posted)
            self._world.save_chain()

    def _block(self) -> None:
        """One block: time goes on, and every node sees what is in it."""
        world = self._world
        now = world.scheduler.now()
        world.scheduler.later(world.settings.block_s, self._block)
        world.chain.advance(now - self._last_block)
        self._last_block = now
        posted, world.chain.posted = world.chain.posted, []
        with world.unit():
            self._sync()
            for each in posted:
                self._see(each)
            changed = self._deposits.by_time() or bool(posted)
            if world.head.status is Status.CLOSED and world.chain.now > world.head.deadline:
                world.head.status = Status.FANOUT_POSSIBLE
                world.emit_seen(wire.opened("ReadyToFanout", {"headId": world.head.head_id}))
                changed = True
            if changed:
                world.save_head()
            if changed or now - self._saved >= _SAVE_CLOCK_S:
                self._saved = now
                world.save_chain()
                self._report()
        if changed:
            self._network.poke()

    def _see(self, posted: Posted) -> None:
        handlers = {
            "Init": self._see_init,
            "Deposit": self._deposits.see_deposit,
            "Increment": self._deposits.see_increment,
            "Close": self._see_close,
            "Fanout": self._see_fanout,
            "Recover": self._deposits.see_recover,
        }
        handlers[posted.kind](posted)

    def _sync(self) -> None:
        world = self._world
        for party in world.parties:
            bit, unsynced = 1 << party.index, world.faults.is_unsynced(party.name)
            if bool(world.synced & bit) == unsynced:
                world.synced ^= bit
                fields = {"chainSlot": world.chain.slot, "chainTime": wire.timestamp(world.chain.now), "drift": 0}
                world.emit(wire.opened("NodeUnsynced" if unsynced else "NodeSynced", fields), parties=bit)

    def _report(self) -> None:
        """The noise that 2.3.0 makes with every block; here every two seconds and after every change."""
        world = self._world
        fields = {"chainSlot": world.chain.slot, "chainTime": wire.timestamp(world.chain.now), "drift": 0}
        for party in world.parties:
            status = "InSync" if world.synced >> party.index & 1 else "CatchingUp"
            world.tell(party.index, wire.message("SyncedStatusReport", {**fields, "synced": status}))

    def _see_init(self, posted: Posted) -> None:
        world = self._world
        if world.head.status is not Status.IDLE:
            return
        seed = f"{world.chain.fresh_id('seed')}#0"
        head_id = hashlib.blake2b(b"fednode devnet head/" + seed.encode(), digest_size=28).hexdigest()
        others = [party.index for party in world.parties if party.index != posted.party]
        world.head = Head(Status.OPEN, head_id, seed, (posted.party, *others))
        world.head.behind = {party.name: (0, 0) for party in world.parties if world.cut >> party.index & 1}
        world.store.clear_utxo("snapshot")
        world.store.clear_utxo("commit")
        parties = [{"vkey": party.hydra.vkey} for party in world.by_order()]
        world.emit_seen(wire.opened("HeadIsOpen", {"headId": head_id, "parties": parties}))

    def _see_close(self, posted: Posted) -> None:
        world, head = self._world, self._world.head
        if head.status is not Status.OPEN:
            if head.status is Status.CLOSED:
                world.tell(posted.party, views.close_failed(world, views.failed_to_post(_SPENT)))
            return
        period = world.settings.contestation_period_s
        head.status, head.in_flight, head.closed_number = Status.CLOSED, None, posted.number
        head.deadline = world.chain.now + min(period, _CLOSE_BOUND_S) + period
        world.emit_seen(wire.opened("HeadIsClosed", self._closed_fields()))
        if posted.number < head.number:
            # A node that holds a newer snapshot contests by itself, which moves the deadline.
            head.closed_number = head.number
            head.deadline += period
            world.emit_seen(wire.opened("HeadIsContested", self._closed_fields()))
        self._network.drop_pending()
        # Signatures that arrive after the close are dropped: who was offline never learns the last snapshots.
        world.store.drop_backlog()

    def _closed_fields(self) -> dict[str, object]:
        head = self._world.head
        return {
            "headId": head.head_id,
            "snapshotNumber": head.closed_number,
            "contestationDeadline": wire.timestamp(head.deadline),
        }

    def _see_fanout(self, posted: Posted) -> None:
        """Outputs are paid in chunks, one chunk a block."""
        world, head = self._world, self._world.head
        if head.status is not Status.FANOUT_POSSIBLE:
            if self._too_late:
                world.tell(posted.party, self._too_late)
            return
        known = head.behind.get(world.parties[posted.party].name, (head.closed_number, 0))[0]
        if known != head.closed_number:
            world.tell(posted.party, views.fanout_failed(world, {"tag": "FailedToConstructFanoutTx"}))
            return
        if self._paying is not None and self._paying is not posted:
            world.tell(posted.party, views.fanout_failed(world, views.failed_to_post(_SPENT)))
            return
        self._paying = posted
        outputs = head.base()
        self._fanout_blocks += 1
        if self._fanout_blocks < math.ceil(len(outputs) / FANOUT_CHUNK):
            world.chain.posted.append(posted)
            return
        self._fanout_blocks, self._paying = 0, None
        self._too_late = views.fanout_failed(world, views.failed_to_post(_SPENT))
        paid = world.chain.pay_out(world.chain.fresh_id("fanout"), outputs)
        world.store.change_utxo("layer1", (), paid)
        world.store.clear_utxo("snapshot")
        world.store.clear_utxo("commit")
        final = {"finalizedUTxO": wire.utxo_text(paid)}
        world.emit_seen(wire.opened("HeadIsFinalized", {"headId": head.head_id}, final))
        world.head = Head(last_event=0)


def _same(claimed: Output, actual: Output) -> bool:
    return (claimed.address, claimed.lovelace, claimed.assets) == (actual.address, actual.lovelace, actual.assets)
