"""Array types of this package, and the one place that names their byte order (files are little-endian)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I8 = NDArray[np.int8]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]
Bools = NDArray[np.bool_]
AnyArray = NDArray[Any]

LE_F32 = np.dtype("<f4")
LE_I64 = np.dtype("<i8")


def raw(array: AnyArray) -> memoryview:
    """The bytes of an array in C order, without a copy where it is contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
