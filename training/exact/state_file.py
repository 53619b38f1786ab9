"""State and momentum files: whole, in chunks of the padded update, and their digest (protocol.md section 2)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fednode.errors import TrainingError
from fednode.training.arrays import F32, LE_F32, raw
from fednode.training.exact.schema import Schema, Segment, TensorSpec
from fednode.training.exact.tensors import PIECE, damaged, prefix, read_exact, scratch_file, write_exact
from fednode.types import Digest


class StateFile:
    """An open state file. Positional reads and writes: threads may share it."""

    def __init__(self, fd: int, start: int, path: Path) -> None:
        self.fd = fd
        self._start = start
        self._path = path

    def read(self, segments: Sequence[Segment], out: F32) -> None:
        """Fill the real elements of a chunk; padding becomes zero."""
        out.fill(0)
        for segment in segments:
            view = raw(out[segment.chunk : segment.chunk + segment.size])
            if os.preadv(self.fd, [view], self._start + 4 * segment.state) != len(view):
                raise damaged(self._path, "it became shorter while it was read")

    def write(self, segments: Sequence[Segment], values: F32) -> None:
        """Store the real elements of a chunk."""
        for segment in segments:
            view = raw(values[segment.chunk : segment.chunk + segment.size])
            write_exact(self.fd, view, self._start + 4 * segment.state)

    def copy_from(self, other: StateFile, spec: TensorSpec) -> None:
        """Take one tensor over unchanged."""
        at, end = 4 * spec.state, 4 * (spec.state + spec.size)
        while at < end:
            piece = read_exact(other.fd, min(PIECE, end - at), other._start + at)
            write_exact(self.fd, piece, self._start + at)
            at += len(piece)


@contextmanager
def existing_state(path: Path, schema: Schema) -> Generator[StateFile, None, None]:
    """Open a state or momentum file for reading. Raises TrainingError where it is missing or damaged."""
    fd = open_state(path, schema)
    try:
        yield StateFile(fd, len(state_prefix(schema)), path)
    finally:
        os.close(fd)


@contextmanager
def new_state(path: Path, schema: Schema) -> Generator[StateFile, None, None]:
    """A state file of zeros to write into; it appears at `path`, durably, when the block ends without an error."""
    head = state_prefix(schema)
    with scratch_file(path) as fd:
        write_exact(fd, head, 0)
        os.ftruncate(fd, len(head) + 4 * schema.elements)
        yield StateFile(fd, len(head), path)


def state_prefix(schema: Schema) -> bytes:
    """Everything before the data of a state or momentum file: the data is in name order."""
    return prefix([(spec.name, "F32", spec.shape) for spec in schema.tensors])


def open_state(path: Path, schema: Schema) -> int:
    """Descriptor of a state file whose header and size are exactly the schema's. Raises TrainingError."""
    head = state_prefix(schema)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise TrainingError(f"{path} is missing: expected the adapter of the round before") from None
    try:
        expected = len(head) + 4 * schema.elements
        if os.fstat(fd).st_size != expected or read_exact(fd, len(head), 0) != head:
            raise damaged(path, f"expected {expected} bytes with the header of this run's adapter")
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_state(path: Path, schema: Schema) -> dict[str, F32]:
    """All tensors of a state file in memory."""
    fd = open_state(path, schema)
    with os.fdopen(fd, "rb") as handle:
        handle.seek(len(state_prefix(schema)))
        return {spec.name: np.fromfile(handle, LE_F32, spec.size).reshape(spec.shape) for spec in schema.tensors}


def digest_of_state(fd: int, schema: Schema) -> Digest:
    """State digest of an open state file: sha256 over its data (protocol.md section 2)."""
    digest = hashlib.sha256()
    at, left = len(state_prefix(schema)), 4 * schema.elements
    while left:
        piece = read_exact(fd, min(PIECE, left), at)
        digest.update(piece)
        at, left = at + len(piece), left - len(piece)
    return Digest(digest.hexdigest())


def state_digest(tensors: Mapping[str, F32]) -> Digest:
    """State digest of tensors in memory: name order, C order, little-endian float32."""
    digest = hashlib.sha256()
    for name in sorted(tensors, key=str.encode):
        digest.update(raw(tensors[name].astype(LE_F32, copy=False)))
    return Digest(digest.hexdigest())
