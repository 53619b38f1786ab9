"""The websocket shell around a session: connect, replay, stay connected, connect again."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Final

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, WebSocketException

from fednode.errors import HeadError, HeadUnavailable
from fednode.hydra.delivery import PATIENCE, PATIENCE_EMBEDDED
from fednode.hydra.dial import MAX_MESSAGE, dial
from fednode.hydra.messages import ClientInput
from fednode.hydra.rest import HeadState, Rest
from fednode.hydra.session import Session
from fednode.hydra.stall import StallDetector
from fednode.hydra.wire import encode
from fednode.reports import HeadReport, HeadUnreachable, SnapshotConfirmed
from fednode.types import HeadStatus

_LOG = logging.getLogger("fednode.head")
FUNDING_SNAPSHOTS: Final = 64
"""Up to so many snapshots, and eight for each party, deposits may still be on their way: the history is read whole."""
_TOO_BIG: Final = 1009
"""Websocket close code (RFC 6455) that our side sends for a message over the bound."""
_PING_EVERY: Final = 20.0
_PONG_WITHIN: Final = 40.0
_BACKOFF_FIRST, _BACKOFF_MOST = 0.2, 10.0
_CATCH_UP_WITHIN: Final = 30.0
_SILENT: Final = 120.0
"""Seconds without any message before Greetings after which the connection counts as lost."""
_LOOK_WITHIN: Final = 10.0
"""Seconds for a look at what hangs; meanwhile messages wait."""


class Client:
    """One party's connection to its node. `run` is consumed by one task; `send` and `until` may be called by others."""

    def __init__(
        self,
        websocket: str,
        rest: Rest,
        session: Session,
        parties: int,
        stalls: StallDetector,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`websocket`: ws(s)://host:port; `parties`: number of parties in the agreement."""
        self._url = websocket
        self._rest = rest
        self._session = session
        self._stalls = stalls
        self._tls = tls
        self._look_at = 0.0
        self._funding_snapshots = FUNDING_SNAPSHOTS + 8 * parties
        self._socket: ClientConnection | None = None
        self._changed = asyncio.Event()
        self._needs_history = False

    async def run(self) -> AsyncGenerator[HeadReport]:
        """Reports for ever. Raises HeadError where the node or its head is not the agreement's."""
        pause = _BACKOFF_FIRST
        while True:
            try:
                async with aclosing(self._connection()) as connection:
                    async for report in connection:
                        yield report
                        if self._session.greeted:
                            pause = _BACKOFF_FIRST
                if self._needs_history:
                    continue
                reason = "the node closed the connection"
            except HeadUnavailable as error:
                reason = error.message
            except ConnectionClosed as error:
                if error.sent and error.sent.code == _TOO_BIG:
                    raise HeadError(f"a message of {self._url} exceeds {MAX_MESSAGE} bytes") from None
                reason = f"{self._url}: connection lost: {error}"
            except (OSError, WebSocketException, TimeoutError) as error:
                reason = f"{self._url}: {type(error).__name__} {error}".strip()
            finally:
                self._socket = None
                self._session.disconnected()
                self._notify()
            yield HeadUnreachable(time.time(), reason)
            # Jitter, so that all daemons of one machine do not come back at once.
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, _BACKOFF_MOST)

    async def send(self, message: ClientInput) -> None:
        """Hand a client input to the node. HeadUnavailable where there is no connection."""
        socket = self._socket
        if socket is None or not self._session.greeted:
            raise HeadUnavailable(f"no connection to {self._url}")
        try:
            await socket.send(encode(message))
        except (WebSocketException, OSError) as error:
            raise HeadUnavailable(f"{self._url}: {type(error).__name__}") from None

    async def until(self, *statuses: HeadStatus) -> None:
        """Wait until the node is connected, in sync with layer 1, and the head has one of `statuses`."""
        session = self._session
        while not (session.greeted and session.in_sync and session.status in statuses):
            await self._changed.wait()

    async def _connection(self) -> AsyncGenerator[HeadReport]:
        history = await self._prepare()
        async with dial(self._url, self._tls, history=history, limit=MAX_MESSAGE) as socket:
            self._socket = socket
            keep_alive: asyncio.Task[None] | None = None
            try:
                while not ((self._session.behind and not history) or self._session.wants_history):
                    frame = await self._receive(socket)
                    for report in await (self._look() if frame is None else self._handle(frame)):
                        yield report
                    if self._session.greeted and keep_alive is None:
                        keep_alive = asyncio.create_task(_keep_alive(socket))
                self._needs_history = True
            finally:
                if keep_alive is not None:
                    keep_alive.cancel()

    async def _prepare(self) -> bool:
        """Ask for the head's state, and decide whether the history must be replayed.

        It need not where the journal lacks at most the node's last snapshot, which GET /snapshot returns whole; but
        the events of the funding phase, of a closed head and of a finalised one come with the history only.
        """
        state = await self._rest.head()
        needed, self._needs_history = self._needs_history, False
        if not needed:
            needed = await self._lacks(state)
        self._session.connecting(state.head_id, history=needed)
        return needed

    async def _lacks(self, state: HeadState) -> bool:
        """Whether only the history brings what the journal lacks."""
        if (self._session.head_id or state.head_id) is None:
            return False
        if state.tag != "Open" or self._session.reported <= self._funding_snapshots:
            return True
        snapshot = await self._rest.snapshot()
        return snapshot is not None and snapshot.number > self._session.reported + 1

    async def _receive(self, socket: ClientConnection) -> str | bytes | None:
        """The next frame; None when it is time to look whether the head stands still."""
        if not self._session.behind:
            if not self._session.greeted:
                return await self._replayed(socket)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._look_at - time.monotonic())):
                    return await socket.recv()
            return None
        try:
            async with asyncio.timeout(_CATCH_UP_WITHIN):
                return await socket.recv()
        except TimeoutError:
            raise HeadError(
                f"hydra-node at {self._url} confirmed snapshots after {self._session.reported} that its history lacks",
                hint="was its log rotated? keep old-state/ of the node; the peers' buckets hold the missing signals",
            ) from None

    async def _replayed(self, socket: ClientConnection) -> str | bytes:
        """The next frame of the history. No ping can tell yet whether the other end is still there."""
        try:
            async with asyncio.timeout(_SILENT):
                return await socket.recv()
        except TimeoutError:
            raise HeadUnavailable(f"{self._url}: no message for {_SILENT:.0f} s before Greetings") from None

    async def _handle(self, frame: str | bytes) -> list[HeadReport]:
        session = self._session
        reports = session.receive(frame, time.time())
        if session.wants_snapshot:
            # The version after the snapshot: a deposit finalised between the two is then not missed.
            snapshot = await self._rest.snapshot()
            version = (await self._rest.head()).version
            reports += session.load(snapshot, version, time.time())
        self._notify()
        if any(isinstance(report, SnapshotConfirmed) for report in reports):
            self._look_at = time.monotonic() + self._patience / 2
            resumed = self._stalls.moved(time.time())
            reports += [resumed] if resumed else []
        return reports

    @property
    def _patience(self) -> float:
        """Seconds that a snapshot may take."""
        return PATIENCE_EMBEDDED if self._session.embedded else PATIENCE

    async def _look(self) -> list[HeadReport]:
        """Ask the node whether a snapshot hangs. What it cannot say now it says at the next look."""
        self._look_at = time.monotonic() + self._patience / 2
        if self._session.status is not HeadStatus.OPEN:
            return []
        try:
            async with asyncio.timeout(_LOOK_WITHIN):
                sighting = await self._rest.sighting()
        except (HeadError, TimeoutError) as error:
            _LOG.debug("cannot see whether the head stands still: %s", error)
            return []
        if sighting is None:
            return []
        found = self._stalls.look(time.monotonic(), time.time(), sighting, self._patience)
        return [found] if found else []

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


async def _keep_alive(socket: ClientConnection) -> None:
    """Close a connection whose other end is gone without a word."""
    with suppress(ConnectionClosed):
        while True:
            await asyncio.sleep(_PING_EVERY)
            pong = await socket.ping()
            try:
                async with asyncio.timeout(_PONG_WITHIN):
                    await pong
            except TimeoutError:
                _LOG.warning("hydra-node does not answer pings; connecting anew")
                await socket.close()
