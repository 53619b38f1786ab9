"""Real clients over real sockets against the embedded head: from Init to a verified payout."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from fednode import reports
from fednode.errors import FundsError, HeadError
from fednode.hydra.addresses import enterprise_address
from fednode.hydra.devnet import DevnetSettings, create, serve
from fednode.hydra.head import HeadSettings, HydraHead
from fednode.hydra.keys import load_signing_key, load_verification_key
from fednode.types import Digest, HeadId, Lovelace, Member, PartyName, RunId, SignalContent, TxKind

Report = TypeVar("Report")
NAMES = ("ada", "bo", "cy")
FUND = 30_000_000


@asynccontextmanager
async def serving(settings: DevnetSettings) -> AsyncIterator[None]:
    ready = asyncio.Event()
    task = asyncio.create_task(serve(settings, ready=ready.set))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def head_settings(devnet: DevnetSettings, name: str, bound: HeadId | None = None) -> HeadSettings:
    def member(each: str) -> Member:
        keys = devnet.folder / each / "keys"
        funds = load_verification_key(keys / "funds.vk")
        hydra, fuel = load_verification_key(keys / "hydra.vk"), load_verification_key(keys / "fuel.vk")
        return Member(PartyName(each), hydra, funds, fuel, enterprise_address(funds, devnet.magic))

    party = next(party for party in devnet.parties if party.name == name)
    return HeadSettings(
        url=party.url,
        me=PartyName(name),
        members=tuple(member(each) for each in NAMES),
        magic=devnet.magic,
        version="2.3.0",
        funds_key=load_signing_key(devnet.folder / name / "keys" / "funds.sk"),
        funding=party.funding,
        deposit=Lovelace(party.fund),
        contestation_period_s=devnet.contestation_period_s,
        deposit_period_s=devnet.deposit_period_s,
        bound_head=bound,
    )


@dataclass
class Daemon:
    """A party's head and everything it has reported."""

    head: HydraHead
    found: list[Any] = field(default_factory=list)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def consume(self, after: int) -> None:
        async for report in self.head.reports(after):
            async with self.news:
                self.found.append(report)
                self.news.notify_all()

    async def have(self, count: int, kind: type[Report], fits: Callable[[Any], bool] = lambda _: True) -> list[Report]:
        """Wait for `count` reports of a kind."""

        def fitting() -> list[Report]:
            return [report for report in self.found if isinstance(report, kind) and fits(report)]

        async with self.news:
            await self.news.wait_for(lambda: len(fitting()) >= count)
        return fitting()

    async def have_signals(self, round_number: int) -> None:
        """Wait until every party's signal of a round is final."""

        def senders() -> set[str | None]:
            snapshots = [report for report in self.found if isinstance(report, reports.SnapshotConfirmed)]
            signals = [tx for snapshot in snapshots for tx in snapshot.transactions if tx.kind == TxKind.SIGNAL]
            return {tx.sender for tx in signals if tx.content and tx.content.round == round_number}

        async with self.news:
            await self.news.wait_for(lambda: senders() == set(NAMES))

    def numbers(self) -> list[int]:
        return [report.number for report in self.found if isinstance(report, reports.SnapshotConfirmed)]


@asynccontextmanager
async def daemons(devnet: DevnetSettings, bound: HeadId | None = None, after: int = 0) -> AsyncIterator[list[Daemon]]:
    running = [Daemon(HydraHead(head_settings(devnet, name, bound))) for name in NAMES]
    tasks = [asyncio.create_task(daemon.consume(after)) for daemon in running]
    try:
        yield running
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for daemon in running:
            await daemon.head.aclose()


def content(number: int, *, last: bool = False) -> SignalContent:
    return SignalContent(
        run=RunId("00" * 16),
        round=number,
        base=Digest("ab" * 32),
        object=None if last else Digest("cd" * 32),
        size=None if last else 99,
        sections={"run": "11" * 8} if number == 0 else None,
    )


