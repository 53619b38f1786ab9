"""Shared by the tests of the torch tasks: a small text, set-ups, and tasks that are loaded once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fednode.node.demo.corpus import Shares, write_shares
from fednode.training import tasks
from fednode.training.exact.initial import initial_state
from fednode.training.exact.schema import Schema
from fednode.training.tasks import Task, Trained
from fednode.training.trainers.builtin import DIGITS_MLP, TINY_BYTE_LLAMA
from fednode.types import PartyName, RunId, TrainerSetup

State = dict[str, NDArray[np.float32]]
MakeSetup = Callable[..., TrainerSetup]


def make_setup(
    task: str = "lm",
    *,
    data: dict[str, object],
    model: dict[str, object] | None = None,
    training: dict[str, object] | None = None,
    seed: int = 7,
    index: int = 0,
) -> TrainerSetup:
    """A set-up with small defaults; `model` and `training` replace single keys."""
    tables: dict[str, object] = {
        "name": TINY_BYTE_LLAMA if task == "lm" else DIGITS_MLP,
        "quantisation": "nf4" if task == "lm" else "none",
        "rank": 4,
        "alpha": 8,
        "dropout": 0.0,
        "target_modules": "all-linear",
    }
    steps: dict[str, object] = {
        "task": task,
        "steps": 3,
        "batch": 4,
        "sequence": 64,
        "learning_rate": 4e-3,
        "optimiser": "adamw",
        "weight_decay": 0.01,
        "clip_norm": 1.0,
        "phase": "alternate",
    }
    return TrainerSetup(
        task,
        {**tables, **(model or {})},
        {**steps, **(training or {})},
        "i8",
        seed,
        PartyName("alice"),
        index,
        RunId("00" * 16),
        data,
        "cpu",
        1,
    )


def start_of(task: Task, seed: int = 7) -> State:
    """S_0 of the task's adapter."""
    rank = next(shape[0] for name, shape in task.facts().tensors if ".lora_A." in name)
    return initial_state(Schema.of(task.facts(), rank=rank, alpha=8, quantisation="nf4", codec="i8"), seed)


def train(task: Task, start: State, **changes: Any) -> Trained:
    """One local phase with defaults."""
    arguments: dict[str, Any] = {"round_number": 1, "phase": "AB", "optimiser": {}, "progress": lambda *_: None}
    return task.train(start, **(arguments | changes))


def same(one: Any, other: Any) -> bool:
    """Whether two mappings of arrays are equal to the bit."""
    return one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in one)


@pytest.fixture(scope="session")
def shares(tmp_path_factory: pytest.TempPathFactory) -> Shares:
    """The demo's text for three parties, its held-out part cut to 4 kB."""
    found = write_shares(tmp_path_factory.mktemp("shares"), ["alice", "bob", "carol"])
    found.held_out.write_bytes(found.held_out.read_bytes()[:4096])
    return found


@pytest.fixture(scope="session")
def lm_setup(shares: Shares) -> TrainerSetup:
    return make_setup(data={"path": str(shares.parties[0])})


@pytest.fixture(scope="session")
def lm(lm_setup: TrainerSetup) -> Task:
    """The tiny language model, NF4."""
    return tasks.load(lm_setup)


@pytest.fixture(scope="session")
def digits() -> Task:
    return tasks.load(
        make_setup("digits", data={"parties": 3}, training={"steps": 15, "batch": 64, "learning_rate": 1e-2})
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out"
