"""A hydra-node that lies: it stands between one daemon and its real node and changes what it likes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from .federation import Federation, free_ports

Json = dict[str, Any]
NORMAL = object()
"""What a hook returns to let the truth pass."""


class Cut(Exception):
    """Raised in a hook: the connection ends at once, in the middle of a frame."""


class Silence(Exception):
    """Raised in a hook: the connection stays, and nothing comes any more, not even an answer to a ping."""


@dataclass
class Liar:
    """`frame(text, number)` is called for every message to the daemon, `number` counts them over all connections.

    It returns what is sent instead: texts or bytes; or raises Cut or Silence. `answer(path, body)` changes the JSON of
    GET requests.
    """

    upstream: str
    frame: Callable[[str, int], Any] = lambda text, number: NORMAL
    answer: Callable[[str, Any], Any] = lambda path, body: body
    connections: int = 0
    frames: int = 0
    url: str = ""
    _over: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    @asynccontextmanager
    async def before(cls, federation: Federation, name: str = "alice") -> AsyncIterator[Liar]:
        """Stand in front of a party's node; its fednode.toml leads to the liar from now on."""
        site = federation.site(name)
        (port,) = free_ports(1)
        liar = cls(site.settings.head_url, url=f"http://127.0.0.1:{port}")
        path = site.home.settings
        path.write_text(path.read_text().replace(site.settings.head_url, liar.url))
        async with serve(
            liar._session,
            "127.0.0.1",
            port,
            process_request=liar._http,
            max_size=None,
            compression=None,
            ping_interval=None,
            close_timeout=0.1,
        ) as running:
            try:
                yield liar
            finally:
                liar._over.set()
                running.close(close_connections=True)

    async def _http(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.headers.get("Upgrade"):
            return None
        async with httpx.AsyncClient(base_url=self.upstream, trust_env=False) as client:
            found = await client.get(request.path)
        body = found.content.decode()
        if found.status_code == 200:
            changed = self.answer(request.path, json.loads(body))
            body = changed if isinstance(changed, str) else json.dumps(changed)
        return connection.respond(HTTPStatus(found.status_code), body)

    async def _session(self, connection: ServerConnection) -> None:
        self.connections += 1
        assert connection.request is not None
        url = self.upstream.replace("http", "ws", 1) + connection.request.path
        async with connect(url, max_size=None, compression=None, close_timeout=0.1) as node:
            ways = [asyncio.ensure_future(_pump(connection, node)), asyncio.ensure_future(self._down(node, connection))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)

    async def _down(self, node: Any, connection: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            async for text in node:
                self.frames += 1
                try:
                    changed = self.frame(text, self.frames)
                except Cut:
                    # A text frame of 1000 bytes of which 10 arrive.
                    connection.transport.write(b"\x81\x7e\x03\xe8" + b"x" * 10)
                    connection.transport.close()
                    return
                except Silence:
                    connection.transport.pause_reading()
                    await self._over.wait()
                    return
                for each in [text] if changed is NORMAL else changed:
                    await connection.send(each)


async def _pump(source: Any, target: Any) -> None:
    with suppress(ConnectionClosed):
        async for frame in source:
            await target.send(frame)
