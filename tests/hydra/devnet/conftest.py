"""A head in virtual time, parties that build signals, and real servers to talk to."""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import cbor2
import httpx
import pytest
import websockets

from fednode.hydra.addresses import address_bytes, enterprise_address
from fednode.hydra.devnet import DevnetSettings, Faults, create, serve
from fednode.hydra.devnet.cborview import array_spans
from fednode.hydra.devnet.chainside import ChainSide
from fednode.hydra.devnet.commands import Commands
from fednode.hydra.devnet.network import Network
from fednode.hydra.devnet.store import Store
from fednode.hydra.devnet.txview import parse_transaction
from fednode.hydra.devnet.wire import Event
from fednode.hydra.devnet.world import World
from fednode.hydra.keys import SigningKey, load_signing_key

ADA = 1_000_000


class Wallet:
    """A party's funds key: signs deposits and transactions."""

    def __init__(self, key: SigningKey, magic: int = 42) -> None:
        self.key = key
        self.address = enterprise_address(key.vkey, magic)
        self.raw = address_bytes(self.address)

    def transaction(
        self, inputs: list[str], outputs: list[tuple[bytes, int]], *, metadata: Any = None, fee: int = 0, **more: Any
    ) -> tuple[str, str]:
        """(cbor hex, id) of a signed transaction. `more`: further body keys as k3=..., k15=..."""
        body: dict[int, Any] = {
            0: cbor2.CBORTag(258, [[bytes.fromhex(each[:64]), int(each[65:])] for each in inputs]),
            1: [{0: address, 1: coin} for address, coin in outputs],
            2: fee,
        }
        auxiliary = b"\xf6" if metadata is None else cbor2.dumps({1729: metadata})
        if metadata is not None:
            body[7] = hashlib.blake2b(auxiliary, digest_size=32).digest()
        body |= {int(key[1:]): value for key, value in more.items()}
        raw = cbor2.dumps(body)
        digest = hashlib.blake2b(raw, digest_size=32).digest()
        witness = cbor2.dumps({0: [[bytes.fromhex(self.key.vkey), self.key.sign(digest)]]})
        return (b"\x84" + raw + witness + b"\xf5" + auxiliary).hex(), digest.hex()

    def witness(self, cbor_hex: str) -> str:
        """Add the own witness to a draft, its body bytes untouched."""
        raw = bytes.fromhex(cbor_hex)
        draft = parse_transaction(raw)
        own = [bytes.fromhex(self.key.vkey), self.key.sign(bytes.fromhex(draft.id))]
        witnesses = cbor2.dumps({0: cbor2.CBORTag(258, [*[list(each) for each in draft.witnesses], own])})
        parts, _ = array_spans(raw, 0)
        return (raw[: parts[1].start] + witnesses + raw[parts[1].end :]).hex()


class VirtualTime:
    """A scheduler whose time passes only in `run`."""

    def __init__(self) -> None:
        self._time = 1_700_000_000.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def now(self) -> float:
        return self._time

    wall = now

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (self._time + seconds, self._count, callback))

    def run(self, seconds: float) -> None:
        end = self._time + seconds
        while self._heap and self._heap[0][0] <= end:
            self._time, _, callback = heapq.heappop(self._heap)
            callback()
        self._time = end


class Recorder:
    """Collects what clients would see, per party, as JSON."""

    def __init__(self, parties: int) -> None:
        self.messages: list[list[dict[str, Any]]] = [[] for _ in range(parties)]

    def publish(self, event: Event) -> None:
        for party, messages in enumerate(self.messages):
            if event.parties >> party & 1:
                messages.append(json.loads(event.text(party, with_utxo=True)))

    def tell(self, party: int, text: str) -> None:
        self.messages[party].append(json.loads(text))

    def disconnect(self, party: int) -> None:
        self.messages[party].append({"tag": "disconnected"})

    def tags(self, party: int = 0) -> list[str]:
        noise = {"SyncedStatusReport", "NodeSynced", "PeerConnected", "NetworkConnected"}
        return [each["tag"] for each in self.messages[party] if each["tag"] not in noise]

    def all(self, tag: str, party: int = 0) -> list[dict[str, Any]]:
        return [each for each in self.messages[party] if each["tag"] == tag]


