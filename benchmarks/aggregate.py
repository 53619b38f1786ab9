"""Seconds and memory of one exact aggregation over `i8` objects.

    python benchmarks/aggregate.py [--json] [--parameters N] [--parties N ...] [--rules RULE ...]

Goals on two cores, 42 million parameters: 10 updates in 2 s (mean) and 8 s (trimmed mean), and at most 64 MB above
the state for any number of parties and any rule. Every row runs in a fresh process; objects are in the page cache, and
the seconds contain the fsync of the new state and momentum, whose cost on this disk is also given alone. Another disk:
FEDNODE_BENCH_DIR.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from fednode.training.exact.aggregator import AggregatorSettings, ExactAggregator
from fednode.training.exact.objects import ObjectId, object_prefix
from fednode.training.exact.schema import Schema
from fednode.training.exact.writer import encode_object
from fednode.types import Digest, ModelFacts, PartyName, RunId

RANK, WIDTH = 16, 4096
RUN, BASE = RunId("0" * 32), Digest("0" * 64)
DISTINCT = 3


def facts(parameters: int) -> ModelFacts:
    """Factor pairs of square layers, about `parameters` in all."""
    pairs = max(1, round(parameters / (2 * RANK * WIDTH)))
    shapes = {"A": (RANK, WIDTH), "B": (WIDTH, RANK)}
    return ModelFacts(
        tuple((f"layers.{i:05}.lora_{factor}.weight", shapes[factor]) for i in range(pairs) for factor in "AB"),
        {"model.safetensors": "0" * 64},
    )


def aggregator(parameters: int, parties: int, rule: str) -> ExactAggregator:
    return ExactAggregator(
        AggregatorSettings(
            facts(parameters), RANK, 32, "nf4", "i8", 0, "both", rule, True, "nesterov", 0.7, 0.5, members(parties)
        )
    )


def members(parties: int) -> tuple[tuple[PartyName, int], ...]:
    return tuple((PartyName(f"party-{i:02}"), 1) for i in range(parties))


def prepare(folder: Path, parameters: int, parties: int) -> None:
    """S_0 and one object per party; only the first few have data of their own."""
    schema = Schema.of(facts(parameters), rank=RANK, alpha=32, quantisation="nf4", codec="i8")
    aggregator(parameters, 1, "mean").initial(folder / "state")
    for i, (party, _) in enumerate(members(parties)):
        identity = ObjectId(RUN, 1, party, "AB", BASE)
        target = folder / party
        if i < DISTINCT:
            rng = np.random.default_rng(i)
            update = {
                spec.name: rng.standard_normal(spec.shape, np.float32) * np.float32(1e-3) for spec in schema.tensors
            }
            os.replace(
                folder / f"{encode_object(folder, schema, identity, update, threads=2).digest}.safetensors", target
            )
        else:
            shutil.copyfile(folder / f"party-{i % DISTINCT:02}", target)
            with target.open("r+b") as handle:
                handle.write(object_prefix(schema, identity))


def status_kib(key: str) -> int:
    """A field of /proc/self/status in KiB."""
    text = Path("/proc/self/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith(key)).split()[1])


def measure(folder: Path, parameters: int, parties: int, rule: str) -> dict[str, object]:
    """One aggregation in this process. `peak_mb` is the resident memory above that of the imported program."""
    worker = aggregator(parameters, parties, rule)
    objects = {party: folder / party for party, _ in members(parties)}
    before = status_kib("VmRSS")
    began, worked = time.perf_counter(), time.process_time()
    result = worker.aggregate(
        1,
        objects,
        state=folder / "state",
        momentum=None,
        new_state=folder / "new",
        new_momentum=folder / "new-momentum",
    )
    seconds, cpu = time.perf_counter() - began, time.process_time() - worked
    peak = (status_kib("VmHWM") - before) * 1024 / 1e6
    return {
        "rule": rule,
        "parties": parties,
        "seconds": round(seconds, 3),
        "cpu_seconds": round(cpu, 3),
        "peak_mb": round(peak, 1),
        "digest": result.digest,
    }


def fsync_seconds(folder: Path) -> float:
    """Seconds to write and fsync a file as large as state and momentum together: the disk's share of a row."""
    state = (folder / "state").read_bytes()
    began = time.perf_counter()
    with (folder / "probe").open("wb") as handle:
        handle.write(state)
        handle.write(state)
        handle.flush()
        os.fsync(handle.fileno())
    seconds = time.perf_counter() - began
    (folder / "probe").unlink()
    return round(seconds, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=int, default=42_000_000)
    parser.add_argument("--parties", type=int, nargs="+", default=[10, 29])
    parser.add_argument("--rules", nargs="+", default=["mean", "trimmed_mean", "median"])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--row", nargs=3, metavar=("FOLDER", "PARTIES", "RULE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        folder, parties, rule = options.row
        print(json.dumps(measure(Path(folder), options.parameters, int(parties), rule)))
        return
    with tempfile.TemporaryDirectory(dir=os.environ.get("FEDNODE_BENCH_DIR")) as name:
        folder = Path(name)
        prepare(folder, options.parameters, max(options.parties))
        command = [sys.executable, __file__, "--parameters", str(options.parameters), "--row", name]
        rows = [
            json.loads(subprocess.run([*command, str(parties), rule], check=True, capture_output=True).stdout)
            for parties in options.parties
            for rule in options.rules
        ]
        report = {
            "parameters": sum(int(np.prod(shape)) for _, shape in facts(options.parameters).tensors),
            "cores": os.cpu_count(),
            "fsync_seconds": fsync_seconds(folder),
            "rows": rows,
        }
    if options.json:
        print(json.dumps(report))
        return
    print(f"{report['parameters']:,} parameters, {report['cores']} cores; writing alone {report['fsync_seconds']} s")
    print(f"{'rule':14}{'parties':>8}{'seconds':>10}{'CPU s':>8}{'peak MB':>10}")
    for row in rows:
        print(f"{row['rule']:14}{row['parties']:>8}{row['seconds']:>10}{row['cpu_seconds']:>8}{row['peak_mb']:>10}")


if __name__ == "__main__":
    main()
