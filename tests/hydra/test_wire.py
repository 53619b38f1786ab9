from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fednode.errors import HeadError
from fednode.hydra import messages
from fednode.hydra.judge import judge
from fednode.hydra.transactions import parse
from fednode.hydra.wire import decode, encode
from fednode.types import HeadId

from .party import MAGIC, MEMBERS

DATA = Path(os.environ.get("FEDNODE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
GOLDEN = DATA / "hydra-2.3.0" / "golden"
FILES = sorted(GOLDEN.glob("ServerOutput/*.json")) + sorted(GOLDEN.glob("Greetings/*.json"))


def sample(path: Path) -> dict[str, object]:
    value: dict[str, object] = json.loads(path.read_text())["samples"][0]
    return {"tag": "Greetings", **value} if path.stem == "Greetings" else value


@pytest.mark.skipif(not FILES, reason="no golden files of hydra-node 2.3.0: set FEDNODE_TEST_DATA")
def test_every_golden_sample_decodes() -> None:
    assert len(FILES) == 30
    for path in FILES:
        value = sample(path) | {"seq": 7, "timestamp": "2026-01-02T03:04:05.678901234Z"}
        received = decode(json.dumps(value))
        assert (received.seq, received.at) == (7, pytest.approx(1767323045.678901))
        assert not isinstance(received.message, messages.Unknown), path.stem
        if "headId" in value:
            assert getattr(received.message, "head_id", value["headId"]) == value["headId"]


@pytest.mark.skipif(not FILES, reason="no golden files of hydra-node 2.3.0: set FEDNODE_TEST_DATA")
def test_golden_transactions_are_read_or_refused_but_never_crash() -> None:
    """Arbitrary Conway transactions from the node's own generator."""
    confirmed = sample(GOLDEN / "ServerOutput/SnapshotConfirmed.json")["snapshot"]["confirmed"]  # type: ignore[index]
    invalid = sample(GOLDEN / "ServerOutput/TxInvalid.json")["transaction"]
    new = json.loads((GOLDEN / "ClientInput/NewTx.json").read_text())["samples"][0]["transaction"]
    for transaction in (*confirmed, invalid, new):
        raw = bytes.fromhex(transaction["cborHex"])
        assert parse(raw).id == transaction["txId"]
        assert judge(raw, MEMBERS, MAGIC).content is None


@pytest.mark.skipif(not FILES, reason="no golden files of hydra-node 2.3.0: set FEDNODE_TEST_DATA")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_any_missing_or_wrong_field_is_a_clear_error(path: Path) -> None:
    value = sample(path)
    for name in value.keys() - {"tag"}:
        for wrong in ({}, 5, "x", [1], None, True):
            message = ""
            try:
                decode(json.dumps(value | {name: wrong}))
            except HeadError as error:
                message = error.message
            assert not message or str(value["tag"]) in message


def test_client_inputs() -> None:
    assert json.loads(encode(messages.Init())) == {"tag": "Init"}
    assert json.loads(encode(messages.Close())) == {"tag": "Close"}
    assert json.loads(encode(messages.Fanout())) == {"tag": "Fanout"}
    assert json.loads(encode(messages.NewTx("84"))) == {
        "tag": "NewTx",
        "transaction": {"type": "Tx ConwayEra", "description": "", "cborHex": "84"},
    }


def test_refusals() -> None:
    cases: dict[str, tuple[dict[str, object], str, str]] = {
        "untagged": ({"reason": "Error in $: no", "input": "{"}, "InvalidInput", ""),
        "tagged": ({"tag": "InvalidInput", "reason": "r", "input": "{"}, "InvalidInput", ""),
        "failed": ({"tag": "CommandFailed", "clientInput": {"tag": "Close"}, "state": {}}, "CommandFailed", "Close"),
        "rejected": (
            {"tag": "RejectedInputBecauseUnsynced", "clientInput": {"tag": "Init"}, "drift": 3},
            "RejectedInputBecauseUnsynced",
            "Init",
        ),
        "posted": (
            {
                "tag": "PostTxOnChainFailed",
                "postChainTx": {"tag": "IncrementTx"},
                "postTxError": {"tag": "NoFuelUTXOFound"},
            },
            "PostTxOnChainFailed",
            "IncrementTx",
        ),
    }  # fmt: skip
    for value, tag, command in cases.values():
        received = decode(json.dumps(value))
        assert isinstance(received.message, messages.Refusal)
        assert (received.message.tag, received.message.command, received.seq) == (tag, command, None)


def test_greetings_hold_no_secret() -> None:
    env = {"party": {"vkey": "aa"}, "otherParties": [], "participants": [], "contestationPeriod": 60}
    env |= {"depositPeriod": 30, "signingKey": "5ec2e7"}
    value = {"tag": "Greetings", "me": {"vkey": "aa"}, "headStatus": "Idle", "hydraNodeVersion": "2.1.0", "env": env}
    received = decode(json.dumps(value))
    assert "5ec2e7" not in repr(received)
    with pytest.raises(HeadError) as caught:
        decode(json.dumps(value | {"env": env | {"participants": 5}}))
    assert "5ec2e7" not in caught.value.message


@given(st.text() | st.binary())
def test_garbage_is_a_head_error(frame: str | bytes) -> None:
    with contextlib.suppress(HeadError):
        assert isinstance(decode(frame).message, messages.Unknown)


def test_what_a_node_says_in_passing() -> None:
    peer = {"peer": {"hostname": "10.0.0.2", "port": 5001}}
    failure = {"requirementFailure": {"tag": "SideLoadSnNumberInvalid"}, "clientInput": {}}
    for message, expected in (
        ({"tag": "PeerConnected"} | peer, messages.PeerState("10.0.0.2:5001", connected=True)),
        ({"tag": "PeerDisconnected"} | peer, messages.PeerState("10.0.0.2:5001", connected=False)),
        ({"tag": "PeerDisconnected", "peer": "alice"}, messages.Unknown("PeerDisconnected")),
        ({"tag": "NetworkConnected"}, messages.NetworkState(connected=True)),
        ({"tag": "NetworkDisconnected"}, messages.NetworkState(connected=False)),
        ({"tag": "EventLogRotated", "checkpoint": {}}, messages.EventLogRotated()),
        ({"tag": "DecommitInvalid", "headId": "aa"}, messages.Decommit(HeadId("aa"), "DecommitInvalid")),
        (
            {"tag": "SideLoadSnapshotRejected"} | failure,
            messages.Refusal("SideLoadSnapshotRejected", "SideLoadSnapshot", "SideLoadSnNumberInvalid"),
        ),
    ):
        assert decode(json.dumps(message)).message == expected


def test_unknown_tags_pass() -> None:
    assert decode('{"tag": "HeadPartiallyFannedOut", "seq": 3}').message == messages.Unknown("HeadPartiallyFannedOut")
    assert decode("{}").message == messages.Unknown("?")
