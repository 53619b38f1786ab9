"""`tk64`: the 64 largest of every 4,096 elements as 12-bit indices and 2-bit levels (protocol.md section 5).

Method: SparseLoCo, arXiv 2508.15706; the residual at the sender carries everything that is not sent. An index that
points into padding has code 0 and stands for zero: a chunk with fewer than 64 real elements needs such indices.
"""

from __future__ import annotations

import numpy as np

from fednode.training.arrays import F32, F64, I64, U8, AnyArray, Bools
from fednode.training.codec.base import TOPK_CHUNK, Gaps, Parts, Section, refuse, require_finite
from fednode.training.codec.scales import SCALES, SCALES_F32, nearest_scale, square_sum

KEPT = 64
_LEVELS: I64 = np.array([-3, -1, 1, 3], np.int64)


class TopK:
    """64 kept elements a chunk; the others are zero."""

    unit = TOPK_CHUNK
    sections = (Section("i", "U8", KEPT * 12 // 8), Section("v", "U8", KEPT * 2 // 8), Section("s", "U8", 1))

    def encode(self, values: F32, gaps: Gaps) -> tuple[Parts, F32]:
        chunks = values.reshape(-1, TOPK_CHUNK)
        sizes = np.abs(values)
        for first, end in gaps:
            sizes[first:end] = -1
        sizes = sizes.reshape(-1, TOPK_CHUNK)
        require_finite(sizes.max(axis=1))
        index = np.sort(np.argpartition(sizes, TOPK_CHUNK - KEPT, axis=1)[:, -KEPT:], axis=1)
        picked = np.take_along_axis(chunks, index, axis=1)
        real = np.take_along_axis(sizes, index, axis=1) >= 0
        scales = _best_scales(np.where(real, np.abs(picked), 0).astype(np.float64), real)
        index[scales == 0] = np.arange(KEPT)
        large = np.abs(picked) > 2 * SCALES_F32[scales][:, None]
        codes = np.where(picked < 0, np.where(large, 0, 1), np.where(large, 3, 2)).astype(np.uint8)
        codes[~real | (scales == 0)[:, None]] = 0
        decoded = np.zeros(chunks.shape, np.float32)
        levels = np.where(real, _LEVELS[codes], 0) * SCALES_F32[scales][:, None]
        np.put_along_axis(decoded, index, levels.astype(np.float32), axis=1)
        return (_pack(index, 12), _pack(codes, 2), scales), decoded.reshape(-1)

    def check(self, parts: Parts, gaps: Gaps) -> None:
        index, codes, scales = _indices(parts[0]), _codes(parts[1]), parts[2]
        if (np.diff(index, axis=1) <= 0).any():
            raise refuse("index", "indices of a chunk that are not strictly ascending")
        zero = scales == 0
        if (index[zero] != np.arange(KEPT)).any() or codes[zero].any():
            raise refuse("scale", "a chunk with scale 0 whose indices are not 0..63 or whose codes are not 0")
        if codes[_in_padding(index, gaps)].any():
            raise refuse("padding", "a non-zero code in the padding of a tensor")

    def squares(self, parts: Parts, gaps: Gaps) -> int:
        levels = self._levels(parts, _indices(parts[0]), gaps)
        return square_sum((levels * levels).sum(axis=1), parts[2])

    def scaled(self, parts: Parts, gaps: Gaps, factor: int, out: I64) -> None:
        index = _indices(parts[0])
        values = self._levels(parts, index, gaps) * (SCALES[parts[2]] * factor)[:, None]
        out.fill(0)
        np.put_along_axis(out.reshape(-1, TOPK_CHUNK), index, values, axis=1)

    def _levels(self, parts: Parts, index: I64, gaps: Gaps) -> I64:
        """-3, -1, 1 or 3, and 0 in padding; int64 [chunks, 64]."""
        levels = _LEVELS[_codes(parts[1])]
        levels[_in_padding(index, gaps)] = 0
        return levels


def _best_scales(sizes: F64, real: Bools) -> U8:
    """Scale bytes with a small squared error for levels 1 and 3: alternate between levels and scale."""
    count = np.maximum(real.sum(axis=1), 1)
    scale = sizes.sum(axis=1) / (2 * count)
    for _ in range(3):
        levels = np.where(sizes > 2 * scale[:, None], 3, 1) * real
        scale = (sizes * levels).sum(axis=1) / np.maximum((levels * levels).sum(axis=1), 1)
    scales = nearest_scale(scale)
    scales[scale < SCALES_F32[1] / 2] = 0
    return scales


def _pack(values: AnyArray, bits: int) -> U8:
    """[chunks, 64] values as `bits` bits each, least significant first."""
    planes = (values[:, :, None] >> np.arange(bits)) & 1
    return np.packbits(planes.astype(np.uint8).reshape(-1), bitorder="little")


def _indices(packed: U8) -> I64:
    """int64 [chunks, 64] from three bytes a pair."""
    low, mid, high = (packed[at::3].astype(np.int64) for at in range(3))
    index = np.empty(2 * low.size, np.int64)
    index[0::2] = low | (mid & 15) << 8
    index[1::2] = mid >> 4 | high << 4
    return index.reshape(-1, KEPT)


def _codes(packed: U8) -> U8:
    """uint8 [chunks, 64] from four codes a byte."""
    return (packed[:, None] >> np.array([0, 2, 4, 6], np.uint8) & 3).astype(np.uint8, copy=False).reshape(-1, KEPT)


def _in_padding(index: I64, gaps: Gaps) -> Bools:
    found = np.zeros(index.shape, np.bool_)
    if gaps:
        position = index + TOPK_CHUNK * np.arange(len(index))[:, None]
        for first, end in gaps:
            found |= (position >= first) & (position < end)
    return found
