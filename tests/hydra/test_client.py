from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from fednode import reports
from fednode.errors import ConfigError, FundsError, HeadError, HeadUnavailable
from fednode.hydra import client as client_module
from fednode.hydra.head import HydraHead
from fednode.types import TxKind

from . import node as model
from .node import Node, funded
from .party import ADA, BO, content

CLOSE = "close the connection"
Script = Callable[[bool], list[str]]


class FakeServer:
    """Serves a `Node` over one port. Per connection it sends what `script(history)` gives, then `live` frames."""

    def __init__(self, node: Node, script: Script | None = None) -> None:
        self.node = node
        self.script = script or self._default
        self.queries: list[dict[str, str]] = []
        self.received: list[dict[str, Any]] = []
        self.arrived = asyncio.Event()
        self.live: asyncio.Queue[str] = asyncio.Queue()
        self.url = ""

    def _default(self, history: bool) -> list[str]:
        return [*(self.node.history() if history else []), self.node.greetings()]

    def http(self, connection: ServerConnection, request: Request) -> Response | None:
        path = urlsplit(request.path).path
        if path == "/":
            return None
        status, body = self.node.get(path)
        return connection.respond(HTTPStatus(status), json.dumps(body))

    async def session(self, connection: ServerConnection) -> None:
        query = {key: values[0] for key, values in parse_qs(urlsplit(connection.request.path).query).items()}  # type: ignore[union-attr]
        self.queries.append(query)
        for frame in self.script(query["history"] == "yes"):
            await connection.send(frame)
        reader = asyncio.create_task(self._read(connection))
        while True:
            frame = asyncio.create_task(self.live.get())
            await asyncio.wait([reader, frame], return_when=asyncio.FIRST_COMPLETED)
            if reader.done() or frame.result() == CLOSE:
                frame.cancel()
                reader.cancel()
                return
            await connection.send(frame.result())

    async def _read(self, connection: ServerConnection) -> None:
        async for frame in connection:
            self.received.append(json.loads(frame))
            self.arrived.set()


@asynccontextmanager
async def serving(server: FakeServer, port: int = 0) -> AsyncIterator[Server]:
    async with serve(server.session, "127.0.0.1", port, process_request=server.http) as running:
        server.url = f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}"
        yield running
        await asyncio.sleep(0)
        running.close(close_connections=True)


async def collect(found: AsyncIterator[Any], until: Callable[[Any], bool]) -> list[Any]:
    result: list[Any] = []
    async for report in found:
        result.append(report)
        if until(report):
            return result
    raise AssertionError("the reports ended")


def is_synced(report: Any) -> bool:
    return isinstance(report, reports.SnapshotsSynced)


def is_snapshot(number: int) -> Callable[[Any], bool]:
    return lambda report: isinstance(report, reports.SnapshotConfirmed) and report.number == number


def numbers(found: list[Any]) -> list[int]:
    return [report.number for report in found if isinstance(report, reports.SnapshotConfirmed)]


async def test_replay_live_reconnect_dedupe() -> None:
    node = funded()
    node.round(0)
    server = FakeServer(node)
    async with serving(server):
        head = HydraHead(model.settings(server.url))
        async with aclosing(head.reports(0)) as found:
            assert numbers(await collect(found, is_synced)) == [1, 2, 3, 4]
            frame = node.round(1)
            for _ in range(2):
                server.live.put_nowait(frame)
            assert numbers(await collect(found, is_snapshot(5))) == [5]
            node.round(2)
            server.live.put_nowait(CLOSE)
            again = await collect(found, is_synced)
            assert any(isinstance(report, reports.HeadUnreachable) for report in again)
            assert numbers(again) == [6]
            server.live.put_nowait(node.round(3))
            assert numbers(await collect(found, is_snapshot(7))) == [7]
        assert [query["snapshot-utxo"] for query in server.queries] == ["no", "no"]
        await head.aclose()


async def test_long_journal_needs_no_history_unless_behind() -> None:
    node = funded()
    for number in range(120):
        node.snapshot([node.signal(ADA, content(number, last=number > 0))])
    server = FakeServer(node)
    async with serving(server):
        for after, expected in ((123, []), (122, [123]), (120, [121, 122, 123])):
            head = HydraHead(model.settings(server.url))
            async with aclosing(head.reports(after)) as found:
                assert numbers(await collect(found, is_synced)) == expected
            await head.aclose()
    assert [query["history"] for query in server.queries] == ["no", "no", "yes"]


async def test_snapshots_confirmed_while_connecting_fetch_the_history() -> None:
    """History seemed unneeded, but two snapshots came between the look and the connection."""
    node = funded()
    for number in range(110):
        node.snapshot([node.signal(ADA, content(number, last=number > 0))])

    def script(history: bool) -> list[str]:
        if not history:
            node.round(0)
            node.round(1)
        return [*(node.history() if history else []), node.greetings()]

    server = FakeServer(node, script)
    async with serving(server):
        head = HydraHead(model.settings(server.url))
        async with aclosing(head.reports(113)) as found:
            assert numbers(await collect(found, is_synced)) == [114, 115]
        await head.aclose()
    assert [query["history"] for query in server.queries] == ["no", "yes"]


