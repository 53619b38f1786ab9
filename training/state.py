"""State and momentum files, read and written in chunks of the padded update."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fednode.training.arrays import F32, raw
from fednode.training.schema import Schema, Segment, TensorSpec
from fednode.training.tensors import PIECE, damaged, open_state, read_exact, scratch_file, state_prefix, write_exact


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
