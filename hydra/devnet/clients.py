"""The connected clients of every party, and those within the process who wait for an event."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from fednode.hydra.addresses import address_bytes
from fednode.hydra.devnet.wire import Event

QUEUE: Final = 20_000
"""Messages that may wait for one client; a slower one is disconnected and comes back with its history."""
_log = logging.getLogger("fednode.devnet")


class Client:
    """One websocket of a party."""

    def __init__(self, party: int, *, with_utxo: bool, address: str | None) -> None:
        """ConfigError where `address` is given and is none."""
        self.party = party
        self._with_utxo = with_utxo
        self._marks = None if address is None else (address, address_bytes(address).hex())
        self._queue: deque[str] = deque()
        self._ready = asyncio.Event()
        self.overrun = self.ended = False

    def render(self, event: Event) -> str | None:
        """The event as this client sees it; None where its address filter hides it."""
        if self._marks is not None and event.utxo is not None and not any(mark in event.body for mark in self._marks):
            return None
        return event.text(self.party, with_utxo=self._with_utxo)

    def push(self, text: str) -> None:
        if len(self._queue) >= QUEUE:
            if not self.overrun:
                _log.warning("a client of party %d is %d messages behind and is disconnected", self.party, QUEUE)
            self.overrun = True
            self._queue.clear()
        elif not self.overrun and not self.ended:
            self._queue.append(text)
        self._ready.set()

    def end(self) -> None:
        """The node goes down: nothing more comes."""
        self.ended = True
        self._queue.clear()
        self._ready.set()

    async def next(self) -> str | None:
        """The next message; None once the client has fallen too far behind, or the node is down."""
        while not self._queue:
            if self.overrun or self.ended:
                return None
            self._ready.clear()
            await self._ready.wait()
        return self._queue.popleft()


class Waiter:
    """Resolves with the first event at a party that `picks` accepts."""

    def __init__(self, party: int, picks: Callable[[Event], bool]) -> None:
        self.party = party
        self.picks = picks
        self.event: asyncio.Future[Event] = asyncio.get_running_loop().create_future()


class Clients:
    """All clients; satisfies world.Outlet."""

    def __init__(self, parties: int) -> None:
        self._clients: list[set[Client]] = [set() for _ in range(parties)]
        self._waiters: set[Waiter] = set()

    def add(self, client: Client) -> None:
        self._clients[client.party].add(client)

    def remove(self, client: Client) -> None:
        self._clients[client.party].discard(client)

    def publish(self, event: Event) -> None:
        for party, clients in enumerate(self._clients):
            if event.parties >> party & 1:
                for client in clients:
                    text = client.render(event)
                    if text is not None:
                        client.push(text)
        for waiter in [each for each in self._waiters if event.parties >> each.party & 1 and each.picks(event)]:
            if not waiter.event.done():
                waiter.event.set_result(event)

    def tell(self, party: int, text: str) -> None:
        for client in self._clients[party]:
            client.push(text)

    def disconnect(self, party: int) -> None:
        for client in self._clients[party]:
            client.end()

    async def wait(self, waiter: Waiter, start: Callable[[], object], timeout_s: float) -> Event | None:
        """Run `start`, then the first event that the waiter picks; None after `timeout_s`."""
        self._waiters.add(waiter)
        try:
            start()
            async with asyncio.timeout(timeout_s):
                return await waiter.event
        except TimeoutError:
            return None
        finally:
            self._waiters.discard(waiter)
