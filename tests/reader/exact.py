"""The numbers of a run, as docs/protocol.md says them: canonical JSON, S_0, objects, aggregate. Beside reader.py.

Nothing of fednode is imported. Written to be compared with the specification line by line, not to be fast: sections in
comments are those of that page.
"""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from math import isqrt, prod
from typing import Any

import numpy as np

Json = dict[str, Any]
Array = np.ndarray[Any, Any]
State = dict[str, Array]


def expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


# section 1: canonical JSON
def canonical(value: object) -> bytes:
    """RFC 8785."""
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        return b"{" + b",".join(canonical(name) + b":" + canonical(value[name]) for name in names) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(map(canonical, value)) + b"]"
    if isinstance(value, float) and 1e-6 <= abs(value) < 1e21:
        return format(Decimal(repr(value)), "f").removesuffix(".0").encode()
    if isinstance(value, float) and value:
        mantissa, _, exponent = repr(value).partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent):+d}".replace("e+-", "e-").encode()
    return b"0" if isinstance(value, float) else json.dumps(value, ensure_ascii=False).encode()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# section 2: state
def initial_state(schema: Json, seed: int) -> State:
    state: State = {}
    for name, shape in schema["tensors"]:
        count = prod(shape)
        state[name] = np.zeros(count, np.float32)
        if name.endswith(".lora_A.weight"):
            stream = hashlib.shake_256(b"fednode/1/S0\0" + seed.to_bytes(8, "little") + name.encode())
            u = np.frombuffer(stream.digest(4 * count), "<u4").astype(np.int64)
            unit = (2 * (u >> 8) + 1 - 2**24).astype(np.float64) * 2.0**-24
            state[name] = (unit / np.sqrt(np.float64(shape[1]))).astype(np.float32)
    return state


def state_digest(state: State) -> str:
    return sha256(b"".join(state[name].astype("<f4").tobytes() for name in sorted(state, key=str.encode)))


