"""Daemons over ports in memory, in one loop: whole runs, errors that pass, errors that end it, cancellation."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from fednode.errors import (
    ConfigError,
    Conflict,
    Denied,
    FednodeError,
    HeadError,
    HeadUnavailable,
    Integrity,
    JournalError,
    KeyFileError,
    PeerFault,
    StorageError,
    TrainingError,
    Unavailable,
)
from fednode.node.protocol import pending as c
from fednode.node.protocol.pending import Command
from fednode.node.protocol.state import State
from fednode.types import Digest, HeadStatus, SignalContent

from .party import ANNA, BERT, CLEO, RUN, Party, build, open_head, scratch
from .world import OBJECT_SIZE, Ledger, LoopClock, decode, encode, run_virtual, write_object

Story = Callable[[list[Party]], Coroutine[Any, Any, None]]


@pytest.fixture
def root() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


def play(root: Path, story: Story, **rules: Any) -> None:
    """Tell a story with three parties over an open head."""

    async def whole() -> None:
        parties = build(root, **rules)
        await open_head(parties)
        await story(parties)

    run_virtual(whole())


async def run_all(parties: list[Party]) -> list[State]:
    return list(await asyncio.gather(*(party.work() for party in parties)))


def check_run(parties: list[Party], states: list[State]) -> None:
    ledger = parties[0].ledger
    rounds = parties[0].rules.rounds
    assert len({state.digests for state in states}) == 1
    assert len(states[0].digests) == rounds + 1
    assert {key: len(ids) for key, ids in ledger.sent.items()} == {
        (p.me, number, RUN): 1 for p in parties for number in range(rounds + 2)
    }
    assert ledger.status is HeadStatus.FINALIZED
    order = [decode(bytes.fromhex(cbor)).id for _, cbor in parties[0].confirmed()]
    assert order == list(ledger.confirmed)
    whole = b"".join(bytes.fromhex(tx.cbor) for tx in ledger.confirmed.values())
    for party, state in zip(parties, states, strict=True):
        assert party.state() == state
        assert party.bucket.stored[f"{party.me}/{RUN}/transcript.cborseq"] == whole


def test_three_daemons_finish_a_run(root: Path) -> None:
    async def story(parties: list[Party]) -> None:
        check_run(parties, await run_all(parties))
        keys = set(parties[0].bucket.stored)
        kept = {key.split("/", 2)[2] for key in keys}
        assert {f"{number:06d}/signal.cbor" for number in range(4)} <= kept
        assert len(kept) == 4 + 3 + 1  # signals, objects of rounds 0 to 2, transcript
        for party in parties:
            assert party.trainer.trained == [1, 2]

    play(root, story)


def test_nodes_that_hear_late_come_to_the_same_end(root: Path) -> None:
    async def story(parties: list[Party]) -> None:
        for seconds, party in enumerate(parties):
            party.node.delay = 7.0 * seconds
        check_run(parties, await run_all(parties))

    play(root, story)


def test_a_finished_run_started_again_ends_at_once_and_changes_nothing(root: Path) -> None:
    async def story(parties: list[Party]) -> None:
        states = await run_all(parties)
        before = dict(parties[1].bucket.stored)
        again = await parties[1].work()
        assert again.digests == states[1].digests
        assert parties[1].bucket.stored == before
        assert (await parties[2].work("close")).paid is not None

    play(root, story)


def test_close_head_closes_under_a_running_peer(root: Path) -> None:
    async def story(parties: list[Party]) -> None:
        working = [asyncio.ensure_future(party.work()) for party in parties[:2]]
        await asyncio.sleep(10)
        closed = await parties[2].work("close")
        assert closed.paid is not None
        for task in working:
            with pytest.raises(HeadError, match="round"):
                await task

    play(root, story)


# Errors --------------------------------------------------------------------------------------------------------------


def test_errors_that_pass_are_tried_again_with_growing_delays(root: Path) -> None:
    async def story(parties: list[Party]) -> None:
        anna = parties[0]
        anna.bucket.fail = [Unavailable("no route")] * 30
        anna.node.refuse = [HeadUnavailable("busy")] * 3
        check_run(parties, await run_all(parties))
        names = {name for party in parties for name, _ in party.notes.retries}
        assert {"Send", "CheckOwnBucket"} <= names
        assert len(anna.notes.retries) >= 33

    play(root, story)


@pytest.mark.parametrize("error", [Conflict("other bytes"), Denied("no"), JournalError("full"), KeyError("a bug")])
def test_errors_that_do_not_pass_end_the_daemon(root: Path, error: Exception) -> None:
    async def story(parties: list[Party]) -> None:
        parties[0].bucket.fail = [error]
        with pytest.raises(type(error)):
            await parties[0].work()
        check_run(parties, await run_all(parties))

    play(root, story)


def test_training_is_tried_three_times(root: Path) -> None:
    async def story(parties: list[Party]) -> None:
        anna = parties[0]
        anna.trainer.fail = [TrainingError("out of memory")] * 2
        check_run(parties, await run_all(parties))
        assert anna.notes.retries == [("Train", "training")] * 2

    play(root, story)


def test_outages_in_between_are_no_failed_trainings(root: Path) -> None:
    async def story(parties: list[Party]) -> None:
        anna = parties[0]
        broken, away = TrainingError("out of memory"), Unavailable("no route")
        anna.trainer.fail = [away, away, away, broken, away, broken, away]
        check_run(parties, await run_all(parties))
        assert [code for _, code in anna.notes.retries if code == "training"] == ["training"] * 2
        assert anna.trainer.fail == []

    play(root, story)


def test_training_that_fails_three_times_ends_the_daemon_and_can_be_started_again(root: Path) -> None:
    async def story(parties: list[Party]) -> None:
        anna = parties[0]
        others = [asyncio.ensure_future(party.work()) for party in parties[1:]]
        anna.trainer.fail = [TrainingError("out of memory")] * 3
        with pytest.raises(TrainingError):
            await anna.work()
        assert anna.trainer.fail == []
        states = [await anna.work(), *await asyncio.gather(*others)]
        check_run(parties, states)

    play(root, story)


def test_wrong_bytes_are_a_fault_after_three_times_whatever_comes_between(root: Path) -> None:
    """Bert's bucket is down after every wrong answer."""

    async def story(parties: list[Party]) -> None:
        wrong: dict[Path, list[float]] = {}
        asked = 0

        async def get(key: str, target: Path, *, size: int, sha256: Digest, progress: object = None) -> None:
            nonlocal asked
            asked += 1
            if asked % 3:
                raise Unavailable("no route")
            wrong.setdefault(target.parent, []).append(asyncio.get_running_loop().time())
            kept = target.with_suffix(".broken")
            kept.write_bytes(bytes(size))
            raise Integrity(f"{key}: other bytes", kind="digest", kept=str(kept))

        parties[1].bucket.get = get  # type: ignore[method-assign]  # this bucket is the one that lies
        working = [asyncio.ensure_future(party.work()) for party in parties]
        for task in (working[0], working[2]):
            with pytest.raises(PeerFault, match=r"bert broke the protocol in round 1 \(object-digest"):
                await task
        working[1].cancel()
        await asyncio.gather(working[1], return_exceptions=True)
        for times in wrong.values():
            assert len(times) == 3
            assert all(later - earlier >= 10 for earlier, later in itertools.pairwise(times))
        assert len(wrong) == 2

    play(root, story)


