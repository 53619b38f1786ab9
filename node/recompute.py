"""Adapters from objects: the aggregate of a round, and the way back to a lost S_r.

What a run's folder holds can be computed again from the journal's transcript and the buckets, exactly. A home whose
journal and run folder are of different age (a restored backup) comes back this way.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fednode.errors import Integrity, JournalError
from fednode.node.fetching import Site, fetch_object
from fednode.node.ports import Aggregator
from fednode.node.protocol.events import ObjectFaulty
from fednode.node.protocol.pending import Fetch
from fednode.node.protocol.state import State, Work
from fednode.types import AggregateResult, Digest, PartyName


async def objects_of(site: Site, aggregator: Aggregator, state: State) -> dict[PartyName, Path] | ObjectFaulty:
    """Every party's object of the state's round in the cache; what is gone from there is fetched and checked again."""
    found: dict[PartyName, Path] = {}
    for party in state.rules.parties:
        digest = state.transcript.signals(state.round)[party].object
        assert digest is not None
        found[party] = site.folder.object(digest)
        if not found[party].exists():
            outcome = await fetch_object(site, aggregator, Fetch(state.round, party), state)
            if isinstance(outcome, ObjectFaulty):
                return outcome
    return found


async def aggregate(
    site: Site, aggregator: Aggregator, number: int, objects: Mapping[PartyName, Path]
) -> AggregateResult:
    """S_r of round `number` from S_{r-1} and the momentum beside it, in a thread."""
    momentum = site.folder.momentum(number - 1)
    run = functools.partial(
        aggregator.aggregate,
        number,
        objects,
        state=site.folder.state(number - 1),
        momentum=momentum if momentum.exists() else None,
        new_state=site.folder.state(number),
        new_momentum=site.folder.momentum(number),
    )
    return await asyncio.to_thread(run)


async def ensure_base(site: Site, aggregator: Aggregator, state: State) -> None:
    """The adapter that the state's round starts from lies in the run's folder, recomputed where it was lost.

    Raises what fetching raises, and JournalError where the recomputed adapter is not the one the journal names.
    """
    folder, last = site.folder, state.round - 1
    if folder.state(last).exists():
        return
    known = [k for k in range(1, last) if folder.state(k).exists() and folder.momentum(k).exists()]
    first = max(known, default=0)
    if first == 0:
        _same(state, 0, await asyncio.to_thread(aggregator.initial, folder.state(0)))
    for number in range(first + 1, last + 1):
        past = replace(state, round=number, digests=state.digests[:number], work=Work())
        objects = await objects_of(site, aggregator, past)
        if isinstance(objects, ObjectFaulty):
            where = f"the object of {objects.party} for round {number}"
            raise Integrity(f"{where} is no longer what was signalled: {objects.message}", kind="digest")
        _same(state, number, (await aggregate(site, aggregator, number, objects)).digest)


def _same(state: State, number: int, digest: Digest) -> None:
    if digest != state.digests[number]:
        raise JournalError(
            f"S_{number} recomputed from the buckets is {digest[:16]}…, the journal says {state.digests[number][:16]}…",
            hint="restore the whole home from one backup, or restore the model files that peers.toml names",
        )
