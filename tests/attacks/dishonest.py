"""Ten parties that train, three of them dishonest in what they send; aggregated by the shipped rule, without a head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fednode.training import tasks
from fednode.training.exact.aggregate import Rule
from fednode.training.exact.aggregator import AggregatorSettings, ExactAggregator
from fednode.training.local_phase import LocalTrainer
from fednode.training.trainers import linear
from fednode.types import PartyName, Phase, RunId, TrainerSetup, TrainRequest, phase_of

PARTIES, DISHONEST, SEED = 10, 3, 11
LEARNING_RATE = 0.01
"""Half the demo's: at a higher one the noise of the steps outweighs, at the end, what any rule does about a liar."""
Update = dict[str, np.ndarray[Any, np.dtype[np.float32]]]
Change = Callable[["Liar", Update], Update]
"""What a dishonest party sends instead of its update."""


@dataclass
class Liar:
    """A task whose results are changed before they are encoded. `seen` holds the first honest party's last update."""

    task: Any
    change: Change
    seen: Update
    rng: np.random.Generator

    def facts(self) -> Any:
        return self.task.facts()

    def evaluate(self, state: Mapping[str, Any], path: str) -> Any:
        return self.task.evaluate(state, path)

    def train(self, start: Mapping[str, Any], **rest: Any) -> Any:
        done = self.task.train(start, **rest)
        phase: Phase = rest["phase"]
        moving = [name for name in done.weights if name.split(".lora_")[1][0] in phase]
        update = self.change(self, {name: done.weights[name] - start[name] for name in moving})
        for name in moving:
            done.weights[name][...] = start[name] + update[name].astype(np.float32)
        return done


def honest(liar: Liar, update: Update) -> Update:
    return update


def flipped(liar: Liar, update: Update) -> Update:
    return {name: -array for name, array in update.items()}


def hundredfold(liar: Liar, update: Update) -> Update:
    return {name: 100 * array for name, array in update.items()}


def flipped_hundredfold(liar: Liar, update: Update) -> Update:
    return {name: -100 * array for name, array in update.items()}


def noise(liar: Liar, update: Update) -> Update:
    """As long as an honest update."""
    found = {name: liar.rng.standard_normal(array.shape) for name, array in update.items()}
    return {name: (array * norm(update) / norm(found)).astype(np.float32) for name, array in found.items()}


def loud_noise(liar: Liar, update: Update) -> Update:
    return hundredfold(liar, noise(liar, update))


def copied(liar: Liar, update: Update) -> Update:
    """The first party's update again, as if it were the own one."""
    return dict(liar.seen)


def norm(update: Update) -> float:
    return float(np.sqrt(sum(float((array.astype(np.float64) ** 2).sum()) for array in update.values())))


@dataclass
class Outcome:
    """Held-out loss after every round, and how often each party was named."""

    losses: list[float] = field(default_factory=list)
    named: dict[str, int] = field(default_factory=dict)


def play(folder: Path, rounds: int, change: Change, *, alike: bool, rule: Rule = "trimmed_mean") -> Outcome:
    """The last three of ten parties send what `change` makes of their update.

    `alike`: every party draws from the whole input space. Otherwise, as the task has it, each from its own half of the
    directions: what a party knows of a direction then half of the others do not.
    """
    names = [PartyName(f"p{index}") for index in range(PARTIES)]
    seen: Update = {}
    trainers = [_trainer(index, change, seen, alike=alike) for index in range(PARTIES)]
    aggregator = ExactAggregator(
        AggregatorSettings(
            trainers[0].facts, 4, 8, "none", "i8", SEED, "alternate", rule, True, "nesterov", 0.7, 0.5,
            tuple((name, 1) for name in names),
        ),
        threads=1,
    )  # fmt: skip
    base = aggregator.initial(folder / "s0")
    outcome = Outcome(named=dict.fromkeys(names, 0))
    for name in names:
        (folder / name).mkdir()
    for number in range(1, rounds + 1):
        objects: dict[PartyName, Path] = {}
        for index, name in enumerate(names):
            done = trainers[index].train(_request(folder, names[index], number, base, aggregator), lambda *_: None)
            objects[name] = folder / name / f"{done.object}.safetensors"
            aggregator.check(
                objects[name], run=RUN, round_number=number, party=name, phase=phase_of(number, "alternate"), base=base
            )
        momentum = folder / f"m{number - 1}"
        found = aggregator.aggregate(
            number,
            objects,
            state=folder / f"s{number - 1}",
            momentum=momentum if momentum.exists() else None,
            new_state=folder / f"s{number}",
            new_momentum=folder / f"m{number}",
        )
        base = found.digest
        for name in found.outliers:
            outcome.named[name] += 1
        outcome.losses.append(trainers[0].evaluate(str(folder / f"s{number}"), "").loss)
    return outcome


RUN = RunId("0" * 32)


def _trainer(index: int, change: Change, seen: Update, *, alike: bool) -> LocalTrainer:
    setup = TrainerSetup(
        task="linear",
        model={"rank": 4, "alpha": 8, "quantisation": "none"},
        training={"steps": 20, "batch": 32, "learning_rate": LEARNING_RATE, "phase": "alternate"},
        codec="i8",
        seed=SEED,
        party=PartyName(f"p{index}"),
        party_index=index,
        run=RUN,
        data={},
        device="cpu",
        threads=1,
    )

    def keep(liar: Liar, update: Update) -> Update:
        seen.clear()
        seen.update({name: array.copy() for name, array in update.items()})
        return update

    chosen = keep if index == 0 else change if index >= PARTIES - DISHONEST else honest
    task: Any = tasks.load(setup)
    if alike:
        rng = np.random.default_rng([SEED, 9, index])
        task._own = task._labelled(rng.standard_normal((linear.OWN_ROWS, linear.SIZE)).astype(np.float32), rng)
    return LocalTrainer(setup, Liar(task, chosen, seen, np.random.default_rng([SEED, index])))


def _request(folder: Path, name: PartyName, number: int, base: Any, aggregator: ExactAggregator) -> TrainRequest:
    bundle = folder / name / f"{number - 1:06d}.safetensors"
    return TrainRequest(
        round=number,
        phase=phase_of(number, "alternate"),
        base=base,
        state=str(folder / f"s{number - 1}"),
        bundle=str(bundle) if bundle.exists() else None,
        objects=str(folder / name),
        bundles=str(folder / name),
        schema=aggregator.schema_digest,
    )
