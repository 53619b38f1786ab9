"""Objects as files: golden bytes, exact size, and refusal of every other byte."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fednode.errors import ObjectRefused, TrainingError
from fednode.training.exact.objects import check_object, object_prefix, object_size
from fednode.training.exact.writer import encode_object
from fednode.types import Codec

ALL: list[Codec] = ["i8", "i4", "tk64", "f32"]
GOLDEN = {
    "i8": "0172642a7048189f148cffbb6ebc8583c1790c3af5a06469d6619db9a0838684",
    "i4": "dc82fb05aaba602381e1a790328abff9e35a4f047c206285bb47692dc7bef49f",
    "tk64": "05d1b20dd6b85999f6ce618e00b1e45955df6e7b3588299f3628833927903026",
    "f32": "b69a7771649193ad367c483a3cb581c7a8b95c8f97c01a7caa7b63fb94de4f7a",
}


def grid_update(schema: object, small: SimpleNamespace) -> dict[str, np.ndarray]:
    """Values that every codec encodes without a choice of rounding: small multiples of one scale."""
    return {
        name: (np.arange(np.prod(shape)) % 15 - 7).reshape(shape).astype(np.float32) * np.float32(2**-8)
        for name, shape in small.shapes.items()
    }


@pytest.mark.parametrize("codec", ALL)
def test_golden_object(small: SimpleNamespace, tmp_path: Path, codec: Codec) -> None:
    schema = small.schema(codec)
    sent = encode_object(tmp_path, schema, small.identity(), grid_update(schema, small))
    assert sent.digest == GOLDEN[codec]
    blob = (tmp_path / f"{sent.digest}.safetensors").read_bytes()
    assert hashlib.sha256(blob).hexdigest() == sent.digest
    assert len(blob) == sent.size == object_size(schema, small.identity())


@pytest.mark.parametrize("codec", ALL)
def test_safetensors_reads_it(store: Callable[..., Path], codec: Codec) -> None:
    with safetensors.safe_open(store(codec), "np") as opened:
        metadata = opened.metadata()
        names = list(opened.keys())
    assert sorted(metadata) == ["base", "codec", "fmt", "party", "phase", "round", "run", "schema"]
    assert set(names) == {"i8": {"q", "s"}, "i4": {"q", "s"}, "tk64": {"i", "v", "s"}, "f32": {"x"}}[codec]


@pytest.mark.parametrize("codec", ALL)
def test_every_changed_prefix_byte_is_refused(store: Callable[..., Path], small: SimpleNamespace, codec: Codec) -> None:
    path, schema = store(codec), small.schema(codec)
    check_object(path, schema, small.identity())
    good = path.read_bytes()
    for at in range(len(object_prefix(schema, small.identity()))):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(ObjectRefused):
            check_object(path, schema, small.identity())


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("run", {"run": "f" * 32}),
        ("round", {"round": 3}),
        ("party", {"party": "alicf"}),
        ("base", {"base": "0" * 64}),
    ],
)
def test_refusal_names_the_field(
    store: Callable[..., Path], small: SimpleNamespace, rule: str, change: dict[str, object]
) -> None:
    path = store("i8", **change)
    with pytest.raises(ObjectRefused) as caught:
        check_object(path, small.schema("i8"), small.identity())
    assert caught.value.rule == rule


def test_header_without_the_fields_is_refused_as_a_header(store: Callable[..., Path], small: SimpleNamespace) -> None:
    path = store("i8")
    length = len(object_prefix(small.schema("i8"), small.identity()))
    path.write_bytes(b"\xff{[" * (length // 3) + b"\0" * (length % 3) + path.read_bytes()[length:])
    with pytest.raises(ObjectRefused) as caught:
        check_object(path, small.schema("i8"), small.identity())
    assert caught.value.rule == "header"


def test_other_schema_and_size_are_refused(store: Callable[..., Path], small: SimpleNamespace) -> None:
    path = store("i8")
    other = small.schema("i8", {**small.shapes, "m.1.lora_B.weight": (2, 4)})
    with pytest.raises(ObjectRefused) as caught:
        check_object(path, other, small.identity())
    assert caught.value.rule == "schema"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ObjectRefused) as caught:
        check_object(path, small.schema("i8"), small.identity())
    assert caught.value.rule == "size"


@pytest.mark.parametrize("codec", ALL)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_data_is_refused_or_in_range(
    store: Callable[..., Path], small: SimpleNamespace, plain: SimpleNamespace, codec: Codec, seed: int
) -> None:
    path, schema = store(codec), small.schema(codec)
    rng = np.random.default_rng(seed)
    blob = bytearray(path.read_bytes())
    start = len(object_prefix(schema, small.identity()))
    for at in rng.integers(start, len(blob), 3):
        blob[at] = rng.integers(0, 256)
    path.write_bytes(blob)
    try:
        check_object(path, schema, small.identity())
    except ObjectRefused as refused:
        assert refused.rule in {"code", "padding", "scale", "index"}  # noqa: PT017  # acceptance is allowed too
        return
    elements = [x for values in plain.decode(bytes(blob), small.shapes).values() for x in values]
    assert max(map(abs, elements)) < 2**42


def test_threads_and_leftovers_change_nothing(small: SimpleNamespace, tmp_path: Path) -> None:
    shapes = {f"m.{i}.lora_A.weight": (4, 9001) for i in range(4)}
    schema = small.schema("i4", shapes)
    (tmp_path / ".update-old").write_bytes(b"torn")
    update = small.update(schema, 1)
    one = encode_object(tmp_path, schema, small.identity(), update, threads=1)
    two = encode_object(tmp_path, schema, small.identity(), update, threads=3)
    assert one.digest == two.digest
    assert [path.name for path in tmp_path.iterdir()] == [f"{one.digest}.safetensors"]
    for name, residual in one.residual.items():
        assert (residual == two.residual[name]).all()


def test_failed_encoding_leaves_nothing(small: SimpleNamespace, tmp_path: Path) -> None:
    schema = small.schema("i8")
    update = small.update(schema, 1)
    update["m.1.lora_B.weight"][0, 0] = np.inf
    with pytest.raises(TrainingError):
        encode_object(tmp_path, schema, small.identity(), update)
    assert not list(tmp_path.iterdir())
