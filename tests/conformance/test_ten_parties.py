"""Ten parties through a head whose nodes lag behind layer 1 by up to five seconds and restart at any moment.

Long: minutes. Each party is our own client over real sockets; the embedded head and its faults are in this process.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from fednode import reports
from fednode.errors import HeadUnavailable
from fednode.hydra.devnet import DevnetSettings, Faults, create
from fednode.hydra.head import HeadSettings, HydraHead
from fednode.types import Digest, Lovelace, PartyName, RunId, SignalContent, SignedTx, TxKind

from .heads import funds_key, members, serving

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
PARTIES, ROUNDS, LAG_S, FUND = 10, 10, 5.0, 30_000_000
NAMES = [f"party{index}" for index in range(PARTIES)]


@dataclass
class Member:
    """A party: its client, and what that has reported."""

    name: str
    head: HydraHead
    found: list[Any] = field(default_factory=list)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)
    round: int = 0
    """Whose signal it has built last."""

    async def consume(self) -> None:
        async for report in self.head.reports(0):
            async with self.news:
                self.found.append(report)
                self.news.notify_all()

    async def until(self, done: Callable[[], object]) -> None:
        async with self.news:
            await self.news.wait_for(done)

    def of(self, kind: type[Any]) -> list[Any]:
        return [report for report in self.found if isinstance(report, kind)]

    def signals(self) -> Counter[tuple[str | None, int]]:
        """How often each (sender, round) was confirmed."""
        confirmed = [tx for snapshot in self.of(reports.SnapshotConfirmed) for tx in snapshot.transactions]
        return Counter((tx.sender, tx.content.round) for tx in confirmed if tx.kind is TxKind.SIGNAL and tx.content)

    async def run(self) -> None:
        """Every round: sign when the one before is complete, deliver until the own signal is final."""
        for number in range(1, ROUNDS + 1):
            signal = await self._build(number)
            async with self.news:
                self.round = number
                self.news.notify_all()
            delivery = asyncio.create_task(self.head.deliver(signal))
            try:
                await self.until(lambda number=number: all(self.signals()[name, number] for name in NAMES))
            finally:
                delivery.cancel()
                await asyncio.gather(delivery, return_exceptions=True)

    async def _build(self, number: int) -> SignedTx:
        last = number == ROUNDS
        content = SignalContent(
            run=RunId("ab" * 16),
            round=number,
            base=Digest("cd" * 32),
            object=None if last else Digest("ef" * 32),
            size=None if last else 1000,
        )
        while True:
            try:
                return self.head.build_signal(content)
            except HeadUnavailable:
                async with self.news:
                    await self.news.wait()


def _settings(devnet: DevnetSettings, name: str) -> HeadSettings:
    party = next(each for each in devnet.parties if each.name == name)
    return HeadSettings(
        url=party.url,
        me=PartyName(name),
        members=tuple(members(devnet)),
        magic=devnet.magic,
        version="2.3.0",
        funds_key=funds_key(devnet, name),
        funding=party.funding,
        deposit=Lovelace(party.fund),
        contestation_period_s=devnet.contestation_period_s,
        deposit_period_s=devnet.deposit_period_s,
    )


@asynccontextmanager
async def _members(devnet: DevnetSettings) -> AsyncGenerator[list[Member]]:
    running = [Member(name, HydraHead(_settings(devnet, name))) for name in NAMES]
    tasks = [asyncio.create_task(member.consume()) for member in running]
    try:
        yield running
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for member in running:
            await member.head.aclose()


async def _fund(running: list[Member], faults: Faults, rng: random.Random) -> None:
    """Init and all deposits, the nodes a little behind; the last deposits meet the whole lag."""
    for name in NAMES:
        faults.lag(name, rng.uniform(0, LAG_S / 5))
    for member in running:
        await member.until(lambda member=member: any(report.in_sync for report in member.of(reports.HeadConnected)))
    await running[0].head.init()
    for member in running:
        await member.until(lambda member=member: member.of(reports.HeadOpened))
    for member in running:
        await member.head.submit_deposit(await member.head.draft_deposit())
    first = running[0]
    await first.until(lambda: len(first.of(reports.DepositFinalized)) >= PARTIES - 2)
    for name in NAMES:
        faults.lag(name, rng.uniform(0, LAG_S))
    await asyncio.gather(
        *(member.until(lambda m=member: len(m.of(reports.DepositFinalized)) == PARTIES) for member in running)
    )


async def _break(running: list[Member], faults: Faults, rng: random.Random) -> None:
    """In every round restart a node while the signals are on their way, and change how far another one lags."""
    for number in range(1, ROUNDS + 1):
        witness = rng.choice(running)
        await witness.until(lambda number=number, witness=witness: witness.round >= number)
        await asyncio.sleep(rng.uniform(0, 0.1))
        faults.restart(rng.choice(NAMES))
        faults.lag(rng.choice(NAMES), rng.uniform(0, LAG_S))


async def _finish(running: list[Member], closing: Member, paying: Member) -> None:
    tasks = [asyncio.create_task(closing.head.close()), asyncio.create_task(paying.head.fanout())]
    await asyncio.gather(*(member.until(lambda m=member: m.of(reports.HeadFinalized)) for member in running))
    for task in tasks:
        task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks)


async def test_every_signal_is_confirmed_once_and_n_outputs_are_left(tmp_path: Path) -> None:
    rng, faults = random.Random(20_261_121), Faults()
    devnet = create(tmp_path, NAMES, fund=FUND, deposit_period_s=40)
    async with serving(devnet, faults), _members(devnet) as running:
        await _fund(running, faults, rng)
        await asyncio.gather(_break(running, faults, rng), *(member.run() for member in running))
        assert any(member.of(reports.TransactionRefused) for member in running), "no node was hurt: this tests nothing"

        expected = Counter({(name, number): 1 for name in NAMES for number in range(1, ROUNDS + 1)})
        for member in running:
            assert member.signals() == expected
            numbers = [report.number for report in member.of(reports.SnapshotConfirmed)]
            assert numbers == list(range(1, len(numbers) + 1))
        async with httpx.AsyncClient() as http:
            left = (await http.get(devnet.parties[0].url + "/snapshot/utxo")).json()
        assert sorted(each["address"] for each in left.values()) == sorted(member.address for member in members(devnet))
        assert {each["value"]["lovelace"] for each in left.values()} == {FUND}

        await _finish(running, *rng.sample(running, 2))
        for member in running:
            (final,) = member.of(reports.HeadFinalized)
            assert final.verified
            assert final.paid == tuple((name, FUND) for name in sorted(NAMES))
