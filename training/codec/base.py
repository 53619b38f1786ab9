"""What a codec is (protocol.md section 5).

A codec sees chunks of the padded update: n elements (a multiple of its `unit`) are one byte array per section. All
decoding is exact: element = integer times 2^-38. Encoding is the sender's own business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from fednode.errors import ObjectRefused, TrainingError
from fednode.training.arrays import F32, I64, U8

BLOCK = 64
"""Elements that share one scale; every tensor of an update is padded with zeros to a multiple of it."""
TOPK_CHUNK = 4096
"""Elements of which `tk64` keeps 64."""

Gaps = Sequence[tuple[int, int]]
"""Padding within a chunk, as (first, end) pairs."""
Parts = Sequence[U8]
"""The bytes of a chunk, one array per section."""


class Section(NamedTuple):
    """One tensor of an object."""

    name: str
    dtype: str
    per_unit: int
    """Bytes for `unit` elements of the update."""


class ChunkCodec(Protocol):
    """Stateless; safe to use from several threads."""

    @property
    def unit(self) -> int:
        """Chunks are multiples of this many elements."""
        ...

    @property
    def sections(self) -> Sequence[Section]:
        """In data order."""
        ...

    def encode(self, values: F32, gaps: Gaps) -> tuple[Parts, F32]:
        """Bytes of finite float32 [n], and their exact decoding, float32 [n]. Raises TrainingError for NaN and Inf."""
        ...

    def check(self, parts: Parts, gaps: Gaps) -> None:
        """Raise ObjectRefused(rule = code, padding, scale or index) for bytes that no chunk may have."""
        ...

    def squares(self, parts: Parts, gaps: Gaps) -> int:
        """Exact sum of x^2 over a checked chunk, in units of 2^-76."""
        ...

    def scaled(self, parts: Parts, gaps: Gaps, factor: int, out: I64) -> None:
        """out[i] = factor * x_i in units of 2^-38, for a checked chunk; factor < 2^21, out is int64 [n]."""
        ...


def require_finite(largest: F32) -> None:
    """Raise TrainingError where a maximum of absolute values is NaN or Inf."""
    if not np.isfinite(largest).all():
        raise TrainingError(
            "the trained adapter has NaN or infinite values: expected finite weights",
            hint="lower training.learning_rate, or check the own data",
        )


def refuse(rule: str, what: str) -> ObjectRefused:
    return ObjectRefused(f"object refused: {what}", rule=rule)
