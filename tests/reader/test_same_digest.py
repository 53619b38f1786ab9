"""The shipped aggregator against the synthetic run, which the reader has recomputed: three programs, one digest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from reader import read_run
from synthetic import RANK, SHAPES, Synthetic

from fednode.errors import ObjectRefused
from fednode.training.exact.aggregator import AggregatorSettings, ExactAggregator
from fednode.types import Digest, ModelFacts, PartyName, RunId, phase_of

FOUR: dict[str, Any] = {"names": ("alice", "bob", "carol", "dave"), "weights": (1, 1, 1, 1)}
CASES: list[dict[str, Any]] = [
    {},
    {"codec": "i4", "phase": "both", "weights": (5, 1000)},
    {"codec": "tk64", "rounds": 3},
    {"codec": "f32", "clip": False, "outer": "none"},
    {**FOUR, "rule": "trimmed_mean", "rounds": 4},
    {**FOUR, "rule": "median", "codec": "i4"},
]


def aggregator(run: Synthetic) -> ExactAggregator:
    schema: Any = run.schema()
    rules: Any = run.agreement()["aggregation"]
    policy: Any = run.phase
    return ExactAggregator(
        AggregatorSettings(
            facts=ModelFacts(tuple((name, tuple(shape)) for name, shape in sorted(SHAPES.items())), schema["base"]),
            rank=RANK,
            alpha=schema["alpha"],
            quantisation=schema["quantisation"],
            seed=run.seed,
            phase_policy=policy,
            members=tuple((PartyName(name), weight) for name, weight in zip(run.names, run.weights, strict=True)),
            **rules,
        )
    )


@pytest.mark.parametrize(
    "settings", CASES, ids=lambda case: ",".join(f"{k}={v}" for k, v in case.items()) or "defaults"
)
def test_one_digest(tmp_path: Path, settings: dict[str, Any]) -> None:
    run = Synthetic(**settings)
    buckets, digests = run.write(tmp_path / "buckets")
    assert read_run(buckets)["digests"] == digests
    ours, policy = aggregator(run), phase_of(1, "both") if run.phase == "both" else None
    assert ours.schema_digest == run.schema_hash
    assert ours.initial(tmp_path / "S0") == digests[0]
    momentum: Path | None = None
    for number in range(1, run.rounds + 1):
        objects = {PartyName(n): path_of(run, n, number) for n in run.names}
        for party, path in objects.items():
            ours.check(
                path,
                run=RunId(run.run.hex()),
                round_number=number,
                party=party,
                phase=policy or phase_of(number, "alternate"),
                base=Digest(digests[number - 1]),
            )
            assert path.stat().st_size == ours.object_size(number, party)
        state, new, v = tmp_path / f"S{number - 1}", tmp_path / f"S{number}", tmp_path / f"v{number}"
        result = ours.aggregate(number, objects, state=state, momentum=momentum, new_state=new, new_momentum=v)
        assert result.digest == digests[number]
        momentum = v


def path_of(run: Synthetic, party: str, number: int) -> Path:
    [path] = (run.folders[party] / f"{number:06d}").glob("*.safetensors")
    return path


def test_another_party_is_refused(tmp_path: Path) -> None:
    run = Synthetic()
    _, digests = run.write(tmp_path)
    identity = {"run": RunId(run.run.hex()), "round_number": 1, "phase": "B", "base": Digest(digests[0])}
    keywords: Any = identity | {"party": PartyName("bob")}
    with pytest.raises(ObjectRefused):
        aggregator(run).check(path_of(run, "alice", 1), **keywords)
