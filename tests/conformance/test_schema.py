"""Every message that we send and that the embedded head emits, against the AsyncAPI document of hydra-node 2.3.0."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fednode.hydra.devnet import create
from fednode.hydra.messages import Close, Fanout, Init, NewTx
from fednode.hydra.rest import Rest
from fednode.hydra.utxo import Coin
from fednode.hydra.wire import encode
from tests.hydra.devnet.conftest import Lab

from .schema import Schemas
from .traffic import answers, live

EMITTED = {
    "NetworkConnected", "NetworkDisconnected", "PeerConnected", "PeerDisconnected", "NodeSynced", "NodeUnsynced",
    "HeadIsOpen", "HeadIsClosed", "HeadIsContested", "ReadyToFanout", "HeadIsFinalized", "CommitRecorded",
    "DepositActivated", "DepositExpired", "CommitApproved", "CommitFinalized", "CommitRecovered", "TxValid",
    "TxInvalid", "SnapshotConfirmed", "SnapshotSideLoaded", "EventLogRotated",
    # These have no number and stand in no history.
    "SyncedStatusReport", "CommandFailed", "PostTxOnChainFailed", "RejectedInputBecauseUnsynced",
    "SideLoadSnapshotRejected",
}  # fmt: skip
"""All that the embedded head says on a websocket, but for Greetings and InvalidInput."""

DEVIATIONS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    # On the wire InvalidInput has no tag; the document shows one.
    "InvalidInput": lambda message: {"tag": "InvalidInput", **message},
    # With snapshot-utxo=no the snapshot lacks what the document requires.
    "SnapshotConfirmed without UTxO": lambda message: message | {"snapshot": message["snapshot"] | {"utxo": {}}},
}
"""Where a node and the document differ, and what makes the message of a node fit the document.

Three more are no matter of a message: the document gives `history` the default yes, lets the address filter hide
TxValid, and says that Contest can be used and that POST /transaction answers 200 first.
"""


@pytest.fixture(scope="module")
def schemas() -> Schemas:
    return Schemas()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("schema")
    made = Lab(create(folder, ["party0", "party1", "party2"], ports=range(7001, 7004)))
    yield made
    made.store.close()


@pytest.fixture(scope="module")
def traffic(lab: Lab) -> list[dict[str, Any]]:
    live(lab)
    return [each for messages in lab.seen.messages for each in messages if each["tag"] != "disconnected"]


def test_every_message_of_the_embedded_head(schemas: Schemas, traffic: list[dict[str, Any]]) -> None:
    assert {message["tag"] for message in traffic} == EMITTED
    wrong = Counter(f"{each['tag']} {error}" for each in traffic for error in schemas.errors(each["tag"], each))
    assert wrong == {}


def test_the_kinds_of_one_message_are_all_there(traffic: list[dict[str, Any]]) -> None:
    """The document knows several shapes of one tag: each that the embedded head can emit was validated."""
    failed = {each["state"]["tag"] for each in traffic if each["tag"] == "CommandFailed"}
    assert failed == {"Idle", "Open", "Closed"}
    posted = [each for each in traffic if each["tag"] == "PostTxOnChainFailed"]
    found = {(each["postChainTx"]["tag"], each["postTxError"]["tag"]) for each in posted}
    assert found == {
        ("IncrementTx", "FailedToConstructIncrementTx"),
        ("CloseTx", "FailedToPostTx"),
        ("CloseTx", "ScriptFailedInWallet"),
        ("FanoutTx", "FailedToPostTx"),
    }
    refused = {each["requirementFailure"]["tag"] for each in traffic if each["tag"] == "SideLoadSnapshotRejected"}
    assert refused == {"SideLoadInitialSnapshotMismatch", "SideLoadSnNumberInvalid"}
    deposits = [each["snapshot"]["utxoToCommit"] for each in traffic if each["tag"] == "SnapshotConfirmed"]
    assert {each is None for each in deposits} == {True, False}


def test_every_answer_over_http(schemas: Schemas, traffic: list[dict[str, Any]], lab: Lab) -> None:
    assert traffic
    cbor, _ = lab.signal(0)
    lab.faults.silence("party1")
    lab.new_tx(0, cbor)
    found = answers(lab)
    lab.time.run(1)
    for name, listed in answers(lab).items():
        found[name] += listed
    lab.faults.unsilence("party1")
    assert {each["tag"] for each in found["SeenSnapshot"]} == {"LastSeenSnapshot", "SeenSnapshot"}
    wrong = Counter(
        f"{name} {error}" for name, listed in found.items() for each in listed for error in schemas.errors(name, each)
    )
    assert wrong == {}


def test_an_idle_head_answers_over_http(schemas: Schemas, tmp_path: Path) -> None:
    idle = Lab(create(tmp_path, ["party0"], ports=[7001]))
    found = answers(idle)
    idle.store.close()
    assert found["HeadState"][0]["tag"] == "Idle"
    assert [
        f"{name} {e}" for name, listed in found.items() for each in listed for e in schemas.errors(name, each)
    ] == []


def test_deviations(schemas: Schemas, traffic: list[dict[str, Any]], lab: Lab) -> None:
    invalid = json.loads(lab.commands.handle(0, '{"tag":"Abort"}') or "")
    (snapshot, *_) = [each for each in lab.store.history(0, 0, 1000) if '"SnapshotConfirmed"' in each.body]
    short = json.loads(snapshot.text(0, with_utxo=False))
    for deviation, message in (("InvalidInput", invalid), ("SnapshotConfirmed without UTxO", short)):
        schema = deviation.partition(" ")[0]
        assert schemas.errors(schema, message) != [], "no deviation any more"
        assert schemas.errors(schema, DEVIATIONS[deviation](message)) == []


@pytest.mark.parametrize(
    "message", [Init(), Close(), Fanout(), NewTx("84a0a0f5f6")], ids=lambda each: type(each).__name__
)
def test_every_input_that_we_send(schemas: Schemas, message: Init | Close | Fanout | NewTx) -> None:
    sent = json.loads(encode(message))
    assert sent["tag"] == type(message).__name__
    assert schemas.errors("ClientInput", sent) == []
    assert schemas.errors(sent["tag"], sent) == []


async def test_every_body_that_we_post(schemas: Schemas, monkeypatch: pytest.MonkeyPatch) -> None:
    posted: dict[str, Any] = {}

    async def post(path: str, content: object) -> object:
        posted[path] = json.loads(json.dumps(content))
        return {"cborHex": "84a0a0f5f6"}

    rest = Rest("http://127.0.0.1:1")
    monkeypatch.setattr(rest, "_post", post)
    await rest.draft_commit("ab" * 32 + "#0", Coin("addr_test1vpx", 5_000_000))
    await rest.submit("84a0a0f5f6")
    await rest.aclose()
    # The document says no more of this request than that it is an object; a node takes a UTxO.
    assert schemas.errors("UTxO", posted["/commit"]) == []
    assert schemas.errors("Transaction", posted["/cardano-transaction"]) == []


def test_the_document_refuses_what_is_wrong(schemas: Schemas, traffic: list[dict[str, Any]]) -> None:
    """The validation above can fail: without a field that must be there, no message passes."""
    by_tag = {each["tag"]: each for each in traffic}
    for tag, message in by_tag.items():
        for key in message:
            if key not in {"signatures", "accumulator"}:
                left = {name: value for name, value in message.items() if name != key}
                assert schemas.errors(tag, left), f"{tag} without {key}"
