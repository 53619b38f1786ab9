"""The embedded head over real websockets and HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3

import httpx
import pytest
import websockets

from fednode.errors import ConfigError, JournalError
from fednode.hydra.devnet import create, load, views
from fednode.hydra.devnet.clients import QUEUE, Client
from fednode.hydra.devnet.store import Store

ADA = 1_000_000


async def _fund(peers):
    """Open the head and deposit everybody's genesis output."""
    for peer in peers:
        await peer.synced()
    await peers[0].send("Init")
    await asyncio.gather(*(peer.until("HeadIsOpen") for peer in peers))
    async with httpx.AsyncClient() as http:
        ids = [await peer.deposit(http) for peer in peers]
    await asyncio.gather(*(peer.until("CommitFinalized", depositTxId=ids[-1]) for peer in peers))


def _pay(peers, sender):
    """A transaction from the genesis output: 1 ada to every other peer, the rest back."""
    me = peers[sender]
    pays = [(each.wallet.raw, ADA) for each in peers if each is not me]
    rest = (me.wallet.raw, me.party.fund - ADA * len(pays))
    return me.wallet.transaction([me.party.funding], [*pays, rest], metadata={"v": 1})


def _check_shape(message, sample):
    """The same keys as the golden sample; seq and timestamp only on the wire."""
    assert set(message) - {"seq", "timestamp"} == set(sample), message["tag"]
    for key, value in sample.items():
        if isinstance(value, dict) and key in {"signatures", "peer", "env", "networkInfo", "validationError"}:
            assert set(message[key]) == set(value), f"{message['tag']}.{key}"
        elif value is not None and message[key] is not None and not isinstance(value, dict):
            kinds = (int, float) if isinstance(value, int | float) and not isinstance(value, bool) else type(value)
            assert isinstance(message[key], kinds), f"{message['tag']}.{key}"


async def test_a_whole_life(tmp_path, serving, make_peer, golden):
    settings = create(tmp_path, ["alice", "bob", "carol"], contestation_period_s=1)
    async with serving(settings), httpx.AsyncClient() as http:
        peers = [await make_peer(settings, index).connect() for index in range(3)]
        await _fund(peers)
        signals = [_pay(peers, index) for index in range(3)]
        for peer, (cbor, _) in zip(peers, signals, strict=True):
            await peer.new_tx(cbor)
        await asyncio.gather(*(peer.until_confirmed(*(txid for _, txid in signals)) for peer in peers))
        await peers[0].new_tx(signals[0][0])
        refused = await peers[0].until("TxInvalid")
        assert refused["transaction"]["txId"] == signals[0][1]
        bodies = {
            tx["txId"]: tx["cborHex"]
            for message in peers[2].seen
            if message.get("tag") == "SnapshotConfirmed"
            for tx in message["snapshot"]["confirmed"]
        }
        assert bodies == {txid: cbor for cbor, txid in signals}
        snapshot = (await http.get(settings.parties[1].url + "/snapshot")).json()
        await peers[1].send("Close")
        closed = await peers[0].until("HeadIsClosed")
        assert closed["snapshotNumber"] == snapshot["snapshot"]["number"]
        await peers[0].until("ReadyToFanout")
        await peers[2].send("Fanout")
        finals = [await peer.until("HeadIsFinalized") for peer in peers]
        outputs = finals[0]["finalizedUTxO"]
        for peer in peers:
            mine = [each["value"]["lovelace"] for each in outputs.values() if each["address"] == peer.wallet.address]
            assert sum(mine) == 100 * ADA
        assert not set(outputs) & set(snapshot["snapshot"]["utxo"])
        assert (await http.get(settings.parties[0].url + "/head")).json()["tag"] == "Idle"
        for peer in peers:
            await peer.close()
    shown = set()
    for message in peers[0].seen:
        tag = message.get("tag", "")
        if tag in {"SyncedStatusReport", "PostTxOnChainFailed"}:
            assert "seq" not in message
            continue
        if tag == "Greetings":
            del message["chainSyncedStatus"]
            sample = golden("Greetings/Greetings")
            for absent_while_idle in ("snapshotUtxo", "chainSyncedStatus"):
                sample.pop(absent_while_idle)
        else:
            sample = golden(f"ServerOutput/{tag}")
        _check_shape(message, sample)
        if tag == "SnapshotConfirmed":
            assert set(message["snapshot"]) == set(sample["snapshot"]) | {"utxoToCommit"}
            for tx in message["snapshot"]["confirmed"]:
                assert set(tx) == set(sample["snapshot"]["confirmed"][0])
            entry = next(iter(golden("Greetings/Greetings")["snapshotUtxo"].values()))
            assert all(set(output) == set(entry) for output in message["snapshot"]["utxo"].values())
        shown.add(tag)
    assert {"HeadIsOpen", "CommitRecorded", "TxValid", "TxInvalid", "HeadIsFinalized", "Greetings"} <= shown


