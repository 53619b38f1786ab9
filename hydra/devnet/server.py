"""The sockets: one uvicorn server per party on loopback, all in one event loop, over one world."""

from __future__ import annotations

import asyncio
import logging
import socket
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, cast

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from fednode.durable import make_folders
from fednode.errors import ConfigError, JournalError
from fednode.hydra.devnet import views, wire
from fednode.hydra.devnet.chainside import ChainSide
from fednode.hydra.devnet.clients import Client, Clients
from fednode.hydra.devnet.commands import Commands
from fednode.hydra.devnet.faults import Faults
from fednode.hydra.devnet.http import Endpoints
from fednode.hydra.devnet.network import Network
from fednode.hydra.devnet.settings import DevnetSettings
from fednode.hydra.devnet.store import Store
from fednode.hydra.devnet.world import World

_PAGE: Final = 64
"""Events of the history that are read from disk at a time."""
_METHODS: Final = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_log = logging.getLogger("fednode.devnet")


class _Connection(WebSocketsSansIOProtocol):
    """uvicorn's websocket, with its transport where the application finds it: `scope["state"]["transport"]`."""

    async def run_asgi(self) -> None:
        self.scope.setdefault("state", {})["transport"] = self.transport
        await super().run_asgi()


class LoopScheduler:
    """Real time. What a callback raises ends the serving: memory and disk might differ."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[None] = self._loop.create_future()

    def now(self) -> float:
        return self._loop.time()

    def wall(self) -> float:
        return time.time()

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        self._loop.call_later(seconds, partial(self._call, callback))

    def fail(self, error: BaseException) -> None:
        """Let `serve` raise this error."""
        if not self.failed.done():
            self.failed.set_exception(error)

    def _call(self, callback: Callable[[], None]) -> None:
        if self.failed.done():
            return
        try:
            callback()
        except Exception as error:
            self.fail(error)


class Node:
    """One simulated hydra-node's API."""

    def __init__(
        self, party: int, world: World, clients: Clients, commands: Commands, http: Endpoints, scheduler: LoopScheduler
    ) -> None:
        self._party = party
        self._world = world
        self._clients = clients
        self._commands = commands
        self._http = http
        self._scheduler = scheduler

    def application(self) -> Starlette:
        """Websockets on any path, HTTP by the table of Endpoints."""
        return Starlette(
            routes=[
                Route("/{path:path}", self._request, methods=_METHODS),
                WebSocketRoute("/{path:path}", self._websocket),
            ]
        )

    async def _request(self, request: Request) -> Response:
        try:
            return await self._http(request)
        except Exception as error:
            self._scheduler.fail(error)
            raise

    async def _websocket(self, socket: WebSocket) -> None:
        query = socket.query_params
        with_utxo = query.get("snapshot-utxo") != "no"
        try:
            client = Client(self._party, with_utxo=with_utxo, address=query.get("address"))
        except ConfigError:
            await socket.close()
            return
        await socket.accept()
        transport = cast("asyncio.Transport", socket.scope["state"]["transport"])
        self._clients.add(client)
        try:
            # A node reads nothing before it has sent its whole history: no input, no ping.
            transport.pause_reading()
            await self._greet(socket, client, history=query.get("history") == "yes", with_utxo=with_utxo)
            transport.resume_reading()
            await self._converse(socket, client)
        except (WebSocketDisconnect, asyncio.CancelledError):
            # Cancelled only when serving ends and this client does not answer the close: the task is over either way.
            pass
        finally:
            self._clients.remove(client)

    async def _greet(self, socket: WebSocket, client: Client, *, history: bool, with_utxo: bool) -> None:
        """History, then Greetings. What happens meanwhile is in both, history and live, as at a node."""
        faults, name = self._world.faults, self._world.parties[self._party].name
        after = self._world.rotated.get(name, 1) - 1
        last: deque[str] = deque(maxlen=faults.repeats(name))
        while history:
            page = self._world.store.history(self._party, after, _PAGE)
            for event in page:
                text = client.render(event)
                if text is not None:
                    await socket.send_text(text)
                    last.append(text)
            await faults.replay_finished(name)
            if not page:
                break
            after = page[-1].id
        await socket.send_text(views.greetings(self._world, self._party, with_utxo=with_utxo))
        for text in last:
            await socket.send_text(text)

    async def _converse(self, socket: WebSocket, client: Client) -> None:
        """Live messages out, inputs in, until either side ends."""
        writer = asyncio.create_task(self._write(socket, client))
        reader = asyncio.create_task(self._read(socket))
        try:
            done, _ = await asyncio.wait({writer, reader}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (writer, reader):
                task.cancel()
            await asyncio.gather(writer, reader, return_exceptions=True)

    async def _write(self, socket: WebSocket, client: Client) -> None:
        while (text := await client.next()) is not None:
            await socket.send_text(text)
        await socket.close(code=1012 if client.ended else 1013)

    async def _read(self, socket: WebSocket) -> None:
        while True:
            frame = await socket.receive()
            if frame["type"] == "websocket.disconnect":
                return
            data: str | bytes = frame.get("text") or frame.get("bytes") or ""
            try:
                answer = self._commands.handle(self._party, data)
            except Exception as error:
                self._scheduler.fail(error)
                raise
            if answer is not None:
                await socket.send_text(answer)


async def serve(
    settings: DevnetSettings, *, ready: Callable[[], None] | None = None, faults: Faults | None = None
) -> None:
    """Serve every party's API until cancelled; `ready` is called once all ports answer.

    ConfigError where a port is in use or another process serves the same folder, KeyFileError where a key is missing,
    JournalError where the state cannot be written.
    """
    sockets = _bind(settings)
    scheduler = LoopScheduler()
    servers: list[uvicorn.Server] = []
    store: Store | None = None
    try:
        make_folders(settings.state)
        store = Store(settings.state / "state.sqlite3")
        clients = Clients(len(settings.parties))
        world = World(settings, store, scheduler, clients, faults or Faults())
        network = Network(world)
        chain = ChainSide(world, network)
        commands = Commands(world, network, chain)
        for party in world.parties:
            http = Endpoints(party.index, world, network, chain, commands, clients)
            node = Node(party.index, world, clients, commands, http, scheduler)
            server = _server(node.application())
            await server.startup(sockets=[sockets[party.index]])
            servers.append(server)
            _log.info("embedded head (%s): party %s at %s", wire.VERSION, party.name, settings.parties[party.index].url)
        _start(world, network, chain)
        if ready is not None:
            ready()
        await scheduler.failed
    except sqlite3.Error as error:
        raise JournalError(
            f"{settings.state / 'state.sqlite3'} cannot be read or written: {error}",
            hint="make room on the disk and start again: nothing that was said is lost",
        ) from error
    finally:
        scheduler.failed.cancel()
        await asyncio.gather(*(server.shutdown() for server in servers), return_exceptions=True)
        for each in sockets:
            each.close()
        if store is not None:
            store.close()


def _start(world: World, network: Network, chain: ChainSide) -> None:
    """What every node says when it comes up; then time begins."""
    with world.unit():
        for party in world.parties:
            bit = 1 << party.index
            world.emit(wire.opened("NetworkConnected"), parties=bit)
            for other in world.parties:
                if other.index != party.index:
                    peer = {"peer": {"hostname": "127.0.0.1", "port": other.port}}
                    world.emit(wire.opened("PeerConnected", peer), parties=bit)
    world.faults.bind([party.name for party in world.parties], network.faults_changed)
    network.faults_changed()
    chain.start()


def _bind(settings: DevnetSettings) -> list[socket.socket]:
    """One listening socket per party. ConfigError names the port that is in use."""
    sockets: list[socket.socket] = []
    for party in settings.parties:
        # With the protocol named, asyncio turns Nagle's algorithm off; without, every answer may wait for 40 ms.
        each = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        sockets.append(each)
        try:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind(("127.0.0.1", party.port))
            each.listen(128)
        except OSError as error:
            for opened in sockets:
                opened.close()
            raise ConfigError(
                f"port {party.port} of party {party.name} on 127.0.0.1 cannot be used: {error.strerror}",
                hint=f"stop what listens there, or change the port in {settings.state / 'settings.json'}",
            ) from None
    return sockets


def _server(application: Starlette) -> uvicorn.Server:
    """Not `uvicorn.Server.serve`: that takes over the signals and wakes ten times a second, for every port."""
    config = uvicorn.Config(
        application,
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws=_Connection,
        ws_per_message_deflate=False,
        ws_ping_interval=30.0,
        ws_ping_timeout=60.0,
        timeout_graceful_shutdown=1,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    return server
