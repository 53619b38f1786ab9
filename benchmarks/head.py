"""Seconds from a signal to its finality, over loopback against the embedded head, and what fednode's client adds.

    .venv/bin/python benchmarks/head.py [--parties 2 3 5 10] [--rounds 200] [--json]

The head is a process of its own. In each round all parties signal at once; measured is one of them, in blocks that
alternate between a bare websocket (`NewTx` out, `SnapshotConfirmed` with the id in it back) and fednode's client
(`deliver` to the report). The other parties are bare websockets, because each has a machine of its own in life.
Goal: the client adds <= 10 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection

from fednode import reports as r
from fednode.hydra.addresses import enterprise_address
from fednode.hydra.devnet.settings import DevnetSettings, create
from fednode.hydra.dial import dial
from fednode.hydra.head import HeadSettings, HydraHead
from fednode.hydra.keys import load_signing_key, load_verification_key
from fednode.hydra.messages import NewTx
from fednode.hydra.rest import Rest
from fednode.hydra.signals import build_signal
from fednode.hydra.wire import encode
from fednode.types import Digest, HeadId, Lovelace, Member, PartyName, RunId, SignalContent, SignedTx

BLOCK = 25
"""Rounds between two changes of the measured way."""
FUND = 100_000_000
NAMES = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy")


def content(number: int) -> SignalContent:
    return SignalContent(RunId("00" * 16), number, Digest("ab" * 32), Digest("cd" * 32), 12345)


def settings_of(devnet: DevnetSettings, name: str, bound: HeadId | None) -> HeadSettings:
    def member(each: str) -> Member:
        keys = devnet.folder / each / "keys"
        hydra, fuel, funds = (load_verification_key(keys / f"{kind}.vk") for kind in ("hydra", "fuel", "funds"))
        return Member(PartyName(each), hydra, funds, fuel, enterprise_address(funds, devnet.magic))

    party = next(party for party in devnet.parties if party.name == name)
    return HeadSettings(
        url=party.url,
        me=PartyName(name),
        members=tuple(member(party.name) for party in devnet.parties),
        magic=devnet.magic,
        version="2.3.0",
        funds_key=load_signing_key(devnet.folder / name / "keys" / "funds.sk"),
        funding=party.funding,
        deposit=Lovelace(party.fund),
        contestation_period_s=devnet.contestation_period_s,
        deposit_period_s=devnet.deposit_period_s,
        bound_head=bound,
    )


@asynccontextmanager
async def following(head: HydraHead, after: int) -> AsyncIterator[asyncio.Queue[r.HeadReport]]:
    """The reports of a client, put into a queue as they come."""
    found: asyncio.Queue[r.HeadReport] = asyncio.Queue()

    async def consume() -> None:
        async for report in head.reports(after):
            found.put_nowait(report)

    task = asyncio.create_task(consume())
    try:
        yield found
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await head.aclose()


async def until(found: asyncio.Queue[r.HeadReport], fits: Callable[[Any], bool]) -> Any:
    while not fits(report := await found.get()):
        pass
    return report


async def fund(devnet: DevnetSettings) -> HeadId:
    """Open the head, and put everybody's money into it."""
    names = [party.name for party in devnet.parties]
    heads = [HydraHead(settings_of(devnet, name, None)) for name in names]
    async with AsyncExitStack() as stack:
        queues = [await stack.enter_async_context(following(head, 0)) for head in heads]
        await until(queues[0], lambda x: isinstance(x, r.HeadConnected) and x.in_sync)
        await heads[0].init()
        opened = [await until(queue, lambda x: isinstance(x, r.HeadOpened)) for queue in queues]
        for head in heads:
            await head.submit_deposit(await head.draft_deposit())
        for _ in names:
            await until(queues[0], lambda x: isinstance(x, r.DepositFinalized))
        return opened[0].head_id


async def bare(socket: ClientConnection, signal: SignedTx) -> float:
    """Seconds from NewTx to the confirmed snapshot that holds it."""
    began = time.perf_counter()
    await socket.send(encode(NewTx(signal.cbor)))
    while True:
        frame = await socket.recv(decode=True)
        if signal.id in frame and '"SnapshotConfirmed"' in frame:
            return time.perf_counter() - began


async def ours(head: HydraHead, found: asyncio.Queue[r.HeadReport], signal: SignedTx) -> float:
    """Seconds from `deliver` to the report."""
    began = time.perf_counter()
    sending = asyncio.create_task(head.deliver(signal))
    await until(found, lambda x: isinstance(x, r.SnapshotConfirmed) and any(t.id == signal.id for t in x.transactions))
    ended = time.perf_counter()
    sending.cancel()
    return ended - began


