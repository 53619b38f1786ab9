"""One party's head, from the frames of its node to reports. No I/O, no clock: frames and the time are arguments.

The node replays its history (where asked), then Greetings, then live messages; an event born during the replay comes
twice. Events have numbers with gaps, snapshots have none: a missing snapshot number is a loss (docs: hydra-node API).
"""

from __future__ import annotations

import logging
from typing import Final

from fednode import reports
from fednode.errors import HeadError
from fednode.hydra import advice, messages
from fednode.hydra.cbor import CborError
from fednode.hydra.judge import Judge
from fednode.hydra.payout import payout
from fednode.hydra.settings import HeadSettings
from fednode.hydra.skip import snapshot_number
from fednode.hydra.transactions import RawTransaction, parse
from fednode.hydra.utxo import Utxo
from fednode.hydra.verify import check_greetings, check_head, check_parties, status_of
from fednode.hydra.view import View
from fednode.hydra.wire import decode
from fednode.reports import HeadReport
from fednode.types import HeadId, HeadStatus, Lovelace, PartyName, TxId

_LOG = logging.getLogger("fednode.head")
_MAX_LOST: Final = 256
_ACTIVE: Final = frozenset({HeadStatus.OPEN, HeadStatus.CLOSED, HeadStatus.FANOUT_POSSIBLE})


