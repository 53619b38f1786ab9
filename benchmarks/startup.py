"""How long a user waits: `fednode --help`, and a cold start of `run` up to the first finished round.

    .venv/bin/python benchmarks/startup.py [--parties 4] [--json]

Goals: help <= 0.3 s; with 4 parties, the head open and the `linear` trainer, the first round finished at every party
<= 5 s after the commands were typed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fednode.node.demo.federation import Demo
from fednode.node.demo.prepare import prepare
from fednode.node.demo.show import Show
from fednode.node.demo.summary import Timing
from fednode.node.protocol.facts import Aggregated, Trained
from fednode.node.site import read_facts

HELP_RUNS = 7


def help_seconds() -> float:
    """Median wall seconds of `fednode --help`."""
    times: list[float] = []
    for _ in range(HELP_RUNS):
        began = time.perf_counter()
        subprocess.run([Path(sys.executable).with_name("fednode"), "--help"], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


async def first_round_seconds(parties: int) -> dict[str, float]:
    """Wall seconds from starting all `run` commands to S_1 at the last party."""
    with tempfile.TemporaryDirectory(prefix="fednode-bench-") as folder:
        federation = prepare(Path(folder), parties, "linear", 2, 0)
        timing = Timing()
        await Demo(federation, Show(list(federation.parties), quiet=True), 0.0).operate(timing)
        at: dict[str, float] = {}
        for name in federation.parties:
            for fact in read_facts(federation.home(name)):
                if isinstance(fact, Trained | Aggregated) and fact.round == 1:
                    kind = type(fact).__name__
                    at[kind] = max(at.get(kind, 0.0), fact.at - timing.run_began)
        return {"first_training": round(at["Trained"], 3), "first_round": round(at["Aggregated"], 3)}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--parties", type=int, default=4)
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    data: dict[str, Any] = {"help": round(help_seconds(), 3), "parties": chosen.parties}
    data |= asyncio.run(first_round_seconds(chosen.parties))
    if chosen.json:
        print(json.dumps(data))
        return
    print(f"fednode --help               {data['help']:.3f} s (median of {HELP_RUNS})")
    trained, finished = data["first_training"], data["first_round"]
    print(f"run, {chosen.parties} parties: first training {trained:.3f} s, first round {finished:.3f} s")


if __name__ == "__main__":
    main()
