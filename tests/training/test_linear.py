"""The linear trainer: deterministic, and better together than alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from fednode.errors import ConfigError, TrainingError
from fednode.training import tasks
from fednode.training.exact.aggregator import AggregatorSettings, ExactAggregator
from fednode.training.exact.tensors import read_tensors
from fednode.training.local_phase import LocalTrainer
from fednode.training.trainers import linear
from fednode.types import Codec, PartyName, RunId, TrainerSetup, TrainRequest, phase_of


def setup(index: int, codec: Codec = "i8", **training: object) -> TrainerSetup:
    return TrainerSetup(
        task="linear",
        model={"rank": 4, "alpha": 8, "quantisation": "none"},
        training={"steps": 20, "batch": 32, "learning_rate": 0.01, "phase": "alternate", **training},
        codec=codec,
        seed=11,
        party=PartyName(f"p{index}"),
        party_index=index,
        run=RunId("0" * 32),
        data={},
        device="cpu",
        threads=1,
    )


def silent(step: int, steps: int, loss: float) -> None:
    assert 1 <= step <= steps
    assert loss >= 0


class Federation:
    """All parties of a run in one process."""

    def __init__(self, folder: Path, parties: int, codec: Codec = "i8") -> None:
        self.folder = folder
        self.trainers = [LocalTrainer(s, tasks.load(s)) for s in (setup(i, codec) for i in range(parties))]
        self.names = [PartyName(f"p{i}") for i in range(parties)]
        self.aggregator = ExactAggregator(
            AggregatorSettings(
                self.trainers[0].facts, 4, 8, "none", codec, 11, "alternate", "mean", True, "nesterov", 0.7, 0.5,
                tuple((name, 1) for name in self.names),
            )
        )  # fmt: skip
        self.base = self.aggregator.initial(folder / "s0")
        for name in self.names:
            (folder / name).mkdir()

    def request(self, number: int, party: int) -> TrainRequest:
        own = self.folder / self.names[party]
        bundle = own / f"{number - 1:06d}.safetensors"
        return TrainRequest(
            number,
            phase_of(number, "alternate"),
            self.base,
            str(self.folder / f"s{number - 1}"),
            str(bundle) if number > 1 else None,
            str(own),
            str(own),
            self.aggregator.schema_digest,
        )

    def round(self, number: int) -> None:
        objects: dict[PartyName, Path] = {}
        for i, trainer in enumerate(self.trainers):
            done = trainer.train(self.request(number, i), silent)
            name = self.names[i]
            objects[name] = self.folder / name / f"{done.object}.safetensors"
            assert objects[name].stat().st_size == done.size == self.aggregator.object_size(number, name)
        momentum = self.folder / f"m{number - 1}"
        self.base = self.aggregator.aggregate(
            number,
            objects,
            state=self.folder / f"s{number - 1}",
            momentum=momentum if momentum.exists() else None,
            new_state=self.folder / f"s{number}",
            new_momentum=self.folder / f"m{number}",
        ).digest


@pytest.mark.parametrize("codec", ["i8", "i4"])
def test_federated_beats_alone(tmp_path: Path, codec: Codec) -> None:
    together = Federation(tmp_path, 3, codec)
    for number in range(1, 9):
        together.round(number)
    shared = together.trainers[0].evaluate(str(tmp_path / "s8"), "").loss
    best = min(trainer.alone(8, [0.003, 0.01, 0.03], "", silent)[0].loss for trainer in together.trainers)
    base = together.trainers[0].evaluate(None, "").loss
    assert shared < 0.6 * best < 0.6 * base


def test_bundle_carries_residual_and_both_optimisers(tmp_path: Path) -> None:
    together = Federation(tmp_path, 2)
    together.round(1)
    together.round(2)
    names = set(read_tensors(tmp_path / "p0" / "000002.safetensors"))
    assert names == {
        *(f"residual/{f}/{linear.NAMES[f]}" for f in ("A", "B")),
        *(f"optimiser/{f}/{key}" for f in "AB" for key in "mvt"),
    }


def test_same_round_again_gives_the_same_bytes(tmp_path: Path) -> None:
    together = Federation(tmp_path, 2)
    together.round(1)
    first = together.trainers[0].train(together.request(2, 0), silent)
    other = LocalTrainer(setup(0), tasks.load(setup(0)))
    again = other.train(together.request(2, 0), silent)
    assert (again.object, again.bundle, again.loss) == (first.object, first.bundle, first.loss)


class Broken:
    """The linear task with a result that is not finite."""

    def __init__(self, task: linear.LinearTask) -> None:
        self._task = task
        self.facts = task.facts
        self.evaluate = task.evaluate

    def train(self, start: Mapping[str, tasks.F32], **options: object) -> tasks.Trained:
        weights = {name: tensor.copy() for name, tensor in start.items()}
        weights[linear.NAMES["B"]][0, 0] = np.nan
        return tasks.Trained(weights, {}, 1.0)


def test_non_finite_result_is_a_failed_training(tmp_path: Path) -> None:
    together = Federation(tmp_path, 1)
    trainer = LocalTrainer(setup(0), Broken(linear.load(setup(0))))  # type: ignore[arg-type]  # **options on purpose
    with pytest.raises(TrainingError, match="NaN or infinite"):
        trainer.train(together.request(1, 0), silent)
    assert not list((tmp_path / "p0").iterdir())


def test_schema_of_another_run_is_refused(tmp_path: Path) -> None:
    together = Federation(tmp_path, 1)
    trainer = LocalTrainer(setup(0, "i4"), tasks.load(setup(0)))
    with pytest.raises(TrainingError, match="schema"):
        trainer.train(together.request(1, 0), silent)


def test_unknown_task_and_bad_value_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected one of digits, linear, lm"):
        tasks.load(TrainerSetup("nope", {}, {}, "i8", 0, PartyName("p"), 0, RunId("0" * 32), {}, "cpu", 1))
    with pytest.raises(ConfigError, match=r"training\.steps"):
        tasks.load(setup(0, steps=0))
