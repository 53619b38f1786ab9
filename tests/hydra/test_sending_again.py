"""Commands that must get through, over sockets: signals whose bytes a node lost, Close that vanishes, a stale close.

Against a scripted node and against the embedded head with its faults.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from fednode import reports as r
from fednode.hydra import delivery, sender
from fednode.hydra.devnet import Faults, load
from fednode.hydra.head import HydraHead
from fednode.hydra.rest import Rest
from fednode.types import SignedTx

from . import node as model
from .node import Node, funded
from .party import ADA, BO, CY
from .party import content as agreed
from .test_client import FakeServer, collect, is_snapshot, is_synced
from .test_client import serving as serving_fake
from .test_client_against_devnet import FUND, content, play
from .test_stall import embedded


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "PATIENCE", 0.05)
    monkeypatch.setattr(delivery, "PATIENCE_EMBEDDED", 0.2)
    monkeypatch.setattr(sender, "_REPEAT_FIRST", 0.05)
    monkeypatch.setattr(sender, "_REPEAT_FIRST_EMBEDDED", 0.2)


def refusal(node: Node, signal: SignedTx) -> str:
    return node.event(
        "TxInvalid",
        transaction={"cborHex": signal.cbor, "txId": signal.id},
        utxo={},
        validationError={"reason": "ConwayUtxowFailure (UtxoFailure (BadInputsUTxO (fromList [])))"},
    )


async def sent(server: FakeServer, count: int) -> list[str]:
    """The transactions of the first `count` inputs that the node got."""
    while len(server.received) < count:
        server.arrived.clear()
        await server.arrived.wait()
    return [message["transaction"]["cborHex"] for message in server.received]


async def test_where_no_snapshot_comes_all_that_may_be_lost_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "RESEND_ALL_EVERY", 0.3)
    node = funded()
    signals = {member.name: node.signal(member, agreed(0)) for member in (ADA, BO, CY)}
    own, peers, confirmed = (signals[member.name] for member in (ADA, BO, CY))
    node.seen = [own]
    server = FakeServer(node)
    async with serving_fake(server):
        head = HydraHead(model.settings(server.url))
        async with aclosing(head.reports(0)) as found:
            await collect(found, is_synced)
            for signal in (peers, confirmed):
                server.live.put_nowait(refusal(node, signal))
                await collect(found, lambda report: isinstance(report, r.TransactionRefused))
            # One of the two was only too early here, and is final.
            server.live.put_nowait(node.snapshot([confirmed]))
            await collect(found, is_snapshot(4))
            task = asyncio.create_task(head.deliver(own))
            assert await sent(server, 4) == [own.cbor, peers.cbor] * 2, "the same bytes, and no others"
            assert not task.done(), "only finality ends it"
            task.cancel()
        await head.aclose()


async def test_a_lost_answer_of_the_node_is_asked_for_again() -> None:
    """The node does not answer at first, then does not know the signal: it gets it."""
    node = funded()
    own = node.signal(ADA, agreed(0))
    plain, failures = node.get, [500, 503, 200, 200]

    def get(path: str) -> tuple[int, object]:
        status, body = plain(path)
        failed = failures.pop(0) if path == "/head" and server.received == [] and started and failures else 200
        return (status, body) if failed == 200 else (failed, "not now")

    node.get = get  # type: ignore[method-assign]
    started = False
    server = FakeServer(node)
    async with serving_fake(server):
        head = HydraHead(model.settings(server.url))
        async with aclosing(head.reports(0)) as found:
            await collect(found, is_synced)
            started = True
            task = asyncio.create_task(head.deliver(own))
            assert await sent(server, 1) == [own.cbor]
            assert failures == [200], "it was asked until it answered"
            task.cancel()
        await head.aclose()


@pytest.mark.process
async def test_a_body_that_a_restarted_node_lost_is_restored(tmp_path: Path) -> None:
    faults = Faults()
    async with embedded(tmp_path, faults) as running:
        faults.silence("cy")
        signal = running[0].head.build_signal(content(0))
        sending = asyncio.create_task(running[0].head.deliver(signal))
        rest = Rest(url(tmp_path, "ada"))
        while (await rest.last_seen()).tag != "SeenSnapshot":
            pass  # each question takes its time
        await rest.aclose()
        faults.restart("cy")
        faults.unsilence("cy")
        for daemon in running:
            await daemon.have(
                1, r.SnapshotConfirmed, lambda report: any(t.id == signal.id for t in report.transactions)
            )
        sending.cancel()
        await play(running[1:], 0)


@pytest.mark.process
async def test_lost_closes_are_repeated_and_a_stale_one_is_contested(tmp_path: Path) -> None:
    faults = Faults()
    async with embedded(tmp_path, faults) as running:
        await play(running, 0)
        await play(running, 1, last=True)
        number = max(running[0].numbers())
        faults.lose_closes(2)
        faults.close_stale(1)
        closing = asyncio.create_task(running[0].head.close())
        for daemon in running:
            stale, contested = await daemon.have(2, r.HeadClosed)
            assert (stale.snapshot, contested.snapshot) == (number - 1, number)
            assert contested.deadline > stale.deadline
        assert not closing.done()
        closing.cancel()
        fanout = asyncio.create_task(running[1].head.fanout())
        for daemon in running:
            (final,) = await daemon.have(1, r.HeadFinalized)
            assert final.verified
            assert {lovelace for _, lovelace in final.paid} == {FUND}
        fanout.cancel()


def url(folder: Path, name: str) -> str:
    return next(party.url for party in load(folder).parties if party.name == name)
