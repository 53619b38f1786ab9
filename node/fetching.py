"""Fetching a party's object: bound the size, hash, parse, and only then believe (protocol.md section 3, step 6)."""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fednode.errors import (
    ConfigError,
    Conflict,
    Integrity,
    KeyFileError,
    NotFound,
    ObjectRefused,
    StorageError,
    Unavailable,
)
from fednode.node.ports import Aggregator, Bucket, Clock
from fednode.node.protocol import events as e
from fednode.node.protocol.pending import Fetch
from fednode.node.protocol.state import State
from fednode.node.runfolder import RunFolder
from fednode.types import Digest, PartyName, PhasePolicy, Transferred, phase_of

FETCHES = 3
BETWEEN_FETCHES_S = 10.0
"""A wrong hash is a fault only after three fetches at least ten seconds apart: stores may answer stale or torn."""


@dataclass(slots=True)
class Answers:
    """Wrong answers so far to each fetch of this process: how many, and when the last one came.

    Whatever comes between them does not start the count anew, or a store that is down now and then would be asked for
    ever. The right bytes do.
    """

    wrong: dict[Fetch, tuple[int, float]] = field(default_factory=dict[Fetch, "tuple[int, float]"])

    def rest(self, command: Fetch, now: float) -> float:
        """Seconds until the object may be asked for again."""
        last = self.wrong.get(command, (0, -BETWEEN_FETCHES_S))[1]
        return min(BETWEEN_FETCHES_S, max(0.0, last + BETWEEN_FETCHES_S - now))

    def count(self, command: Fetch, now: float) -> int:
        """Note a wrong answer; which one it was."""
        count = self.wrong.get(command, (0, 0.0))[0] + 1
        self.wrong[command] = (count, now)
        return count


class Site(Protocol):
    """What fetching needs of the node."""

    @property
    def clock(self) -> Clock: ...
    @property
    def answers(self) -> Answers: ...
    @property
    def folder(self) -> RunFolder: ...
    @property
    def phase(self) -> PhasePolicy: ...
    @property
    def buckets(self) -> Mapping[PartyName, Bucket]: ...

    @property
    def transfer(self) -> Callable[[str], Transferred | None]:
        """What is told while the transfer of something runs."""
        ...

    def object_key(self, party: PartyName, round_number: int, digest: str, suffix: str = "safetensors") -> str: ...


async def fetch_object(site: Site, aggregator: Aggregator, command: Fetch, state: State) -> e.Event:
    """The object verified in the cache, or the party's fault with the bytes that prove it. Raises what may pass."""
    digest, size = _signalled(command, state)
    started = site.clock.now()
    expected = aggregator.object_size(command.round, command.party)
    if size != expected:
        message = f"signalled an object of {size} bytes, expected {expected}"
        return _faulty(site, command, state, "size", message, "")
    path = site.folder.object(digest)
    assert state.base is not None
    check = functools.partial(
        aggregator.check,
        path,
        run=state.rules.run,
        round_number=command.round,
        party=command.party,
        phase=phase_of(command.round, site.phase),
        base=state.base,
    )
    try:
        if not await asyncio.to_thread(holds, path, digest):
            path.unlink(missing_ok=True)  # our own disk's fault, not the party's
            broken = await _download(site, command, digest, size, path, own=command.party == state.rules.me)
            if broken is not None:
                return _faulty(site, command, state, broken.kind, broken.message, broken.kept)
        await asyncio.to_thread(check)
    except ObjectRefused as refused:
        return _faulty(site, command, state, refused.rule, refused.message, str(path))
    except FileNotFoundError as gone:
        # Training began meanwhile, and tidied the cache by an older view of the transcript.
        raise Unavailable(f"{path} is gone from the cache: it is fetched again") from gone
    now = site.clock.now()
    return e.ObjectFetched(now, command.round, command.party, now - started)


def _signalled(command: Fetch, state: State) -> tuple[Digest, int]:
    """Digest and size of the party's signal; for the own party also of an adopted signal that is not final yet."""
    signal = state.transcript.signals(command.round).get(command.party)
    if signal is not None:
        assert signal.object is not None
        assert signal.size is not None
        return signal.object, signal.size
    assert state.work.adopted_object is not None
    assert state.work.size is not None
    return state.work.adopted_object, state.work.size


async def _download(
    site: Site, command: Fetch, digest: Digest, size: int, path: Path, *, own: bool
) -> Integrity | None:
    """None once the bytes are in the cache; the last Integrity error after three wrong answers."""
    key = site.object_key(command.party, command.round, digest)
    told = site.transfer(f"reading the object of {command.party}")
    while True:
        await asyncio.sleep(site.answers.rest(command, site.clock.now()))
        try:
            await site.buckets[command.party].get(key, path, size=size, sha256=digest, progress=told)
        except Integrity as broken:
            if site.answers.count(command, site.clock.now()) >= FETCHES:
                return broken
        except NotFound as missing:
            if not own:
                raise
            raise _own_lost(command, missing.message) from missing
        except (StorageError, KeyFileError, ConfigError) as refused:
            if own or refused.retryable:
                raise
            # A peer that lets nobody in, in whatever way, is an absent peer: wait, and let the deadline decide. So is
            # one whose renewed grant is none: another file may be put in its place at any time.
            raise Unavailable(refused.message, hint=refused.hint) from refused
        else:
            site.answers.wrong.pop(command, None)
            return None


def holds(path: Path, digest: Digest) -> bool:
    """Whether the file is there and has these bytes."""
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest() == digest
    except FileNotFoundError:
        return False


def _faulty(site: Site, command: Fetch, state: State, rule: str, message: str, kept: str) -> e.Event:
    if command.party == state.rules.me:
        raise _own_lost(command, message)
    return e.ObjectFaulty(site.clock.now(), command.round, command.party, rule, message, kept)


def _own_lost(command: Fetch, why: str) -> Conflict:
    return Conflict(
        f"the own signal of round {command.round} is known, but its object is not in the own bucket: {why}",
        hint="restore the object from a backup of the bucket; this node must not sign the round a second time",
    )