class Session:
    """State over all connections of one process. `receive` and `load` return the reports that a frame gives rise to."""

    def __init__(self, settings: HeadSettings, after: int) -> None:
        """`after`: the last snapshot number that the journal holds; it and older ones are never reported."""
        self.view = View()
        self.status = HeadStatus.UNKNOWN
        self.in_sync: bool = False
        self.version = ""
        self.head_id: HeadId | None = settings.bound_head
        self.reported = after
        self.greeted: bool = False
        """True from Greetings to the end of a connection."""
        self.wants_snapshot: bool = False
        """True where the shell must fetch the node's last snapshot and call `load`."""
        self.wants_history: bool = False
        """True where the shell must connect again and have the whole history replayed."""
        self.confirmed: set[TxId] = set()
        """Ids in every snapshot seen, own and peers'."""
        self.lost: dict[TxId, bytes] = {}
        """Transactions that the node dropped as invalid and no snapshot holds."""
        self.deposits: dict[TxId, messages.CommitRecorded] = {}
        self._settings = settings
        self._judge = Judge(settings.members, settings.magic)
        self._parties = {member.address: member.name for member in settings.members}
        self._seq = -1
        self._target: int | None = None
        self._opened = self._finalised = False
        self._partial = self._skips = False

    @property
    def embedded(self) -> bool:
        """Whether the node calls itself the embedded head: nothing there takes long."""
        return "embedded" in self.version

    @property
    def behind(self) -> bool:
        """Whether the node has confirmed snapshots that no message of this connection has brought yet."""
        return self._target is not None

    def connecting(self, head_id: HeadId | None, *, history: bool = True) -> None:
        """A new connection, with or without history, to a node that is in head `head_id` now (None: idle)."""
        check_head(self.head_id, head_id)
        self.head_id = self.head_id or head_id
        self.greeted = self.wants_snapshot = self.wants_history = False
        # What is journalled needs no reading while there is a head: the node's last snapshot replaces it.
        self._skips = history and head_id is not None and self.reported > 0
        self._partial = not history
        if history and self.view.stale:
            self.view = View()
        # A killed node may have lost its last events and give their numbers to others.
        self._seq = -1
        self._target = None

    def disconnected(self) -> None:
        self.greeted = self.in_sync = False

    def receive(self, frame: str | bytes, now: float) -> list[HeadReport]:
        """Reports of one frame. HeadError where the node or its head is not the agreement's, or a snapshot is lost."""
        if self._skips and not self.greeted and self._is_journalled(frame):
            return []
        received = decode(frame)
        message = received.message
        if received.seq is not None:
            # Snapshots have numbers of their own, without gaps: no mistake in `seq` may make one vanish.
            if received.seq <= self._seq and not isinstance(message, messages.SnapshotConfirmed):
                return []
            self._seq = max(self._seq, received.seq)
        match message:
            case messages.Greetings():
                return self._greet(message, now)
            case messages.HeadIsOpen():
                return self._open(message, now)
            case messages.NodeSynced(in_sync=in_sync):
                return self._sync_state(in_sync, now) if self.greeted else []
            case messages.Refusal() | messages.IgnoredHeadInitializing():
                advice.note(message)
                return []
            case messages.Unknown():
                return []
            case (
                messages.NetworkVersionMismatch()
                | messages.NetworkClusterIDMismatch()
                | messages.PeerState()
                | messages.NetworkState()
                | messages.EventLogRotated()
                | messages.Decommit()
            ):
                if self.greeted:
                    advice.note(message)
                return []
            case messages.SnapshotConfirmed(snapshot=snapshot):
                return self._snapshot(snapshot, now) if snapshot.head_id == self.head_id else []
            case _:
                return self._in_head(message, received.at or now, now) if message.head_id == self.head_id else []

    def load(self, snapshot: messages.Snapshot | None, head_version: int, now: float) -> list[HeadReport]:
        """The node's last confirmed snapshot (None before the first), with the head's version, read after it."""
        self.wants_snapshot = False
        if not self.view.load(snapshot, head_version):
            _LOG.warning("the node's snapshot %d differs from the state folded so far", self.view.number)
        if snapshot is None and self.reported and self._partial:
            # The head was finalised just now, and the state that it ended with is in the history alone.
            self.view.stale = self.wants_history = True
            return []
        number = snapshot.number if snapshot else 0
        result: list[HeadReport] = []
        if snapshot and number == self.reported + 1:
            # No later message may bring it: it was confirmed before we connected, or was side-loaded.
            result += self._snapshot(snapshot, now)
        if number < self.reported:
            _LOG.warning("hydra-node is at snapshot %d, %d is journalled: it is catching up", number, self.reported)
        self._target = number
        return result + self._reached(now)

    def _is_journalled(self, frame: str | bytes) -> bool:
        """Whether it is a snapshot that was reported already. The view then waits for `load`."""
        number = snapshot_number(frame)
        if number is None or number > self.reported:
            return False
        if number > self.view.number:
            self.view.stale = self._partial = True
        return True

    def _greet(self, message: messages.Greetings, now: float) -> list[HeadReport]:
        check_greetings(message, self._settings)
        check_head(self.head_id, message.head_id)
        self.head_id = self.head_id or message.head_id
        self.version, self.in_sync, self.greeted = message.version, message.in_sync, True
        self.status = status_of(message)
        if self.status is HeadStatus.IDLE and self._finalised:
            self.status = HeadStatus.FINALIZED
        result = self._sync_state(message.in_sync, now)
        if self.status in _ACTIVE and self.head_id and not self._opened:
            self._opened = True
            result.append(reports.HeadOpened(now, self.head_id))
        if self.status is HeadStatus.FANOUT_POSSIBLE:
            result.append(reports.FanoutPossible(now))
        self.wants_snapshot = self.status in _ACTIVE
        if not self.wants_snapshot:
            result.append(reports.SnapshotsSynced(now, self.reported))
        return result

    def _sync_state(self, in_sync: bool, now: float) -> list[HeadReport]:
        self.in_sync = in_sync
        return [reports.HeadConnected(now, self.status, self.head_id, in_sync, self.version)]

    def _open(self, message: messages.HeadIsOpen, now: float) -> list[HeadReport]:
        """A head is adopted only live: the history may hold heads of earlier runs."""
        if message.head_id != (self.head_id or (message.head_id if self.greeted else None)):
            return []
        check_parties(message.parties, self._settings.members)
        self.head_id, self._opened = message.head_id, True
        self._become(HeadStatus.OPEN)
        return [reports.HeadOpened(now, message.head_id)]

    def _become(self, status: HeadStatus) -> None:
        """Live messages change the status; the history cannot, Greetings says how it ended."""
        if self.greeted:
            self.status = status

    def _in_head(self, message: messages.HeadMessage, at: float, now: float) -> list[HeadReport]:
        match message:
            case messages.CommitRecorded(deposit=deposit, deadline=deadline):
                self.deposits[deposit] = message
                party, lovelace = self._owner(message.utxo)
                return [reports.DepositRecorded(now, deposit, party, lovelace, deadline)]
            case messages.CommitFinalized(deposit=deposit):
                return self._deposit_finalised(deposit, at)
            case messages.DepositExpired(deposit=deposit):
                return [reports.DepositFailed(now, deposit, "it expired before the head took it in")]
            case messages.CommitRecovered(deposit=deposit):
                return [reports.DepositFailed(now, deposit, "it was recovered on layer 1")]
            case messages.TxInvalid():
                return self._invalid(message, now)
            case messages.SnapshotSideLoaded():
                self.wants_snapshot = self.greeted
                return []
            case messages.HeadIsClosed(number=number, deadline=deadline):
                self._become(HeadStatus.CLOSED)
                return [reports.HeadClosed(now, number, deadline)]
            case messages.ReadyToFanout():
                self._become(HeadStatus.FANOUT_POSSIBLE)
                return [reports.FanoutPossible(now)]
            case messages.HeadIsFinalized(utxo=utxo):
                self.wants_history = self.view.stale and self._partial
                if self.wants_history:
                    return []
                self._finalised = True
                self._become(HeadStatus.FINALIZED)
                return [payout(now, self._settings.members, utxo, self.view)]
            case messages.TxValid() | messages.DepositActivated() | messages.CommitApproved():
                return []

    def _deposit_finalised(self, deposit: TxId, at: float) -> list[HeadReport]:
        recorded = self.deposits.get(deposit)
        utxo = recorded.utxo if recorded else self.view.pending or {}
        party, lovelace = self._owner(utxo)
        self.view.finalise(recorded.utxo if recorded else None)
        self._refresh_if_stale()
        return [reports.DepositFinalized(at, deposit, party, lovelace)]

    def _owner(self, utxo: Utxo) -> tuple[PartyName | None, Lovelace]:
        addresses = {coin.address for coin in utxo.values()}
        party = self._parties.get(addresses.pop()) if len(addresses) == 1 else None
        return party, Lovelace(sum(coin.lovelace for coin in utxo.values()))

    def _invalid(self, message: messages.TxInvalid, now: float) -> list[HeadReport]:
        """A replayed refusal says nothing: what it refused may have been sent again and confirmed since."""
        try:
            transaction = TxId(parse(message.cbor).id)
        except CborError:
            return []
        if not self.greeted or transaction in self.confirmed:
            return []
        if len(self.lost) < _MAX_LOST:
            self.lost[transaction] = message.cbor
        return [reports.TransactionRefused(now, transaction, message.reason)]

    def _snapshot(self, snapshot: messages.Snapshot, now: float) -> list[HeadReport]:
        raws = [_parsed(cbor) for cbor in snapshot.confirmed]
        self.view.fold(snapshot, raws)
        self._refresh_if_stale()
        for raw in filter(None, raws):
            self.confirmed.add(TxId(raw.id))
            self.lost.pop(TxId(raw.id), None)
        if snapshot.number <= self.reported:
            return []
        if snapshot.number > self.reported + 1:
            raise _lost_snapshots(self.reported + 1, snapshot.number - 1)
        self.reported = snapshot.number
        judged = tuple(
            self._judge.judge_raw(raw, cbor) if raw else self._judge.judge(cbor)
            for raw, cbor in zip(raws, snapshot.confirmed, strict=True)
        )
        return [reports.SnapshotConfirmed(now, snapshot.number, judged), *self._reached(now)]

    def _refresh_if_stale(self) -> None:
        if self.greeted and self.view.stale:
            self.wants_snapshot = True

    def _reached(self, now: float) -> list[HeadReport]:
        if self._target is None or self.reported < self._target:
            return []
        self._target = None
        return [reports.SnapshotsSynced(now, self.reported)]


def _parsed(cbor: bytes) -> RawTransaction | None:
    try:
        return parse(cbor)
    except CborError:
        return None


def _lost_snapshots(first: int, last: int) -> HeadError:
    which = f"snapshot {first}" if first == last else f"snapshots {first} to {last}"
    return HeadError(
        f"hydra-node no longer has {which}: its history was rotated, or it was side-loaded past them",
        hint="the peers' buckets hold the missing signals; keep old-state/ of the node and do not rotate its log",
    )
