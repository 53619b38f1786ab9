"""Schema, layout, S_0 and our own tensor files."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from fednode.errors import ConfigError, TrainingError
from fednode.training.bundle import Bundle, read_bundle, write_bundle
from fednode.training.exact.initial import initial_state, write_initial
from fednode.training.exact.schema import Schema
from fednode.training.exact.state_file import read_state, state_digest
from fednode.training.exact.tensors import read_tensors, write_tensors
from fednode.types import ModelFacts


def test_schema_is_canonical_json(small: SimpleNamespace) -> None:
    schema = small.schema("i8")
    assert schema.json.startswith(b'{"alpha":8,"base":{"model.safetensors":"cdcd')
    parsed = json.loads(schema.json)
    assert sorted(parsed) == ["alpha", "base", "codec", "quantisation", "rank", "tensors"]
    assert parsed["tensors"] == [[name, list(small.shapes[name])] for name in sorted(small.shapes)]
    assert schema.digest == hashlib.sha256(schema.json).hexdigest()


@pytest.mark.parametrize(
    ("name", "shape"),
    [("a.lora_A.weight", (3, 8)), ("a.lora_B.weight", (4, 8)), ("a.weight", (4, 4)), ("a.lora_A.weight", (4, 8, 1))],
)
def test_tensor_that_is_no_factor_of_the_rank_is_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError):
        Schema.of(ModelFacts(((name, shape),), {}), rank=4, alpha=8, quantisation="none", codec="i8")


def test_layout_pads_each_tensor_to_64(small: SimpleNamespace) -> None:
    layout = small.schema("i8").layout("B")
    assert [spec.name for spec in layout.tensors] == ["m.0.lora_B.weight", "m.1.lora_B.weight"]
    assert layout.elements == 320 + 64
    assert layout.padding(0, 384) == [(280, 320), (332, 384)]
    assert small.schema("tk64").layout("B").elements == 4096


@given(st.data())
def test_any_split_of_the_layout_covers_every_element_once(small: SimpleNamespace, data: st.DataObject) -> None:
    layout = small.schema("tk64").layout("AB")
    cut = data.draw(st.integers(1, layout.elements))
    state: list[int] = []
    gaps = 0
    for lo in range(0, layout.elements, cut):
        hi = min(lo + cut, layout.elements)
        state += [at for seg in layout.segments(lo, hi) for at in range(seg.state, seg.state + seg.size)]
        gaps += sum(end - first for first, end in layout.padding(lo, hi))
    assert state == list(range(sum(spec.size for spec in layout.tensors)))
    assert gaps == layout.elements - len(state)


def test_first_state_follows_the_formula(small: SimpleNamespace) -> None:
    seed, name = 2**53 - 1, "m.1.lora_A.weight"
    state = initial_state(small.schema(), seed)
    stream = hashlib.shake_256(b"fednode/1/S0\0" + struct.pack("<Q", seed) + name.encode()).digest(4 * 4400)
    for i in (0, 1, 4399):
        (u,) = struct.unpack_from("<I", stream, 4 * i)
        assert state[name].reshape(-1)[i] == np.float32((2 * (u >> 8) + 1 - 2**24) * 2.0**-24 / 1100**0.5)
    assert not state["m.1.lora_B.weight"].any()
    assert np.abs(state[name]).max() < 1100**-0.5


def test_golden_first_state(small: SimpleNamespace, tmp_path: Path) -> None:
    schema = small.schema()
    digest = write_initial(tmp_path / "s", schema, 7)
    assert digest == "34289e8596100f6683367d7ccaa78ca41c6cad3097ba47c1c58f1e7eb58df134"
    assert digest == state_digest(initial_state(schema, 7)) == state_digest(read_state(tmp_path / "s", schema))
    loaded = safetensors.numpy.load_file(tmp_path / "s")
    assert state_digest(loaded) == digest


def test_damaged_state_is_refused(small: SimpleNamespace, tmp_path: Path) -> None:
    schema, path = small.schema(), tmp_path / "s"
    write_initial(path, schema, 7)
    good = path.read_bytes()
    for bad in (good[:-1], good + b"\0", good[:40] + b"!" + good[41:], b""):
        path.write_bytes(bad)
        with pytest.raises(TrainingError, match="damaged"):
            read_state(path, schema)


@given(flip=st.integers(0, 10_000), byte=st.integers(1, 255))
def test_tensor_file_with_a_changed_header_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, flip: int, byte: int
) -> None:
    path = tmp_path_factory.mktemp("t") / "t"
    write_tensors(path, {"b": np.ones((2, 3), np.float32), "a": np.zeros(0, np.float32), "c": np.ones(1, np.int64)})
    blob = bytearray(path.read_bytes())
    flip %= len(blob) - 32
    blob[flip] ^= byte
    path.write_bytes(blob)
    try:
        tensors = read_tensors(path)
    except TrainingError:
        return
    # A name or shape may read differently, but only as a file that this program could have written.
    write_tensors(path, tensors)
    assert path.read_bytes() == bytes(blob)


def test_bundle_keeps_the_factor_that_rests(small: SimpleNamespace, tmp_path: Path) -> None:
    schema = small.schema()
    residual = {spec.name: np.full(spec.shape, 0.5, np.float32) for spec in schema.tensors}
    state = {"A/m": np.ones(3, np.float32), "B/m": np.ones(4, np.float32), "B/t": np.array([7], np.int64)}
    before = Bundle(residual, state)
    moved = {spec.name: np.zeros(spec.shape, np.float32) for spec in schema.layout("B").tensors}
    write_bundle(tmp_path / "b", before.after("B", moved, {"B/t": np.array([8], np.int64)}))
    after = read_bundle(tmp_path / "b", schema)
    assert set(after.optimiser) == {"A/m", "B/t"}
    assert after.optimiser["B/t"][0] == 8
    assert after.residual["m.0.lora_A.weight"].all()
    assert not after.residual["m.0.lora_B.weight"].any()
    with pytest.raises(TrainingError, match="names no factor"):
        before.after("B", {}, {"m": np.ones(1, np.float32)})


def test_lost_bundle_is_empty_and_logged(
    small: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert read_bundle(tmp_path / "none", small.schema()) == Bundle()
    assert "is lost" in caplog.text
