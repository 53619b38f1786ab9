"""Objects `fednode/1`: reading and checking the bytes of one party's update (protocol.md section 5).

Every byte before the data follows from the agreement and the signal, so the reader rebuilds it and compares; nothing of
a peer is parsed. A file is read in chunks and never whole, so memory does not grow with the adapter.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fednode.errors import ObjectRefused
from fednode.training.codec.base import ChunkCodec, Parts, refuse
from fednode.training.codec.table import CODEC
from fednode.training.exact.schema import Layout, Schema, canonical_json
from fednode.training.exact.tensors import ITEM_SIZE, prefix, read_exact
from fednode.types import Digest, PartyName, Phase, RunId

CHUNK = 32768
"""Elements that are decoded at a time: a multiple of every codec's unit, and small enough for a core's cache."""


@dataclass(frozen=True, slots=True)
class ObjectId:
    """What an object says of itself; with the schema it fixes every byte before the data."""

    run: RunId
    round: int
    party: PartyName
    phase: Phase
    base: Digest


def object_prefix(schema: Schema, identity: ObjectId) -> bytes:
    """Header length, header and padding of an object."""
    codec, elements = CODEC[schema.codec], schema.layout(identity.phase).elements
    entries = [
        (section.name, section.dtype, [elements // codec.unit * section.per_unit // ITEM_SIZE[section.dtype]])
        for section in codec.sections
    ]
    return prefix(entries, _metadata(schema, identity))


def object_size(schema: Schema, identity: ObjectId) -> int:
    """The exact size in bytes. It depends on the length of the party's name and of the round number only."""
    return len(object_prefix(schema, identity)) + data_size(schema, schema.layout(identity.phase))


def data_size(schema: Schema, layout: Layout) -> int:
    """Bytes after the prefix."""
    codec = CODEC[schema.codec]
    return layout.elements // codec.unit * sum(section.per_unit for section in codec.sections)


def _metadata(schema: Schema, identity: ObjectId) -> dict[str, str]:
    return {
        "fmt": "fednode/1",
        "codec": schema.codec,
        "schema": schema.digest,
        "run": identity.run,
        "base": identity.base,
        "round": str(identity.round),
        "party": identity.party,
        "phase": identity.phase,
    }


class ObjectFile:
    """An open object. `read` gives the bytes of a chunk; threads may share it."""

    def __init__(self, fd: int, codec: ChunkCodec, layout: Layout, start: int) -> None:
        self.codec = codec
        self.layout = layout
        self._fd = fd
        self._starts: list[int] = []
        for section in codec.sections:
            self._starts.append(start)
            start += layout.elements // codec.unit * section.per_unit

    def read(self, lo: int, hi: int) -> Parts:
        """The sections' bytes of the elements lo..hi-1, both multiples of the codec's unit. Raises ObjectRefused."""
        first, units = lo // self.codec.unit, (hi - lo) // self.codec.unit
        try:
            return [
                np.frombuffer(
                    read_exact(self._fd, units * section.per_unit, start + first * section.per_unit), np.uint8
                )
                for section, start in zip(self.codec.sections, self._starts, strict=True)
            ]
        except EOFError as error:
            raise refuse("size", str(error)) from error

    def head(self, count: int) -> bytes:
        """The first `count` bytes of the file."""
        return read_exact(self._fd, count, 0)

    def chunks(self, size: int = CHUNK) -> list[tuple[int, int]]:
        """Ranges of at most `size` elements that cover the update."""
        return [(lo, min(lo + size, self.layout.elements)) for lo in range(0, self.layout.elements, size)]


@contextmanager
def open_object(path: Path, schema: Schema, phase: Phase, size: int) -> Generator[ObjectFile, None, None]:
    """Open an object of known exact size whose prefix is not looked at. Raises ObjectRefused(rule="size")."""
    layout = schema.layout(phase)
    with path.open("rb", buffering=0) as handle:
        found = os.fstat(handle.fileno()).st_size
        if found != size:
            raise refuse("size", f"{path.name} has {found} bytes, expected {size}")
        yield ObjectFile(handle.fileno(), CODEC[schema.codec], layout, size - data_size(schema, layout))


def check_object(path: Path, schema: Schema, identity: ObjectId) -> None:
    """Raise ObjectRefused unless the file is an object of exactly this schema and identity with allowed codes."""
    expected = object_prefix(schema, identity)
    with open_object(path, schema, identity.phase, object_size(schema, identity)) as opened:
        found = opened.head(len(expected))
        if found != expected:
            raise _wrong_prefix(found, _metadata(schema, identity))
        for lo, hi in opened.chunks():
            opened.codec.check(opened.read(lo, hi), opened.layout.padding(lo, hi))


def _wrong_prefix(found: bytes, expected: Mapping[str, str]) -> ObjectRefused:
    """Name the field that differs, for people: the one whose expected bytes are not there."""
    for name in ("schema", "codec", "run", "round", "base", "party", "phase"):
        field = canonical_json({name: expected[name]})[1:-1]
        if field not in found and f'"{name}":"'.encode() in found:
            return refuse(name, f"its {name} is not {expected[name]!r}")
    return refuse("header", "its header is not the one that this run, round and party have")
