"""Killed anywhere, restored from any backup: the same digests as without, and one signal per party and round."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fednode.errors import Conflict
from fednode.node.protocol import pending as c
from fednode.node.protocol.pending import Command
from fednode.node.protocol.state import State
from fednode.node.recompute import ensure_base
from fednode.types import Digest, HeadStatus

from .party import RUN, Crash, Party, build, open_head, scratch
from .world import LoopClock, VectorAggregator, run_virtual


class Fuse:
    """Raises Crash when it is reached for the n-th time, once."""

    def __init__(self, number: int, moment: str) -> None:
        self.left, self.moment = number, moment

    def reach(self, moment: str, command: Command | None = None) -> None:
        if moment == self.moment:
            self.left -= 1
            if self.left == 0:
                raise Crash(f"{moment} {command}")


def whole_run(arm: Callable[[int, Party], None]) -> tuple[tuple[Digest, ...], list[Party]]:
    """Open a head and run it to the end, restarting whoever crashes; `arm` plants the crashes beforehand."""

    async def story(root: Path) -> tuple[tuple[Digest, ...], list[Party]]:
        parties = build(root)
        for index, party in enumerate(parties):
            arm(index, party)
        await asyncio.gather(*(party.work_through_crashes("open") for party in parties))
        states = await asyncio.gather(*(party.work_through_crashes() for party in parties))
        check(parties, list(states))
        return states[0].digests, parties

    with scratch() as root:
        return run_virtual(story(root))


def check(parties: list[Party], states: list[State]) -> None:
    ledger = parties[0].ledger
    assert len({state.digests for state in states}) == 1
    assert {key: len(ids) for key, ids in ledger.sent.items()} == {
        (p.me, number, RUN): 1 for p in parties for number in range(4)
    }
    assert set(ledger.deposits.values()) == {p.me for p in parties}
    assert ledger.status is HeadStatus.FINALIZED
    for party, state in zip(parties, states, strict=True):
        assert party.state() == state
        assert state.faults == ()
        assert f"{party.me}/{RUN}/transcript.cborseq" in party.bucket.stored


UNDISTURBED = whole_run(lambda index, party: None)[0]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_any_write_of_the_journal(moment: str) -> None:
    number = 0
    fuses: list[Fuse] = []

    def arm(index: int, party: Party) -> None:
        fuses.append(Fuse(number, moment))
        party.journal.hook = fuses[-1].reach

    while all(fuse.left <= 0 for fuse in fuses):
        fuses.clear()
        number += 1
        assert whole_run(arm)[0] == UNDISTURBED
    assert number > 20


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("together", [True, False], ids=["all", "one"])
def test_killed_at_any_effect(moment: str, together: bool) -> None:
    number = 0
    fuses: list[Fuse] = []

    def arm(index: int, party: Party) -> None:
        if together or index == number % 3:
            fuses.append(Fuse(number, moment))
            party.hook = fuses[-1].reach

    while all(fuse.left <= 0 for fuse in fuses):
        fuses.clear()
        number += 1
        assert whole_run(arm)[0] == UNDISTURBED
    assert number > 20


def test_killed_at_every_effect_of_one_run() -> None:
    """Each start survives one effect more than the last: nothing makes progress twice."""

    def arm(index: int, party: Party) -> None:
        seen: set[str] = set()

        def hook(moment: str, command: Command) -> None:
            if moment == "after" and str(command) not in seen and not isinstance(command, c.CloseHead | c.Fanout):
                seen.add(str(command))
                raise Crash(str(command))

        party.hook = hook

    digests, parties = whole_run(arm)
    assert digests == UNDISTURBED
    assert all(len(party.trainer.trained) == 4 for party in parties)  # each round once more: killed before its fact


# Old backups ---------------------------------------------------------------------------------------------------------


async def interrupted(parties: list[Party], journalled: int) -> list[asyncio.Task[State]]:
    """Anna is stopped once her journal holds so many facts; the others go on."""
    anna = parties[0]
    fuse = asyncio.Event()
    anna.journal.hook = lambda moment: fuse.set() if len(anna.journal.records) >= journalled else None
    working = [asyncio.ensure_future(party.work()) for party in parties]
    stopped = asyncio.ensure_future(fuse.wait())
    await asyncio.wait({working[0], stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    working[0].cancel()
    await asyncio.gather(working[0], stopped, return_exceptions=True)
    anna.journal.hook = lambda moment: None
    await asyncio.sleep(40)
    return working[1:]


def restored(journalled: int, spoil: Callable[[Party, int], None]) -> tuple[Digest, ...]:
    """Anna is stopped, her home is spoilt, and she starts again; returns the digests of the finished run."""

    async def story(root: Path) -> tuple[Digest, ...]:
        parties = build(root)
        await open_head(parties)
        opened = len(parties[0].journal.records)
        others = await interrupted(parties, opened + journalled)
        spoil(parties[0], opened)
        states = [await parties[0].work(), *await asyncio.gather(*others)]
        check(parties, states)
        return states[0].digests

    with scratch() as root:
        return run_virtual(story(root))


@pytest.mark.parametrize("back", [1, 3, 8, 20, 1000])
def test_an_older_journal_adopts_its_own_signals_and_never_signs_again(back: int) -> None:
    """Only the journal is old; of the adapters in the run's folder those that it needs may be gone."""

    def spoil(anna: Party, opened: int) -> None:
        del anna.journal.records[max(opened, len(anna.journal.records) - back) :]

    for journalled in range(4, 50, 3):
        assert restored(journalled, spoil) == UNDISTURBED


