"""The sender's side: an update with its residual becomes an object (protocol.md section 3, step 2, and section 5)."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fednode.durable import publish
from fednode.training.arrays import F32, raw
from fednode.training.codec.table import CODEC
from fednode.training.exact.objects import ObjectId, object_prefix
from fednode.training.exact.schema import Layout, Schema, TensorSpec
from fednode.training.exact.tensors import write_exact
from fednode.types import Digest

PIECE = 65536
"""Elements that are encoded at a time: a multiple of every codec's unit."""
SCRATCH = ".update-"
"""Prefix of an object's name while it is written: its name is its sha256."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A durable object and what it left out."""

    digest: Digest
    size: int
    residual: Mapping[str, F32]
    """Per moving tensor: the update minus its own decoding, in the tensor's shape."""


def encode_object(
    folder: Path,
    schema: Schema,
    identity: ObjectId,
    update: Mapping[str, F32],
    *,
    threads: int = 1,
) -> Encoded:
    """Write `update` (every moving tensor, float32, residual already added) as `<sha256>.safetensors` in `folder`.

    Durable when it returns; the same update gives the same file. Raises TrainingError where a value is not finite.
    """
    layout = schema.layout(identity.phase)
    flat = _flatten(layout, update)
    for stale in folder.iterdir():
        if stale.name.startswith(SCRATCH):
            stale.unlink(missing_ok=True)
    fd, name = tempfile.mkstemp(prefix=SCRATCH, dir=folder)
    try:
        with os.fdopen(fd, "w+b") as handle:
            os.fchmod(fd, 0o644)
            write_exact(fd, object_prefix(schema, identity), 0)
            write_chunks(fd, schema, layout, flat, start=os.fstat(fd).st_size, threads=threads)
            size = os.fstat(fd).st_size
            handle.seek(0)
            digest = Digest(hashlib.file_digest(handle, "sha256").hexdigest())
        publish(Path(name), folder / f"{digest}.safetensors")
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return Encoded(digest, size, {spec.name: view for spec, view in _views(layout, flat)})


def write_chunks(fd: int, schema: Schema, layout: Layout, flat: F32, *, start: int, threads: int) -> None:
    """Encode `flat` (float32 [P]) to the data section at byte `start`; what was not sent stays in `flat`."""
    codec = CODEC[schema.codec]

    def one(lo: int) -> None:
        hi = min(lo + PIECE, layout.elements)
        values = flat[lo:hi]
        parts, decoded = codec.encode(values, layout.padding(lo, hi))
        at = start
        for section, part in zip(codec.sections, parts, strict=True):
            write_exact(fd, raw(part), at + lo // codec.unit * section.per_unit)
            at += layout.elements // codec.unit * section.per_unit
        np.subtract(values, decoded, out=values)

    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for _ in pool.map(one, range(0, layout.elements, PIECE)):
            pass


def _flatten(layout: Layout, update: Mapping[str, F32]) -> F32:
    flat = np.zeros(layout.elements, np.float32)
    for spec, view in _views(layout, flat):
        view[...] = update[spec.name]
    return flat


def _views(layout: Layout, flat: F32) -> Iterator[tuple[TensorSpec, F32]]:
    for spec, start in zip(layout.tensors, layout.starts, strict=True):
        yield spec, flat[start : start + spec.size].reshape(spec.shape)