class Lab:
    """One head in virtual time; `restart` forgets memory and reads the disk again."""

    def __init__(self, settings: DevnetSettings) -> None:
        self.settings = settings
        self.faults = Faults()
        keys = [settings.folder / party.name / "keys" / "funds.sk" for party in settings.parties]
        self.wallets = [Wallet(load_signing_key(path)) for path in keys]
        self.time = VirtualTime()
        self.start()

    def start(self) -> None:
        self.settings.state.mkdir(exist_ok=True)
        self.seen = Recorder(len(self.settings.parties))
        self.store = Store(self.settings.state / "state.sqlite3")
        self.world = World(self.settings, self.store, self.time, self.seen, self.faults)
        self.network = Network(self.world)
        self.chain = ChainSide(self.world, self.network)
        self.commands = Commands(self.world, self.network, self.chain)
        self.faults.bind([party.name for party in self.settings.parties], self.network.faults_changed)
        self.network.faults_changed()
        self.chain.start()
        self.time.run(0.15)

    def restart(self) -> None:
        self.store.close()
        wall = self.time.now()
        self.time = VirtualTime()
        self.time.run(wall - self.time.now() + 1)
        self.start()

    def send(self, party: int, tag: str, **fields: Any) -> Any:
        answer = self.commands.handle(party, json.dumps({"tag": tag, **fields}))
        return None if answer is None else json.loads(answer)

    def new_tx(self, party: int, cbor_hex: str) -> Any:
        return self.send(party, "NewTx", transaction={"cborHex": cbor_hex, "type": "Tx ConwayEra", "description": ""})

    def deposit(self, party: int) -> str:
        """Put the party's genesis output on its way into the head; the deposit's id."""
        funding = self.settings.parties[party].funding
        output = self.world.chain.utxo[funding]
        draft = self.chain.draft_deposit(party, {funding: output})
        signed = self.wallets[party].witness(draft.hex())
        assert self.chain.submit(bytes.fromhex(signed)) is None
        return parse_transaction(draft).id

    def open(self, *, fund: bool = True) -> None:
        self.send(0, "Init")
        self.time.run(0.5)
        if fund:
            for party in range(len(self.wallets)):
                self.deposit(party)
            self.time.run(4 * self.settings.deposit_period_s)
        assert self.world.head.status.value == "Open"

    def own(self, party: int) -> dict[str, int]:
        """Own outputs in the last confirmed state."""
        head = self.world.head
        held = (head.base() if head.finalized else head.snapshot).items()
        return {txin: out.lovelace for txin, out in held if out.address == self.wallets[party].raw}

    def signal(self, party: int, **more: Any) -> tuple[str, str]:
        """Pays 1 ada to every other party from all own outputs."""
        own, wallet = self.own(party), self.wallets[party]
        pays = [(each.raw, ADA) for each in self.wallets if each is not wallet]
        return wallet.transaction(
            list(own), [*pays, (wallet.raw, sum(own.values()) - ADA * len(pays))], metadata={"v": 1}, **more
        )


@pytest.fixture
def make_lab(tmp_path: Path) -> Iterator[Callable[..., Lab]]:
    """Labs of n parties; all are closed at the end."""
    labs: list[Lab] = []

    def make(parties: int, **options: Any) -> Lab:
        folder = tmp_path / f"lab{len(labs)}"
        names = [f"party{index}" for index in range(parties)]
        labs.append(Lab(create(folder, names, ports=range(7001, 7001 + parties), **options)))
        return labs[-1]

    yield make
    for lab in labs:
        lab.store.close()


