"""Codecs: bounds of the error, exact decoding against plain integers, refusal of what no sender writes."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fednode.errors import ObjectRefused, TrainingError
from fednode.training.codec.scales import SCALES, SCALES_F32, nearest_scale, smallest_scale
from fednode.training.codec.table import CODEC
from fednode.types import Codec

ALL: list[Codec] = ["i8", "i4", "tk64", "f32"]
N = 4096
GAPS = [(100, 128), (4000, 4096)]


def values(seed: int, exponent: int) -> np.ndarray:
    """Blocks of very different size, with exact zeros and zero padding."""
    rng = np.random.default_rng(seed)
    found = rng.standard_normal(N) * np.exp2(rng.integers(-12, 1, N // 64).repeat(64) + exponent)
    found[rng.random(N) < 0.1] = 0
    for first, end in GAPS:
        found[first:end] = 0
    return found.astype(np.float32)


def integers(codec: Codec, parts: list[np.ndarray]) -> np.ndarray:
    out = np.empty(N, np.int64)
    CODEC[codec].scaled(parts, GAPS, 1, out)
    return out


def test_scale_bytes_are_the_protocols() -> None:
    assert SCALES[0] == 0
    assert SCALES[1] == 9
    assert SCALES[255] == 15 << 31
    assert all(SCALES[1:][1:] > SCALES[1:][:-1])
    assert all(Fraction(float(f)) == Fraction(int(i), 2**38) for i, f in zip(SCALES, SCALES_F32, strict=True))


@given(st.floats(0, 100))
def test_smallest_scale_fits_and_the_one_below_does_not(target: float) -> None:
    byte = int(smallest_scale(np.array([target]))[0])
    assert byte >= 1
    assert float(SCALES_F32[byte]) >= target or byte == 255
    assert byte == 1 or float(SCALES_F32[byte - 1]) < target


@given(st.floats(0, 1))
def test_nearest_scale_is_nearest(target: float) -> None:
    byte = int(nearest_scale(np.array([target]))[0])
    distance = np.abs(SCALES_F32[1:].astype(float) - target)
    assert distance[byte - 1] == distance.min()


@pytest.mark.parametrize("codec", ALL)
@given(seed=st.integers(0, 2**32), exponent=st.integers(-45, 6))
@settings(max_examples=25)
def test_decoding_equals_the_sender_and_passes_the_check(codec: Codec, seed: int, exponent: int) -> None:
    x = values(seed, exponent)
    parts, decoded = CODEC[codec].encode(x, GAPS)
    CODEC[codec].check(parts, GAPS)
    exact = integers(codec, list(parts))
    assert np.abs(exact).max() < 2**42
    assert (exact.astype(np.float64) * 2.0**-38 == decoded).all()
    assert CODEC[codec].squares(parts, GAPS) == sum(int(v) ** 2 for v in exact)
    tripled = np.empty(N, np.int64)
    CODEC[codec].scaled(parts, GAPS, 3 << 18, tripled)
    assert (tripled == exact * (3 << 18)).all()


@pytest.mark.parametrize(("codec", "top"), [("i8", 127), ("i4", 7)])
@given(seed=st.integers(0, 2**32), exponent=st.integers(-20, -4))
@settings(max_examples=25)
def test_block_error_is_half_a_step(codec: Codec, top: int, seed: int, exponent: int) -> None:
    x = values(seed, exponent)
    parts, decoded = CODEC[codec].encode(x, GAPS)
    largest = np.abs(x.reshape(-1, 64)).max(axis=1).astype(np.float64)
    step = SCALES_F32[parts[1]].astype(np.float64)
    # A step is at most 9/8 of what the largest element needs.
    assert (step <= np.maximum(largest / top * 9 / 8, 2.0**-34)).all()
    error = np.abs(x.astype(np.float64) - decoded).reshape(-1, 64).max(axis=1)
    assert (error <= np.maximum(step, 2.0**-34) * 0.5001).all()


@pytest.mark.parametrize("codec", ["i8", "i4"])
def test_saturation_and_flush(codec: Codec) -> None:
    x = np.zeros(N, np.float32)
    x[0], x[1], x[64], x[128] = 1e6, -1e6, 1e-12, -1e-30
    parts, decoded = CODEC[codec].encode(x, GAPS)
    top = 127 if codec == "i8" else 7
    assert decoded[0] == -decoded[1] == np.float32(top * 15 * 2.0**-7)
    assert not decoded[64:].any()
    assert not parts[1][1:].any()


@pytest.mark.parametrize("codec", ALL)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_is_never_encoded(codec: Codec, bad: float) -> None:
    x = values(0, 0)
    x[5] = bad
    with pytest.raises(TrainingError, match="NaN or infinite"):
        CODEC[codec].encode(x, GAPS)


def test_topk_keeps_the_largest_and_orders_them() -> None:
    x = np.linspace(1, 2, N, dtype=np.float32)[::-1].copy()
    for first, end in GAPS:
        x[first:end] = 0
    _, decoded = CODEC["tk64"].encode(x, GAPS)
    assert np.flatnonzero(decoded).tolist() == list(range(64))


def test_topk_with_few_real_elements_sends_them_all() -> None:
    x = np.zeros(N, np.float32)
    x[:10] = 2.0**-5
    parts, decoded = CODEC["tk64"].encode(x, [(10, N)])
    CODEC["tk64"].check(parts, [(10, N)])
    assert (decoded[:10] == 2.0**-5).all()
    assert not decoded[10:].any()


def refused(codec: Codec, parts: list[np.ndarray], rule: str, gaps: list[tuple[int, int]] | None = None) -> None:
    with pytest.raises(ObjectRefused) as caught:
        CODEC[codec].check(parts, GAPS if gaps is None else gaps)
    assert caught.value.rule == rule


def parts_of(codec: Codec) -> list[np.ndarray]:
    return [part.copy() for part in CODEC[codec].encode(values(1, 0), GAPS)[0]]


def test_bad_codes_are_refused() -> None:
    parts = parts_of("i8")
    parts[0][0] = 0x80
    refused("i8", parts, "code")
    parts = parts_of("i4")
    parts[0][0] = 0x81
    refused("i4", parts, "code")
    parts = parts_of("f32")
    for bad in (np.nan, np.inf, 16.0, -16.0):
        parts[0].view("<f4")[0] = bad
        refused("f32", parts, "code")


@pytest.mark.parametrize("codec", ["i8", "i4"])
def test_codes_in_padding_and_zero_blocks_are_refused(codec: Codec) -> None:
    parts = parts_of(codec)
    parts[0][101 * len(parts[0]) // N] = 0x11
    refused(codec, parts, "padding")
    parts = parts_of(codec)
    assert parts[0][: len(parts[0]) // 64].any()
    parts[1][0] = 0
    refused(codec, parts, "scale")


def test_float_in_padding_is_refused() -> None:
    parts = parts_of("f32")
    parts[0].view("<f4")[100] = 1e-30
    refused("f32", parts, "padding")


def test_topk_order_and_zero_chunk_rules() -> None:
    parts = parts_of("tk64")
    parts[0][:3] = 0
    refused("tk64", parts, "index")
    parts = parts_of("tk64")
    parts[2][0] = 0
    refused("tk64", parts, "scale")
    zero, _ = CODEC["tk64"].encode(np.zeros(N, np.float32), GAPS)
    assert not zero[1].any()
    assert not zero[2].any()
    CODEC["tk64"].check(zero, GAPS)
    moved = [part.copy() for part in zero]
    moved[0][-3:] = [0xFE, 0xFF, 0xFF]  # the last two indices: 4094, 4095
    refused("tk64", moved, "scale")
    pad = parts_of("tk64")
    pad[1][:] = 0xFF
    index = int(pad[0][0]) | (int(pad[0][1]) & 15) << 8
    refused("tk64", pad, "padding", [(index, index + 1)])


def test_reference_decoder_agrees(store: Callable[..., Path], plain: SimpleNamespace, small: SimpleNamespace) -> None:
    for codec in ALL:
        path = store(codec)
        schema = small.schema(codec)
        found = plain.decode(path.read_bytes(), small.shapes)
        layout = schema.layout("AB")
        flat = np.zeros(layout.elements)
        for spec, start in zip(layout.tensors, layout.starts, strict=True):
            flat[start : start + spec.size] = np.array(found[spec.name], float) * 2.0**-38
        update = small.update(schema, 0)
        bound = {"i8": 0.01, "i4": 0.2, "tk64": 1.0, "f32": 1e-7}[codec]
        for spec, start in zip(layout.tensors, layout.starts, strict=True):
            x = update[spec.name].reshape(-1).astype(float)
            error = x - flat[start : start + spec.size]
            assert (error @ error) <= bound**2 * (x @ x)
