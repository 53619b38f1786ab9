"""Our own tensor files: state, momentum and bundle, as safetensors with exactly one byte layout per content.

u64 LE header length, canonical JSON header padded with spaces to 64 bytes, then the tensors: eight-byte items first,
then by name, C order, little-endian. The data of a state file is so what its digest covers (protocol.md section 2).
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np

from fednode.durable import publish
from fednode.errors import ConfigError, TrainingError
from fednode.training.arrays import LE_F32, LE_I64, AnyArray, raw
from fednode.training.exact.schema import canonical_json
from fednode.types import Digest

HEADER_LIMIT = 16 << 20
"""Longest header that is read, in bytes: far above 100,000 tensors."""
PIECE = 1 << 20
"""Bytes that are read or written at a time."""

Entry = tuple[str, str, Sequence[int]]
"""Name, safetensors dtype and shape of one tensor."""
ITEM_SIZE = {"I8": 1, "U8": 1, "F32": 4, "I64": 8}
"""Bytes of one element by safetensors dtype."""
_DTYPES: Mapping[str, np.dtype[Any]] = {"F32": LE_F32, "I64": LE_I64}


def prefix(entries: Sequence[Entry], metadata: Mapping[str, str] | None = None) -> bytes:
    """Everything before the data of a file whose tensors lie in the order of `entries`."""
    header: dict[str, object] = {} if metadata is None else {"__metadata__": dict(metadata)}
    at = 0
    for name, dtype, shape in entries:
        end = at + prod(shape) * ITEM_SIZE[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = canonical_json(header)
    text += b" " * (-(8 + len(text)) % 64)
    return len(text).to_bytes(8, "little") + text


@contextmanager
def scratch_file(path: Path) -> Generator[int, None, None]:
    """Write a file that appears at `path`, durably, when the block ends without an error. Yields the descriptor.

    Leftovers of an earlier attempt (a killed process) are removed first.
    """
    stem = f".{path.name}."
    for stale in path.parent.iterdir():
        if stale.name.startswith(stem):
            stale.unlink(missing_ok=True)
    fd, name = tempfile.mkstemp(prefix=stem, dir=path.parent)
    try:
        os.fchmod(fd, 0o644)
        yield fd
        publish(Path(name), path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


def read_exact(fd: int, count: int, offset: int) -> bytes:
    """`count` bytes at `offset`. Raises EOFError where the file ends before."""
    data = os.pread(fd, count, offset)
    while len(data) < count:
        more = os.pread(fd, count - len(data), offset + len(data))
        if not more:
            raise EOFError(f"file ends at byte {offset + len(data)}, expected {offset + count}")
        data += more
    return data


def write_exact(fd: int, data: memoryview | bytes, offset: int) -> None:
    """Write all bytes of `data` at `offset`."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def write_tensors(path: Path, tensors: Mapping[str, AnyArray]) -> Digest:
    """Write F32 and I64 arrays durably and atomically; returns the sha256 of the file."""
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0].encode()))
    entries: list[Entry] = [(name, _dtype_name(name, array), array.shape) for name, array in ordered]
    arrays = (np.ascontiguousarray(array, array.dtype.newbyteorder("<")) for _, array in ordered)
    return write_parts(path, prefix(entries), arrays)


def write_parts(path: Path, head: bytes, arrays: Iterable[AnyArray]) -> Digest:
    """Write `head` and then the bytes of the arrays, one after the other; returns the sha256 of the file."""
    digest = hashlib.sha256(head)
    with scratch_file(path) as fd:
        write_exact(fd, head, 0)
        at = len(head)
        for array in arrays:
            data = raw(array)
            digest.update(data)
            write_exact(fd, data, at)
            at += data.nbytes
    return Digest(digest.hexdigest())


def read_tensors(path: Path) -> dict[str, AnyArray]:
    """Read a file of `write_tensors` whole. Raises TrainingError where damaged, FileNotFoundError where absent."""
    with path.open("rb") as handle:
        size = os.fstat(handle.fileno()).st_size
        try:
            length = int.from_bytes(read_exact(handle.fileno(), 8, 0), "little")
            if length > min(HEADER_LIMIT, size - 8):
                raise ValueError(f"header of {length} bytes in a file of {size}")
            text = read_exact(handle.fileno(), length, 8)
            entries = _entries(json.loads(text))
            head = prefix(entries)
            whole = len(head) + sum(prod(shape) * ITEM_SIZE[dtype] for _, dtype, shape in entries)
            if head[8:] != text or size != whole:
                raise ValueError("header or size is not what this program writes")
            handle.seek(len(head))
            return {
                name: np.fromfile(handle, _DTYPES[dtype], prod(shape)).reshape(shape) for name, dtype, shape in entries
            }
        except (EOFError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise damaged(path, str(error)) from error


def damaged(path: Path, what: str) -> TrainingError:
    """The error for one of our own files that is not as we wrote it."""
    return TrainingError(f"{path} is damaged: {what}", hint="restore it from a backup, or start in a new home")


def _entries(header: object) -> list[Entry]:
    if not isinstance(header, dict):
        raise ValueError("header is no JSON object")
    rows: list[tuple[int, Entry]] = []
    for name, value in cast(dict[str, Any], header).items():
        shape = [int(side) for side in value["shape"]]
        if min(shape, default=0) < 0 or value["dtype"] not in _DTYPES:
            raise ValueError(f"tensor {name!r} has dtype {value['dtype']!r} and shape {shape}")
        rows.append((int(value["data_offsets"][0]), (name, str(value["dtype"]), shape)))
    # An empty tensor shares its offset with the next one: the name decides, as it did when the file was written.
    rows.sort(key=lambda row: (row[0], -ITEM_SIZE[row[1][1]], prod(row[1][2]), row[1][0].encode()))
    return [entry for _, entry in rows]


def _dtype_name(name: str, array: AnyArray) -> str:
    for dtype, numpy_type in _DTYPES.items():
        if array.dtype == numpy_type:
            return dtype
    raise ConfigError(f"tensor {name!r} has dtype {array.dtype}, expected float32 or int64")
