"""A hydra-node that lies to its own party: one daemon behind a liar, the rest of the federation honest."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fednode.errors import HeadError
from fednode.hydra import client

from . import federation as f
from .conftest import Record
from .federation import Federation, Running
from .liar import NORMAL, Cut, Json, Liar, Silence
from .mallory import Mallory

pytestmark = pytest.mark.asyncio(loop_scope="session")


@asynccontextmanager
async def lied_to(found: Federation) -> AsyncIterator[tuple[Liar, Mallory, Callable[[], Running]]]:
    """The liar before alice's node, mallory as an orderly party, and a way to start alice's daemon."""
    async with found.serving(), Liar.before(found) as liar, Mallory.at_work(found.site("mallory")) as mallory:
        try:
            yield liar, mallory, lambda: found.start("alice")[0]
        finally:
            await found.stop()


async def refused(alice: Running, words: str, record: Record, attack: str) -> None:
    """The daemon ends with one error of the head that says what is wrong; nothing is lost by it."""
    error = await alice.error()
    assert isinstance(error, HeadError), error
    assert error.exit_status == 5
    assert words in error.message, error.message
    assert len(error.message) < 2000
    assert alice.state.faults == ()
    record(attack, f"ends with exit status 5: {error.message[:60]}")


async def goes_on(mallory: Mallory, alice: Running, record: Record, attack: str, outcome: str) -> None:
    """The daemon hears mallory's signal and finishes round 1."""
    data = await mallory.honest_object()
    await mallory.attack(data)
    await alice.reached(lambda state: state.round >= 2)
    assert alice.state.faults == ()
    record(attack, outcome)


def tag(text: str) -> str:
    return str(json.loads(text).get("tag"))


def snapshots(change: Callable[[str], Any]) -> Callable[[str, int], Any]:
    return lambda text, number: change(text) if tag(text) == "SnapshotConfirmed" else NORMAL


def changed(text: str, **fields: object) -> list[str]:
    return [json.dumps(json.loads(text) | fields)]