@pytest.mark.parametrize(
    "error", [Denied("no"), KeyFileError("a renewed grant that is none"), ConfigError("S3 keys, expected a grant")]
)
def test_a_peer_that_lets_nobody_in_is_waited_for(root: Path, error: FednodeError) -> None:
    async def story(parties: list[Party]) -> None:
        anna, bert = parties[:2]
        get = bert.bucket.get
        refused: list[str] = []

        async def get_or_not(key: str, target: Path, *, size: int, sha256: Digest, progress: object = None) -> None:
            if len(refused) < 4:
                refused.append(key)
                raise error
            await get(key, target, size=size, sha256=sha256)

        bert.bucket.get = get_or_not  # type: ignore[method-assign]  # one answer of one bucket
        check_run(parties, await run_all(parties))
        assert ("Fetch", "storage-unavailable") in anna.notes.retries

    play(root, story)


def test_reports_that_end_end_the_daemon(root: Path) -> None:
    async def story(parties: list[Party]) -> None:
        anna = parties[0]
        reports = anna.node.reports

        async def few(after: int) -> Any:
            async for report in reports(after):
                yield report
                if anna.state().head.replayed:
                    return

        anna.node.reports = few  # type: ignore[method-assign]  # one node's stream
        with pytest.raises(HeadError, match="ended"):
            await anna.work()

    play(root, story)


