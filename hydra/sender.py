"""Commands that must get through: a signal, Close, Fanout. Each runs until it is cancelled."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import Final

from fednode.errors import HeadError, HeadUnavailable
from fednode.hydra.cbor import CborError
from fednode.hydra.client import Client
from fednode.hydra.delivery import Action, Delivery, Observation
from fednode.hydra.messages import ClientInput, NewTx
from fednode.hydra.rest import Rest
from fednode.hydra.session import Session
from fednode.hydra.transactions import parse
from fednode.types import HeadStatus, SignedTx

_LOG = logging.getLogger("fednode.head")
_REPEAT_FIRST: Final = 20.0
_REPEAT_FIRST_EMBEDDED: Final = 2.0
_REPEAT_MOST: Final = 120.0


async def deliver(signal: SignedTx, session: Session, client: Client, rest: Rest, *, new: bool) -> None:
    """Send `signal`, and send again by protocol.md section 4.

    `new`: it was built by this process and never sent. Bytes of an earlier process may be on their way or confirmed
    already, so the node is asked first.
    """
    await client.until(HeadStatus.OPEN)
    delivery = Delivery(time.monotonic(), embedded=session.embedded)
    if new:
        await _send(client, [signal.cbor])
        await asyncio.sleep(delivery.patience)
    while True:
        await client.until(HeadStatus.OPEN)
        if signal.id not in session.confirmed:
            await _help(signal, delivery, session, client, rest)
        await asyncio.sleep(delivery.patience)


async def repeat(command: ClientInput, status: HeadStatus, session: Session, client: Client) -> None:
    """Send `command` while the head has `status`, with growing pauses: a node may lose it without a word."""
    pause = 0.0
    while True:
        await client.until(status)
        pause = pause or (_REPEAT_FIRST_EMBEDDED if session.embedded else _REPEAT_FIRST)
        with suppress(HeadUnavailable):
            await client.send(command)
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _REPEAT_MOST)


async def _help(signal: SignedTx, delivery: Delivery, session: Session, client: Client, rest: Rest) -> None:
    try:
        seen = await _observe(signal, rest)
    except HeadError as error:
        _LOG.warning("cannot see whether the signal %s is on its way: %s", signal.id, error.message)
        return
    now = time.monotonic()
    action = delivery.next(now, seen)
    if action is not Action.NOTHING:
        lost = [] if action is Action.SEND else lost_with_inputs(signal, session)
        _LOG.info("sending signal %s again, and %d lost transactions of peers", signal.id, len(lost))
        await _send(client, [signal.cbor, *lost])
    if delivery.offer_side_load(now):
        _LOG.warning(
            "signal %s is not final after %.0f s; the last snapshot request stands at: %s. The cure, if a node cannot "
            "sign: POST /snapshot of the last confirmed snapshot, taken from the own node, on the nodes of all parties",
            signal.id,
            delivery.age(now),
            seen.progress or "no request seen",
        )


async def _observe(signal: SignedTx, rest: Rest) -> Observation:
    state = await rest.head()
    present = signal.id in state.seen or state.tag != "Open"
    return Observation(present, str(await rest.last_seen()) if present else "")


def lost_with_inputs(signal: SignedTx, session: Session) -> list[str]:
    """Peers' refused transactions that the confirmed state could still take."""
    found: list[str] = []
    for identifier, cbor in session.lost.items():
        try:
            inputs = parse(cbor).inputs
        except CborError:
            continue
        if identifier != signal.id and inputs and all(reference in session.view.utxo for reference in inputs):
            found.append(cbor.hex())
    return found


async def _send(client: Client, transactions: list[str]) -> None:
    """A lost connection is no error here: the next look finds the transaction absent and sends it again."""
    try:
        for cbor in transactions:
            await client.send(NewTx(cbor))
    except HeadUnavailable as error:
        _LOG.info("not sent: %s", error.message)
