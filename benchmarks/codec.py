"""Bytes per parameter and speed of the codecs beside other ways to store an update.

    python benchmarks/codec.py [--json] [--parameters N] [--threads N]

Goals: `i8` at most 1.02 bytes per parameter, `i4` 0.52, `tk64` 0.03; encoding at least as fast as torch.save. GB/s are
of the float32 side, the best of several runs, all in memory and in one process; `error` is the relative L2 error of one
update of Gaussian rows with unequal scales. Decoding of a codec is what an aggregation does: read, scale to int64.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch

from fednode.training.arrays import F32
from fednode.training.codec.table import CODEC
from fednode.training.exact.objects import CHUNK, ObjectFile, ObjectId, object_prefix
from fednode.training.exact.schema import CODECS, Schema
from fednode.training.exact.tensors import write_exact
from fednode.training.exact.writer import write_chunks
from fednode.types import Codec, Digest, ModelFacts, PartyName, RunId

RANK, WIDTH = 16, 4096
WHO = ObjectId(RunId("0" * 32), 1, PartyName("party"), "AB", Digest("0" * 64))
Row = dict[str, object]


def schema_of(parameters: int, codec: Codec) -> Schema:
    pairs = max(1, round(parameters / (2 * RANK * WIDTH)))
    shapes = {"A": (RANK, WIDTH), "B": (WIDTH, RANK)}
    facts = ModelFacts(
        tuple((f"layers.{i:05}.lora_{factor}.weight", shapes[factor]) for i in range(pairs) for factor in "AB"), {}
    )
    return Schema.of(facts, rank=RANK, alpha=32, quantisation="nf4", codec=codec)


def update_of(schema: Schema) -> dict[str, F32]:
    """Gaussian rows whose scales are log-normal around 1e-3."""
    rng = np.random.default_rng(0)
    return {
        spec.name: (
            rng.standard_normal(spec.shape, np.float32) * (1e-3 * np.exp(rng.standard_normal((spec.shape[0], 1))))
        ).astype(np.float32)
        for spec in schema.tensors
    }


def best(run: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of several runs; the first one, which touches new pages, does not count."""
    run()
    seconds: list[float] = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def row(name: str, size: int, encode: float, decode: float | None, count: int, error: float = 0.0) -> Row:
    return {
        "name": name,
        "bytes_per_parameter": round(size / count, 4),
        "encode_gb_s": round(4 * count / encode / 1e9, 2),
        "decode_gb_s": None if decode is None else round(4 * count / decode / 1e9, 2),
        "error": float(f"{error:.3g}"),
    }


def codec_row(codec: Codec, parameters: int, threads: int, repeats: int) -> Row:
    schema = schema_of(parameters, codec)
    layout = schema.layout("AB")
    update = update_of(schema)
    source = np.zeros(layout.elements, np.float32)
    for spec, start in zip(layout.tensors, layout.starts, strict=True):
        source[start : start + spec.size] = update[spec.name].reshape(-1)
    flat = source.copy()
    head = object_prefix(schema, WHO)
    fd = os.memfd_create("object")
    write_exact(fd, head, 0)

    def encode() -> None:
        write_chunks(fd, schema, layout, flat, start=len(head), threads=threads)

    seconds: list[float] = []
    for _ in range(repeats + 1):
        np.copyto(flat, source)
        began = time.perf_counter()
        encode()
        seconds.append(time.perf_counter() - began)
    error = float(np.linalg.norm(flat) / np.linalg.norm(source))
    opened = ObjectFile(fd, CODEC[codec], layout, len(head))

    def share(at: int) -> None:
        out = np.empty(CHUNK, np.int64)
        for lo, hi in opened.chunks()[at::threads]:
            opened.codec.scaled(opened.read(lo, hi), layout.padding(lo, hi), 1024, out[: hi - lo])

    def decode() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(share, range(threads)))

    size = os.fstat(fd).st_size
    result = row(codec, size, min(seconds[1:]), best(decode, repeats), schema.elements, error)
    os.close(fd)
    return result


def other_rows(update: Mapping[str, F32], repeats: int) -> list[Row]:
    count = sum(tensor.size for tensor in update.values())
    flat = np.concatenate([tensor.reshape(-1) for tensor in update.values()])
    target = np.empty_like(flat)
    copying = best(lambda: np.copyto(target, flat), repeats)
    tensors = {name: torch.from_numpy(tensor) for name, tensor in update.items()}
    buffer = io.BytesIO()

    def save() -> None:
        buffer.seek(0)
        torch.save(tensors, buffer)

    saving = best(save, repeats)
    blob = safetensors.numpy.save(dict(update))
    storing = best(lambda: safetensors.numpy.save(dict(update)), repeats)
    loading = best(lambda: safetensors.numpy.load(blob), repeats)
    return [
        row("memcpy", 4 * count, copying, copying, count),
        row("torch.save", buffer.tell(), saving, None, count),
        row("safetensors f32", len(blob), storing, loading, count),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=int, default=20_000_000)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = other_rows(update_of(schema_of(options.parameters, "f32")), options.repeats)
    rows += [codec_row(codec, options.parameters, options.threads, options.repeats) for codec in CODECS]
    if options.json:
        print(json.dumps({"benchmark": Path(__file__).stem, "threads": options.threads, "rows": rows}))
        return
    print(f"about {options.parameters:,} parameters, {options.threads} threads; GB/s of float32")
    print(f"{'':18}{'B/param':>9}{'encode':>9}{'decode':>9}{'error':>10}")
    for found in rows:
        decoded = "-" if found["decode_gb_s"] is None else found["decode_gb_s"]
        name, size, encoded, error = (found[key] for key in ("name", "bytes_per_parameter", "encode_gb_s", "error"))
        print(f"{name:18}{size:>9}{encoded:>9}{decoded:>9}{error:>10}")


if __name__ == "__main__":
    main()