async def test_no_ping_before_greetings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that replays answers none: a client that insists on pongs would never get to the end."""
    monkeypatch.setattr(client_module, "_PING_EVERY", 0.01)
    node = funded()
    pinged: list[bool] = []
    first_ping = asyncio.Event()
    plain = ClientConnection.ping

    async def ping(connection: ClientConnection, *data: Any) -> Any:
        pinged.append(server.replayed)
        first_ping.set()
        return await plain(connection, *data)

    class Slow(FakeServer):
        replayed = False

        async def session(self, connection: ServerConnection) -> None:
            for frame in node.history():
                await connection.send(frame)
                await asyncio.sleep(0.05)  # five times the interval of the pings
            self.replayed = True
            await super().session(connection)

    monkeypatch.setattr(ClientConnection, "ping", ping)
    server = Slow(node, lambda _: [node.greetings()])
    async with serving(server):
        head = HydraHead(model.settings(server.url))
        async with aclosing(head.reports(0)) as found:
            assert numbers(await collect(found, is_synced)) == [1, 2, 3]
            reading = asyncio.create_task(anext(found))
            await first_ping.wait()
            reading.cancel()
            await asyncio.wait([reading])
        await head.aclose()
    assert all(pinged)
    assert len(server.queries) == 1


async def test_unreachable_then_there() -> None:
    node = funded()
    server = FakeServer(node)
    async with serving(server) as running:
        port = running.sockets[0].getsockname()[1]
    head = HydraHead(model.settings(f"ws://127.0.0.1:{port}"))
    async with aclosing(head.reports(0)) as found:
        first = await anext(found)
        assert isinstance(first, reports.HeadUnreachable)
        assert str(port) in first.reason
        async with serving(server, port):
            await collect(found, is_synced)
    await head.aclose()


async def test_cancelled_at_once() -> None:
    server = FakeServer(funded())
    async with serving(server):
        head = HydraHead(model.settings(server.url))
        synced = asyncio.Event()

        async def consume() -> None:
            async for report in head.reports(0):
                if is_synced(report):
                    synced.set()

        task = asyncio.create_task(consume())
        await synced.wait()
        task.cancel()
        async with asyncio.timeout(20):
            with pytest.raises(asyncio.CancelledError):
                await task
        await head.aclose()


async def test_wrong_node_ends_with_a_clear_error() -> None:
    server = FakeServer(Node(BO))
    async with serving(server):
        head = HydraHead(model.settings(server.url))
        with pytest.raises(HeadError, match="the agreement expects"):
            await collect(head.reports(0), is_synced)
        await head.aclose()
        head = HydraHead(model.settings(server.url, bound_head="bb" * 28))
        server.node.open()
        with pytest.raises(HeadError, match="this home is bound to head"):
            await collect(head.reports(0), is_synced)
        await head.aclose()


async def test_oversized_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_MESSAGE", 20_000)
    server = FakeServer(funded(), lambda _: ['"' + "x" * 30_000 + '"'])
    async with serving(server):
        head = HydraHead(model.settings(server.url))
        with pytest.raises(HeadError, match="exceeds 20000 bytes"):
            await collect(head.reports(0), is_synced)
        await head.aclose()


async def test_commands() -> None:
    node = Node(version="2.3.0-fednode-embedded")
    server = FakeServer(node)
    head = HydraHead(model.settings(server.url or "http://127.0.0.1:1", bound_head=None))
    with pytest.raises(HeadUnavailable):
        await head.init()
    with pytest.raises(HeadUnavailable):
        head.build_signal(content(1))
    async with serving(server):
        head = HydraHead(model.settings(server.url, bound_head=None))
        async with aclosing(head.reports(0)) as found:
            await collect(found, is_synced)
            await head.init()
            await server.arrived.wait()
            server.live.put_nowait(node.open())
            for frame in node.deposit(ADA, "01" * 32 + "#0"):
                server.live.put_nowait(frame)
            await collect(found, lambda report: isinstance(report, reports.DepositFinalized))
            await head.init()
            signal = head.build_signal(content(0))
            assert head.read_transaction(bytes.fromhex(signal.cbor)).kind == TxKind.SIGNAL
            server.arrived.clear()
            task = asyncio.create_task(head.deliver(signal))
            await server.arrived.wait()
            task.cancel()
            closing = asyncio.create_task(head.close())
            server.arrived.clear()
            await server.arrived.wait()
            closing.cancel()
            fanout = asyncio.create_task(head.fanout())
            server.live.put_nowait(node.event("ReadyToFanout"))
            await collect(found, lambda report: isinstance(report, reports.FanoutPossible))
            server.arrived.clear()
            await server.arrived.wait()
            fanout.cancel()
        await head.aclose()
    assert [message["tag"] for message in server.received] == ["Init", "NewTx", "Close", "Fanout"]
    assert server.received[1]["transaction"]["cborHex"] == signal.cbor


async def test_bytes_of_an_earlier_process_are_sent_only_when_absent() -> None:
    node = funded()
    known, unknown = node.signal(ADA, content(0)), node.signal(BO, content(0))
    node.seen = [known]
    server = FakeServer(node)
    async with serving(server):
        head = HydraHead(model.settings(server.url))
        async with aclosing(head.reports(0)) as found:
            await collect(found, is_synced)
            tasks = [asyncio.create_task(head.deliver(signal)) for signal in (known, unknown)]
            await server.arrived.wait()
            for task in tasks:
                task.cancel()
        await head.aclose()
    assert [message["transaction"]["cborHex"] for message in server.received] == [unknown.cbor]


async def test_funding_output_is_checked() -> None:
    for funding in ("", "xx#0", "00" * 32, "00" * 32 + "#x"):
        head = HydraHead(model.settings(funding=funding))
        with pytest.raises(FundsError, match="TXID#INDEX"):
            await head.draft_deposit()
        await head.aclose()
    with pytest.raises(ConfigError, match="plain text"):
        HydraHead(model.settings("http://10.0.0.1:4001"))
