"""The Cardano side of a daemon: one party's own hydra-node behind the daemon's `Head` port."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from fednode.errors import FundsError, HeadError, HeadUnavailable
from fednode.hydra import sender
from fednode.hydra.client import Client
from fednode.hydra.deposit import funding_coin, sign_draft
from fednode.hydra.judge import Judge
from fednode.hydra.messages import Close, Fanout, Init
from fednode.hydra.rest import Rest
from fednode.hydra.session import Session
from fednode.hydra.settings import HeadSettings, endpoints, trust
from fednode.hydra.signals import build_signal
from fednode.hydra.stall import StallDetector
from fednode.reports import HeadReport
from fednode.types import HeadStatus, SignalContent, SignedTx, Transaction, TxId

__all__ = ["HeadSettings", "HydraHead"]

_SPENT: Final = ("BadInputs", "All inputs are spent")
"""What a layer-1 node says where inputs do not exist: never did, or were spent by this very transaction."""
_LAPSED: Final = "OutsideValidityInterval"
"""What it says of a transaction that came too late: drafts are valid for seconds."""
_LAYER_1_SECONDS: Final = 120.0
_LAYER_1_SECONDS_EMBEDDED: Final = 10.0
"""How long a transaction may be on its way into a block that the head's node sees."""


class HydraHead:
    """Satisfies `Head`. Commands other than `read_transaction` need `reports` to be consumed by another task."""

    def __init__(self, settings: HeadSettings) -> None:
        """ConfigError where url, own entry, funds key or an address do not fit. Connects only in `reports`."""
        http, self._websocket = endpoints(settings.url, allow_plain=settings.allow_plain)
        self._settings = settings
        self._me = settings.member
        self._judge = Judge(settings.members, settings.magic)
        self._tls = trust(settings.url, settings.ca_file)
        self._rest = Rest(http, self._tls)
        self._session: Session | None = None
        self._client: Client | None = None
        self._built: set[TxId] = set()

    async def reports(self, after: int) -> AsyncGenerator[HeadReport]:
        """Replay every snapshot > `after`, then SnapshotsSynced, then live; connects again for ever.

        HeadError where the node, its head or a lost snapshot makes going on wrong.
        """
        session = Session(self._settings, after)
        members = self._settings.members
        stalls = StallDetector(self._settings.me, {member.hydra_vkey: member.name for member in members})
        client = Client(self._websocket, self._rest, session, len(members), stalls, self._tls)
        self._session, self._client = session, client
        async with aclosing(client.run()) as run:
            async for report in run:
                yield report

    async def init(self) -> None:
        """Send Init where no head is open. HeadUnavailable while not connected or not in sync."""
        session, client = self._running()
        self._refuse_where_read_only()
        if not session.in_sync:
            raise HeadUnavailable("hydra-node is not in sync with layer 1 yet")
        if session.status is HeadStatus.IDLE:
            await client.send(Init())

    async def draft_deposit(self) -> SignedTx:
        """Deposit the whole funding output. FundsError where it is not set or the node refuses it."""
        self._refuse_where_read_only()
        lovelace = self._settings.deposit
        reference, coin = funding_coin(self._settings.funding, self._me.address, lovelace)
        try:
            draft = await self._rest.draft_commit(reference, coin)
        except FundsError as error:
            raise self._unfunded(error) from None
        return sign_draft(draft, reference, self._settings.funds_key)

    async def submit_deposit(self, deposit: SignedTx) -> None:
        """Put it on layer 1; again is harmless. FundsError where its inputs do not exist, HeadError where it came too
        late: it will never be on layer 1, and another one can be drafted."""
        try:
            await self._rest.submit(deposit.cbor)
        except FundsError as error:
            lapsed = _LAPSED in error.message
            if (lapsed or any(words in error.message for words in _SPENT)) and await self._is_on_layer_1(deposit.id):
                return
            if lapsed:
                raise HeadError(f"the deposit {deposit.id} came too late: {error.message[:600]}") from None
            raise self._unfunded(error) from None

    def _unfunded(self, error: FundsError) -> FundsError:
        """What the node says of the deposit, in the terms of the one who has to mend it."""
        settings = self._settings
        return FundsError(
            f"no deposit can be made from {settings.funding}: expected an unspent output of exactly {settings.deposit} "
            f"lovelace at {self._me.address} on layer 1, and fuel at the node; {error.message[:600]}",
            hint="pay exactly that sum to the address in one output, name it in fednode.toml: [head] funding",
        )

    def build_signal(self, content: SignalContent) -> SignedTx:
        """Sign a signal over all own outputs of the newest confirmed state.

        HeadUnavailable while that state is not known, FundsError where it holds too little.
        """
        self._refuse_where_read_only()
        session = self._session
        if session is None or not session.greeted or session.view.stale:
            raise HeadUnavailable("the head's confirmed state is not known yet")
        owned = session.view.owned(self._me.address)
        try:
            signal = build_signal(
                content, owned, me=self._me.name, members=self._settings.members, key=self._settings.funds_key
            )
        except FundsError as error:
            if not session.view.lags:
                raise
            raise HeadUnavailable(
                f"a deposit is final, but not yet in a snapshot of this node: {error.message}"
            ) from None
        self._built.add(signal.id)
        return signal

    def read_transaction(self, cbor: bytes) -> Transaction:
        """Judge transaction bytes from anywhere. Never raises for hostile bytes."""
        return self._judge.judge(cbor)

    async def deliver(self, signal: SignedTx) -> None:
        """Send, and send again by protocol.md section 4, until cancelled."""
        session, client = self._running()
        self._refuse_where_read_only()
        new = signal.id in self._built
        self._built.discard(signal.id)
        await sender.deliver(signal, session, client, self._rest, new=new)

    async def close(self) -> None:
        """Send Close while the head is open, and repeat with back-off, until cancelled."""
        await sender.repeat(Close(), HeadStatus.OPEN, *self._running())

    async def fanout(self) -> None:
        """Send Fanout once it is possible, and repeat with back-off, until cancelled."""
        await sender.repeat(Fanout(), HeadStatus.FANOUT_POSSIBLE, *self._running())

    async def aclose(self) -> None:
        """Release the HTTP connections; `reports` ends with its task."""
        await self._rest.aclose()

    def _refuse_where_read_only(self) -> None:
        if self._settings.read_only:
            raise HeadError("this connection only follows, closes and fans out: no Init, deposit or signal is sent")

    def _running(self) -> tuple[Session, Client]:
        if self._session is None or self._client is None:
            raise HeadUnavailable("not connected to the hydra-node yet")
        return self._session, self._client

    async def _is_on_layer_1(self, deposit: TxId) -> bool:
        """Whether the node, or a report so far, comes to know this deposit: then its inputs are spent by itself.

        In the head the deposited output has its layer-1 reference.
        """
        session, _ = self._running()
        end = time.monotonic() + (_LAYER_1_SECONDS_EMBEDDED if session.embedded else _LAYER_1_SECONDS)
        while deposit not in session.deposits and deposit not in await self._rest.pending_deposits():
            if self._settings.funding in (await self._rest.snapshot_utxo() or {}):
                return True
            if time.monotonic() >= end:
                return False
            await asyncio.sleep(0.5)
        return True
