"""The aggregate equals a plain-integer reference for every rule, order, split and thread count."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fednode.errors import ConfigError, ObjectRefused, TrainingError
from fednode.training.exact.aggregate import Rule, clip_factors, make_plan
from fednode.training.exact.aggregator import AggregatorSettings, ExactAggregator
from fednode.training.exact.objects import object_prefix
from fednode.training.exact.outer_step import Outer, OuterKind
from fednode.training.exact.sorting import network, sum_of_middle
from fednode.training.exact.state_file import read_state, state_digest
from fednode.training.exact.tensors import read_tensors
from fednode.training.exact.writer import encode_object
from fednode.types import Codec, PartyName, PhasePolicy, phase_of


@dataclass
class Run:
    """One aggregator, objects and state in a folder."""

    folder: Path
    small: SimpleNamespace
    parties: int
    codec: Codec = "i8"
    rule: Rule = "mean"
    clip: bool = True
    outer: OuterKind = "nesterov"
    policy: PhasePolicy = "both"
    weights: Sequence[int] = ()
    objects: dict[PartyName, Path] = field(default_factory=dict)

    def names(self) -> list[PartyName]:
        return [PartyName(f"p{i:02}") for i in range(self.parties)]

    def aggregator(self, *, threads: int = 1, chunk: int = 32768) -> ExactAggregator:
        schema = self.small.schema(self.codec)
        from fednode.types import ModelFacts

        facts = ModelFacts(tuple((spec.name, spec.shape) for spec in schema.tensors), schema.base)
        weights = self.weights or [1] * self.parties
        settings_ = AggregatorSettings(
            facts, 4, 8, "nf4", self.codec, 3, self.policy, self.rule, self.clip, self.outer, 0.7, 0.5,
            tuple(zip(self.names(), weights, strict=True)),
        )  # fmt: skip
        return ExactAggregator(settings_, threads=threads, chunk=chunk)

    def store(self, round_number: int, seed: int, sizes: Sequence[float]) -> None:
        schema = self.small.schema(self.codec)
        for i, (party, size) in enumerate(zip(self.names(), sizes, strict=True)):
            who = self.small.identity(party, round=round_number, phase=phase_of(round_number, self.policy))
            sent = encode_object(self.folder, schema, who, self.small.update(schema, 1000 * seed + i, size))
            self.objects[party] = self.folder / f"{sent.digest}.safetensors"

    def advance(
        self, round_number: int, *, threads: int = 1, chunk: int = 32768, tag: str = ""
    ) -> dict[str, np.ndarray]:
        momentum = self.folder / f"m{round_number - 1}"
        result = self.aggregator(threads=threads, chunk=chunk).aggregate(
            round_number,
            self.objects,
            state=self.folder / f"s{round_number - 1}",
            momentum=momentum if momentum.exists() else None,
            new_state=self.folder / f"s{round_number}{tag}",
            new_momentum=self.folder / f"m{round_number}{tag}",
        )
        state = read_state(self.folder / f"s{round_number}{tag}", self.small.schema(self.codec))
        assert result.digest == state_digest(state)
        return state


@pytest.fixture
def make_run(tmp_path: Path, small: SimpleNamespace) -> object:
    counter = itertools.count()

    def make(parties: int, **options: object) -> Run:
        folder = tmp_path / str(next(counter))
        folder.mkdir()
        run = Run(folder, small, parties, **options)  # type: ignore[arg-type]  # a test's shorthand
        run.aggregator().initial(folder / "s0")
        return run

    return make


def expected_step(
    run: Run, plain: SimpleNamespace, state: dict[str, np.ndarray], momentum: dict[str, np.ndarray]
) -> None:
    """The outer step element by element on the reference's sums, in place."""
    updates = [plain.decode(run.objects[party].read_bytes(), run.small.shapes) for party in run.names()]
    sums, divisor = plain.combine(updates, list(run.weights) or [1] * run.parties, run.rule, run.clip)
    lr, mu = np.float32(0.7), np.float32(0.5)
    for name, totals in sums.items():
        s, v = state[name].reshape(-1), momentum[name].reshape(-1)
        for i, g in enumerate(plain.average(totals, divisor)):
            if run.outer == "none":
                s[i] = s[i] + g
                continue
            v[i] = (mu * v[i]) + g
            t = mu * v[i]
            t = g + t
            t = lr * t
            s[i] = s[i] + t


