"""A deposit that the head did not take in: listed, not given back too early, given back, deposited again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from fednode import reports as r
from fednode.errors import HeadError, HeadUnavailable
from fednode.hydra.devnet import DevnetSettings, Faults, create, serve
from fednode.hydra.head import HeadSettings, HydraHead
from fednode.hydra.recovery import PendingDeposit, pending_deposits, recover
from fednode.types import TxId

from . import node as model
from .node import Node, funded
from .party import ADA, BO
from .test_client import FakeServer
from .test_client import serving as serving_fake
from .test_client_against_devnet import FUND, NAMES, Daemon, head_settings


@asynccontextmanager
async def serving(devnet: DevnetSettings, faults: Faults) -> AsyncIterator[None]:
    ready = asyncio.Event()
    task = asyncio.create_task(serve(devnet, ready=ready.set, faults=faults))
    await ready.wait()
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


@asynccontextmanager
async def daemon_of(head: HydraHead) -> AsyncIterator[Daemon]:
    daemon = Daemon(head)
    task = asyncio.create_task(daemon.consume(0))
    try:
        yield daemon
    finally:
        task.cancel()
        await asyncio.wait({task})
        await head.aclose()


@pytest.mark.process
async def test_from_expiry_to_the_second_deposit(tmp_path: Path) -> None:
    devnet, faults = create(tmp_path, NAMES, fund=FUND, deposit_period_s=1), Faults()
    settings = head_settings(devnet, "ada")
    async with serving(devnet, faults):
        async with daemon_of(HydraHead(settings)) as ada:
            await ada.have(1, r.HeadConnected, lambda report: report.in_sync)
            await ada.head.init()
            await ada.have(1, r.HeadOpened)
            for name in NAMES[1:]:
                faults.take_offline(name)  # nobody signs what takes the deposit in, and nobody can ask for it
            faults.take_offline("ada")
            deposit = await ada.head.draft_deposit()
            await ada.head.submit_deposit(deposit)
            (recorded, *_) = await ada.have(1, r.DepositRecorded)
            (early, *_) = await pending_deposits(settings)
            assert (early.id, early.party, early.lovelace) == (deposit.id, "ada", FUND)
            assert early.deadline == recorded.deadline
            with pytest.raises(HeadError, match="can be recovered from") as caught:
                await recover(settings, deposit.id)
            assert caught.value.exit_status == 5
            await ada.have(1, r.DepositFailed)
            (expired, *_) = await pending_deposits(replace(settings, read_only=True))
            assert expired == replace(early, state="expired")
        outputs = await recovered(settings, deposit.id)
        assert len(outputs) == 1
        assert await pending_deposits(settings) == ()
        with pytest.raises(HeadError, match="is not pending at the own hydra-node"):
            await recover(settings, deposit.id)
        for name in NAMES:
            faults.bring_back(name)
        async with daemon_of(HydraHead(replace(settings, funding=outputs[0]))) as ada:
            await ada.have(1, r.HeadConnected, lambda report: report.in_sync)
            again = await ada.head.draft_deposit()
            await ada.head.submit_deposit(again)
            (final,) = await ada.have(1, r.DepositFinalized)
            assert (final.deposit, final.lovelace) == (again.id, FUND)


async def recovered(settings: HeadSettings, deposit: TxId) -> tuple[str, ...]:
    """Ask until the deadline has passed, by our clock and by layer 1's."""
    while True:
        try:
            found, outputs = await recover(settings, deposit)
        except HeadError as error:
            if "can be recovered from" not in error.message and "deadline" not in error.message:
                raise
            await asyncio.sleep(0.2)
        else:
            assert found.party == "ada"
            return outputs


def server_with(node: Node, pending: list[str]) -> FakeServer:
    plain = node.get
    node.get = lambda path: (200, pending) if path == "/commits" else plain(path)  # type: ignore[method-assign]
    return FakeServer(node)


async def test_what_the_history_says_and_what_it_does_not() -> None:
    node = funded()
    stranger = {"02" * 32 + "#0": {"address": "addr_test1stranger", "value": {"lovelace": 5}}}
    both = model.utxo_json({"03" * 32 + "#0": model.Coin(ADA.address, 7), "03" * 32 + "#1": model.Coin(BO.address, 8)})
    late = "2030-01-01T00:00:00Z"
    node.event("CommitRecorded", utxoToCommit=stranger, pendingDeposit="dd" * 32, deadline=late)
    node.event("DepositActivated", depositTxId="dd" * 32, deadline=late, chainTime=late)
    node.event("CommitRecorded", utxoToCommit=both, pendingDeposit="ee" * 32, deadline=late)
    async with serving_fake(server := server_with(node, ["dd" * 32, "ee" * 32, "ff" * 32])):
        found = await pending_deposits(model.settings(server.url))
    assert found == (
        PendingDeposit(TxId("dd" * 32), None, model.Lovelace(5), "active", 1893456000.0),
        PendingDeposit(TxId("ee" * 32), None, model.Lovelace(15), "recorded", 1893456000.0),
        PendingDeposit(TxId("ff" * 32)),
    )
    assert not found[2].recoverable(2e9)
    assert not found[0].recoverable(1893456000.0)
    assert found[0].recoverable(1893456001.0)


async def test_another_partys_node_is_not_asked_to_pay() -> None:
    async with serving_fake(server := server_with(Node(BO), ["dd" * 32])):
        with pytest.raises(HeadError, match="the agreement expects"):
            await recover(model.settings(server.url, bound_head=None), "dd" * 32)


async def test_no_node_no_answer() -> None:
    with pytest.raises(HeadUnavailable):
        await pending_deposits(model.settings("http://127.0.0.1:1"))
