"""`f32`, for debugging: float32 as it is; element = rint(x * 2^38) (protocol.md section 5)."""

from __future__ import annotations

import numpy as np

from fednode.training.arrays import F32, I64, LE_F32
from fednode.training.codec.base import BLOCK, Gaps, Parts, Section, refuse, require_finite
from fednode.training.codec.scales import ELEMENT_LIMIT, UNIT

_TOP = np.nextafter(np.float32(16), np.float32(0))
"""The largest float32 that is an element: 2^42 units are 16."""
_HALF = 21


class Exact:
    """Four bytes per element."""

    unit = BLOCK
    sections = (Section("x", "F32", 4 * BLOCK),)

    def encode(self, values: F32, gaps: Gaps) -> tuple[Parts, F32]:
        require_finite(np.abs(values))
        sent = np.clip(values, -_TOP, _TOP).astype(LE_F32)
        decoded = (_elements(sent) * UNIT).astype(np.float32)
        return (sent.view(np.uint8),), decoded

    def check(self, parts: Parts, gaps: Gaps) -> None:
        values = parts[0].view(LE_F32)
        # NaN compares false, so it is refused too. 2^42 units are exactly 16.0.
        if not (np.abs(values) < np.float32(ELEMENT_LIMIT * UNIT)).all():
            raise refuse("code", "an element that is not finite or not below 16")
        for first, end in gaps:
            if values[first:end].any():
                raise refuse("padding", "a non-zero element in the padding of a tensor")

    def squares(self, parts: Parts, gaps: Gaps) -> int:
        high, low = np.divmod(np.abs(_elements(parts[0].view(LE_F32))), 1 << _HALF)
        # Halves are below 2^21: int64 sums hold 2^21 elements.
        squares = (int((half * other).sum()) for half, other in ((high, high), (high, low), (low, low)))
        hh, hl, ll = squares
        return (hh << (2 * _HALF)) + (hl << (_HALF + 1)) + ll

    def scaled(self, parts: Parts, gaps: Gaps, factor: int, out: I64) -> None:
        np.multiply(_elements(parts[0].view(LE_F32)), factor, out=out)


def _elements(values: F32) -> I64:
    return np.rint(values.astype(np.float64) * 2.0**38).astype(np.int64)