CASES = [
    (codec, rule, parties)
    for codec in ("i8", "i4", "tk64", "f32")
    for rule in ("mean", "trimmed_mean", "median")
    for parties in (1, 4, 5)
]


@pytest.mark.parametrize(("codec", "rule", "parties"), CASES)
def test_equals_the_reference(make_run: object, plain: SimpleNamespace, codec: Codec, rule: Rule, parties: int) -> None:
    run: Run = make_run(parties, codec=codec, rule=rule)  # type: ignore[operator]
    schema = run.small.schema(codec)
    state = read_state(run.folder / "s0", schema)
    momentum = {name: np.zeros_like(tensor) for name, tensor in state.items()}
    for number in (1, 2):
        # One party is 30 times as loud, one is silent: clipping and the lower median both matter.
        run.store(number, number, [1e-3 * (30 if i == 1 else 0 if i == 2 else 1 + i) for i in range(parties)])
        found = run.advance(number)
        expected_step(run, plain, state, momentum)
        for name, tensor in state.items():
            assert found[name].tobytes() == tensor.tobytes()
        kept = read_tensors(run.folder / f"m{number}")
        assert all(kept[name].tobytes() == tensor.tobytes() for name, tensor in momentum.items())


def test_weights_and_no_clip(make_run: object, plain: SimpleNamespace) -> None:
    run: Run = make_run(3, weights=[1, 1000, 23], clip=False, outer="none")  # type: ignore[operator]
    run.store(1, 0, [1e-3, 1.0, 1e-6])
    state = read_state(run.folder / "s0", run.small.schema("i8"))
    expected_step(run, plain, state, {name: tensor * 0 for name, tensor in state.items()})
    found = run.advance(1)
    assert all(found[name].tobytes() == tensor.tobytes() for name, tensor in state.items())
    assert read_tensors(run.folder / "m1") == {}


