"""The digits task."""

from __future__ import annotations

import numpy as np
import pytest

from fednode.errors import ConfigError, TrainingError
from fednode.training.tasks import Task, load
from fednode.training.trainers import images
from tests.training.torch.conftest import make_setup, same, start_of, train

pytestmark = pytest.mark.torch


def test_every_image_has_one_owner() -> None:
    base, held_out, shared = images.all_images()
    assert (len(base.labels), len(held_out.labels)) == (100, 360)
    for parties in (2, 3, 10):
        hands = [images.share(shared, seed=5, parties=parties, index=i) for i in range(parties)]
        assert sum(len(hand.labels) for hand in hands) == len(shared.labels) == 1337
        assert min(len(hand.labels) for hand in hands) >= images.LEAST
        rows = np.concatenate([hand.pixels for hand in hands])
        assert np.array_equal(np.sort(rows, axis=None), np.sort(shared.pixels, axis=None))


def test_three_parties_together_beat_the_base_and_each_alone(digits: Task) -> None:
    """Plain averaging of three parties' weights over a few rounds."""
    training: dict[str, object] = {"steps": 15, "batch": 64, "learning_rate": 1e-2}
    parties = [load(make_setup("digits", data={"parties": 3}, training=training, index=i)) for i in range(3)]
    start = start_of(digits)
    together, alone = start, [start, start, start]
    for round_number in range(1, 5):
        outcomes = [train(party, together, round_number=round_number).weights for party in parties]
        together = {name: np.mean([w[name] for w in outcomes], axis=0, dtype=np.float32) for name in start}
        alone = [
            dict(train(party, own, round_number=round_number).weights)
            for party, own in zip(parties, alone, strict=True)
        ]
    base, after = digits.evaluate({}, ""), digits.evaluate(together, "")
    assert after.loss < base.loss
    assert after.accuracy is not None
    assert after.accuracy > 0.85
    assert all(digits.evaluate(own, "").loss > after.loss for own in alone)


def test_the_same_round_gives_the_same_bytes(digits: Task) -> None:
    start = start_of(digits)
    one, other = train(digits, start, phase="B"), train(digits, start, phase="B")
    assert same(one.weights, other.weights)
    assert same(one.optimiser, other.optimiser)
    assert all(np.array_equal(one.weights[name], start[name]) for name in start if ".lora_A." in name)


def test_facts_name_the_shipped_base(digits: Task) -> None:
    facts = digits.facts()
    assert list(facts.base) == ["model.safetensors"]
    assert [name for name, _ in facts.tensors][:2] == [
        "base_model.model.first.lora_A.weight",
        "base_model.model.first.lora_B.weight",
    ]


def test_settings_that_cannot_work() -> None:
    with pytest.raises(ConfigError, match="quantisation"):
        load(make_setup("digits", data={}, model={"quantisation": "nf4"}))
    with pytest.raises(TrainingError, match="dealt to 2 parties"):
        load(make_setup("digits", data={"parties": 2}, index=2))
