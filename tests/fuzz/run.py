"""The fuzzer: inputs from seeds, counted; the first finding is printed as the command that replays it."""

from __future__ import annotations

import argparse
import logging
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence

from .targets import TARGETS, Target


class Finding(AssertionError):
    """An input with an outcome that is not documented."""


def fuzz(name: str, count: int, *, seed: int = 0) -> Counter[str]:
    """Try the inputs of the seeds `seed` .. `seed + count - 1`; the outcomes counted. Raises Finding."""
    outcomes = Counter[str]()
    logging.disable()
    try:
        _try_all(name, TARGETS[name], range(seed, seed + count), outcomes)
    except KeyboardInterrupt:
        outcomes["interrupted"] = 1  # what was tried until now is told
    finally:
        logging.disable(logging.NOTSET)
    return outcomes


def _try_all(name: str, target: Target, seeds: range, outcomes: Counter[str]) -> None:
    for number in seeds:
        made = target.make(random.Random(f"{name}/{number}"))
        try:
            outcomes[target.judge(made)] += 1
        except Exception as error:
            replay = f"scripts/fuzz --target {name} --seed {number} --count 1"
            shown = repr(made)
            raise Finding(f"{type(error).__name__}: {error}\ninput: {shown[:2000]}\nreplay: {replay}") from error


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--target", choices=[*TARGETS, "all"], required=True)
    parser.add_argument("--count", type=int, default=10_000, help="inputs [default: 10000]")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first input [default: 0]")
    options = parser.parse_args(words)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for name in TARGETS if options.target == "all" else [options.target]:
        began = time.monotonic()
        try:
            outcomes = fuzz(name, options.count, seed=options.seed)
        except Finding as finding:
            sys.stdout.write(f"{name}: FOUND {finding}\n")
            traceback.print_exception(finding.__cause__)
            return 1
        seconds = time.monotonic() - began
        interrupted = outcomes.pop("interrupted", 0)
        counts = ", ".join(f"{outcome} {number}" for outcome, number in sorted(outcomes.items()))
        tried = outcomes.total()
        sys.stdout.write(f"{name}: {tried} inputs in {seconds:.1f} s ({tried / seconds:.0f}/s): {counts}; no finding\n")
        sys.stdout.flush()
        if interrupted:
            return 130
    return 0
