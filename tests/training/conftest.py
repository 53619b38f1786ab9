"""A second, slow implementation in plain Python integers, written from protocol.md, and builders for small runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from fractions import Fraction
from math import isqrt, prod
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fednode.training.exact.objects import ObjectId
from fednode.training.exact.schema import Schema
from fednode.training.exact.writer import encode_object
from fednode.types import Codec, Digest, ModelFacts, PartyName, RunId

RUN = RunId("0123456789abcdef" * 2)
BASE = Digest("ab" * 32)
SHAPES = {
    "m.0.lora_A.weight": (4, 100),
    "m.0.lora_B.weight": (70, 4),
    "m.1.lora_A.weight": (4, 1100),
    "m.1.lora_B.weight": (3, 4),
}


def scale(byte: int) -> int:
    return 0 if byte == 0 else (8 + byte % 8) << (byte // 8)


def signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def sections(blob: bytes) -> tuple[dict[str, str], dict[str, bytes]]:
    length = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + length])
    metadata = header.pop("__metadata__")
    data = blob[8 + length :]
    return metadata, {name: data[slice(*entry["data_offsets"])] for name, entry in header.items()}


def decode(blob: bytes, shapes: dict[str, tuple[int, ...]]) -> dict[str, list[int]]:
    """Every moving tensor as integers in units of 2^-38."""
    metadata, parts = sections(blob)
    flat: list[int] = []
    if metadata["codec"] == "f32":
        flat = [round(Fraction(float(x)) * 2**38) for x in np.frombuffer(parts["x"], "<f4")]
    elif metadata["codec"] == "i8":
        flat = [signed(q, 8) * scale(parts["s"][i // 64]) for i, q in enumerate(parts["q"])]
    elif metadata["codec"] == "i4":
        nibbles = [nibble for q in parts["q"] for nibble in (q & 15, q >> 4)]
        flat = [signed(q, 4) * scale(parts["s"][i // 64]) for i, q in enumerate(nibbles)]
    else:
        bits = "".join(f"{byte:08b}"[::-1] for byte in parts["i"])
        levels = "".join(f"{byte:08b}"[::-1] for byte in parts["v"])
        for chunk, byte in enumerate(parts["s"]):
            values = [0] * 4096
            for k in range(64 * chunk, 64 * chunk + 64):
                index = int(bits[12 * k : 12 * k + 12][::-1], 2)
                values[index] = (2 * int(levels[2 * k : 2 * k + 2][::-1], 2) - 3) * scale(byte)
            flat += values
    found: dict[str, list[int]] = {}
    at = 0
    for name in sorted(shapes):
        if name.split(".")[-2][-1] in metadata["phase"]:
            size = prod(shapes[name])
            found[name] = flat[at : at + size]
            at += -(-size // 64) * 64
    return found


def combine(
    updates: Sequence[dict[str, list[int]]], weights: Sequence[int], rule: str, clip: bool
) -> tuple[dict[str, list[int]], int]:
    """Integer sums and their divisor."""
    norms = [sum(x * x for values in update.values() for x in values) for update in updates]
    positive = sorted(n for n in norms if n)
    factors = [1024] * len(norms)
    if clip and positive:
        median = positive[(len(positive) - 1) // 2]
        factors = [min(1024, isqrt(2**20 * median // n)) if n else 1024 for n in norms]
    n = len(updates)
    sums: dict[str, list[int]] = {}
    for name in updates[0]:
        sums[name] = []
        for column in zip(*(update[name] for update in updates), strict=True):
            values = [c * x for c, x in zip(factors, column, strict=True)]
            if rule == "mean":
                sums[name].append(sum(w * v for w, v in zip(weights, values, strict=True)))
                continue
            values.sort()
            drop = (n - 1) // 3 if rule == "trimmed_mean" else (n - 1) // 2
            sums[name].append(sum(values[drop : n - drop]))
    if rule == "mean":
        return sums, 1024 * sum(weights)
    drop = (n - 1) // 3 if rule == "trimmed_mean" else (n - 1) // 2
    return sums, 1024 * (n - 2 * drop)


def average(sums: list[int], divisor: int) -> list[np.float32]:
    k = float(2.0**-38) / float(divisor)
    return [np.float32(float(total) * k) for total in sums]


def make_schema(codec: Codec = "i8", shapes: dict[str, tuple[int, ...]] | None = None) -> Schema:
    facts = ModelFacts(tuple((shapes or SHAPES).items()), {"model.safetensors": "cd" * 32})
    return Schema.of(facts, rank=4, alpha=8, quantisation="nf4", codec=codec)


def identity(party: str = "alice", **changes: object) -> ObjectId:
    fields = {"run": RUN, "round": 1, "party": PartyName(party), "phase": "AB", "base": BASE, **changes}
    return ObjectId(**fields)  # pyright: ignore[reportArgumentType]  # a test's shorthand


def random_update(schema: Schema, seed: int, size: float = 1e-3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {spec.name: (rng.standard_normal(spec.shape) * size).astype(np.float32) for spec in schema.tensors}


@pytest.fixture(scope="session")
def plain() -> SimpleNamespace:
    """The reference implementation."""
    return SimpleNamespace(decode=decode, combine=combine, average=average, sections=sections, shapes=SHAPES)


@pytest.fixture(scope="session")
def small() -> SimpleNamespace:
    """Builders of a small schema, identity and update."""
    return SimpleNamespace(
        schema=make_schema, identity=identity, update=random_update, run=RUN, base=BASE, shapes=SHAPES
    )


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., Path]:
    """Encode a random update of a party, return the object's file."""

    def encode(codec: Codec, seed: int = 0, size: float = 1e-3, **changes: object) -> Path:
        schema = make_schema(codec)
        sent = encode_object(tmp_path, schema, identity(**changes), random_update(schema, seed, size))  # pyright: ignore[reportArgumentType]
        return tmp_path / f"{sent.digest}.safetensors"

    return encode
