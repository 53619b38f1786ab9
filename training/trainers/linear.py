"""The `linear` trainer: least squares with one LoRA factor pair, in plain numpy, milliseconds a round.

y = x (W0 + alpha/rank B A)^T. Every party draws its inputs from half of the directions only, so a party alone cannot
learn what the held-out inputs, which use all directions, ask for. A real trainer without torch: for tests of the
daemon, for load and for a first run on any machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from math import sqrt

import numpy as np

from fednode.training.arrays import F32, LE_F32, AnyArray, raw
from fednode.training.exact.schema import Factor
from fednode.training.settings import Table
from fednode.training.tasks import Evaluation, Trained
from fednode.types import ModelFacts, Phase, Progress, TrainerSetup

SIZE = 64
"""Inputs and outputs."""
OWN_ROWS, HELD_OUT_ROWS = 512, 1024
LAYER = "base_model.model.linear"
NAMES: Mapping[Factor, str] = {"A": f"{LAYER}.lora_A.weight", "B": f"{LAYER}.lora_B.weight"}
NOISE = 0.05
"""Standard deviation of the label noise."""
BETAS, EPSILON = (0.9, 0.999), 1e-8


def load(setup: TrainerSetup) -> LinearTask:
    """The task of one party; all data comes from (seed, party index). Raises ConfigError."""
    return LinearTask(setup)


class LinearTask:
    """Satisfies `Task`."""

    def __init__(self, setup: TrainerSetup) -> None:
        self._seed = setup.seed
        self._party = setup.party_index
        model, training = Table("model", setup.model), Table("training", setup.training)
        self._rank = model.whole("rank", least=1, default=4)
        self._scale = np.float32(model.positive("alpha", 8) / self._rank)
        self._steps = training.whole("steps", least=1, default=10)
        self._batch = training.whole("batch", least=1, default=32)
        self._rate = training.positive("learning_rate", 0.01)
        world = np.random.default_rng([setup.seed, 0])
        self._base = _matrix(world, SIZE, SIZE)
        directions, _ = np.linalg.qr(world.standard_normal((SIZE, SIZE)))
        low_rank = _matrix(world, SIZE, self._rank) @ _matrix(world, self._rank, SIZE)
        self._truth = (self._base + low_rank).astype(np.float32)
        own = np.random.default_rng([setup.seed, 1, setup.party_index])
        seen = directions[own.permutation(SIZE)[: SIZE // 2]].astype(np.float32)
        # sqrt(2): half of the directions carry the same power as all of them in the held-out inputs.
        inputs = own.standard_normal((OWN_ROWS, SIZE // 2), np.float32) @ seen * np.float32(sqrt(2))
        self._own = self._labelled(inputs, own)
        held = np.random.default_rng([setup.seed, 2])
        self._held_out = self._labelled(held.standard_normal((HELD_OUT_ROWS, SIZE), np.float32), held)

    def facts(self) -> ModelFacts:
        shapes: Mapping[Factor, tuple[int, int]] = {"A": (self._rank, SIZE), "B": (SIZE, self._rank)}
        digest = hashlib.sha256(raw(self._base.astype(LE_F32, copy=False))).hexdigest()
        return ModelFacts(tuple((NAMES[factor], shapes[factor]) for factor in ("A", "B")), {"linear.f32": digest})

    def train(
        self,
        start: Mapping[str, F32],
        *,
        round_number: int,
        phase: Phase,
        optimiser: Mapping[str, AnyArray],
        progress: Progress,
        learning_rate: float | None = None,
    ) -> Trained:
        rng = np.random.default_rng([self._seed, 3, self._party, round_number])
        factors: dict[Factor, F32] = {"A": start[NAMES["A"]].copy(), "B": start[NAMES["B"]].copy()}
        moving: list[Factor] = [factor for factor in ("A", "B") if factor in phase]
        adam = {factor: _Adam(factors[factor], optimiser, factor) for factor in moving}
        losses: list[float] = []
        for step in range(1, self._steps + 1):
            rows = rng.integers(0, OWN_ROWS, self._batch)
            loss, gradients = self._gradients(factors, self._own[0][rows], self._own[1][rows])
            for factor in moving:
                adam[factor].move(factors[factor], gradients[factor], learning_rate or self._rate)
            losses.append(loss)
            progress(step, self._steps, loss)
        state = {key: array for factor in moving for key, array in adam[factor].state(factor).items()}
        return Trained({NAMES[factor]: factors[factor] for factor in factors}, state, float(np.mean(losses)))

    def evaluate(self, state: Mapping[str, F32], path: str) -> Evaluation:
        """Mean squared error on the run's held-out rows; `path` is ignored."""
        inputs, labels = self._held_out
        weight = self._base
        if state:
            weight = weight + self._scale * (state[NAMES["B"]] @ state[NAMES["A"]])
        error = inputs @ weight.T - labels
        return Evaluation(float(np.mean(error.astype(np.float64) ** 2)), None, len(inputs))

    def _labelled(self, inputs: F32, rng: np.random.Generator) -> tuple[F32, F32]:
        noise = NOISE * rng.standard_normal((len(inputs), SIZE))
        return inputs, (inputs @ self._truth.T + noise).astype(np.float32)

    def _gradients(self, factors: Mapping[Factor, F32], x: F32, y: F32) -> tuple[float, dict[Factor, F32]]:
        """Loss and its gradient: shapes of A [rank, SIZE] and B [SIZE, rank]."""
        hidden = x @ factors["A"].T
        error = x @ self._base.T + self._scale * (hidden @ factors["B"].T) - y
        slope = (error * (2 * float(self._scale) / error.size)).astype(np.float32)
        return float(np.mean(error.astype(np.float64) ** 2)), {
            "A": ((slope @ factors["B"]).T @ x).astype(np.float32),
            "B": (slope.T @ hidden).astype(np.float32),
        }


class _Adam:
    """Adam (Kingma and Ba 2015) on one factor, its state as flat arrays."""

    def __init__(self, weights: F32, state: Mapping[str, AnyArray], factor: Factor) -> None:
        self._first = state.get(f"{factor}/m", np.zeros(weights.size, np.float32)).reshape(weights.shape).copy()
        self._second = state.get(f"{factor}/v", np.zeros(weights.size, np.float32)).reshape(weights.shape).copy()
        self._step = int(state.get(f"{factor}/t", np.zeros(1, np.int64))[0])

    def move(self, weights: F32, gradient: F32, rate: float) -> None:
        """One step, in place."""
        self._step += 1
        self._first += np.float32(1 - BETAS[0]) * (gradient - self._first)
        self._second += np.float32(1 - BETAS[1]) * (gradient * gradient - self._second)
        first = self._first / np.float32(1 - BETAS[0] ** self._step)
        second = self._second / np.float32(1 - BETAS[1] ** self._step)
        weights -= np.float32(rate) * first / (np.sqrt(second) + np.float32(EPSILON))

    def state(self, factor: Factor) -> dict[str, AnyArray]:
        return {
            f"{factor}/m": self._first.reshape(-1),
            f"{factor}/v": self._second.reshape(-1),
            f"{factor}/t": np.array([self._step], np.int64),
        }


def _matrix(rng: np.random.Generator, rows: int, columns: int) -> F32:
    """Entries of variance 1/columns."""
    return rng.standard_normal((rows, columns), np.float32) / np.float32(sqrt(columns))
