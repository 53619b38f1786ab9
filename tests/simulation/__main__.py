"""Run seeds, and show what fails:  scripts/simulate --seeds 100000 [--start N] [--jobs 2]

  --seeds N      how many seeds (default 1000)          --jobs N       processes (default 1)
  --start N      the first one (default 1)              --keep-going   go on after a failure
  --seed N       one seed, and shrink it if it fails    --trace        with --seed: everything that happens
  --planted      every planted bug: after how many seeds it is found, and how
  --parties N, --rounds N, --without KIND,..., --lie KIND   take this from, or give it to, the seed

Exit status: 0 nothing failed, 1 something did, 2 usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from .plan import FAULTS, LIES, Limits
from .planted import BUGS, seeds_needed
from .setting import leave
from .shrink import command, shrink
from .world import simulate

BATCH = 250
"""Seeds between two lines of progress of one process."""


def main() -> int:
    options = _options()
    limits = Limits(
        parties=options.parties,
        rounds=options.rounds,
        without=frozenset(filter(None, options.without.split(","))),
        lie=options.lie,
    )
    if options.planted:
        return _planted()
    if options.seed is not None:
        return _one(options.seed, limits, trace=options.trace)
    if options.worker:
        return _work(options, limits)
    return _many(options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/simulate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("seed", "parties", "rounds"):
        parser.add_argument(f"--{name}", type=int)
    for name, value in (("seeds", 1000), ("start", 1), ("jobs", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--without", default="", help=f"of {', '.join((*FAULTS, 'lie', 'files'))}")
    parser.add_argument("--lie", choices=LIES)
    for name in ("trace", "keep-going", "planted", "worker"):
        parser.add_argument(f"--{name}", action="store_true")
    options = parser.parse_args()
    unknown = set(filter(None, options.without.split(","))) - {*FAULTS, "lie", "files"}
    if unknown:
        parser.error(
            f"--without {', '.join(sorted(unknown))}: expected kinds of {', '.join((*FAULTS, 'lie', 'files'))}"
        )
    return options


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _planted() -> int:
    missed = 0
    for bug in BUGS:
        found = seeds_needed(bug)
        missed += found is None
        count, problem = found or (0, "NOT FOUND")
        _say(f"{bug.name:28} {count:4}  {bug.what}: {problem.splitlines()[0][:120]}")
    _say(f"{len(BUGS)} bugs planted, {len(BUGS) - missed} found")
    return 1 if missed else 0


def _one(seed: int, limits: Limits, *, trace: bool) -> int:
    outcome = simulate(seed, limits, _say if trace else None)
    _say(f"seed {seed}: {outcome.steps} steps, {outcome.seconds:.0f} simulated seconds, {dict(outcome.faults)}")
    if outcome.problem is None:
        _say("nothing is wrong")
        return 0
    _say(f"FAILED: {outcome.problem}")
    smaller, found = shrink(seed, limits)
    if smaller != limits:
        _say(f"smaller: {command(seed, smaller)}\n  {found.problem}")
    return 1


def _work(options: argparse.Namespace, limits: Limits) -> int:
    """The seeds of one process; a JSON line for each batch and each failure."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: leave(130))
    faults: Counter[str] = Counter()
    done = steps = 0
    for seed in range(options.start, options.start + options.seeds):
        outcome = simulate(seed, limits)
        faults.update(outcome.faults)
        done, steps = done + 1, steps + outcome.steps
        if outcome.problem is not None:
            _say(json.dumps({"seed": seed, "problem": outcome.problem}))
        if done == BATCH or seed == options.start + options.seeds - 1:
            _say(json.dumps({"done": done, "steps": steps, "faults": faults}))
            faults, done, steps = Counter(), 0, 0
    return 0


def _many(options: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began, jobs = time.monotonic(), max(1, min(options.jobs, options.seeds))
    share = -(-options.seeds // jobs)
    root = Path(__file__).resolve().parent.parent
    workers = [_worker(options, root, at, min(share, options.seeds - at)) for at in range(0, options.seeds, share)]
    faults: Counter[str] = Counter()
    failed: list[int] = []
    done = steps = 0
    interrupted = False
    try:
        for line in _lines(workers):
            told = json.loads(line)
            if "seed" in told:
                failed.append(told["seed"])
                _failure(told["seed"], told["problem"])
                if not options.keep_going:
                    break
                continue
            done, steps = done + told["done"], steps + told["steps"]
            faults.update(told["faults"])
            seconds = time.monotonic() - began
            _say(
                f"{done} of {options.seeds} seeds, {seconds:.0f} s, {done / seconds:.0f} seeds/s, {len(failed)} failed"
            )
    except KeyboardInterrupt:
        interrupted = True  # what was done until now is told
    finally:
        for worker in workers:
            worker.terminate()  # it removes its files then
        for worker in workers:
            worker.wait()
    seconds = time.monotonic() - began
    _say(f"{done} seeds, {steps} steps, {seconds:.1f} s, {sum(faults.values())} faults and their consequences:")
    for kind, count in sorted(faults.items()):
        _say(f"  {kind:24} {count:>12}")
    _say(f"{len(failed)} seeds failed{': ' + ', '.join(map(str, failed)) if failed else ''}")
    if interrupted:
        return 130
    return 1 if failed or done < options.seeds else 0


def _worker(options: argparse.Namespace, root: Path, at: int, count: int) -> subprocess.Popen[str]:
    words = [sys.executable, "-P", "-m", "simulation", "--worker", "--start", str(options.start + at)]
    words += ["--seeds", str(count), "--without", options.without]
    for name in ("parties", "rounds", "lie"):
        value = getattr(options, name)
        words += [f"--{name}", str(value)] if value is not None else []
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=root.parent)


def _lines(workers: list[subprocess.Popen[str]]) -> Iterator[str]:
    """Lines of all workers as they come; ends when every worker has."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read(worker: subprocess.Popen[str]) -> None:
        assert worker.stdout is not None
        for line in worker.stdout:
            lines.put(line)
        lines.put(None)

    for worker in workers:
        threading.Thread(target=read, args=(worker,), daemon=True).start()
    ended = 0
    while ended < len(workers):
        line = lines.get()
        if line is None:
            ended += 1
        else:
            yield line


def _failure(seed: int, problem: str) -> None:
    _say(f"FAILED seed {seed}: {problem}\n  again: {command(seed, Limits())}")
    smaller, found = shrink(seed)
    if found.problem is not None:
        _say(f"  smaller: {command(seed, smaller)}\n    {found.problem}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