async def play(running: list[Daemon], number: int, *, last: bool = False) -> None:
    """One round of signals, each delivered until it is final at every party."""
    signals = [daemon.head.build_signal(content(number, last=last)) for daemon in running]
    tasks = [asyncio.create_task(d.head.deliver(s)) for d, s in zip(running, signals, strict=True)]
    await asyncio.gather(*(daemon.have_signals(number) for daemon in running))
    for task in tasks:
        task.cancel()


async def fund(running: list[Daemon]) -> HeadId:
    """Init by the first party, a deposit by each."""
    await asyncio.gather(*(daemon.have(1, reports.HeadConnected, lambda report: report.in_sync) for daemon in running))
    await running[0].head.init()
    (opened, *_) = await running[0].have(1, reports.HeadOpened)
    await asyncio.gather(*(daemon.have(1, reports.HeadOpened) for daemon in running))
    for daemon in running:
        deposit = await daemon.head.draft_deposit()
        await daemon.head.submit_deposit(deposit)
        await daemon.have(1, reports.DepositRecorded, lambda report, own=deposit.id: report.deposit == own)
        await daemon.head.submit_deposit(deposit)
    for daemon in running:
        done = await daemon.have(3, reports.DepositFinalized)
        assert sorted((report.party, report.lovelace) for report in done) == [(name, FUND) for name in NAMES]
    return opened.head_id


@pytest.fixture
def devnet(tmp_path: Path) -> DevnetSettings:
    return create(tmp_path, NAMES, fund=FUND)


@pytest.mark.process
async def test_from_init_to_payout_with_restarts(devnet: DevnetSettings) -> None:
    async with serving(devnet):
        async with daemons(devnet) as running:
            head_id = await fund(running)
            for number in range(3):
                await play(running, number)
            for daemon in running:
                assert daemon.numbers() == list(range(1, len(daemon.numbers()) + 1))
            journalled = max(running[0].numbers())
        async with daemons(devnet, head_id, after=journalled) as running:
            for daemon in running:
                (synced, *_) = await daemon.have(1, reports.SnapshotsSynced)
                assert (synced.number, daemon.numbers()) == (journalled, [])
            await play(running, 3)
    async with daemons(devnet, head_id) as running:
        await asyncio.gather(*(daemon.have(1, reports.HeadUnreachable) for daemon in running))
        async with serving(devnet):
            await asyncio.gather(*(daemon.have(1, reports.SnapshotsSynced) for daemon in running))
            await play(running, 4)
            await play(running, 5, last=True)
            await close_and_fan_out(running)
        async with serving(devnet), daemons(devnet, head_id, after=1) as late:
            for daemon in late:
                await daemon.have(1, reports.SnapshotsSynced)
                (final,) = await daemon.have(1, reports.HeadFinalized)
                assert final.verified


async def close_and_fan_out(running: list[Daemon]) -> None:
    closing = [asyncio.create_task(daemon.head.close()) for daemon in running[:2]]
    for daemon in running:
        (closed, *_) = await daemon.have(1, reports.HeadClosed)
        assert closed.snapshot == max(running[0].numbers())
    fanout = asyncio.create_task(running[0].head.fanout())
    for daemon in running:
        (final, *_) = await daemon.have(1, reports.HeadFinalized)
        assert final.verified
        assert final.paid == final.expected == tuple((name, FUND) for name in NAMES)
    for task in (*closing, fanout):
        task.cancel()


@pytest.mark.process
async def test_refusals(devnet: DevnetSettings) -> None:
    async with serving(devnet), daemons(devnet) as running:
        await running[0].have(1, reports.HeadConnected)
        with pytest.raises(HeadError, match="not open"):
            await running[0].head.draft_deposit()
        await fund(running)
        with pytest.raises(FundsError, match="not on layer 1"):
            await running[0].head.draft_deposit()
        # The deposited output is in the head already: submitting what spends it again is harmless.
        await running[0].head.submit_deposit(running[0].head.build_signal(content(0)))
