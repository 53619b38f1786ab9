"""What the demo agrees on: the tables of its peers.toml by task. README says how they were chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

TASKS: Final = ("lm", "digits", "linear")
DEPOSIT_ADA: Final = 30
"""Covers max(10, 3 N) ADA for the largest demo."""

MODEL: Final[Mapping[str, Mapping[str, Any]]] = {
    "lm": {"name": "builtin:tiny-byte-llama", "quantisation": "nf4", "rank": 8, "alpha": 16.0},
    "digits": {"name": "builtin:digits-mlp", "quantisation": "none", "rank": 8, "alpha": 16.0},
    "linear": {"name": "builtin:linear", "quantisation": "none", "rank": 4, "alpha": 8.0},
}
TRAINING: Final[Mapping[str, Mapping[str, Any]]] = {
    "lm": {"steps": 40, "batch": 4, "sequence": 128, "learning_rate": 4e-3, "phase": "alternate"},
    "digits": {"steps": 15, "batch": 64, "learning_rate": 1e-2, "phase": "both"},
    "linear": {"steps": 20, "batch": 32, "learning_rate": 0.02, "phase": "alternate"},
}
ALONE_RATES: Final[Mapping[str, tuple[float, ...]]] = {
    "lm": (2e-3,),
    "digits": (1e-3,),
    "linear": (0.02,),
}
"""Learning rates with which a lone party is tried; the best counts."""
ROUNDS: Final[Mapping[str, int]] = {"lm": 6, "digits": 8, "linear": 6}


def agreement_values(task: str, rounds: int, seed: int, sha256: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Tables for `tomlwrite.agreement_text`; the rest keeps its default. `sha256`: of the base."""
    return {
        "run": {"name": f"demo-{task}", "rounds": rounds, "seed": seed},
        "model": {**MODEL[task], "sha256": sha256},
        "training": {"task": task, **TRAINING[task]},
        "head": {"network": "embedded", "deposit": DEPOSIT_ADA * 1_000_000, "takeover_s": 2.0},
    }
