"""The language model task: determinism, phases, restarts, micro-batches, evaluation, errors."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fednode.errors import ConfigError, TrainingError
from fednode.node.demo.corpus import Shares
from fednode.training.tasks import Task, load
from fednode.training.trainers.builtin import TINY_BYTE_LLAMA, builtin_folder, builtin_sha256
from fednode.training.trainers.device import out_of_memory
from fednode.types import TrainerSetup
from tests.training.torch.conftest import make_setup, same, start_of, train

pytestmark = pytest.mark.torch


def test_facts_are_pefts_names_and_the_weights_digest(lm: Task) -> None:
    from peft import get_peft_model_state_dict

    facts = lm.facts()
    names = [name for name, _ in facts.tensors]
    assert names == sorted(names, key=lambda name: name.encode())
    peft_state = get_peft_model_state_dict(lm._adapter.model)  # type: ignore[attr-defined]  # the peft model itself
    assert dict(facts.tensors) == {name: tuple(tensor.shape) for name, tensor in peft_state.items()}
    assert facts.base == builtin_sha256(TINY_BYTE_LLAMA)


def test_the_same_round_gives_the_same_bytes(lm: Task, lm_setup: TrainerSetup, shares: Shares) -> None:
    start = start_of(lm)
    first = train(lm, start)
    lm.evaluate(start, str(shares.held_out))
    second = train(load(lm_setup), start)
    assert same(first.weights, second.weights)
    assert same(first.optimiser, second.optimiser)
    assert first.loss == second.loss


def test_rounds_seeds_and_parties_differ(lm: Task, lm_setup: TrainerSetup) -> None:
    start = start_of(lm)
    found = {train(lm, start).loss, train(lm, start, round_number=2).loss}
    found |= {
        train(load(replace(lm_setup, seed=8)), start).loss,
        train(load(replace(lm_setup, party_index=1)), start).loss,
    }
    assert len(found) == 4


@pytest.mark.parametrize("phase", ["A", "B"])
def test_only_the_factor_of_the_phase_moves(lm: Task, phase: str) -> None:
    start = dict(train(lm, start_of(lm), round_number=9).weights)  # B is not zero any more
    trained = train(lm, start, phase=phase)
    for name, tensor in trained.weights.items():
        assert np.array_equal(tensor, start[name]) == (f".lora_{phase}." not in name), name
    assert {key[:2] for key in trained.optimiser} == {f"{phase}/"}


def test_a_restart_with_the_optimiser_state_changes_nothing(lm: Task, lm_setup: TrainerSetup) -> None:
    """Two rounds in one process equal one round here, and the second in a new task from arrays."""
    one = train(lm, start_of(lm), phase="B")
    two = train(lm, dict(one.weights), round_number=3, phase="B", optimiser=one.optimiser)
    stored = {
        key: np.frombuffer(value.tobytes(), value.dtype).reshape(value.shape) for key, value in one.optimiser.items()
    }
    other = load(lm_setup)
    again = train(other, {k: v.copy() for k, v in one.weights.items()}, round_number=3, phase="B", optimiser=stored)
    assert same(two.weights, again.weights)
    assert same(two.optimiser, again.optimiser)
    assert {int(value.item()) for key, value in two.optimiser.items() if key.endswith("/step")} == {6}
    fresh = train(lm, dict(one.weights), round_number=3, phase="B")
    assert not same(two.weights, fresh.weights)


def test_optimiser_state_of_another_model_is_refused(lm: Task) -> None:
    start = start_of(lm)
    state = {key: value[..., :1] for key, value in train(lm, start).optimiser.items()}
    with pytest.raises(TrainingError, match="optimiser state"):
        train(lm, start, optimiser=state)


@pytest.mark.parametrize("change", [{"micro_batch": 1}, {"micro_batch": 3}, {"micro_batch": 2, "checkpointing": True}])
def test_micro_batches_do_not_change_the_step(shares: Shares, change: dict[str, object]) -> None:
    """Same gradient up to rounding; unquantised in float32, so that rounding is small."""
    data: dict[str, object] = {"path": str(shares.parties[0])}
    model: dict[str, object] = {"quantisation": "none"}
    training: dict[str, object] = {"steps": 1, "batch": 8}
    whole = load(make_setup(data=data, model=model, training=training))
    parts = load(make_setup(data=data | change, model=model, training=training))
    start = start_of(whole)
    one, other = train(whole, start), train(parts, start)
    assert one.loss == pytest.approx(other.loss, rel=1e-6)
    for key, value in one.optimiser.items():
        if key.endswith("/exp_avg"):
            np.testing.assert_allclose(value, other.optimiser[key], rtol=1e-3, atol=1e-7, err_msg=key)


@pytest.mark.parametrize("quantisation", ["nf4", "int8", "none"])
def test_training_lowers_the_loss_and_learning_is_evaluated(shares: Shares, quantisation: str, tmp_path: Path) -> None:
    text = tmp_path / "own.jsonl"
    line = json.dumps({"body": "the quick brown fox jumps over the lazy dog; " * 4})
    text.write_text("\n".join([line] * 20))
    setup = make_setup(
        data={"path": str(text), "field": "body"},
        model={"quantisation": quantisation},
        training={"steps": 12, "learning_rate": 1e-2},
    )
    task = load(setup)
    start = start_of(task)
    base = task.evaluate({}, str(text))
    assert base == task.evaluate(start, str(text))  # B is zero
    trained = train(task, start)
    after = task.evaluate(trained.weights, str(text))
    assert after.loss < 0.8 * base.loss
    assert base == task.evaluate({}, str(text))
    assert (base.count, base.accuracy) == (20 * 181 - 2, None)  # 20 texts of 180 bytes, separated


def test_evaluation_is_the_mean_over_every_token(lm: Task, tmp_path: Path) -> None:
    """Against a direct computation: windows of 64 and a shorter last one."""
    import torch

    text = bytes(range(32, 127)) * 2
    file = tmp_path / "held.txt"
    file.write_bytes(text)
    found = lm.evaluate({}, str(file))
    tokens = torch.tensor(list(text))
    model: Any = lm._adapter.model  # type: ignore[attr-defined]  # the peft model itself
    total = 0.0
    with torch.no_grad(), model.disable_adapter():
        for first in range(0, len(tokens) - 1, 64):
            part = tokens[first : first + 65]
            logs = model(input_ids=part[None, :-1]).logits[0].float().log_softmax(-1)
            total -= float(logs[torch.arange(len(part) - 1), part[1:]].sum())
    assert found.count == len(text) - 1
    assert found.loss == pytest.approx(total / found.count, rel=2e-3)  # bfloat16, other batch shapes


def test_dropout_is_seeded(shares: Shares) -> None:
    task = load(make_setup(data={"path": str(shares.parties[0])}, model={"dropout": 0.3}))
    start = start_of(task)
    one = train(task, start)
    assert same(one.weights, train(task, start).weights)


def test_a_loss_that_is_not_finite_is_an_error(lm: Task) -> None:
    with pytest.raises(TrainingError, match="at step") as caught:
        train(lm, {name: tensor + np.float32(1e30) for name, tensor in start_of(lm).items()})
    assert "learning_rate" in caught.value.hint


def test_a_state_of_another_adapter_is_refused(lm: Task) -> None:
    start = start_of(lm)
    name = next(iter(start))
    with pytest.raises(TrainingError, match="shape"):
        train(lm, start | {name: np.zeros((1, 1), np.float32)})
    del start[name]
    with pytest.raises(TrainingError, match="tensor names"):
        train(lm, start)


def test_a_text_shorter_than_a_sequence_is_refused(lm_setup: TrainerSetup, tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("too short")
    task = load(replace(lm_setup, data={"path": str(short)}))
    with pytest.raises(TrainingError, match="9 tokens, but one sequence needs 65"):
        train(task, start_of(task))


def test_missing_folder_digests_and_modules(lm_setup: TrainerSetup, tmp_path: Path) -> None:
    def loading(**model: object) -> Task:
        return load(replace(lm_setup, model={**lm_setup.model, **model}))

    with pytest.raises(ConfigError, match="does not exist"):
        loading(path=str(tmp_path / "nowhere"))
    with pytest.raises(TrainingError, match="pickled weights are never loaded"):
        loading(path=str(tmp_path))
    with pytest.raises(ConfigError, match=r"sha256 is [0-9a-f]{64}, but"):
        loading(sha256={"model.safetensors": "00" * 32})
    with pytest.raises(ConfigError, match=r"other\.safetensors"):
        loading(sha256=builtin_sha256(TINY_BYTE_LLAMA) | {"other.safetensors": "00" * 32})
    with pytest.raises(ConfigError, match="target_modules"):
        loading(target_modules=["no_such_module"])
    assert loading(sha256=builtin_sha256(TINY_BYTE_LLAMA), target_modules=["q_proj"]).facts().base


def test_a_model_without_tokenizer_says_how_to_mark_it(lm_setup: TrainerSetup, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(builtin_folder(TINY_BYTE_LLAMA), copy)
    config = json.loads((copy / "config.json").read_text())
    del config["fednode_tokenizer"]
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(TrainingError, match="tokenizer") as caught:
        load(replace(lm_setup, model={**lm_setup.model, "path": str(copy)}))
    assert "fednode_tokenizer" in caught.value.hint


def test_out_of_memory_says_what_to_lower() -> None:
    import torch

    with pytest.raises(TrainingError, match="out of memory") as caught, out_of_memory("lower the batch"):
        torch.empty(1 << 60, dtype=torch.float32)
    assert caught.value.hint == "lower the batch"


def test_a_gpu_that_is_not_there_is_a_settings_error(lm_setup: TrainerSetup) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match="finds no GPU"):
        load(replace(lm_setup, device="cuda"))
