"""A long run: does anything grow? Ten parties, 1,500 rounds of the `linear` trainer, real processes and sockets.

    .venv/bin/python benchmarks/load.py [--parties 10] [--rounds 1500] [--minutes M] [--json]

Reports seconds per round at the start and at the end, memory of every process at the start and at the end, journal and
bucket sizes, how long one daemon that is killed near the end needs to be back, and how long `status` and `rounds` take.
Goals: round time grows <= 10 %, memory <= 20 MB a process, restart <= 3 s, answers <= 0.5 s.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from fednode.hydra.transactions import parse
from fednode.hydra.utxo import outputs_of
from fednode.node import app
from fednode.node.demo.federation import Demo
from fednode.node.demo.prepare import Federation, prepare
from fednode.node.demo.processes import Child
from fednode.node.demo.show import Show
from fednode.node.demo.summary import Timing
from fednode.node.home import Home
from fednode.node.protocol.facts import Aggregated, Begun, ReplayDone
from fednode.node.site import confirmed, read_facts, replay

POLL_S = 1.0


@dataclass
class Watch:
    """Samples the processes of a running federation; kills and restarts one daemon near the end."""

    federation: Federation
    demo: Demo
    early: dict[str, int] = field(default_factory=dict[str, int])
    late: dict[str, int] = field(default_factory=dict[str, int])
    reached: int = 0

    async def follow(self) -> None:
        """Poll the first party's talk until the run ends."""
        first = next(iter(self.federation.parties))
        rounds = self.federation.rounds
        while True:
            await asyncio.sleep(POLL_S)
            shown = self.demo.show.lines[first].round.partition("/")[0]
            self.reached = int(shown) if shown.isdigit() else 0
            if not self.early and self.reached >= rounds // 15:
                self.early = self.memory()
            if self.early and (sizes := self.memory()).keys() >= self.early.keys():
                self.late = sizes  # the last time that all of them ran

    def memory(self) -> dict[str, int]:
        """Resident bytes by process: the head, and each party's daemon and trainer child."""
        sizes: dict[str, int] = {}
        for child in self.demo.children:
            process = child.process
            if process is None or process.returncode is not None:
                continue
            parent = psutil.Process(process.pid)
            sizes[child.name] = parent.memory_info().rss
            for index, each in enumerate(parent.children(recursive=True)):
                sizes[f"{child.name} child {index}"] = each.memory_info().rss
        return sizes


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def command_seconds(home: Home, peers: Path, word: str) -> dict[str, float]:
    """Wall seconds of a fednode command: the first time, with nothing kept from earlier looks, and the median after."""
    home.history.unlink(missing_ok=True)
    times: list[float] = []
    for _ in range(4):
        began = time.perf_counter()
        line = [sys.executable, "-m", "fednode", word, "--home", str(home.root), "--peers", str(peers), "--json"]
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return {"first": round(times[0], 3), "then": round(statistics.median(times[1:]), 3)}


def outputs_in_head(home: Home, parties: int) -> dict[str, int]:
    """How many outputs the head held, by the inputs and outputs of every confirmed transaction: one each at first."""
    count = most = parties
    for _, cbor in confirmed(home):
        transaction = parse(bytes.fromhex(cbor))
        count += len(outputs_of(transaction)) - len(transaction.inputs)
        most = max(most, count)
    return {"most": most, "limit": parties**2, "at the end": count}


async def measure(parties: int, rounds: int, minutes: float | None) -> dict[str, Any]:
    """Run, for so many minutes at the most, watch, and read the journals."""
    with tempfile.TemporaryDirectory(prefix="fednode-load-") as folder:
        federation = prepare(Path(folder), parties, "linear", rounds, 0)
        demo = Demo(federation, Show(list(federation.parties), quiet=True), 0.0)
        watch = Watch(federation, demo)
        follower = asyncio.ensure_future(watch.follow())
        whole = False
        try:
            async with asyncio.timeout(None if minutes is None else minutes * 60):
                await demo.operate(Timing())
                whole = True
        except TimeoutError:
            pass  # what was reached is told
        finally:
            follower.cancel()
        return report(federation, watch) | {"restart": await restart(federation, whole)}


async def restart(federation: Federation, whole: bool) -> dict[str, float]:
    """Seconds that a home with the whole journal needs to the folded state and, where the run is over, for the command
    from its start to its answer."""
    home = federation.home(next(iter(federation.parties)))
    began = time.perf_counter()
    replay(app.open_site(home, peers=federation.dir / "peers.toml", epochs=None))
    folded = time.perf_counter() - began
    if not whole:
        return {"fold": round(folded, 3)}
    child = Child("again", next(iter(federation.parties.values())).run, {}, federation.dir / "again.log")
    began = time.perf_counter()
    await child.start()
    await child.result()
    return {"fold": round(folded, 3), "command": round(time.perf_counter() - began, 3)}


def report(federation: Federation, watch: Watch) -> dict[str, Any]:
    first = next(iter(federation.parties))
    home = federation.home(first)
    at = [fact.at for fact in read_facts(home) if isinstance(fact, Aggregated)]
    gaps = [b - a for a, b in itertools.pairwise(at)]
    part = max(1, len(gaps) // 10)
    starts = [fact.at for fact in read_facts(home) if isinstance(fact, Begun | ReplayDone)]
    growth = {name: watch.late[name] - size for name, size in watch.early.items() if name in watch.late}
    worst = max(growth, key=lambda name: growth[name]) if growth else ""
    start, end = statistics.mean(gaps[part : 2 * part]), statistics.mean(gaps[-part:])
    outputs = replay(app.open_site(home, peers=federation.dir / "peers.toml", epochs=None)).paid
    return {
        "parties": len(federation.parties),
        "rounds": len(at),
        "starts": len(starts),
        "seconds_per_round": {
            "start": round(start, 4),
            "end": round(end, 4),
            "growth_percent": round((end / start - 1) * 100, 1),
        },
        "memory_growth_mb": {"worst": worst, "mb": round(growth.get(worst, 0) / 1e6, 1)},
        "memory_mb": {
            name: round(size / 1e6, 1) for name, size in watch.late.items() if name in ("devnet", f"{first} run")
        },
        "journal_mb": round(folder_bytes(home.root) / 1e6 - folder_bytes(home.bucket) / 1e6, 1),
        "bucket_mb": round(folder_bytes(home.bucket) / 1e6, 1),
        "head_mb": round(folder_bytes(federation.dir / "devnet") / 1e6, 1),
        "paid_out": dict(outputs.paid) if outputs else None,
        "outputs_in_head": outputs_in_head(home, len(federation.parties)),
        "status_seconds": command_seconds(home, federation.dir / "peers.toml", "status"),
        "rounds_seconds": command_seconds(home, federation.dir / "peers.toml", "rounds"),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--parties", type=int, default=10)
    options.add_argument("--rounds", type=int, default=1500)
    options.add_argument("--minutes", type=float, help="stop then, and tell how far it came")
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    data = asyncio.run(measure(chosen.parties, chosen.rounds, chosen.minutes)) | {"cores": len(os.sched_getaffinity(0))}
    if chosen.json:
        print(json.dumps(data))
        return
    for name, value in data.items():
        print(f"{name:>20}  {json.dumps(value)}")


if __name__ == "__main__":
    main()