@pytest.mark.parametrize("back", [3, 20])
def test_an_older_home_comes_back_without_its_folder(back: int) -> None:
    """A lost bundle changes what is trained next, for all alike. An own object that nobody has yet is made again."""

    def spoil(anna: Party, opened: int) -> None:
        del anna.journal.records[max(opened, len(anna.journal.records) - back) :]
        shutil.rmtree(anna.root / "runs", ignore_errors=True)

    for journalled in range(4, 50, 3):
        assert len(restored(journalled, spoil)) == len(UNDISTURBED)


@pytest.mark.parametrize("back", [1, 4, 9])
def test_an_unmounted_bucket_is_waited_for_and_nothing_is_signed_again(back: int) -> None:
    """The journal is old, and the own bucket, which knows what was signed, looks empty for ten minutes."""
    waited = 0

    def spoil(anna: Party, opened: int) -> None:
        del anna.journal.records[max(opened, len(anna.journal.records) - back) :]
        if anna.state().round >= 1:
            hidden = dict(anna.bucket.stored)
            anna.bucket.stored.clear()
            loop = asyncio.get_running_loop()
            loop.call_later(600, anna.bucket.stored.update, hidden)
            loop.call_later(500, note, anna)

    def note(anna: Party) -> None:
        nonlocal waited
        waited += ("CheckOwnBucket", "storage-unavailable") in anna.notes.retries
        assert anna.bucket.stored == {}

    ends: list[object] = []
    for journalled in range(14, 40, 3):
        try:
            ends.append(restored(journalled, spoil))
        except Conflict as stopped:
            ends.append(stopped.message)
    assert waited >= 2
    assert all(end == UNDISTURBED for end in ends if not isinstance(end, str))
    # Where the own signal is final already and its object is needed, the node stops and says so.
    assert all("is not in the own bucket" in end for end in ends if isinstance(end, str))
    assert sum(end == UNDISTURBED for end in ends) >= 5


def lost(path: Path) -> None:
    path.unlink()


def flipped(path: Path) -> None:
    """One bit of the first number is another one; the file still reads well."""
    data = bytearray(path.read_bytes())
    data[next(at for at, byte in enumerate(data) if chr(byte).isdigit())] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("folder", "damage"),
    [(place, damage) for place in ("state", "momentum", "both") for damage in (lost, flipped)],
)
def test_a_lost_or_damaged_adapter_is_computed_again(folder: str, damage: Callable[[Path], None]) -> None:
    """S_1 and the momentum beside it, while Anna works on round 2."""
    spoilt = 0

    def spoil(anna: Party, opened: int) -> None:
        nonlocal spoilt
        places = ("state", "momentum") if folder == "both" else (folder,)
        for path in [anna.root / "runs" / RUN / place / "000001.safetensors" for place in places]:
            if path.exists():
                damage(path)
                spoilt += 1

    for journalled in range(18, 40, 2):
        assert restored(journalled, spoil) == UNDISTURBED
    assert spoilt >= 5