async def test_history_then_greetings_then_live_and_a_restart(tmp_path, serving, make_peer):
    settings = create(tmp_path, ["alice", "bob"])
    async with serving(settings):
        peers = [await make_peer(settings, index).connect() for index in range(2)]
        await _fund(peers)
        cbor, txid = _pay(peers, 0)
        await peers[0].new_tx(cbor)
        await asyncio.gather(*(peer.until_confirmed(txid) for peer in peers))
        live = [message for message in peers[1].seen if "seq" in message]
        old = await make_peer(settings, 1).connect("?history=yes")
        await old.until("Greetings")
        replayed = old.seen[:-1]
        assert replayed[-len(live) :] == live
        assert [each["seq"] for each in replayed] == sorted({each["seq"] for each in replayed})
    async with serving(load(tmp_path)), httpx.AsyncClient() as http:
        again = await make_peer(settings, 1).connect("?history=yes&snapshot-utxo=no")
        greetings = await again.until("Greetings")
        assert greetings["headStatus"] == "Open"
        assert "snapshotUtxo" not in greetings
        assert [each["seq"] for each in again.seen[:-1]][: len(replayed)] == [each["seq"] for each in replayed]
        confirmed = [each for each in again.seen if each.get("tag") == "SnapshotConfirmed"]
        assert all("utxo" not in each["snapshot"] for each in confirmed)
        assert [tx["cborHex"] for tx in confirmed[-1]["snapshot"]["confirmed"]] == [cbor]
        utxo = (await http.get(settings.parties[0].url + "/snapshot/utxo")).json()
        assert sum(output["value"]["lovelace"] for output in utxo.values()) == 200 * ADA
        if greetings["chainSyncedStatus"] == "CatchingUp":
            await again.until("NodeSynced")
        own = f"{txid}#0"
        second, second_id = again.wallet.transaction([own], [(again.wallet.raw, ADA)])
        await again.new_tx(second)
        await again.until_confirmed(second_id)
        await again.close()
        only = await make_peer(settings, 0).connect(f"?history=yes&address={peers[0].wallet.address}")
        await only.until("Greetings")
        snapshots = [each["snapshot"] for each in only.seen if each.get("tag") == "SnapshotConfirmed"]
        ids = [tx["txId"] for each in snapshots for tx in each["confirmed"]]
        assert txid in ids
        assert second_id not in ids
        await only.close()


