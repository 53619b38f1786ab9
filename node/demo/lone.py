"""What the federation is compared with: the base model alone, and every party training alone for as many steps."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fednode.node import app
from fednode.node.demo.prepare import Federation
from fednode.node.demo.tables import ALONE_RATES
from fednode.training.client import TrainerProcess

AT_ONCE = 4
"""Trainer children that work at the same time: each holds a model."""


@dataclass(slots=True)
class Judge:
    """Held-out quality. One trainer child stays loaded, to judge the federated adapter at the end."""

    federation: Federation
    base: Mapping[str, Any] = field(default_factory=dict[str, Any])
    alone: dict[str, Mapping[str, Any]] = field(default_factory=dict[str, "Mapping[str, Any]"])
    _trainer: TrainerProcess | None = None

    async def measure(self) -> None:
        """The base model, and all parties alone, side by side."""
        slots = asyncio.Semaphore(AT_ONCE)
        first = next(iter(self.federation.parties))
        await asyncio.gather(*(self._lone(name, slots, stays=name == first) for name in self.federation.parties))

    async def federated(self, state: Path) -> Mapping[str, Any]:
        """Quality of the final adapter."""
        trainer = self._trainer or self._start(next(iter(self.federation.parties)))
        self._trainer = trainer
        return await trainer.evaluate(state, self.federation.held_out)

    async def aclose(self) -> None:
        if self._trainer is not None:
            await self._trainer.aclose()

    async def _lone(self, name: str, slots: asyncio.Semaphore, *, stays: bool) -> None:
        federation = self.federation
        async with slots:
            trainer = self._start(name)
            if stays:
                self._trainer = trainer
            try:
                if stays:
                    self.base = await trainer.evaluate(None, federation.held_out)
                rates = ALONE_RATES[federation.task]
                self.alone[name] = await trainer.alone(federation.rounds, rates, federation.held_out)
            finally:
                if not stays:
                    await trainer.aclose()

    def _start(self, name: str) -> TrainerProcess:
        home = self.federation.home(name)
        site = app.open_site(home, peers=self.federation.dir / "peers.toml", epochs=self.federation.rounds)
        return TrainerProcess(app.trainer_setup(site), home.root / "alone.log")
