"""One local phase: state and bundle in, object and bundle out (protocol.md section 3, steps 1 and 2)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fednode.errors import TrainingError
from fednode.training.arrays import F32
from fednode.training.bundle import Bundle, read_bundle, write_bundle
from fednode.training.exact.initial import initial_state
from fednode.training.exact.objects import ObjectId
from fednode.training.exact.schema import Schema
from fednode.training.exact.state_file import read_state
from fednode.training.exact.writer import encode_object
from fednode.training.settings import Table
from fednode.training.tasks import Evaluation, Task, Trained
from fednode.types import Phase, PhasePolicy, Progress, TrainerSetup, TrainRequest, TrainResult, phase_of


class LocalTrainer:
    """A loaded task with everything that turns its weights into objects."""

    def __init__(self, setup: TrainerSetup, task: Task) -> None:
        self._setup = setup
        self._task = task
        self.facts = task.facts()
        table = Table("model", setup.model)
        self.schema = Schema.of(
            self.facts,
            rank=table.whole("rank", least=1),
            alpha=table.number("alpha"),
            quantisation=table.text("quantisation", "none"),
            codec=setup.codec,
        )

    def train(self, request: TrainRequest, progress: Progress) -> TrainResult:
        """Train, encode, and write object and bundle durably. The same request gives the same files.

        Raises TrainingError where the schema is another one, an own file is damaged or the result is not finite.
        """
        began = time.monotonic()
        if request.schema != self.schema.digest:
            raise TrainingError(
                f"round {request.round}: the trainer's schema is {self.schema.digest}, the run's is {request.schema}",
                hint="the base model's files or the [model] table changed since the run began",
            )
        start = read_state(Path(request.state), self.schema)
        bundle = read_bundle(None if request.bundle is None else Path(request.bundle), self.schema)
        trained = self._phase(start, request.round, request.phase, bundle, progress, None)
        update: dict[str, F32] = {}
        for spec in self.schema.layout(request.phase).tensors:
            update[spec.name] = trained.weights[spec.name] - start[spec.name]
            if spec.name in bundle.residual:
                np.add(update[spec.name], bundle.residual[spec.name], out=update[spec.name])
        identity = ObjectId(self._setup.run, request.round, self._setup.party, request.phase, request.base)
        sent = encode_object(Path(request.objects), self.schema, identity, update, threads=self._setup.threads)
        kept = write_bundle(
            Path(request.bundles) / f"{request.round:06d}.safetensors",
            bundle.after(request.phase, sent.residual, trained.optimiser),
        )
        return TrainResult(request.round, sent.digest, sent.size, kept, trained.loss, time.monotonic() - began)

    def evaluate(self, state: str | None, path: str) -> Evaluation:
        """Held-out quality of a state file's adapter; None = the base model alone."""
        return self._task.evaluate({} if state is None else read_state(Path(state), self.schema), path)

    def alone(
        self, rounds: int, rates: Sequence[float], path: str, progress: Progress
    ) -> tuple[Evaluation, float | None]:
        """What this party reaches without any exchange: the same phases and steps from S_0, the best of the rates.

        Returns the best evaluation and its rate; no `rates` = the agreement's own, returned as None.
        """
        found: list[tuple[Evaluation, float | None]] = []
        tried: Sequence[float | None] = rates or [None]
        for rate in tried:
            state: Mapping[str, F32] = initial_state(self.schema, self._setup.seed)
            bundle = Bundle()
            for number in range(1, rounds + 1):
                phase = phase_of(number, self._policy())
                trained = self._phase(state, number, phase, bundle, progress, rate)
                state = {**state, **trained.weights}
                bundle = bundle.after(phase, {}, trained.optimiser)
            found.append((self._task.evaluate(state, path), rate))
        return min(found, key=lambda entry: entry[0].loss)

    def _phase(
        self,
        start: Mapping[str, F32],
        number: int,
        phase: Phase,
        bundle: Bundle,
        progress: Progress,
        rate: float | None,
    ) -> Trained:
        trained = self._task.train(
            start,
            round_number=number,
            phase=phase,
            optimiser=bundle.moving(phase),
            progress=progress,
            learning_rate=rate,
        )
        for spec in self.schema.layout(phase).tensors:
            weights = trained.weights.get(spec.name)
            if weights is None or weights.shape != spec.shape or weights.dtype != np.float32:
                raise TrainingError(f"the trainer returned no float32 {spec.shape} for {spec.name!r}")
            if not np.isfinite(weights).all():
                raise TrainingError(
                    f"round {number}: {spec.name!r} has NaN or infinite values after training",
                    hint="lower training.learning_rate, or check the own data",
                )
        return trained

    def _policy(self) -> PhasePolicy:
        return "both" if self._setup.training.get("phase") == "both" else "alternate"
