"""What a seed decides before anything runs: size, policies, faults and their rates, who lies and how."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from .setting import Terms

RATES: dict[str, tuple[float, float]] = {
    "crash-point": (0.002, 0.06),
    "journal-error": (0.002, 0.03),
    "training-error": (0.05, 0.4),
    "message-lost": (0.02, 0.3),
    "message-doubled": (0.05, 0.5),
    "layer1-lost": (0.1, 0.5),
    "rest-error": (0.02, 0.4),
    "bucket-unavailable": (0.02, 0.4),
    "bucket-timeout": (0.05, 0.5),
    "bucket-stale": (0.05, 0.5),
    "bucket-denied": (0.02, 0.2),
    "bucket-wrong-bytes": (0.02, 0.25),
}
"""Faults of single operations, with the least and the largest chance."""
CHAOS = (
    "kill",
    "power-cut",
    "stop",
    "node-crash",
    "drop-connection",
    "half-open",
    "clock-jump",
    "bucket-outage",
    "slow-network",
    "restore",
    "absence",
    "rot",
    "lost-folder",
)
"""Faults that come at some time."""
SLOWNESS = ("slow-training", "slow-disk", "slow-node")
FAULTS = (*RATES, *CHAOS, *SLOWNESS)
LIES = (
    "equivocate",
    "early",
    "wrong-size",
    "wrong-object",
    "bad-object",
    "two-faced",
    "wrong-base",
    "wrong-amount",
    "foreign",
    "spam",
    "repeat",
    "missing",
    "dangerous",
)
"""What the dishonest party does."""


@dataclass(frozen=True)
class Limits:
    """Takes from a seed what is not needed to make it fail."""

    parties: int | None = None
    rounds: int | None = None
    without: frozenset[str] = frozenset()
    """Kinds of faults, or `lie`, or `files`."""
    lie: str | None = None
    """This lie, whatever the seed says."""
    faults: frozenset[str] = frozenset()
    """These faults, whatever the seed says."""
    files: bool | None = None
    close: bool | None = None
    """Whether a deadline or a fault closes the head."""


@dataclass(frozen=True)
class Plan:
    seed: int
    terms: Terms
    version: str
    files: bool
    """Real files, the shipped journal and bucket, nothing remembered."""
    noisy: bool
    """Training the same twice gives two adapters."""
    safety_s: float
    """Seconds until the faults end."""
    every_s: float
    """Mean seconds between two faults that come at some time."""
    rates: dict[str, float] = field(default_factory=dict)
    chaos: tuple[str, ...] = ()
    slow: tuple[str, ...] = ()
    forced: frozenset[str] = frozenset()
    """Faults that were asked for: they come more often."""
    lie: str | None = None
    liar: int = -1
    lie_round: int = 0

    @property
    def exact(self) -> bool:
        return self.files


def plan_of(seed: int, limits: Limits | None = None) -> Plan:
    limits = limits or Limits()
    rng = Random(f"{seed}/plan")
    parties = rng.choices((2, 3, 4, 5), (55, 33, 8, 4))[0]
    rounds = rng.choices((1, 2, 3, 4), (30, 45, 18, 7))[0]
    policy = rng.random()
    lie, liar, lie_round = rng.choice(LIES), rng.randrange(parties), rng.randint(0, rounds + 1)
    lying = rng.random() < 0.25
    files = rng.random() < 0.01
    version = "2.3.0-embedded" if rng.random() < 0.3 else "2.3.0"
    noisy = rng.random() < 0.5
    safety, every = rng.choice((40.0, 100.0, 300.0, 600.0)), rng.choice((6.0, 20.0, 60.0))
    quiet = rng.random() < 0.1
    rates, chaos, slow = _faults(Random(f"{seed}/faults"), limits, quiet=quiet)
    parties, rounds = limits.parties or parties, limits.rounds or rounds
    lie = limits.lie or lie
    close = policy < 0.25 if limits.close is None else limits.close
    terms = Terms(
        parties,
        rounds,
        deadline_s=900.0 if close else 86400.0,
        on_deadline="close" if close else "wait",
        on_fault="close" if close else "halt",
    )
    honest = (not lying and limits.lie is None) or "lie" in limits.without
    return Plan(
        seed=seed,
        terms=terms,
        version=version,
        files=(files and "files" not in limits.without) if limits.files is None else limits.files,
        noisy=noisy,
        safety_s=safety,
        every_s=every,
        rates=rates,
        chaos=chaos,
        slow=slow,
        forced=limits.faults,
        lie=None if honest else lie,
        liar=-1 if honest else liar % parties,
        lie_round=min(lie_round, rounds + 1),
    )


def _faults(rng: Random, limits: Limits, *, quiet: bool) -> tuple[dict[str, float], tuple[str, ...], tuple[str, ...]]:
    rates: dict[str, float] = {}
    for kind, (least, most) in RATES.items():
        wanted, rate = rng.random() < 0.4, least * (most / least) ** rng.random()
        if (wanted and not quiet) or kind in limits.faults:
            rates[kind] = max(rate, (least + most) / 2) if kind in limits.faults else rate
    chosen = [kind for kind in (*CHAOS, *SLOWNESS) if rng.random() < 0.4]
    chosen = [kind for kind in (*CHAOS, *SLOWNESS) if (kind in chosen and not quiet) or kind in limits.faults]
    without = limits.without
    return (
        {kind: rate for kind, rate in rates.items() if kind not in without},
        tuple(kind for kind in chosen if kind in CHAOS and kind not in without),
        tuple(kind for kind in chosen if kind in SLOWNESS and kind not in without),
    )