@pytest.mark.parametrize(("damage", "published"), [(lost, False), (flipped, False), (lost, True), (flipped, True)])
def test_an_own_object_that_nobody_has_is_trained_again(damage: Callable[[Path], None], published: bool) -> None:
    """It is gone, or another one, between its training and the journal's word that it is published."""
    spoilt: list[Party] = []

    def spoil(anna: Party, opened: int) -> None:
        work = anna.state().work
        path = anna.root / "runs" / RUN / "objects" / f"{work.object}.safetensors"
        if path.exists() and not work.published:
            damage(path)
            spoilt.append(anna)
            for key in [key for key in anna.bucket.stored if str(work.object) in key and not published]:
                del anna.bucket.stored[key]

    for journalled in range(10, 40):
        assert restored(journalled, spoil) == UNDISTURBED
    lines = [[json.loads(line)[0] for line in anna.journal.records] for anna in spoilt]
    rounds = len(UNDISTURBED) - 1
    assert lines
    assert all(kinds.count("ObjectLost") == (not published) for kinds in lines)
    assert all(kinds.count("Trained") == rounds + (not published) for kinds in lines)


def test_a_damaged_momentum_on_the_way_back_is_found_by_the_digest_after_it() -> None:
    """S_2 is lost, S_1 is intact, the momentum beside S_1 is not: S_0 leads there."""

    async def story(root: Path) -> tuple[Digest, ...]:
        parties = build(root)
        await open_head(parties)
        states = await asyncio.gather(*(party.work() for party in parties))
        anna, effects = parties[0], parties[0].effects()
        folder = effects.folder
        before = folder.state(2).read_bytes(), folder.momentum(2).read_bytes()
        assert folder.state(1).exists()
        folder.state(2).unlink()
        flipped(folder.momentum(1))
        end = replace(anna.state(), round=3)  # as if there were a third round
        await ensure_base(effects, VectorAggregator(), end)
        assert (folder.state(2).read_bytes(), folder.momentum(2).read_bytes()) == before
        assert not folder.state(0).exists()  # what is older than the round before is not kept
        return states[0].digests

    with scratch() as root:
        assert run_virtual(story(root)) == UNDISTURBED


def test_damaged_objects_in_the_cache_are_fetched_again_on_the_way_back() -> None:
    async def story(root: Path) -> None:
        parties = build(root)
        await open_head(parties)
        await asyncio.gather(*(party.work() for party in parties))
        effects = parties[0].effects()
        folder, end = effects.folder, replace(parties[0].state(), round=3)
        before = folder.state(2).read_bytes()
        folder.state(2).unlink()
        for path in folder.objects.iterdir():
            path.write_bytes(path.read_bytes().replace(b'"x": [', b'"x": [1'))
        await ensure_base(effects, VectorAggregator(), end)
        assert folder.state(2).read_bytes() == before

    with scratch() as root:
        run_virtual(story(root))


def test_a_run_that_ended_without_this_node_is_recomputed_from_the_buckets() -> None:
    """Anna sends her last signal, is lost, and comes back with a new journal when the head has been paid out."""

    def spoil(anna: Party, opened: int) -> None:
        del anna.journal.records[opened:]
        shutil.rmtree(anna.root / "runs")

    async def story(root: Path) -> None:
        parties = build(root)
        await open_head(parties)
        opened = len(parties[0].journal.records)
        whole = await asyncio.gather(*(party.work() for party in parties))
        spoil(parties[0], opened)
        trained = list(parties[0].trainer.trained)
        started = LoopClock().now()
        state = await parties[0].work()
        assert state.digests == whole[0].digests
        assert state.certified
        assert parties[0].trainer.trained == trained
        assert LoopClock().now() - started < 60
        check(parties, [state, *whole[1:]])

    with scratch() as root:
        run_virtual(story(root))
