"""The schema of a run and the layout of state and updates (protocol.md sections 2 and 5)."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, Literal, NamedTuple, cast

import rfc8785

from fednode.errors import ConfigError
from fednode.training.codec.base import BLOCK, TOPK_CHUNK
from fednode.types import Codec, Digest, ModelFacts, Phase

Factor = Literal["A", "B"]

CODECS: tuple[Codec, ...] = ("i8", "i4", "tk64", "f32")


def canonical_json(value: object) -> bytes:
    """RFC 8785 bytes of plain JSON values."""
    return rfc8785.dumps(cast(Any, value))


def factor_of(name: str) -> Factor:
    """Which LoRA factor a PEFT state-dict name is. Raises ConfigError for any other tensor."""
    if name.endswith(".lora_A.weight"):
        return "A"
    if name.endswith(".lora_B.weight"):
        return "B"
    raise ConfigError(
        f"tensor {name!r} is no LoRA factor: expected a name that ends in .lora_A.weight or .lora_B.weight",
        hint="name linear layers only in model.target_modules",
    )


def padded(size: int, unit: int) -> int:
    """The next multiple of `unit`."""
    return -(-size // unit) * unit


class Segment(NamedTuple):
    """A run of elements that lies in one tensor, as a part of a chunk of the padded update."""

    chunk: int
    """First element, counted from the chunk's start."""
    state: int
    """First element in the state's data."""
    size: int


@dataclass(frozen=True)
class TensorSpec:
    """One LoRA tensor of the state."""

    name: str
    shape: tuple[int, int]
    state: int
    """First element in the state's data: all tensors in name order, unpadded."""

    @cached_property
    def size(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """The moving tensors of one phase, flattened in name order, each padded to blocks of 64: `elements` = P in all."""

    tensors: tuple[TensorSpec, ...]
    elements: int
    """P: for `tk64` a multiple of 4,096, otherwise of 64."""

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """First padded element of every tensor."""
        starts: list[int] = []
        at = 0
        for tensor in self.tensors:
            starts.append(at)
            at += padded(tensor.size, BLOCK)
        return tuple(starts)

    def segments(self, lo: int, hi: int) -> list[Segment]:
        """The real (unpadded) elements among the padded elements lo..hi-1, in order."""
        found: list[Segment] = []
        first = max(bisect_right(self.starts, lo) - 1, 0)
        for tensor, start in zip(self.tensors[first:], self.starts[first:], strict=True):
            if start >= hi:
                break
            a, b = max(lo, start), min(hi, start + tensor.size)
            if a < b:
                found.append(Segment(a - lo, tensor.state + a - start, b - a))
        return found

    def padding(self, lo: int, hi: int) -> list[tuple[int, int]]:
        """The padding among elements lo..hi-1 as (first, end) pairs counted from lo: always zero in an object."""
        gaps: list[tuple[int, int]] = []
        at = 0
        for segment in self.segments(lo, hi):
            if segment.chunk > at:
                gaps.append((at, segment.chunk))
            at = segment.chunk + segment.size
        if at < hi - lo:
            gaps.append((at, hi - lo))
        return gaps


@dataclass(frozen=True)
class Schema:
    """What every object of a run must match: base model, adapter and codec."""

    alpha: int | float
    base: Mapping[str, str]
    codec: Codec
    quantisation: str
    rank: int
    tensors: tuple[TensorSpec, ...]

    @classmethod
    def of(cls, facts: ModelFacts, *, rank: int, alpha: float, quantisation: str, codec: Codec) -> Schema:
        """Check a trainer's facts against the agreement. Raises ConfigError."""
        if codec not in CODECS:
            raise ConfigError(f"aggregation.codec is {codec!r}, expected one of {', '.join(CODECS)}")
        if not facts.tensors:
            raise ConfigError("the adapter has no LoRA tensors", hint="check model.target_modules")
        specs: list[TensorSpec] = []
        at = 0
        for name, shape in sorted(facts.tensors, key=lambda item: item[0].encode()):
            specs.append(TensorSpec(name, _lora_shape(name, shape, rank), at))
            at += specs[-1].size
        if len({spec.name for spec in specs}) != len(specs):
            raise ConfigError("two LoRA tensors have the same name")
        return cls(alpha, dict(facts.base), codec, quantisation, rank, tuple(specs))

    @cached_property
    def json(self) -> bytes:
        """Canonical JSON of `{alpha, base, codec, quantisation, rank, tensors}` (protocol.md section 2)."""
        return canonical_json(
            {
                "alpha": self.alpha,
                "base": self.base,
                "codec": self.codec,
                "quantisation": self.quantisation,
                "rank": self.rank,
                "tensors": [[spec.name, list(spec.shape)] for spec in self.tensors],
            }
        )

    @cached_property
    def digest(self) -> Digest:
        return Digest(hashlib.sha256(self.json).hexdigest())

    @cached_property
    def elements(self) -> int:
        """Elements of the state, unpadded."""
        return sum(spec.size for spec in self.tensors)

    def layout(self, phase: Phase) -> Layout:
        """The moving tensors of a phase; `AB` interleaves A and B by name."""
        moving = tuple(spec for spec in self.tensors if factor_of(spec.name) in phase)
        elements = sum(padded(spec.size, BLOCK) for spec in moving)
        return Layout(moving, padded(elements, TOPK_CHUNK) if self.codec == "tk64" else elements)


def _lora_shape(name: str, shape: tuple[int, ...], rank: int) -> tuple[int, int]:
    factor = factor_of(name)
    if len(shape) != 2 or min(shape) < 1 or shape[0 if factor == "A" else 1] != rank:
        expected = f"({rank}, fan_in)" if factor == "A" else f"(fan_out, {rank})"
        raise ConfigError(f"LoRA tensor {name!r} has shape {tuple(shape)}, expected {expected} (model.rank = {rank})")
    return shape[0], shape[1]