def test_cancelling_stops_at_once_and_leaves_no_task_behind(root: Path) -> None:
    async def story(parties: list[Party]) -> None:
        others = [asyncio.ensure_future(party.work()) for party in parties[1:]]
        anna = asyncio.ensure_future(parties[0].work())
        await parties[0].trainer.started.wait()
        before = LoopClock().now()
        anna.cancel()
        with pytest.raises(asyncio.CancelledError):
            await anna
        assert LoopClock().now() == before
        assert parties[0].trainer.active == 0
        assert len(asyncio.all_tasks()) < 30
        check_run(parties, [await parties[0].work(), *await asyncio.gather(*others)])

    play(root, story)


# Faults of peers -----------------------------------------------------------------------------------------------------


def fake_signal(party: Party, number: int, digest: Digest, size: int, base: Digest) -> None:
    """What a dishonest party signs: any content, valid in the head."""
    ledger = party.ledger
    content = SignalContent(RUN, number, base, digest, size)
    data = encode(party.me, content, inputs=ledger.spent[party.me], nonce=99)
    ledger.submit(decode(data))


Ends = list[BaseException | State]
Lie = Callable[[Party, Digest], tuple[Digest, int]]


async def cheat(
    parties: list[Party], lie: Callable[[Party, Digest], tuple[Digest, int]]
) -> list[BaseException | State]:
    """Cleo is honest in round 0 and stops; then her signal of round 1 says what `lie` makes up."""
    anna, bert, cleo = parties
    honest = [asyncio.ensure_future(party.work()) for party in (anna, bert)]
    own = asyncio.ensure_future(cleo.work())
    await cleo.trainer.started.wait()
    base = cleo.state().digests[0]
    own.cancel()
    await asyncio.gather(own, return_exceptions=True)
    digest, size = lie(cleo, base)
    fake_signal(cleo, 1, digest, size, base)
    return list(await asyncio.gather(*honest, return_exceptions=True))


def lie_of(kind: str) -> Lie:
    def lie(cleo: Party, base: Digest) -> tuple[Digest, int]:
        party = BERT if kind == "party" else CLEO
        made = write_object(cleo.root, run=RUN, round_number=1, party=party, phase="B", base=base, x=[1, 2, 3, 4])
        stored = (cleo.root / f"{made}.safetensors").read_bytes()
        if kind == "digest":
            stored = stored[:-1] + b"x"
        cleo.bucket.stored[f"{CLEO}/{RUN}/000001/{made}.safetensors"] = stored
        return made, OBJECT_SIZE + (1 if kind == "size" else 0)

    return lie


@pytest.mark.parametrize("kind", ["size", "digest", "party"])
def test_a_faulty_object_halts_everybody_with_evidence(root: Path, kind: str) -> None:
    async def story(parties: list[Party]) -> None:
        ends = await cheat(parties, lie_of(kind))
        for party, end in zip(parties[:2], ends, strict=True):
            assert isinstance(end, PeerFault), end
            assert f"object-{kind}" in end.message
            proof = json.loads(next((party.root / "evidence").glob("*.json")).read_text())
            assert (proof["accused"], proof["round"]) == (CLEO, 1)
            signed = decode(bytes.fromhex(proof["transactions"][0]))
            assert (signed.sender, signed.content.round if signed.content else None) == (CLEO, 1)
            if kind != "size":
                made = (party.root / "evidence" / proof["object_file"]).read_bytes()
                assert made in parties[2].bucket.stored.values()

    play(root, story)