class Bench:
    """One funded head; rounds are played on it by bare sockets and, where told so, by our client for one party."""

    def __init__(self, devnet: DevnetSettings, head_id: HeadId) -> None:
        self.devnet, self.head_id = devnet, head_id
        self.settings = [settings_of(devnet, party.name, head_id) for party in devnet.parties]
        self.round = 0
        self.seconds: dict[str, list[float]] = {"bare": [], "client": [], "build": []}

    async def block(self, *, client: bool) -> None:
        rest = Rest(self.devnet.parties[0].url)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(rest.aclose)
            first = 1 if client else 0
            sockets = [
                await stack.enter_async_context(dial(party.url.replace("http", "ws"), None, history=False))
                for party in self.devnet.parties[first:]
            ]
            head = HydraHead(self.settings[0])
            snapshot = await rest.snapshot()
            found = (
                await stack.enter_async_context(following(head, snapshot.number if snapshot else 0)) if client else None
            )
            if found is not None:
                await until(found, lambda x: isinstance(x, r.SnapshotsSynced))
            for _ in range(BLOCK):
                await self._play(rest, sockets, head, found)
            if found is None:
                await head.aclose()

    async def _play(
        self, rest: Rest, sockets: list[ClientConnection], head: HydraHead, found: asyncio.Queue[r.HeadReport] | None
    ) -> None:
        """All parties signal; the first one is measured. The next round starts when all are final."""
        self.round += 1
        utxo = await rest.snapshot_utxo()
        assert utxo is not None
        signals: list[SignedTx] = []
        for each in self.settings:
            mine = each.member.address
            owned = {ref: coin.lovelace for ref, coin in utxo.items() if coin.address == mine}
            signals.append(
                build_signal(content(self.round), owned, me=each.me, members=each.members, key=each.funds_key)
            )
        if found is None:
            results = await asyncio.gather(*(bare(s, signal) for s, signal in zip(sockets, signals, strict=True)))
            self.seconds["bare"].append(results[0])
            return
        while head.build_signal(content(self.round)).id != signals[0].id:
            await found.get()  # our client folds the last round's last snapshot
        began = time.perf_counter()
        signal = head.build_signal(content(self.round))
        self.seconds["build"].append(time.perf_counter() - began)
        measured = asyncio.create_task(ours(head, found, signal))
        await asyncio.sleep(0)  # it starts `deliver` ...
        await asyncio.sleep(0)  # ... which sends: first of all, as in the other way, since that is snapshotted alone
        await asyncio.gather(*(bare(socket, each) for socket, each in zip(sockets, signals[1:], strict=True)))
        self.seconds["client"].append(await measured)


async def measure(parties: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="fednode-bench-") as folder:
        devnet = create(Path(folder), NAMES[:parties], fund=FUND)
        words = [sys.executable, "-m", "fednode", "devnet", "--parties", str(parties), "--dir", folder, "--json"]
        pipe, nowhere = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        child = await asyncio.create_subprocess_exec(*words, stdout=pipe, stderr=nowhere)
        try:
            assert child.stdout is not None
            await child.stdout.readline()
            bench = Bench(devnet, await fund(devnet))
            while len(bench.seconds["client"]) < rounds:
                await bench.block(client=False)
                await bench.block(client=True)
            return result(parties, bench.seconds)
        finally:
            child.terminate()
            await child.wait()


def result(parties: int, seconds: dict[str, list[float]]) -> dict[str, Any]:
    def ms(values: list[float]) -> dict[str, float]:
        return {"median": round(statistics.median(values) * 1e3, 2), "p99": round(_p99(values) * 1e3, 2)}

    bare_, client = ms(seconds["bare"]), ms(seconds["client"])
    return {
        "parties": parties,
        "rounds": len(seconds["client"]),
        "bare_ms": bare_,
        "client_ms": client,
        "build_ms": ms(seconds["build"])["median"],
        "added_ms": round(client["median"] - bare_["median"], 2),
    }


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[-1]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--parties", type=int, nargs="+", default=[2, 3, 5, 10])
    options.add_argument("--rounds", type=int, default=200)
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    results = [asyncio.run(measure(parties, chosen.rounds)) for parties in chosen.parties]
    if chosen.json:
        print(json.dumps({"cores": len(os.sched_getaffinity(0)), "head": results}))
        return
    print("milliseconds     bare websocket    fednode's client")
    print("parties  rounds   median      p99    median      p99   added   build")
    for row in results:
        one, two = row["bare_ms"], row["client_ms"]
        print(
            f"{row['parties']:>7} {row['rounds']:>7} {one['median']:>8.1f} {one['p99']:>8.1f}  {two['median']:>8.1f} "
            f"{two['p99']:>8.1f} {row['added_ms']:>7.1f} {row['build_ms']:>7.1f}"
        )


if __name__ == "__main__":
    main()
