"""Deposits on layer 1 that no head has taken in: which there are, and how their money comes back.

A deposit that is not taken in until it expires is lost to the head; after its deadline the node pays it back to the
address it came from (docs: hydra-node, recover a deposit).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import WebSocketException

from fednode.errors import HeadError, HeadUnavailable
from fednode.hydra import messages
from fednode.hydra.dial import dial
from fednode.hydra.rest import Rest
from fednode.hydra.settings import HeadSettings, endpoints, trust
from fednode.hydra.verify import check_greetings
from fednode.hydra.wire import decode
from fednode.types import Lovelace, Member, PartyName, TxId

_HISTORY_WITHIN: Final = 600.0
_SEEN_WITHIN: Final = 30.0
_TAGS: Final = ('"CommitRecorded"', '"DepositActivated"', '"DepositExpired"', '"Greetings"')


@dataclass(frozen=True, slots=True)
class PendingDeposit:
    """One deposit that is on layer 1 and not in the head."""

    id: TxId
    party: PartyName | None = None
    """Whose funds address it came from; None for another address, or where the node's history does not say."""
    lovelace: Lovelace | None = None
    state: str = "unknown"
    """recorded, active (may be taken in), expired (never will be), unknown."""
    deadline: float | None = None
    """Unix time after which it can be recovered."""

    def recoverable(self, now: float) -> bool:
        return self.deadline is not None and now > self.deadline


async def pending_deposits(settings: HeadSettings) -> tuple[PendingDeposit, ...]:
    """Oldest first. HeadUnavailable where the node does not answer, HeadError where it is another party's."""
    http, websocket = endpoints(settings.url, allow_plain=settings.allow_plain)
    tls = trust(settings.url, settings.ca_file)
    rest = Rest(http, tls)
    try:
        pending = await rest.pending_deposits()
        try:
            async with asyncio.timeout(_HISTORY_WITHIN), dial(websocket, tls, history=True) as socket:
                return await _told(socket, pending, settings)
        except (OSError, WebSocketException, TimeoutError) as error:
            raise HeadUnavailable(f"{websocket}: {type(error).__name__} {error}".strip()) from None
    finally:
        await rest.aclose()


async def recover(settings: HeadSettings, deposit: str) -> tuple[PendingDeposit, tuple[str, ...]]:
    """Pay a pending deposit back. The layer-1 outputs that hold the money now, as far as the node names them.

    HeadError where it is not pending, or its deadline has not passed; HeadUnavailable where layer 1 is slow.
    """
    known = await pending_deposits(settings)
    found = next((each for each in known if each.id == deposit), None)
    if found is None:
        listed = ", ".join(each.id for each in known) or "none"
        raise HeadError(
            f"deposit {deposit[:64]} is not pending at the own hydra-node, expected one of: {listed}",
            hint="`fednode deposit list` shows them; what is in the head comes back when the head is closed",
        )
    if found.deadline is not None and not found.recoverable(time.time()):
        at = datetime.fromtimestamp(found.deadline).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
        raise HeadError(f"deposit {deposit} can be recovered from {at} on", hint="run the same command after that time")
    http, websocket = endpoints(settings.url, allow_plain=settings.allow_plain)
    tls = trust(settings.url, settings.ca_file)
    rest = Rest(http, tls)
    try:
        async with dial(websocket, tls, history=False) as socket:
            await rest.recover(deposit)
            return found, await _recovered(socket, deposit)
    except (OSError, WebSocketException) as error:
        raise HeadUnavailable(f"{websocket}: {type(error).__name__} {error}".strip()) from None
    finally:
        await rest.aclose()


async def _told(socket: ClientConnection, pending: Sequence[str], settings: HeadSettings) -> tuple[PendingDeposit, ...]:
    """What the history says about the pending deposits; most of it is skipped unread."""
    found = {TxId(each): PendingDeposit(TxId(each)) for each in pending}
    while True:
        frame = await socket.recv(decode=True)
        if not any(tag in frame for tag in _TAGS):
            continue
        match decode(frame).message:
            case messages.CommitRecorded(deposit=deposit, utxo=utxo, deadline=deadline) if deposit in found:
                lovelace = Lovelace(sum(coin.lovelace for coin in utxo.values()))
                party = _owner({coin.address for coin in utxo.values()}, settings.members)
                found[deposit] = PendingDeposit(deposit, party, lovelace, "recorded", deadline)
            case messages.DepositActivated(deposit=deposit) if deposit in found:
                found[deposit] = replace(found[deposit], state="active")
            case messages.DepositExpired(deposit=deposit) if deposit in found:
                found[deposit] = replace(found[deposit], state="expired")
            case messages.Greetings() as greetings:
                check_greetings(greetings, settings)
                return tuple(found.values())
            case _:
                pass


def _owner(addresses: set[str], members: Sequence[Member]) -> PartyName | None:
    return next((member.name for member in members if addresses == {member.address}), None)


async def _recovered(socket: ClientConnection, deposit: str) -> tuple[str, ...]:
    """The node told all clients where the money is before it answered us; without that message nothing is known."""
    try:
        async with asyncio.timeout(_SEEN_WITHIN):
            while True:
                message = decode(await socket.recv()).message
                if isinstance(message, messages.CommitRecovered) and message.deposit == deposit:
                    return tuple(message.utxo)
    except TimeoutError:
        return ()
