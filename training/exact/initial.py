"""S_0, the adapter that every party starts from (protocol.md section 2)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from math import sqrt
from pathlib import Path

import numpy as np

from fednode.training.arrays import F32, raw
from fednode.training.exact.schema import Schema, TensorSpec, factor_of
from fednode.training.exact.state_file import state_prefix
from fednode.training.exact.tensors import write_parts
from fednode.types import Digest

DOMAIN = b"fednode/1/S0\x00"


def initial_tensor(spec: TensorSpec, seed: int) -> F32:
    """One tensor of S_0: zeros for B; for A uniform in (-1, 1) / sqrt(fan_in), from a SHAKE-256 stream."""
    if factor_of(spec.name) == "B":
        return np.zeros(spec.shape, np.float32)
    stream = hashlib.shake_256(DOMAIN + seed.to_bytes(8, "little") + spec.name.encode()).digest(4 * spec.size)
    u = np.frombuffer(stream, "<u4").astype(np.int64)
    grid = (2 * (u >> 8) + 1 - (1 << 24)).astype(np.float64)
    values = grid * 2.0**-24 / sqrt(float(spec.shape[1]))
    return values.astype(np.float32).reshape(spec.shape)


def initial_state(schema: Schema, seed: int) -> dict[str, F32]:
    """S_0 in memory."""
    return {spec.name: initial_tensor(spec, seed) for spec in schema.tensors}


def write_initial(path: Path, schema: Schema, seed: int) -> Digest:
    """Write S_0 durably, one tensor in memory at a time; returns its state digest."""
    digest = hashlib.sha256()

    def tensors() -> Iterator[F32]:
        for spec in schema.tensors:
            tensor = initial_tensor(spec, seed)
            digest.update(raw(tensor))
            yield tensor

    write_parts(path, state_prefix(schema), tensors())
    return Digest(digest.hexdigest())