async def test_http_endpoints_of_an_idle_and_an_open_head(tmp_path, serving, make_peer, monkeypatch):
    settings = create(tmp_path, ["alice", "bob"])
    url = settings.parties[0].url
    async with serving(settings), httpx.AsyncClient(base_url=url) as http:
        peers = [await make_peer(settings, index).connect() for index in range(2)]
        await peers[0].synced()
        for path in ("/snapshot", "/snapshot/utxo"):
            answer = await http.get(path)
            assert (answer.status_code, answer.text) == (404, '""')
        for method, path in (("GET", "/nowhere"), ("POST", "/head"), ("DELETE", "/commits"), ("GET", "/")):
            answer = await http.request(method, path)
            assert (answer.status_code, answer.json()) == (400, "Resource not found")
        assert (await http.get("/head")).json()["tag"] == "Idle"
        assert (await http.get("/commits")).json() == []
        assert (await http.get("/snapshot/last-seen")).json() == {"tag": "NoSeenSnapshot"}
        assert (await http.get("/protocol-parameters")).json()["utxoCostPerByte"] == 4310
        assert (await http.get("/config")).json()["chain"]["deposit-period"] == 3
        refused = await http.post("/commit", json={})
        assert (refused.status_code, refused.json()) == (400, "Head is not open")
        early = _pay(peers, 0)
        with monkeypatch.context() as patch:
            patch.setattr(views, "API_TIMEOUT_S", 0.2)
            late = await http.post("/transaction", json={"cborHex": early[0]})
        assert (late.status_code, late.json()["tag"]) == (202, "SubmitTxSubmitted")
        assert "timed out" in late.json()["timeout"]
        failed = await peers[0].until("CommandFailed")
        assert failed["clientInput"]["transaction"]["txId"] == early[1]
        await peers[0].send("Init")
        await peers[0].until("HeadIsOpen")
        await _refused_commits(http, peers[0])
        deposit = await peers[0].deposit(http)
        assert (await http.get("/commits")).json() == [deposit]
        early_recovery = await http.delete(f"/commits/{deposit}")
        assert early_recovery.json()["tag"] == "FailedToConstructRecoverTx"
        await peers[0].until("CommitFinalized")
        sent = await http.post("/transaction", json={"cborHex": early[0]})
        assert (sent.status_code, sent.json()) == (202, {"tag": "SubmitTxSubmitted"})
        again = await http.post("/transaction", json={"cborHex": early[0]})
        assert (again.status_code, again.json()["tag"]) == (400, "SubmitTxInvalid")
        assert "BadInputsUTxO" in again.json()["validationError"]
        head = (await http.get("/head")).json()["contents"]
        assert set(head["coordinatedHeadState"]["localUTxO"]) == {f"{early[1]}#0", f"{early[1]}#1"}
        for peer in peers:
            await peer.close()


async def _refused_commits(http, peer):
    funding, address = peer.party.funding, peer.wallet.address
    cases = {
        "FailedToConstructDepositTx": {"ab" * 32 + "#0": {"address": address, "value": {"lovelace": 5 * ADA}}},
        "UnsupportedLegacyOutput": {funding: {"address": "Ae2tdPwUPEZBJkEbCd6gLr5Z", "value": {"lovelace": 1}}},
    }
    for tag, utxo in cases.items():
        answer = await http.post("/commit", json=utxo)
        assert (answer.status_code, answer.json()["tag"]) == (400, tag)
    lie = {funding: {"address": address, "value": {"lovelace": peer.party.fund + 1}}}
    assert (await http.post("/commit", json={"utxoToCommit": lie})).json()["tag"] == "FailedToConstructDepositTx"
    for body in ("{", "[]", '{"x":1}', '{"x#0":{}}'):
        assert (await http.post("/commit", content=body)).status_code == 400
    for body in ("{", "{}", '"zz"', '{"cborHex":"84"}'):
        assert (await http.post("/cardano-transaction", content=body)).status_code == 400


