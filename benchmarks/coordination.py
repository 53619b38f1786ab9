"""Seconds per round with the `linear` trainer: what coordination costs, with real daemons over real sockets.

    .venv/bin/python benchmarks/coordination.py [--parties 2 4 10] [--rounds 60] [--json]

Each party is a process, and so is the embedded head. Measured from the journals: from S_5 to S_R, so that starting is
not in it. Goals: <= 0.10 s at 4 parties, <= 0.5 s at 10.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from fednode.node import app
from fednode.node.demo.federation import Demo
from fednode.node.demo.prepare import Federation, prepare
from fednode.node.demo.show import Show
from fednode.node.demo.summary import Timing
from fednode.node.protocol.facts import Aggregated
from fednode.node.site import read_facts, read_history

WARM_UP = 5


async def measure(parties: int, rounds: int) -> dict[str, Any]:
    """One run of `rounds` rounds; seconds per round and per phase."""
    with tempfile.TemporaryDirectory(prefix="fednode-bench-") as folder:
        federation = prepare(Path(folder), parties, "linear", rounds, 0)
        demo = Demo(federation, Show(list(federation.parties), quiet=True), 0.0)
        await demo.operate(Timing())
        return result(federation)


def result(federation: Federation) -> dict[str, Any]:
    """From the journals of a finished run."""
    per_party: list[list[float]] = []
    for name in federation.parties:
        at = [fact.at for fact in read_facts(federation.home(name)) if isinstance(fact, Aggregated)]
        per_party.append([b - a for a, b in zip(at[WARM_UP - 1 :], at[WARM_UP:], strict=False)])
    first = next(iter(federation.parties))
    site = app.open_site(federation.home(first), peers=federation.dir / "peers.toml", epochs=None)
    entries = read_history(site).rounds[WARM_UP:]
    phases = ("train", "publish", "signal", "wait", "fetch", "aggregate")
    gaps = [gap for gaps in per_party for gap in gaps]
    return {
        "parties": len(federation.parties),
        "rounds": len(entries) + WARM_UP,
        "seconds_per_round": round(statistics.mean(gaps), 4),
        "median": round(statistics.median(gaps), 4),
        "p95": round(statistics.quantiles(gaps, n=20)[-1], 4),
        "phases": {phase: round(statistics.median(e.seconds[phase] for e in entries), 4) for phase in phases},
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--parties", type=int, nargs="+", default=[2, 4, 10])
    options.add_argument("--rounds", type=int, default=60)
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    results = [asyncio.run(measure(parties, chosen.rounds)) for parties in chosen.parties]
    if chosen.json:
        print(json.dumps({"cores": len(os.sched_getaffinity(0)), "coordination": results}))
        return
    print(f"{'parties':>8} {'rounds':>7} {'s/round':>8} {'median':>8} {'p95':>8}   median seconds by phase")
    for row in results:
        phases = "  ".join(f"{name} {value:.3f}" for name, value in row["phases"].items())
        mean, median, p95 = row["seconds_per_round"], row["median"], row["p95"]
        print(f"{row['parties']:>8} {row['rounds']:>7} {mean:>8.3f} {median:>8.3f} {p95:>8.3f}   {phases}")


if __name__ == "__main__":
    main()
