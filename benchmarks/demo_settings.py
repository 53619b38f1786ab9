"""How the demo's settings were found: parties alone against federated, simulated in one process.

    OMP_NUM_THREADS=1 python benchmarks/demo_settings.py --task lm --seeds 0 1 2 --rates 4e-3 --alone-rates 2e-3

Training is the real thing (the tasks `lm` and `digits`), and so are S_0 and the encoding with error feedback;
aggregation is clipped mean and Nesterov in floating point: good enough to choose settings, not protocol.md section 6.
One JSON line per run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fednode.node.demo import corpus
from fednode.training import tasks
from fednode.training.codec.base import BLOCK
from fednode.training.codec.table import CODEC
from fednode.training.exact.initial import initial_state
from fednode.training.exact.schema import Schema, factor_of, padded
from fednode.training.tasks import Evaluation, Task
from fednode.training.trainers.builtin import DIGITS_MLP, TINY_BYTE_LLAMA
from fednode.types import PartyName, RunId, TrainerSetup, phase_of

State = dict[str, NDArray[np.float32]]
OUTER_RATE, MOMENTUM = np.float32(0.7), np.float32(0.5)


@dataclass
class Party:
    """One party: its task, and what it keeps between rounds."""

    task: Task
    optimiser: dict[str, NDArray[Any]] = field(default_factory=dict[str, NDArray[Any]])
    residual: State = field(default_factory=dict[str, NDArray[np.float32]])

    def train(self, start: State, round_number: int, options: argparse.Namespace, rate: float) -> State:
        """The party's weights after one local phase; optimiser state is kept per factor."""
        phase = phase_of(round_number, options.phase)
        kept = {key: value for key, value in self.optimiser.items() if key[0] in phase}
        trained = self.task.train(
            start, round_number=round_number, phase=phase, optimiser=kept, progress=ignore, learning_rate=rate
        )
        self.optimiser.update(trained.optimiser)
        return dict(trained.weights)

    def update(self, start: State, weights: State, moving: Sequence[str]) -> State:
        """What peers would decode of the update, with error feedback."""
        decoded: State = {}
        for name in moving:
            wanted = weights[name] - start[name] + self.residual.get(name, np.float32(0))
            flat = np.zeros(padded(wanted.size, BLOCK), np.float32)
            flat[: wanted.size] = wanted.ravel()
            _, back = CODEC["i8"].encode(flat, [(wanted.size, len(flat))] if len(flat) > wanted.size else [])
            decoded[name] = back[: wanted.size].reshape(wanted.shape)
            self.residual[name] = wanted - decoded[name]
        return decoded


def ignore(_step: int, _steps: int, _loss: float) -> None:
    """No progress shown."""


def setup_of(options: argparse.Namespace, seed: int, index: int, data: dict[str, object]) -> TrainerSetup:
    """The tables as the demo would write them."""
    lm = options.task == "lm"
    model = {
        "name": TINY_BYTE_LLAMA if lm else DIGITS_MLP,
        "quantisation": "nf4" if lm else "none",
        "rank": options.rank,
        "alpha": 2 * options.rank,
        "dropout": 0.0,
        "target_modules": "all-linear",
    }
    training = {
        "task": options.task,
        "steps": options.steps,
        "batch": options.batch,
        "sequence": options.sequence,
        "learning_rate": 1e-3,
        "optimiser": "adamw",
        "weight_decay": 0.0,
        "clip_norm": 1.0,
        "phase": options.phase,
    }
    return TrainerSetup(
        options.task, model, training, "i8", seed, PartyName(f"p{index}"), index, RunId("00" * 16), data, "cpu", 1
    )


def clipped(updates: Sequence[State]) -> list[State]:
    """Every update shortened to the median norm."""
    norms = [float(np.sqrt(sum(np.vdot(x, x) for x in update.values()))) for update in updates]
    median = sorted(norms)[(len(norms) - 1) // 2]
    factors = [np.float32(min(1.0, median / norm)) if norm else np.float32(1) for norm in norms]
    return [{name: c * x for name, x in update.items()} for c, update in zip(factors, updates, strict=True)]


def federated(parties: Sequence[Party], start: State, options: argparse.Namespace, rate: float) -> State:
    """All rounds together."""
    state, momentum = dict(start), {name: np.zeros_like(tensor) for name, tensor in start.items()}
    for round_number in range(1, options.rounds + 1):
        moving = [name for name in state if factor_of(name) in phase_of(round_number, options.phase)]
        updates = clipped(
            [party.update(state, party.train(state, round_number, options, rate), moving) for party in parties]
        )
        for name in moving:
            mean = np.mean([update[name] for update in updates], axis=0, dtype=np.float64).astype(np.float32)
            momentum[name] = MOMENTUM * momentum[name] + mean
            state[name] = state[name] + OUTER_RATE * (mean + MOMENTUM * momentum[name])
    return state


def alone(party: Party, start: State, options: argparse.Namespace, rate: float) -> State:
    """The same number of steps by one party without the others."""
    state = dict(start)
    for round_number in range(1, options.rounds + 1):
        state = party.train(state, round_number, options, rate)
    return state


def load_tasks(options: argparse.Namespace, seed: int, folder: Path) -> tuple[list[Task], str]:
    """One task per party, and the held-out file."""
    names = [f"p{index}" for index in range(options.parties)]
    shares = corpus.write_shares(folder, names)
    data: list[dict[str, object]] = [{"path": str(path), "parties": options.parties} for path in shares.parties]
    setups = [setup_of(options, seed, index, item) for index, item in enumerate(data)]
    return [tasks.load(setup) for setup in setups], str(shares.held_out)


def report(kind: str, seed: int, rate: float, found: Sequence[Evaluation], seconds: float) -> None:
    """One line of the table; several evaluations = one per party."""
    print(
        json.dumps(
            {
                "run": kind,
                "seed": seed,
                "rate": rate,
                "loss": [round(item.loss, 4) for item in found],
                "accuracy": [item.accuracy and round(item.accuracy, 4) for item in found],
                "seconds": round(seconds, 1),
            }
        ),
        flush=True,
    )


def one_seed(options: argparse.Namespace, seed: int, folder: Path) -> None:
    """Base, federated at every rate, alone at every rate."""
    loaded, held_out = load_tasks(options, seed, folder)
    schema = Schema.of(loaded[0].facts(), rank=options.rank, alpha=2 * options.rank, quantisation="nf4", codec="i8")
    start: State = initial_state(schema, seed)
    report("base", seed, 0.0, [loaded[0].evaluate({}, held_out)], 0.0)

    def run(kind: str, rate: float, make: Callable[[], list[State]]) -> None:
        started = time.monotonic()
        states = make()
        seconds = time.monotonic() - started
        report(kind, seed, rate, [loaded[0].evaluate(state, held_out) for state in states], seconds)

    for rate in options.rates:
        run("federated", rate, lambda rate=rate: [federated([Party(task) for task in loaded], start, options, rate)])
    for rate in options.alone_rates:
        run("alone", rate, lambda rate=rate: [alone(Party(task), start, options, rate) for task in loaded])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=("lm", "digits"), default="lm")
    parser.add_argument("--parties", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--sequence", type=int, default=128)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--phase", choices=("alternate", "both"), default="alternate")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rates", type=float, nargs="*", default=[4e-3])
    parser.add_argument("--alone-rates", type=float, nargs="*", default=[2e-3])
    options = parser.parse_args()
    print(json.dumps(vars(options)), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for seed in options.seeds:
            one_seed(options, seed, Path(folder) / str(seed))


if __name__ == "__main__":
    main()
