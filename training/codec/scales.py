"""Scale bytes: E * 8 + m stands for (8 + m) * 2^(E - 38), byte 0 for a zero block (protocol.md section 5)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fednode.training.arrays import F32, F64, I64, U8

UNIT = 2.0**-38
"""Every element of an update is an integer multiple of this, below 2^42 of them."""
ELEMENT_LIMIT = 1 << 42

_BYTES = np.arange(256, dtype=np.int64)
EXPONENTS: I64 = _BYTES >> 3
MANTISSAS: I64 = np.where(_BYTES == 0, 0, 8 + (_BYTES & 7))
"""8 + m; 0 for the zero block."""
SCALES: I64 = MANTISSAS << EXPONENTS
"""The scale in units of 2^-38: an integer below 2^35."""
SCALES_F32: F32 = (SCALES * UNIT).astype(np.float32)
"""The same as float32: exact, four significant bits."""


def smallest_scale(target: F64) -> U8:
    """The smallest non-zero scale that is >= `target` (finite, >= 0), saturated at the largest."""
    fraction, exponent = np.frexp(target)
    return _byte(np.ceil(fraction * 16), exponent)


def nearest_scale(target: F64) -> U8:
    """The non-zero scale nearest to `target` (finite, >= 0), saturated at both ends."""
    fraction, exponent = np.frexp(target)
    return _byte(np.rint(fraction * 16), exponent)


def _byte(mantissa: F64, exponent: NDArray[np.int32]) -> U8:
    """The byte of mantissa * 2^(exponent - 4), mantissa 8..16 (16 is 8 with the next exponent) or 0."""
    byte = (exponent - 4 + 38) * 8.0 + (mantissa - 8)
    return np.where(mantissa == 0, 1, np.clip(byte, 1, 255)).astype(np.uint8)


def square_sum(group_squares: I64, scales: U8) -> int:
    """Exact sum of x^2 in units of 2^-76, from the sum of squared codes and the scale byte of every group.

    Sums per exponent stay below 2^53 for up to 2^24 groups, so float64 bins hold them exactly.
    """
    mantissas = MANTISSAS[scales]
    bins = np.bincount(EXPONENTS[scales], weights=group_squares * mantissas * mantissas, minlength=32)
    return sum(int(total) << (2 * exponent) for exponent, total in enumerate(bins) if total)