def test_on_fault_close_pays_everybody_out(root: Path) -> None:
    async def story(parties: list[Party]) -> None:
        ends = await cheat(parties, lie_of("party"))
        assert all(isinstance(end, PeerFault) for end in ends)
        assert parties[0].ledger.status is HeadStatus.FINALIZED

    play(root, story, on_fault="close")


def test_a_missing_object_is_no_fault_and_the_deadline_closes_the_head(root: Path) -> None:
    async def story(parties: list[Party]) -> None:
        def nothing(cleo: Party, base: Digest) -> tuple[Digest, int]:
            return Digest("ab" * 32), OBJECT_SIZE

        ends = await cheat(parties, nothing)
        assert [type(end) for end in ends] == [HeadError, HeadError]
        assert any("cleo" in str(end) for end in ends)  # the other one may hear of the close first
        assert parties[0].state().faults == ()

    play(root, story, on_deadline="close", deadline_s=3000.0)


def test_a_torn_file_in_the_own_cache_accuses_nobody(root: Path) -> None:
    async def story(parties: list[Party]) -> None:
        anna, bert, cleo = parties
        torn: list[Path] = []

        def tear(moment: str, command: Command) -> None:
            """After the download and before its fact: the process dies, and the file is torn."""
            if moment == "after" and isinstance(command, c.Fetch) and not torn:
                signal = bert.state().transcript.signals(command.round).get(command.party)
                assert signal is not None
                path = next(anna.root.rglob(f"{signal.object}.safetensors"))
                path.write_bytes(b"torn")
                torn.append(path)
                raise RuntimeError("power loss")

        anna.hook = tear
        others = [asyncio.ensure_future(party.work()) for party in (bert, cleo)]
        with pytest.raises(RuntimeError, match="power loss"):
            await anna.work()
        check_run(parties, [await anna.work(), *await asyncio.gather(*others)])

    play(root, story)


def test_a_signal_of_somebody_else_in_the_own_bucket_stops_before_anything_is_sent(root: Path) -> None:
    async def story(parties: list[Party]) -> None:
        parties[0].bucket.stored[f"{ANNA}/{RUN}/000000/signal.cbor"] = b"{}"
        with pytest.raises(StorageError, match="not the own signal"):
            await parties[0].work()
        assert parties[0].ledger.sent == {}

    play(root, story)


def test_another_model_under_a_run_is_refused(root: Path) -> None:
    async def story(parties: list[Party]) -> None:
        others = [asyncio.ensure_future(party.work()) for party in parties[1:]]
        anna = asyncio.ensure_future(parties[0].work())
        await parties[0].trainer.started.wait()
        anna.cancel()
        await asyncio.gather(anna, return_exceptions=True)
        agreed, parties[0].agreement = parties[0].agreement, b"agreement 2, schema "
        with pytest.raises(ConfigError, match="base model"):
            await parties[0].work()
        parties[0].agreement = agreed
        check_run(parties, [await parties[0].work(), *await asyncio.gather(*others)])

    play(root, story)


def test_the_ledger_refuses_a_second_spend(root: Path) -> None:
    """The tests lean on this: of two signals over the same outputs one is confirmed."""

    async def story(parties: list[Party]) -> None:
        ledger: Ledger = parties[0].ledger
        content = SignalContent(RUN, 0, Digest("00" * 32), Digest("11" * 32), 5, {})
        for nonce in (1, 2):
            ledger.submit(decode(encode(ANNA, content, inputs=0, nonce=nonce)))
        assert len(ledger.confirmed) == 1
        assert len(ledger.sent[ANNA, 0, RUN]) == 2

    play(root, story)
