"""Adapters from objects: the aggregate of a round, and the way back to a lost S_r.

What a run's folder holds can be computed again from the journal's transcript and the buckets, exactly. A home whose
journal and run folder are of different age (a restored backup) comes back this way.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from fednode.errors import Integrity, JournalError, TrainingError
from fednode.node import fetching
from fednode.node.fetching import fetch_object
from fednode.node.ports import Aggregator
from fednode.node.protocol.events import ObjectFaulty
from fednode.node.protocol.pending import Fetch
from fednode.node.protocol.state import State, Work
from fednode.node.runfolder import RunFolder
from fednode.types import AggregateResult, Digest, PartyName

_log = logging.getLogger("fednode.node")


class Site(fetching.Site, Protocol):
    """What recomputing needs of the node."""

    base_checked: bool
    """This process has read the adapter that it starts from, or wrote it itself: it need not read it again."""


async def objects_of(
    site: fetching.Site, aggregator: Aggregator, state: State, *, read: bool = False
) -> dict[PartyName, Path] | ObjectFaulty:
    """Every party's object of the state's round in the cache; what is gone from there is fetched and checked again.

    With `read` what is there is read and checked too.
    """
    found: dict[PartyName, Path] = {}
    for party in state.rules.parties:
        digest = state.transcript.signals(state.round)[party].object
        assert digest is not None
        found[party] = site.folder.object(digest)
        if read or not found[party].exists():
            outcome = await fetch_object(site, aggregator, Fetch(state.round, party), state)
            if isinstance(outcome, ObjectFaulty):
                return outcome
    return found


async def aggregate(
    site: fetching.Site, aggregator: Aggregator, number: int, objects: Mapping[PartyName, Path]
) -> AggregateResult:
    """S_r of round `number` from S_{r-1} and the momentum beside it, in a thread."""
    run = functools.partial(
        aggregator.aggregate,
        number,
        objects,
        state=site.folder.state(number - 1),
        momentum=_momentum(site.folder, number - 1),
        new_state=site.folder.state(number),
        new_momentum=site.folder.momentum(number),
    )
    return await asyncio.to_thread(run)


async def ensure_base(site: Site, aggregator: Aggregator, state: State) -> None:
    """The adapter that the state's round starts from, and its momentum, lie in the run's folder as they were written.

    What is lost is recomputed, and so is what a process finds damaged when it first needs it. Raises what fetching
    raises, and JournalError where the recomputed adapter is not the one the journal names.
    """
    last = state.round - 1
    if site.base_checked and _present(site.folder, last):
        return
    if not await _intact(site.folder, aggregator, state, last):
        _log.warning("S_%d is missing or damaged here: it is computed again from what lies in the buckets", last)
        await _recompute(site, aggregator, state, last)
    site.base_checked = True


async def _recompute(site: Site, aggregator: Aggregator, state: State, last: int) -> None:
    """S_last from the newest adapter that is intact; from S_0 where that leads to another one."""
    for first in range(last - 1, 0, -1):
        if await _intact(site.folder, aggregator, state, first):
            try:
                return await _replay(site, aggregator, state, range(first + 1, last + 1))
            except JournalError:
                break  # a journal of format 1 has no digest of the momentum: S_0 has none
    _same(state, 0, await asyncio.to_thread(aggregator.initial, site.folder.state(0)))
    return await _replay(site, aggregator, state, range(1, last + 1))


async def _replay(site: Site, aggregator: Aggregator, state: State, rounds: range) -> None:
    """Aggregate past rounds again; only the newest adapters and what the own round needs stay on the disk."""
    needed = {s.object for s in state.transcript.signals(state.round).values() if s.object is not None}
    needed |= {x for x in (state.work.object, state.work.adopted_object) if x is not None}
    for number in rounds:
        past = replace(state, round=number, digests=state.digests[:number], work=Work())
        objects = await objects_of(site, aggregator, past, read=True)
        if isinstance(objects, ObjectFaulty):
            where = f"the object of {objects.party} for round {number}"
            raise Integrity(f"{where} is no longer what was signalled: {objects.message}", kind="digest")
        _same(state, number, (await aggregate(site, aggregator, number, objects)).digest)
        site.folder.tidy(number, needed)


def _momentum(folder: RunFolder, number: int) -> Path | None:
    """The file beside S_r; S_0 has none: the first round starts from zero."""
    return folder.momentum(number) if number > 0 else None


def _present(folder: RunFolder, number: int) -> bool:
    momentum = _momentum(folder, number)
    return folder.state(number).exists() and (momentum is None or momentum.exists())


async def _intact(folder: RunFolder, aggregator: Aggregator, state: State, number: int) -> bool:
    """S_r on the disk is the one that the journal names, and has its momentum."""
    if not _present(folder, number):
        return False
    momentum, expected = _momentum(folder, number), state.momenta[number]
    try:
        if await asyncio.to_thread(aggregator.digest, folder.state(number), momentum) != state.digests[number]:
            return False
        if momentum is None or expected is None:
            return True
        return await asyncio.to_thread(aggregator.momentum_digest, momentum) == expected
    except TrainingError as damaged:
        _log.warning("%s", damaged.message)
        return False


def _same(state: State, number: int, digest: Digest) -> None:
    if digest != state.digests[number]:
        raise JournalError(
            f"S_{number} recomputed from the buckets is {digest[:16]}…, the journal says {state.digests[number][:16]}…",
            hint="restore the whole home from one backup, or restore the model files that peers.toml names",
        )