@pytest.mark.parametrize("rule", ["mean", "trimmed_mean", "median"])
def test_29_parties_at_the_largest_values(make_run: object, plain: SimpleNamespace, rule: Rule) -> None:
    """All codes 127 (or -127) with the largest scale: the widest sums there are."""
    weights = [35] * 29 if rule == "mean" else []
    run: Run = make_run(29, rule=rule, weights=weights)  # type: ignore[operator]
    run.store(1, 0, [1e9] * 29)
    schema = run.small.schema("i8")
    rng = np.random.default_rng(0)
    for party, path in run.objects.items():
        blob = bytearray(path.read_bytes())
        start = len(object_prefix(schema, run.small.identity(party)))
        layout = schema.layout("AB")
        codes = np.zeros(layout.elements, np.int8)
        for segment in layout.segments(0, layout.elements):
            codes[segment.chunk : segment.chunk + segment.size] = rng.choice([-127, 127, 127], segment.size)
        blob[start : start + layout.elements] = codes.tobytes()
        blob[start + layout.elements :] = b"\xff" * (layout.elements // 64)
        path.write_bytes(blob)
    state = read_state(run.folder / "s0", schema)
    expected_step(run, plain, state, {name: tensor * 0 for name, tensor in state.items()})
    found = run.advance(1)
    assert all(found[name].tobytes() == tensor.tobytes() for name, tensor in state.items())


@pytest.mark.parametrize("codec", ["i8", "i4", "tk64", "f32"])
@pytest.mark.parametrize("rule", ["mean", "trimmed_mean"])
def test_threads_chunks_and_order_change_nothing(make_run: object, codec: Codec, rule: Rule) -> None:
    run: Run = make_run(4, codec=codec, rule=rule)  # type: ignore[operator]
    run.store(1, 5, [1e-3, 2e-3, 1e-2, 1e-3])
    digests = {state_digest(run.advance(1))}
    run.objects = dict(reversed(run.objects.items()))
    for i, (threads, chunk) in enumerate([(1, 4096), (2, 4096), (3, 8192), (8, 1 << 20)]):
        digests.add(state_digest(run.advance(1, threads=threads, chunk=chunk, tag=f"-{i}")))
    assert len(digests) == 1
    assert len({path.read_bytes() for path in run.folder.glob("m1*")}) == 1


def test_alternation_moves_one_factor_and_its_momentum(make_run: object, plain: SimpleNamespace) -> None:
    run: Run = make_run(2, policy="alternate")  # type: ignore[operator]
    schema = run.small.schema("i8")
    state = read_state(run.folder / "s0", schema)
    momentum = {name: np.zeros_like(tensor) for name, tensor in state.items()}
    for number in (1, 2, 3):
        run.store(number, number, [1e-3, 1e-3])
        before = {name: tensor.copy() for name, tensor in state.items()}
        found = run.advance(number)
        expected_step(run, plain, state, momentum)
        for name, tensor in found.items():
            assert tensor.tobytes() == state[name].tobytes()
            assert (tensor == before[name]).all() == (("lora_B" in name) != (number % 2 == 1))
        kept = read_tensors(run.folder / f"m{number}")
        assert all(kept[name].tobytes() == tensor.tobytes() for name, tensor in momentum.items())


def test_outliers_are_named(make_run: object) -> None:
    run: Run = make_run(3)  # type: ignore[operator]
    run.store(1, 0, [1e-3, 1e-2, 1.5e-3])
    result = run.aggregator().aggregate(
        1,
        run.objects,
        state=run.folder / "s0",
        momentum=None,
        new_state=run.folder / "s",
        new_momentum=run.folder / "m",
    )
    assert result.outliers == ("p01",)


def test_check_and_exact_size(make_run: object) -> None:
    run: Run = make_run(2, policy="alternate")  # type: ignore[operator]
    run.store(2, 0, [1e-3, 1e-3])
    aggregator, path = run.aggregator(), run.objects[PartyName("p00")]
    assert aggregator.object_size(2, PartyName("p01")) == path.stat().st_size
    here = {"run": run.small.run, "round_number": 2, "party": PartyName("p00"), "base": run.small.base}
    aggregator.check(path, **here, phase="A")
    with pytest.raises(ObjectRefused) as caught:
        aggregator.check(path, **{**here, "party": PartyName("p01")}, phase="A")
    assert caught.value.rule == "party"


def test_damaged_input_leaves_nothing_behind(make_run: object) -> None:
    run: Run = make_run(2)  # type: ignore[operator]
    run.store(1, 0, [1e-3, 1e-3])
    before = sorted(run.folder.iterdir())
    path = run.objects[PartyName("p01")]
    good = path.read_bytes()
    for bad in (good[:-1], good[: -len(good) // 2] + b"\x80" * (len(good) // 2)):
        path.write_bytes(bad[: len(good)])
        with pytest.raises(ObjectRefused):
            run.advance(1)
    path.write_bytes(good)
    (run.folder / "s0").write_bytes(b"torn")
    with pytest.raises(TrainingError, match="damaged"):
        run.advance(1)
    assert sorted(run.folder.iterdir()) == before


@pytest.mark.parametrize("outer", ["nesterov", "none"])
def test_the_digest_on_the_disk_tells_of_damage(make_run: object, outer: OuterKind) -> None:
    run: Run = make_run(2, outer=outer)  # type: ignore[operator]
    aggregator, state, momentum = run.aggregator(), run.folder / "s1", run.folder / "m1"
    assert aggregator.digest(run.folder / "s0", None) == aggregator.initial(run.folder / "again")
    run.store(1, 1, [1.0, 1.0])
    digest = state_digest(run.advance(1))
    assert aggregator.digest(state, momentum) == digest
    whole = state.read_bytes()
    state.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert aggregator.digest(state, momentum) != digest
    state.write_bytes(whole[:-1])
    with pytest.raises(TrainingError, match="damaged"):
        aggregator.digest(state, momentum)
    state.write_bytes(whole)
    momentum.write_bytes(momentum.read_bytes()[:-1])
    if outer == "none":
        assert aggregator.digest(state, momentum) == digest
    else:
        with pytest.raises(TrainingError, match="damaged"):
            aggregator.digest(state, momentum)
    state.unlink()
    with pytest.raises(TrainingError, match="missing"):
        aggregator.digest(state, None)


def test_leftover_of_a_killed_attempt_is_removed(make_run: object) -> None:
    run: Run = make_run(1)  # type: ignore[operator]
    run.store(1, 0, [1e-3])
    (run.folder / ".s1.leftover").write_bytes(b"torn")
    run.advance(1)
    assert not list(run.folder.glob(".*"))


@pytest.mark.parametrize(
    ("rule", "weights"),
    [("median", [2, 1]), ("trimmed_mean", [1, 2]), ("mean", [1024, 1]), ("mean", [0, 1]), ("sum", [1])],
)
def test_weights_and_rules_that_are_refused(rule: Rule, weights: list[int]) -> None:
    with pytest.raises(ConfigError):
        make_plan(rule, [1024] * len(weights), weights)


@given(st.lists(st.integers(0, 2**120), min_size=1, max_size=29))
def test_clip_factors_bring_lengths_to_the_median(norms: list[int]) -> None:
    factors = clip_factors(norms)
    assert all(0 < c <= 1024 or norms[i] > 2**20 * min(n for n in norms if n) for i, c in enumerate(factors))
    positive = sorted(n for n in norms if n)
    for norm, factor in zip(norms, factors, strict=True):
        if norm == 0 or norm <= positive[(len(positive) - 1) // 2]:
            assert factor == 1024
        else:
            assert factor**2 * norm <= positive[(len(positive) - 1) // 2] << 20 < (factor + 1) ** 2 * norm


@given(st.data())
@settings(max_examples=200)
def test_network_sums_the_middle(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 29))
    first = data.draw(st.integers(0, count - 1))
    end = data.draw(st.integers(first + 1, count))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    values = rng.integers(-(2**52), 2**52, (count, 16))
    values[:, :4] = rng.integers(-1, 2, (count, 4))
    expected = np.sort(values, axis=0)[first:end].sum(axis=0)
    found = sum_of_middle(list(values), first, end, np.empty(16, np.int64))
    assert (found == expected).all()


def test_network_is_pruned() -> None:
    assert len(network(10, 3, 7)) < len(network(10, 3, 4)) + 6 <= 35
    assert network(3, 0, 3) == ()


def test_outer_step_is_single_float32_operations() -> None:
    rng = np.random.default_rng(0)
    s, g, v = (rng.standard_normal(1000).astype(np.float32) for _ in range(3))
    moved, momentum = s.copy(), v.copy()
    Outer("nesterov", 0.7, 0.5).step(moved, g.copy(), momentum)
    for i in range(1000):
        t = np.float32(np.float64(np.float32(0.5)) * np.float64(v[i]))
        w = np.float32(np.float64(t) + np.float64(g[i]))
        t = np.float32(np.float64(np.float32(0.5)) * np.float64(w))
        t = np.float32(np.float64(g[i]) + np.float64(t))
        t = np.float32(np.float64(np.float32(0.7)) * np.float64(t))
        assert momentum[i] == w
        assert moved[i] == np.float32(np.float64(s[i]) + np.float64(t))


def test_state_survives_a_copy_of_the_folder(make_run: object) -> None:
    run: Run = make_run(2)  # type: ignore[operator]
    run.store(1, 0, [1e-3, 1e-3])
    first = state_digest(run.advance(1))
    shutil.copytree(run.folder, run.folder / "copy")
    run.folder /= "copy"
    assert state_digest(run.advance(1)) == first
