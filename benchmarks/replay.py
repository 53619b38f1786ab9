"""Seconds and memory to read a whole head again: what a daemon without a journal does when it starts.

    .venv/bin/python benchmarks/replay.py [--parties 10] [--rounds 1500] [--json]

A server plays hydra-node: it sends the history (each signal's TxValid and its place in one of two snapshots a round)
over a loopback websocket. Measured in a process of its own: fednode's client alone (every signature checked, every
signal judged), the client with core and journal as `fednode run` does it, a start with a full journal, and the client
where the journal lacks the last ten rounds. Goal: the client reads 1,500 rounds of 10 parties in <= 10 s.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

from head_history import FUND, RUN, History, members, settings
from websockets.asyncio.server import serve

from fednode import reports as r
from fednode.hydra.head import HydraHead
from fednode.node.journal import SqliteJournal
from fednode.node.protocol.decide import decide
from fednode.node.protocol.events import Begin
from fednode.node.protocol.evolve import evolve
from fednode.node.protocol.records import to_record
from fednode.node.protocol.state import Rules, State, initial
from fednode.types import Lovelace

WAYS = ("client", "daemon", "journal", "gap")
LACKING = 10
"""Rounds that the journal lacks in the way `gap`."""


async def measure(parties: int, rounds: int) -> dict[str, Any]:
    history = History(parties, rounds)
    found: dict[str, Any] = {
        "parties": parties,
        "rounds": rounds,
        "signals": parties * (rounds + 2),
        "snapshots": history.snapshots,
        "messages": len(history.frames),
        "bytes": sum(map(len, history.frames)),
    }
    listening = serve(history.talk, "127.0.0.1", 0, process_request=history.http, compression=None)
    with tempfile.TemporaryDirectory(prefix="fednode-bench-") as folder:
        async with listening as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            for way in WAYS:
                found[way] = await _child(way, url, parties, rounds, folder)
    return found


async def _child(way: str, url: str, parties: int, rounds: int, folder: str) -> dict[str, float]:
    words = [sys.executable, __file__, "--child", way, url, str(parties), str(rounds), folder]
    child = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    out, _ = await child.communicate()
    if child.returncode:
        raise SystemExit(f"{way}: exit status {child.returncode}")
    answer: dict[str, float] = json.loads(out)
    return answer


# In the process that is measured -------------------------------------------------------------------------------------


def rules(parties: int, rounds: int) -> Rules:
    names = tuple(member.name for member in members(parties))
    return Rules(
        me=names[0],
        parties=names,
        rounds=rounds,
        run=RUN,
        binding="b" * 64,
        sections={},
        deposit=Lovelace(FUND),
        deadline_s=1e9,
        on_deadline="wait",
        on_fault="halt",
        settle_s=0.0,
        takeover_s=1.0,
    )


class Core:
    """decide, journal, evolve: one durable write for all reports that arrived together, as the daemon does."""

    def __init__(self, state: State, journal: SqliteJournal) -> None:
        self.state, self.journal = state, journal

    def take(self, events: list[Any]) -> None:
        facts: list[Any] = []
        for event in events:
            for fact in decide(self.state, event):
                self.state = evolve(self.state, fact)
                facts.append(fact)
        if facts:
            self.journal.append([to_record(fact) for fact in facts])


def replayed(path: Path, parties: int, rounds: int) -> State:
    from fednode.node.home import Home
    from fednode.node.site import read_facts

    state = initial(rules(parties, rounds))
    for fact in read_facts(Home(path)):
        state = evolve(state, fact)
    return state


async def _together(head: HydraHead, after: int) -> AsyncIterator[list[Any]]:
    """Reports in the portions in which the daemon takes them, up to the end of the replay."""
    inbox: asyncio.Queue[r.HeadReport] = asyncio.Queue()

    async def listen() -> None:
        async with aclosing(head.reports(after)) as found:
            async for report in found:
                inbox.put_nowait(report)
                if isinstance(report, r.SnapshotsSynced):
                    return

    listener = asyncio.create_task(listen())
    ended = False
    while not ended:
        reports = [await inbox.get()]
        while not inbox.empty():
            reports.append(inbox.get_nowait())
        ended = isinstance(reports[-1], r.SnapshotsSynced)
        yield reports
    await listener


async def child(way: str, url: str, parties: int, rounds: int, folder: Path) -> dict[str, float]:
    before, began, cpu = _megabytes(), time.perf_counter(), time.process_time()
    core: Core | None = None
    signals, after = parties * (rounds + 2), 0
    if way == "gap":
        # The funding has a snapshot for each party, each round two.
        after, signals = parties + 2 * (rounds + 2 - LACKING), parties * LACKING
    elif way != "client":
        state = replayed(folder, parties, rounds) if way == "journal" else initial(rules(parties, rounds))
        core = Core(state, SqliteJournal(folder / "journal.sqlite3"))
        core.take([Begin(1.0, "open", "b" * 64), Begin(2.0, "run", "b" * 64, RUN, rounds)])
        after = core.state.head.snapshot
    head, seen = HydraHead(settings(url, parties)), 0
    async for reports in _together(head, after):
        seen += sum(len(report.transactions) for report in reports if isinstance(report, r.SnapshotConfirmed))
        if core is not None:
            core.take(reports)
    seconds = time.perf_counter() - began
    await head.aclose()
    assert seen == (0 if way == "journal" else signals), seen
    if core is not None:
        assert core.state.transcript.complete(rounds + 1)
        assert core.state.faults == ()
        core.journal.close()
    return {
        "seconds": round(seconds, 2),
        "cpu": round(time.process_time() - cpu, 2),
        "mib": round(_megabytes(), 1),
        "mib_before": round(before, 1),
    }


def _megabytes() -> float:
    """The most memory that this process has used so far, MiB (getrusage would count that of its parent)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _lines(row: Mapping[str, Any]) -> Iterator[str]:
    yield f"{row['parties']} parties, {row['rounds']} rounds: {row['signals']} signals in {row['snapshots']} snapshots"
    yield f"{row['messages']} messages, {row['bytes'] / 1e6:.1f} MB"
    yield "                                        seconds  CPU s      MiB   (before)"
    words = ("client alone", "client, core and journal", "start with a full journal", "ten rounds are not journalled")
    for way, text in zip(WAYS, words, strict=True):
        got = row[way]
        yield f"{text:<36} {got['seconds']:>10.2f} {got['cpu']:>6.2f} {got['mib']:>8.1f} {got['mib_before']:>10.1f}"


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        way, url, parties, rounds, folder = sys.argv[2:]
        print(json.dumps(asyncio.run(child(way, url, int(parties), int(rounds), Path(folder)))))
        return
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--parties", type=int, default=10)
    options.add_argument("--rounds", type=int, default=1500)
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    row = asyncio.run(measure(chosen.parties, chosen.rounds))
    if chosen.json:
        print(json.dumps({"cores": len(os.sched_getaffinity(0)), "replay": row}))
    else:
        print("\n".join(_lines(row)))


if __name__ == "__main__":
    main()
