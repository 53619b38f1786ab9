"""`i8` and `i4`: integer codes in blocks of 64 that share a scale byte (protocol.md section 5)."""

from __future__ import annotations

from typing import cast

import numpy as np

from fednode.training.arrays import F32, I8, I64, U8
from fednode.training.codec.base import BLOCK, Gaps, Parts, Section, refuse, require_finite
from fednode.training.codec.scales import SCALES, SCALES_F32, smallest_scale, square_sum


class _Block:
    """Common to both widths: a code is -top..top, an element is code * scale of its block."""

    unit = BLOCK
    top: int
    sections: tuple[Section, ...]

    def encode(self, values: F32, gaps: Gaps) -> tuple[Parts, F32]:
        """Round to the smallest scale that fits a block's largest element; saturate at the top, flush at the bottom."""
        blocks = values.reshape(-1, BLOCK)
        work = np.abs(blocks)
        # Non-negative floats order as their bits, NaN above all; over short rows numpy reduces no faster than this.
        top = np.argmax(work.view(np.int32), axis=1)
        largest = work[np.arange(len(work)), top]
        require_finite(largest)
        scales = smallest_scale(largest.astype(np.float64) / self.top)
        step = SCALES_F32[scales]
        scales[largest < step / 2] = 0
        # A reciprocal may differ from a division in the last place; which neighbour is sent is the sender's business.
        np.multiply(blocks, (1 / step)[:, None], out=work)
        np.rint(work, out=work)
        if scales.max(initial=0) == 255:  # elsewhere the scale is large enough
            np.clip(work, -self.top, self.top, out=work)
        packed = self._pack(work.astype(np.int8))
        np.multiply(work, SCALES_F32[scales][:, None], out=work)
        return (packed, scales), work.reshape(-1)

    def check(self, parts: Parts, gaps: Gaps) -> None:
        codes, scales = self._codes(parts[0]), parts[1]
        if codes.size and int(codes.min()) < -self.top:
            raise refuse("code", f"a code below -{self.top}")
        for first, end in gaps:
            if codes[first:end].any():
                raise refuse("padding", "a non-zero code in the padding of a tensor")
        zero = np.flatnonzero(scales == 0)
        if zero.size and codes.reshape(-1, BLOCK)[zero].any():
            raise refuse("scale", "a non-zero code in a block with scale 0")

    def squares(self, parts: Parts, gaps: Gaps) -> int:
        codes = self._codes(parts[0]).reshape(-1, BLOCK).astype(np.float32)
        # Exact in any order: 64 squares of at most 127 stay below 2^24.
        return square_sum(np.vecdot(codes, codes).astype(np.int64), parts[1])

    def scaled(self, parts: Parts, gaps: Gaps, factor: int, out: I64) -> None:
        blocks = out.reshape(-1, BLOCK)
        np.copyto(blocks, self._codes(parts[0]).reshape(-1, BLOCK))
        np.multiply(blocks, (SCALES[parts[1]] * factor)[:, None], out=blocks)

    def _pack(self, codes: I8) -> U8:
        raise NotImplementedError

    def _codes(self, packed: U8) -> I8:
        raise NotImplementedError


class Int8(_Block):
    """One signed byte per element."""

    top = 127
    sections = (Section("q", "I8", BLOCK), Section("s", "U8", 1))

    def _pack(self, codes: I8) -> U8:
        return codes.reshape(-1).view(np.uint8)

    def _codes(self, packed: U8) -> I8:
        return packed.view(np.int8)


class Int4(_Block):
    """Two's-complement nibbles, the low one first."""

    top = 7
    sections = (Section("q", "U8", BLOCK // 2), Section("s", "U8", 1))

    def _pack(self, codes: I8) -> U8:
        nibbles = codes.reshape(-1).view(np.uint8) & 15
        return cast(U8, nibbles[0::2] | (nibbles[1::2] << 4))

    def _codes(self, packed: U8) -> I8:
        codes = np.empty(2 * packed.size, np.int8)
        # An arithmetic shift of the signed byte extends the sign of the nibble above.
        codes[0::2] = (packed << 4).view(np.int8) >> 4
        codes[1::2] = packed.view(np.int8) >> 4
        return codes