MANGLED: dict[str, tuple[Callable[[str], Any], str]] = {
    "truncated JSON": (lambda t: [t[: len(t) // 2]], "expected JSON"),
    "no JSON at all": (lambda t: ["<html>"], "expected JSON"),
    "bytes that are no text": (lambda t: [b"\xff\xfe{"], "expected JSON"),
    "a list": (lambda t: ["[]"], "expected a JSON object"),
    "JSON nested 100,000 deep": (lambda t: ["[" * 100_000], "expected JSON"),
    "a number of 5,000 digits": (lambda t: ['{"seq":' + "9" * 5000 + "}"], "expected JSON"),
    "a negative seq": (lambda t: changed(t, seq=-1), "seq"),
    "a snapshot without a number": (lambda t: changed(t, snapshot={}), "expected"),
    "a snapshot of number 10^40": (lambda t: [t.replace('"number":', '"number":1' + "0" * 40)], "number"),
    "17 million values in 50 MB": (lambda t: ['{"x":[' + "[]," * (17 << 20) + "0]}"], "values"),
    "a message of 70 MB": (lambda t: ['{"x":"' + "y" * (70 << 20) + '"}'], "exceeds 67108864 bytes"),
}


@pytest.mark.parametrize("name", MANGLED)
async def test_what_is_no_message_ends_the_daemon_with_words(one: Federation, record: Record, name: str) -> None:
    mangle, words = MANGLED[name]
    async with lied_to(one) as (liar, _, start):
        liar.frame = snapshots(mangle)
        await refused(start(), words, record, name)


async def test_the_same_start_goes_on_after_a_node_has_lied(one: Federation, record: Record) -> None:
    async with lied_to(one) as (liar, mallory, start):
        liar.frame = snapshots(lambda text: [text[:40]])
        await refused(start(), "expected JSON", record, "truncated JSON, then a sane node: first start")
        liar.frame = lambda text, number: NORMAL
        await goes_on(mallory, start(), record, "truncated JSON, then a sane node: next start", "goes on")


async def test_unknown_tags_and_fields_are_ignored(one: Federation, record: Record) -> None:
    news = [{"tag": "FromTheFuture", "x": [1]}, {"tag": 7}, {}, {"tag": "TxValid\x1b[2J", "headId": None}]

    def more(text: str, number: int) -> list[str]:
        return [*map(json.dumps, news), *changed(text, unheard={"of": number})]

    async with lied_to(one) as (liar, mallory, start):
        liar.frame = more
        await goes_on(mallory, start(), record, "unknown tags and fields", "ignored")


@pytest.mark.parametrize("kind", ["constant", "backwards", "far ahead"])
async def test_a_lying_seq_loses_no_snapshot(one: Federation, record: Record, kind: str) -> None:
    def lie(text: str, number: int) -> Any:
        if "seq" not in json.loads(text):
            return NORMAL
        return changed(text, seq={"constant": 5, "backwards": 10_000 - number, "far ahead": 1 << 60}[kind])

    async with lied_to(one) as (liar, mallory, start):
        liar.frame = lie
        await goes_on(mallory, start(), record, f"a lying seq: {kind}", "no snapshot is lost, goes on")


@pytest.mark.parametrize("step", [1, 2])
async def test_a_snapshot_that_is_kept_back(
    one: Federation, record: Record, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One message is missing: the next number tells, or the end of the replay does."""
    monkeypatch.setattr(client, "_CATCH_UP_WITHIN", 0.5)
    seen = [0]

    def keep(text: str) -> Any:
        seen[0] += 1
        return [] if seen[0] == 7 + step else NORMAL

    async with lied_to(one) as (liar, mallory, start):
        liar.frame = snapshots(keep)
        alice = start()
        data = await mallory.honest_object()
        await mallory.attack(data)
        await mallory.confirm(mallory.transaction())
        await mallory.confirm(mallory.transaction())
        record(f"a snapshot kept back ({step})", await lost_or_fetched(alice))


async def lost_or_fetched(alice: Running) -> str:
    """A gap is either filled from GET /snapshot or ends the daemon in words: never a round without a signal in it."""
    waiting = asyncio.ensure_future(alice.reached(lambda state: state.round >= 2))
    await asyncio.wait({waiting, alice.task}, return_when=asyncio.FIRST_COMPLETED, timeout=f.PATIENCE_S)
    if alice.task.done():
        await asyncio.gather(waiting, return_exceptions=True)
        error = alice.task.exception()
        assert isinstance(error, HeadError), error
        assert "snapshot" in error.message
        return f"ends with exit status 5: {error.message[:60]}"
    await waiting
    return "read from GET /snapshot, goes on"


async def test_closed_in_the_middle_of_a_message(one: Federation, record: Record) -> None:
    def cut(text: str, number: int) -> Any:
        if liar.connections < 4 and number % 5 == 0:
            raise Cut
        return NORMAL

    async with lied_to(one) as (liar, mallory, start):
        liar.frame = cut
        alice = start()
        await goes_on(mallory, alice, record, "closed in mid-message", "connects anew, goes on")
        assert liar.connections >= 2
        assert "cannot be reached" in alice.talk


@pytest.mark.parametrize("when", ["in the replay", "live"])
async def test_a_half_open_socket(one: Federation, record: Record, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other end is gone without a word; nothing but time can tell."""
    for name, seconds in (("_PING_EVERY", 0.3), ("_PONG_WITHIN", 0.3), ("_SILENT", 0.6)):
        assert getattr(client, name) >= 20
        monkeypatch.setattr(client, name, seconds)

    def hush(text: str, number: int) -> Any:
        if liar.connections < 2 and (tag(text) == "SnapshotConfirmed" if when == "in the replay" else heard[0]):
            raise Silence
        heard[0] = heard[0] or tag(text) == "Greetings"
        return NORMAL

    heard = [False]
    async with lied_to(one) as (liar, mallory, start):
        liar.frame = hush
        alice = start()
        if when == "live":
            await alice.reached(lambda state: state.head.replayed)
        await goes_on(mallory, alice, record, f"half-open socket {when}", "noticed, connects anew, goes on")
        assert liar.connections >= 2


def greetings(**fields: Any) -> Callable[[str, int], Any]:
    def lie(text: str, number: int) -> Any:
        if tag(text) != "Greetings":
            return NORMAL
        known: Json = json.loads(text)
        env = known["env"] | fields.pop("env", {})
        return [json.dumps(known | {"env": env} | fields)]

    return lie


GREETINGS: dict[str, tuple[dict[str, Any], str]] = {
    "another head": ({"hydraHeadId": "ab" * 28}, "this home is bound to head"),
    "another version": ({"hydraNodeVersion": "1.0.0-old"}, "has version"),
    "a version without numbers": ({"hydraNodeVersion": "\x1b[31mnew"}, "has version"),
    "another party's node": ({"me": {"vkey": "cd" * 32}}, "Hydra key"),
    "other parties": ({"env": {"otherParties": []}}, "parties"),
    "100,000 parties": ({"env": {"otherParties": [{"vkey": f"{n:064x}"} for n in range(100_000)]}}, "parties"),
    "another network: its participants": ({"env": {"participants": ["ef" * 28] * 3}}, "participants"),
    "another contestation period": ({"env": {"contestationPeriod": 600}}, "contestation period"),
    "a contestation period of 10^400": ({"env": {"contestationPeriod": 10**400}}, "contestationPeriod"),
    "no environment": ({"env": None}, "env"),
}


@pytest.mark.parametrize("name", GREETINGS)
async def test_wrong_greetings_end_the_daemon_before_it_does_anything(
    one: Federation, record: Record, name: str
) -> None:
    fields, words = GREETINGS[name]
    before = len(list(one.bucket("alice").rglob("*")))
    async with lied_to(one) as (liar, _, start):
        known = dict(fields)
        if name == "no environment":
            liar.frame = lambda text, number: changed(text, env=None) if tag(text) == "Greetings" else NORMAL
        else:
            liar.frame = greetings(**known)
        await refused(start(), words, record, f"Greetings: {name}")
    assert len(list(one.bucket("alice").rglob("*"))) == before


@pytest.mark.parametrize("path", ["/head", "/snapshot"])
@pytest.mark.parametrize("answer", ["{", "[]", '{"tag":7}', '{"tag":"Open","contents":{}}'])
async def test_nonsense_over_http(one: Federation, record: Record, path: str, answer: str) -> None:
    async with lied_to(one) as (liar, _, start):
        liar.answer = lambda at, body: answer if at == path else body
        alice = start()
        error = await alice.error()
        assert isinstance(error, HeadError)
        assert error.exit_status == 5
        record(f"GET {path} answers {answer}", "ends with exit status 5")


# Memory: the daemon in a process of its own --------------------------------------------------------------------------

LIMIT_MB = 400


class Alone:
    """`fednode run` as a user starts it."""

    def __init__(self, process: asyncio.subprocess.Process, errors: bytearray) -> None:
        self.process = process
        self.errors = errors

    @classmethod
    @asynccontextmanager
    async def at(cls, found: Federation) -> AsyncIterator[Alone]:
        argv = [sys.executable, "-P", "-m", "fednode", "run", "--home", str(found.home("alice").root)]
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        self = cls(process, bytearray())
        reading = asyncio.ensure_future(self._read())
        try:
            yield self
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            await reading

    async def _read(self) -> None:
        assert self.process.stderr is not None
        while data := await self.process.stderr.read(1 << 16):
            self.errors += data

    async def finishes_round_one(self, found: Federation) -> None:
        async with asyncio.timeout(f.PATIENCE_S):
            while b"round 1/2: S_1 = " not in self.errors:
                assert self.process.returncode is None, self.errors.decode()
                await asyncio.sleep(0.02)  # nothing but the talk of another process tells

    @property
    def peak_mb(self) -> int:
        """The most memory that the process ever held."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) >> 10


@pytest.fixture
def few_logs() -> Iterator[None]:
    """The liar's library would keep a line for each of 100,000 messages."""
    logger = logging.getLogger("websockets")
    level = logger.level
    logger.setLevel(logging.INFO)
    yield
    logger.setLevel(level)


HUGE = {
    "a string of 50 MB": lambda: json.dumps({"tag": "CommandFailed", "state": "x" * (50 << 20)}),
    "1.9 million values in 50 MB": lambda: json.dumps({"tag": "CommandFailed", "state": [{"y": "z" * 60}] * 630_000}),
}


@pytest.mark.process
@pytest.mark.usefixtures("few_logs")
@pytest.mark.parametrize("kind", [*HUGE, "nothing"])
async def test_messages_of_50_mb_are_read_and_forgotten(one: Federation, record: Record, kind: str) -> None:
    large = HUGE.get(kind, lambda: "{}")()
    assert len(large) < 64 << 20
    async with lied_to(one) as (liar, mallory, _):
        liar.frame = lambda text, number: [large, text] if number % 10 == 0 else NORMAL
        await mallory.attack(await mallory.honest_object())
        async with Alone.at(one) as daemon:
            await daemon.finishes_round_one(one)
            peak = daemon.peak_mb
            assert liar.frames >= 20
    assert peak < LIMIT_MB
    record(f"messages with {kind}", f"ignored, goes on; the daemon's peak memory {peak} MB")


@pytest.mark.process
@pytest.mark.usefixtures("few_logs")
async def test_a_replay_that_never_ends(one: Federation, record: Record) -> None:
    """100,000 messages of history instead of Greetings: the daemon waits and does not grow."""
    kinds: list[Json] = [
        {"tag": "TxValid", "headId": "ab", "transactionId": "cd" * 32},
        {"tag": "TxInvalid", "headId": one.status("alice")["head"]["id"], "transaction": {"cborHex": "84"}},
        {"tag": "PeerConnected", "peer": "x" * 500},
    ]
    kinds[1]["validationError"] = {"reason": "r" * 500}
    spam = [json.dumps(kinds[n % 3] | {"seq": 1000 + n}) for n in range(3000)]
    done = asyncio.Event()

    class Endless:
        def __iter__(self) -> Iterator[str]:
            for _ in range(34):
                yield from spam
            done.set()

    async with lied_to(one) as (liar, _, _start):
        liar.frame = lambda text, number: Endless() if tag(text) == "Greetings" else NORMAL
        async with Alone.at(one) as daemon:
            async with asyncio.timeout(f.PATIENCE_S):
                await done.wait()
            assert daemon.process.returncode is None
            peak = daemon.peak_mb
    assert peak < LIMIT_MB
    record("a replay that never ends", f"100,000 messages, still waiting; the daemon's peak memory {peak} MB")