async def test_client_messages_reach_every_client_of_the_party_and_no_other(tmp_path, serving, make_peer):
    settings = create(tmp_path, ["alice", "bob"])
    async with serving(settings):
        first, second = [await make_peer(settings, 0).connect() for _ in range(2)]
        other = await make_peer(settings, 1).connect("any/path?snapshot-utxo=yes")
        for peer in (first, second, other):
            greetings = await peer.until("Greetings")
            assert greetings["hydraNodeVersion"] == "2.3.0-fednode-embedded"
            if greetings["chainSyncedStatus"] != "InSync":
                await peer.until("NodeSynced")
        await first.send("Contest")
        assert await first.until("CommandFailed") == await second.until("CommandFailed")
        await first.socket.send("nonsense")
        answer = await first.receive()
        assert answer["input"] == "nonsense"
        await other.send("Contest")
        await other.until("CommandFailed")
        assert [each.get("tag") for each in other.seen].count("CommandFailed") == 1
        for peer in (first, second, other):
            await peer.close()


async def test_a_port_in_use_is_named(tmp_path, serving):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = create(tmp_path, ["alice"], ports=[port])
        with pytest.raises(ConfigError, match=f"port {port} of party alice") as caught:
            async with serving(settings):
                pass
        assert str(settings.state / "settings.json") in caught.value.hint


async def test_a_second_head_on_the_same_folder_is_refused(tmp_path, serving):
    settings = create(tmp_path, ["alice"])
    async with serving(settings):
        path = tmp_path / "devnet" / "settings.json"
        document = json.loads(path.read_text())
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            document["parties"][0]["port"] = free.getsockname()[1]
        path.write_text(json.dumps(document))
        with pytest.raises(ConfigError, match="state of an embedded head"):
            async with serving(load(tmp_path)):
                pass
        async with websockets.connect(settings.parties[0].url.replace("http", "ws")) as still:
            assert json.loads(await still.recv())["tag"] == "Greetings"


def test_key_pairs_that_were_cut_off_are_finished(tmp_path):
    create(tmp_path, ["a", "b"], ports=[4001, 4002])
    keys = tmp_path / "a" / "keys"
    before = {path.name: path.read_bytes() for path in keys.iterdir()}
    (tmp_path / "devnet" / "settings.json").unlink()
    (keys / "fuel.vk").unlink()
    create(tmp_path, ["a", "b"], ports=[4001, 4002])
    assert {path.name: path.read_bytes() for path in keys.iterdir()} == before


def test_settings_are_kept_and_checked(tmp_path):
    made = create(tmp_path, ["alice", "bob"], fund=50 * ADA)
    keys = {path: path.read_bytes() for path in tmp_path.glob("*/keys/*")}
    assert len(keys) == 12
    assert create(tmp_path, ["alice", "bob"], fund=1) == made == load(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.glob("*/keys/*")} == keys
    with pytest.raises(ConfigError, match="for the parties alice, bob"):
        create(tmp_path, ["alice"])
    path = tmp_path / "devnet" / "settings.json"
    good = json.loads(path.read_text())
    for key, value in (("magic", "x"), ("block_s", 0), ("parties", {}), ("deposit_period_s", -1)):
        path.write_text(json.dumps({**good, key: value}))
        with pytest.raises(ConfigError, match=key):
            load(tmp_path)
    with pytest.raises(ConfigError, match="different names"):
        create(tmp_path / "other", ["a", "a"])
    with pytest.raises(ConfigError, match="cannot be the name"):
        create(tmp_path / "other", ["../a"])


async def test_a_client_that_does_not_read_is_cut_off_not_kept_in_memory():
    client = Client(0, with_utxo=True, address=None)
    client.push("first")
    assert await client.next() == "first"
    for _ in range(QUEUE + 5):
        client.push("more")
    assert await client.next() is None


async def test_a_state_that_cannot_be_written_ends_the_serving(tmp_path, serving, make_peer, monkeypatch):
    settings = create(tmp_path, ["alice"])

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    async with serving(settings) as task:
        peer = await make_peer(settings, 0).connect()
        await peer.synced()
        monkeypatch.setattr(Store, "write", full)
        await peer.send("Init")
        with pytest.raises(JournalError, match=r"state\.sqlite3"):
            await task