# section 5: objects
class Layout:
    """Where the moving tensors of a phase lie in an update."""

    def __init__(self, schema: Json, phase: str) -> None:
        self.codec, self.schema, self.phase = schema["codec"], sha256(canonical(schema)), phase
        self.places: list[tuple[str, int, int]] = []  # name, first element, count
        self.size = 0
        for name, shape in schema["tensors"]:
            if name.removesuffix(".weight")[-1] in phase:
                self.places.append((name, self.size, prod(shape)))
                self.size += -(-prod(shape) // 64) * 64
        if self.codec == "tk64":
            self.size = -(-self.size // 4096) * 4096
        self.real = np.zeros(self.size, bool)
        for _, first, count in self.places:
            self.real[first : first + count] = True

    def tensors(self) -> dict[str, tuple[str, int, int]]:
        """In the order of the data: type, number of elements, bytes of one."""
        p = self.size
        return {
            "i8": {"q": ("I8", p, 1), "s": ("U8", p // 64, 1)},
            "i4": {"q": ("U8", p // 2, 1), "s": ("U8", p // 64, 1)},
            "tk64": {"i": ("U8", p // 4096 * 96, 1), "v": ("U8", p // 4096 * 16, 1), "s": ("U8", p // 4096, 1)},
            "f32": {"x": ("F32", p, 4)},
        }[self.codec]

    def decode(self, data: bytes, metadata: dict[str, str]) -> Array:
        """The update as int64 [P] in units of 2^-38. Raises ValueError."""
        header: Json = {"__metadata__": metadata}
        at, parts = 0, {}
        for name, (kind, count, width) in self.tensors().items():
            header[name] = {"dtype": kind, "shape": [count], "data_offsets": [at, at + count * width]}
            parts[name] = (at, at := at + count * width)
        text = canonical(header)
        text += b" " * (-(8 + len(text)) % 64)
        prefix = len(text).to_bytes(8, "little") + text
        expect(len(data) == len(prefix) + at, f"{len(data)} bytes, expected {len(prefix) + at}")
        expect(data.startswith(prefix), "the header is not the expected one")
        values: Array = DECODERS[self.codec](
            self.real, **{k: data[len(prefix) + a : len(prefix) + b] for k, (a, b) in parts.items()}
        )
        expect(not values[~self.real].any(), "a non-zero code in padding")
        return values


SCALE = np.array([0] + [(8 + byte % 8) << byte // 8 for byte in range(1, 256)], np.int64)


def bits(data: bytes, width: int) -> Array:
    """Unsigned numbers of `width` bits, least significant bit first."""
    return np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little").reshape(-1, width) @ (1 << np.arange(width))


def blocks(codes: Array, s: bytes, lowest: int) -> Array:
    scale = SCALE[np.frombuffer(s, np.uint8)]
    codes = codes.astype(np.int64).reshape(-1, 64)
    expect(not (codes == lowest).any(), f"code {lowest}")
    expect(not codes[scale == 0].any(), "a non-zero code in a zero block")
    return (codes * scale[:, None]).reshape(-1)


def decode_f32(_: Array, x: bytes) -> Array:
    exact = np.rint(np.frombuffer(x, "<f4").astype(np.float64) * 2.0**38)
    expect(bool((np.abs(exact) < 2.0**42).all()), "an element that is not finite or too large")
    return exact.astype(np.int64)


def decode_i4(_: Array, q: bytes, s: bytes) -> Array:
    codes = bits(q, 4)
    return blocks(codes - 16 * (codes >= 8), s, -8)


def decode_tk64(real: Array, i: bytes, v: bytes, s: bytes) -> Array:
    index, codes, scale = bits(i, 12).reshape(-1, 64), bits(v, 2).reshape(-1, 64), SCALE[np.frombuffer(s, np.uint8)]
    expect(bool((np.diff(index) > 0).all()), "indices that do not ascend")
    zero = scale == 0
    expect(bool((index[zero] == np.arange(64)).all()) and not codes[zero].any(), "a zero chunk that is not empty")
    levels = 2 * codes - 3
    padding = ~np.take_along_axis(real.reshape(-1, 4096), index, axis=1)
    expect(not codes[padding].any(), "a non-zero code in padding")
    levels[padding] = 0
    values = np.zeros((len(scale), 4096), np.int64)
    np.put_along_axis(values, index, levels * scale[:, None], axis=1)
    return values.reshape(-1)


DECODERS: dict[str, Any] = {
    "i8": lambda _, q, s: blocks(np.frombuffer(q, np.int8), s, -128),
    "i4": decode_i4,
    "tk64": decode_tk64,
    "f32": decode_f32,
}


# section 6: aggregate
def combine(updates: list[Array], weights: list[int], rule: str, clip: bool) -> Array:
    """Steps 1 to 4: float32 [P]."""
    count = len(updates)
    norms = [sum(value * value for value in update.tolist()) for update in updates]
    factors = [1024] * count
    if clip and any(norms):
        present = sorted(norm for norm in norms if norm)
        median = present[(len(present) - 1) // 2]
        factors = [min(1024, isqrt((median << 20) // norm)) if norm else 1024 for norm in norms]
    clipped = [factor * update for factor, update in zip(factors, updates, strict=True)]
    if rule == "mean":
        total = sum(weight * update for weight, update in zip(weights, clipped, strict=True))
        divisor = 1024 * sum(weights)
    else:
        expect(set(weights) == {1}, f"weights with {rule}")
        drop = (count - 1) // 3 if rule == "trimmed_mean" else (count - 1) // 2
        total = np.sort(np.stack(clipped), axis=0)[drop : count - drop].sum(axis=0)
        divisor = 1024 * (count - 2 * drop)
    return np.asarray(np.asarray(total).astype(np.float64) * (np.float64(2.0**-38) / np.float64(divisor)), np.float32)


def outer_step(state: State, momentum: State, gradient: Array, layout: Layout, rules: Json) -> None:
    """Step 5, in place."""
    lr, mu = np.float32(rules["outer_lr"]), np.float32(rules["outer_momentum"])
    for name, first, count in layout.places:
        g = gradient[first : first + count]
        if rules["outer"] == "nesterov":
            v = mu * momentum[name] + g
            momentum[name] = v
            g = lr * (g + mu * v)
        state[name] = state[name] + g