class Peer:
    """A client of one party's API over real sockets."""

    def __init__(self, settings: DevnetSettings, index: int) -> None:
        self.party = settings.parties[index]
        self.wallet = Wallet(load_signing_key(settings.folder / self.party.name / "keys" / "funds.sk"))
        self.seen: list[dict[str, Any]] = []

    async def connect(self, query: str = "") -> Peer:
        url = self.party.url.replace("http", "ws") + "/" + query
        self.socket = await websockets.connect(url, max_size=None, max_queue=None, compression=None)
        return self

    async def synced(self) -> Peer:
        """Read on until the node takes inputs."""
        if (await self.until("Greetings"))["chainSyncedStatus"] != "InSync":
            await self.until("NodeSynced")
        return self

    async def receive(self) -> dict[str, Any]:
        self.seen.append(json.loads(await self.socket.recv()))
        return self.seen[-1]

    async def until(self, tag: str, **fields: Any) -> dict[str, Any]:
        """The next message with this tag and these field values."""
        while True:
            found = await self.receive()
            if found.get("tag") == tag and all(found.get(key) == value for key, value in fields.items()):
                return found

    async def until_confirmed(self, *ids: str) -> None:
        """Until every id was in a confirmed snapshot. A TxInvalid is an error."""
        left = set(ids)
        while left:
            found = await self.receive()
            assert found.get("tag") != "TxInvalid", found
            if found.get("tag") == "SnapshotConfirmed":
                left -= {tx["txId"] for tx in found["snapshot"]["confirmed"]}

    async def send(self, tag: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"tag": tag, **fields}))

    async def new_tx(self, cbor_hex: str) -> None:
        await self.send("NewTx", transaction={"cborHex": cbor_hex, "type": "Tx ConwayEra", "description": ""})

    async def deposit(self, http: httpx.AsyncClient) -> str:
        """Commit the genesis output; the deposit's id."""
        output = {"address": self.wallet.address, "value": {"lovelace": self.party.fund}}
        draft = await http.post(self.party.url + "/commit", json={self.party.funding: output})
        assert draft.status_code == 200, draft.text
        signed = self.wallet.witness(draft.json()["cborHex"])
        envelope = {"cborHex": signed, "type": "Tx ConwayEra", "description": ""}
        answer = await http.post(self.party.url + "/cardano-transaction", json=envelope)
        assert (answer.status_code, answer.json()) == (200, {"tag": "TransactionSubmitted"})
        return str(draft.json()["txId"])

    async def close(self) -> None:
        await self.socket.close()


@pytest.fixture
def serving() -> Callable[..., Any]:
    """`async with serving(settings, faults)`: served until the block ends; what `serve` raises is raised."""

    @asynccontextmanager
    async def run(settings: DevnetSettings, faults: Faults | None = None) -> AsyncIterator[asyncio.Task[None]]:
        ready = asyncio.Event()
        task = asyncio.create_task(serve(settings, ready=ready.set, faults=faults))
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            waiting.cancel()
            task.result()
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait({task})

    return run


@pytest.fixture
def make_peer() -> Callable[..., Peer]:
    return Peer


@pytest.fixture
def wallet() -> Wallet:
    return Wallet(SigningKey(bytes(range(32))))


@pytest.fixture
def golden() -> Callable[[str], dict[str, Any]]:
    """One golden sample of hydra-node 2.3.0 by `folder/name`; skips where the shared data is absent."""
    roots = [os.environ.get("FEDNODE_TEST_DATA", ""), str(Path(__file__).parents[4] / "shared" / "data")]
    found = [Path(root) / "hydra-2.3.0" / "golden" for root in roots if root]
    folder = next((path for path in found if path.is_dir()), None)
    if folder is None:
        pytest.skip("hydra-2.3.0/golden is not here: set FEDNODE_TEST_DATA")

    def sample(name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((folder / f"{name}.json").read_bytes())["samples"][0]
        return content

    return sample
