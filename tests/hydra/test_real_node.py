"""What the client relies on, asked of a real hydra-node, and a whole run with real nodes: scripts/test-real-node.

Without one, the questions that change nothing are asked of the embedded head, so that they are known to be fair.
FEDNODE_HYDRA_URL: API of any one node, in any state; nothing is sent to it that changes its head.
FEDNODE_HYDRA_PARTIES: folder with the homes of all parties of a federation whose head is not open yet, each with
fednode.toml (url, funding), and the agreement as peers.toml in it or in each; their deposits go in, and come out again.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import pytest
import websockets

from fednode.hydra.devnet import create, serve
from fednode.hydra.fields import Fields
from fednode.hydra.messages import Greetings, Received, Refusal
from fednode.hydra.utxo import parse_utxo
from fednode.hydra.wire import decode, read_snapshot

URL: Final = "FEDNODE_HYDRA_URL"
PARTIES: Final = "FEDNODE_HYDRA_PARTIES"
ROUNDS: Final = int(os.environ.get("FEDNODE_HYDRA_ROUNDS", "3"))
WITHIN_S: Final = float(os.environ.get("FEDNODE_HYDRA_WITHIN_S", "3600"))
"""For each command of a whole run. Preprod needs hours: deposits, contestation period, slow blocks."""
PATIENCE_S: Final = 120.0
READER: Final = Path(__file__).parents[1] / "reader" / "reader.py"
FREE: Final = ("txFeeFixed", "txFeePerByte")


def place(url: str) -> str:
    """host:port of an http(s) or ws(s) URL, with its kind."""
    parts = urlsplit(url)
    return ("s" if parts.scheme in ("https", "wss") else "") + f"://{parts.netloc}"


@pytest.fixture(params=["embedded", pytest.param("real", marks=pytest.mark.realnode)])
async def node(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """ "(s)://host:port" of a node."""
    if request.param == "real":
        if URL not in os.environ:
            pytest.skip(f"{URL} is not set: no real hydra-node was asked")
        yield place(os.environ[URL])
        return
    devnet = create(tmp_path, ("ann", "bo"))
    ready = asyncio.Event()
    task = asyncio.create_task(serve(devnet, ready=ready.set))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    try:
        yield place(devnet.parties[0].url)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def http(node: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http{node}", timeout=60, trust_env=False) as client:
        yield client


async def frames(node: str, query: str) -> list[str]:
    """Everything that a node sends until Greetings, which is the last one."""
    found: list[str] = []
    async with websockets.connect(f"ws{node}/?{query}", max_size=None, ping_interval=None, proxy=None) as socket:
        async with asyncio.timeout(600):
            async for frame in socket:
                found.append(str(frame))
                if isinstance(decode(frame).message, Greetings):
                    return found
    raise AssertionError(f"the node closed the connection after {len(found)} messages and before Greetings")


async def test_greetings_come_first_and_say_who_where_and_with_what(node: str) -> None:
    (frame,) = await frames(node, "history=no")
    greetings = decode(frame).message
    assert isinstance(greetings, Greetings)
    assert greetings.version.startswith("2.3.")
    assert greetings.environment is not None
    assert greetings.environment.party == greetings.me
    assert len(greetings.environment.participants) == len(greetings.environment.other_parties) + 1
    raw = json.loads(frame)
    assert "signingKey" not in raw["env"]
    assert isinstance(raw["currentSlot"], int)
    assert raw["chainSyncedStatus"] in ("InSync", "CatchingUp")
    assert raw["headStatus"] in ("Idle", "Open", "Closed", "FanoutPossible")


async def test_the_whole_history_is_understood_and_numbered(node: str) -> None:
    *history, last = await frames(node, "history=yes&snapshot-utxo=no")
    received: list[Received] = [decode(frame) for frame in history]
    numbers = [each.seq for each in received if each.seq is not None]
    assert numbers == sorted(set(numbers))
    assert all(json.loads(frame).get("tag") for frame in history)
    assert "seq" not in json.loads(last)
    for frame in history:
        snapshot = json.loads(frame).get("snapshot", {})
        assert "utxo" not in snapshot
        assert all(transaction.keys() >= {"cborHex", "txId", "type"} for transaction in snapshot.get("confirmed", []))


async def test_head_and_snapshot_are_told_in_a_known_form(http: httpx.AsyncClient) -> None:
    state = (await http.get("/head")).json()
    assert state["tag"] in ("Idle", "Open", "Closed")
    answer, outputs = await http.get("/snapshot"), await http.get("/snapshot/utxo")
    if state["tag"] == "Idle":
        assert (answer.status_code, answer.json()) == (outputs.status_code, outputs.json()) == (404, "")
        return
    assert isinstance(state["contents"]["coordinatedHeadState"]["version"], int)
    parse_utxo(outputs.json(), "GET /snapshot/utxo")
    if answer.json()["tag"] == "ConfirmedSnapshot":
        snapshot = read_snapshot(Fields(answer.json(), "GET /snapshot").child("snapshot"))
        assert snapshot.number >= 1
    seen = (await http.get("/snapshot/last-seen")).json()
    assert seen["tag"] in ("NoSeenSnapshot", "LastSeenSnapshot", "RequestedSnapshot", "SeenSnapshot")


async def test_the_ledger_is_free_of_fees_and_refuses_dust(http: httpx.AsyncClient) -> None:
    parameters = (await http.get("/protocol-parameters")).json()
    assert [parameters[name] for name in FREE] == [0, 0]
    assert parameters["executionUnitPrices"] == {"priceMemory": 0, "priceSteps": 0}
    assert parameters["utxoCostPerByte"] == 4310
    assert parameters["maxTxSize"] >= 10_250


async def test_pending_deposits_are_a_list_of_transaction_ids(http: httpx.AsyncClient) -> None:
    pending: Any = (await http.get("/commits")).json()
    assert all(isinstance(each, str) and len(each) == 64 for each in pending)


async def test_what_is_not_there_is_refused(http: httpx.AsyncClient) -> None:
    assert (await http.get("/no-such-thing")).status_code == 400


@pytest.mark.parametrize("nonsense", ['{"tag": "NoSuchInput"}', "no json at all"])
async def test_nonsense_is_answered_and_recognised_as_refused_input(node: str, nonsense: str) -> None:
    async with websockets.connect(f"ws{node}/?history=no", max_size=None, proxy=None) as socket:
        await socket.send(nonsense)
        async with asyncio.timeout(PATIENCE_S):
            async for frame in socket:
                message = decode(frame).message
                if isinstance(message, Refusal):
                    assert message.tag == "InvalidInput"
                    return
    raise AssertionError("the node closed the connection instead of an answer")


class Whole:
    """A federation of homes that exist already."""

    def __init__(self, folder: Path) -> None:
        self.agreement = folder / "peers.toml"
        self.homes = {path.parent.name: path.parent for path in sorted(folder.glob("*/fednode.toml"))}
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, name: str, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "fednode", *words, "--home", str(self.homes[name]), "--json"]
        # No pipe for what it tells: a pipe that nobody reads would stop it.
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.processes.append(process)
        return process

    def all(self, *words: str) -> dict[str, dict[str, Any]]:
        """Start a command at every party at once, and wait for all."""
        return self.end({name: self.start(name, *words) for name in self.homes})

    def end(self, started: dict[str, subprocess.Popen[str]]) -> dict[str, dict[str, Any]]:
        end = time.monotonic() + WITHIN_S
        found: dict[str, dict[str, Any]] = {}
        for name, process in started.items():
            found[name] = json.loads(process.communicate(timeout=max(1.0, end - time.monotonic()))[0])
        assert all(each["ok"] for each in found.values()), found
        return found

    def finished_rounds(self, name: str) -> int:
        done = self.start(name, "rounds")
        return len(json.loads(done.communicate(timeout=PATIENCE_S)[0]).get("rounds", []))


@pytest.fixture
def whole() -> Iterator[Whole]:
    if PARTIES not in os.environ:
        pytest.skip(f"{PARTIES} is not set: no run with real hydra-nodes")
    made = Whole(Path(os.environ[PARTIES]))
    try:
        yield made
    finally:
        for process in made.processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@pytest.mark.realnode
@pytest.mark.process
@pytest.mark.timeout(0)
def test_a_whole_run_from_deposits_to_verified_payouts_with_one_daemon_killed(whole: Whole) -> None:
    assert len(whole.homes) >= 2, f"no homes of at least two parties in {PARTIES}"
    opened = whole.all("init-head", *(["--peers", str(whole.agreement)] if whole.agreement.exists() else []))
    assert len({each["head"]["id"] for each in opened.values()}) == 1
    victim = next(iter(whole.homes))
    running = {name: whole.start(name, "run", "--epochs", str(ROUNDS)) for name in whole.homes}
    end = time.monotonic() + WITHIN_S
    while whole.finished_rounds(victim) < 1:
        assert time.monotonic() < end, "no round was finished in time"
        assert running[victim].poll() is None, running[victim].communicate()
        time.sleep(1)  # between two looks
    running[victim].kill()
    running[victim].communicate()
    ended = whole.end(running | {victim: whole.start(victim, "run", "--epochs", str(ROUNDS))})
    assert len({each["digest"] for each in ended.values()}) == 1
    deposits = next(iter(opened.values()))["lovelace"]
    assert all(each["paid"] == deposits for each in ended.values())
    buckets = [f"{name}={home / 'bucket'}" for name, home in whole.homes.items()]
    read = subprocess.run([sys.executable, str(READER), *buckets], capture_output=True, text=True, timeout=600)
    assert json.loads(read.stdout)["ok"], read.stdout
