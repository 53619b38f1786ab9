"""From S_{r-1} to S_r on files, chunk by chunk (protocol.md section 6, steps 3 to 5)."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from fednode.training.exact.aggregate import Combiner, Plan, in_threads
from fednode.training.exact.objects import ObjectFile
from fednode.training.exact.outer_step import Outer, refuse_flush_to_zero
from fednode.training.exact.schema import Layout, Schema
from fednode.training.exact.state_file import StateFile, digest_of_state, existing_state, new_state
from fednode.training.exact.tensors import write_tensors
from fednode.types import Digest


@dataclass(frozen=True, slots=True)
class StatePaths:
    """The files of one round. `momentum` None = zero."""

    state: Path
    momentum: Path | None
    new_state: Path
    new_momentum: Path


def advance(
    schema: Schema,
    plan: Plan,
    outer: Outer,
    objects: Sequence[ObjectFile],
    paths: StatePaths,
    *,
    threads: int,
    chunk: int,
) -> tuple[Digest, Digest | None]:
    """Write S_r and its momentum durably, the momentum first; returns the digests of S_r and of the momentum.

    Without an outer momentum the new momentum file holds no tensor and has no digest. Raises TrainingError for damaged
    own files.
    """
    with ExitStack() as stack:
        mover = _Mover(
            plan,
            outer,
            objects,
            old=stack.enter_context(existing_state(paths.state, schema)),
            new=stack.enter_context(new_state(paths.new_state, schema)),
        )
        if outer.kind == "none":
            write_tensors(paths.new_momentum, {})
        else:
            mover.new_momentum = stack.enter_context(new_state(paths.new_momentum, schema))
            if paths.momentum is not None:
                mover.old_momentum = stack.enter_context(existing_state(paths.momentum, schema))
        layout = objects[0].layout
        in_threads(threads, objects[0].chunks(chunk), lambda ranges: mover.move(ranges, layout, chunk))
        mover.keep_others(schema, layout)
        written = [mover.new.fd, *([mover.new_momentum.fd] if mover.new_momentum is not None else [])]
        with ThreadPoolExecutor(2 * len(written)) as pool:
            # The disk works while the digests are computed; little is left for the fsync of each file.
            syncs = pool.map(os.fdatasync, written)
            digests = list(pool.map(partial(digest_of_state, schema=schema), written))
            deque(syncs, maxlen=0)  # raises what a sync raised
        return digests[0], digests[1] if len(digests) > 1 else None


@dataclass(slots=True)
class _Mover:
    plan: Plan
    outer: Outer
    objects: Sequence[ObjectFile]
    old: StateFile
    new: StateFile
    old_momentum: StateFile | None = None
    new_momentum: StateFile | None = None

    def move(self, ranges: Sequence[tuple[int, int]], layout: Layout, chunk: int) -> None:
        """The moving tensors' elements in `ranges`; runs in one thread with its own buffers."""
        refuse_flush_to_zero()
        combiner = Combiner(self.plan, self.objects, chunk)
        buffers = [np.zeros(chunk, np.float32) for _ in range(3)]
        for lo, hi in ranges:
            average, state, momentum = (buffer[: hi - lo] for buffer in buffers)
            segments = layout.segments(lo, hi)
            combiner.average(lo, hi, average)
            self.old.read(segments, state)
            if self.new_momentum is None:
                self.outer.step(state, average, None)
            else:
                if self.old_momentum is not None:
                    self.old_momentum.read(segments, momentum)
                else:
                    momentum.fill(0)
                self.outer.step(state, average, momentum)
                self.new_momentum.write(segments, momentum)
            self.new.write(segments, state)

    def keep_others(self, schema: Schema, layout: Layout) -> None:
        """Tensors of the factor that does not move stay as they are; so does their momentum."""
        moving = {spec.name for spec in layout.tensors}
        for spec in schema.tensors:
            if spec.name in moving:
                continue
            self.new.copy_from(self.old, spec)
            if self.new_momentum is not None and self.old_momentum is not None:
                self.new_momentum.copy_from(self.old_momentum, spec)
