"""The trainer as the daemon sees it: started on first use, started again after a crash, gone with the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fednode.training.channel import Message, facts_from_json, record
from fednode.training.child import Child, ChildLog
from fednode.types import ModelFacts, Progress, TrainerSetup, TrainRequest, TrainResult


class TrainerProcess:
    """Satisfies `Trainer` in the daemon's ports. One request at a time; others wait.

    `log` receives what the child writes to stderr, at most a few megabytes. Use it from one event loop that runs in a
    lasting thread: the kernel ends the child with the thread that started it.
    """

    def __init__(self, setup: TrainerSetup, log: Path) -> None:
        self._setup = setup
        self._log = ChildLog(log)
        self._lock = asyncio.Lock()
        self._child: Child | None = None

    async def describe(self) -> ModelFacts:
        """Load the model (first use) and tell its tensors and files. Raises ConfigError, TrainingError."""
        return facts_from_json(await self._call({"op": "describe"}))

    async def train(self, request: TrainRequest, progress: Progress | None = None) -> TrainResult:
        """One local phase; object and bundle are durable when it returns. Cancelling it kills the child.

        Raises TrainingError, also where the child dies; the next call starts another one.
        """
        return record(TrainResult, await self._call({"op": "train", **asdict(request)}, progress))

    async def evaluate(self, state: Path | None, data: Path) -> dict[str, Any]:
        """`loss`, `accuracy` (or None) and `count` of a state file on held-out data; None = the base model alone."""
        return await self._call({"op": "evaluate", "state": None if state is None else str(state), "data": str(data)})

    async def alone(
        self, rounds: int, rates: Sequence[float], data: Path, progress: Progress | None = None
    ) -> dict[str, Any]:
        """What this party reaches without any exchange, at the best of the learning rates.

        The keys of `evaluate` and `rate`; no rates = the agreement's own, told as None.
        """
        return await self._call({"op": "alone", "rounds": rounds, "rates": list(rates), "data": str(data)}, progress)

    @property
    def pid(self) -> int | None:
        """Process id of the living child."""
        return self._child.pid if self._child is not None and self._child.alive else None

    async def aclose(self) -> None:
        """End the child at once, whatever it does."""
        child, self._child = self._child, None
        if child is not None:
            await child.kill()

    async def _call(self, message: Message, progress: Progress | None = None) -> Message:
        async with self._lock:
            try:
                return await (await self._ready()).exchange(message, progress)
            except asyncio.CancelledError:
                # It may be deep in a training step that nobody waits for any more.
                await asyncio.shield(self.aclose())
                raise

    async def _ready(self) -> Child:
        if self._child is not None and self._child.alive:
            return self._child
        await self.aclose()
        child = self._child = await Child.start(self._setup, self._log)
        try:
            await child.exchange({"op": "setup", **asdict(self._setup)}, None)
        except BaseException:
            await asyncio.shield(self.aclose())
            raise
        return child
