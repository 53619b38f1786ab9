"""What the embedded head makes of inputs: read first, in whatever state, then judged by the state."""

from __future__ import annotations

import json

import pytest

MALFORMED = [
    "{",
    "[]",
    '{"tag":7}',
    '{"tag":"Abort"}',
    '{"tag":"NewTx"}',
    '{"tag":"NewTx","transaction":{"cborHex":"84"}}',
    '{"tag":"NewTx","transaction":{"cborHex":"zz"}}',
    '{"tag":"Decommit","decommitTx":{"cborHex":"84"}}',
    '{"tag":"Recover","recoverTxId":"00"}',
    '{"tag":"SideLoadSnapshot","snapshot":[]}',
]


def _refused(lab, party=0):
    """Whether every malformed input is InvalidInput, for the sender alone."""
    before = len(lab.seen.messages[party])
    answers = [json.loads(lab.commands.handle(party, each)) for each in MALFORMED]
    assert [answer.keys() for answer in answers] == [{"reason", "input"}] * len(MALFORMED)
    assert [answer["input"] for answer in answers] == MALFORMED
    assert lab.seen.messages[party][before:] == []


def test_malformed_inputs_are_invalid_in_every_state(make_lab):
    lab = make_lab(2)
    _refused(lab)
    lab.open()
    _refused(lab)
    lab.send(0, "Close")
    lab.time.run(0.5)
    assert lab.world.head.status.value == "Closed"
    _refused(lab)


@pytest.mark.parametrize("fault", ["lose_sync", "restart"])
def test_a_node_that_catches_up_tells_malformed_inputs_from_those_that_it_refuses(make_lab, fault):
    lab = make_lab(2)
    lab.open()
    cbor, txid = lab.signal(0)
    getattr(lab.faults, fault)("party0")
    if fault == "lose_sync":
        lab.time.run(0.2)
    _refused(lab)
    assert lab.new_tx(0, cbor) is None
    last = lab.seen.messages[0][-1]
    assert (last["tag"], last["clientInput"]["transaction"]["txId"]) == ("RejectedInputBecauseUnsynced", txid)
    lab.time.run(0.2)
    assert not lab.seen.all("TxValid", 1), "what was refused is not on its way"


def test_refused_inputs_are_told_as_a_node_writes_them(make_lab):
    """A node writes the input that it has read: with all its fields, and none that it does not know."""
    lab = make_lab(1)
    lab.open()
    cbor, txid = lab.signal(0)
    lab.send(0, "Close")
    lab.time.run(0.5)
    envelope = {"cborHex": cbor, "description": "", "txId": txid, "type": "Tx ConwayEra"}
    snapshot = {"tag": "InitialSnapshot", "headId": "00"}
    for tag, sent, told in (
        ("NewTx", {"transaction": {"cborHex": cbor}, "more": 1}, {"transaction": envelope}),
        ("Decommit", {"decommitTx": {"cborHex": cbor}}, {"decommitTx": envelope}),
        ("Recover", {"recoverTxId": "ab" * 32}, {"recoverTxId": "ab" * 32}),
        ("SideLoadSnapshot", {"snapshot": snapshot}, {"snapshot": snapshot}),
        ("Init", {"more": 1}, {}),
    ):
        assert lab.send(0, tag, **sent) is None
        last = lab.seen.messages[0][-1]
        assert (last["tag"], last["clientInput"]) == ("CommandFailed", {"tag": tag, **told})
        assert last["state"]["tag"] == "Closed"


def test_golden_inputs_are_understood(make_lab, golden):
    lab = make_lab(1)
    for name in ("Close", "Contest", "Decommit", "Fanout", "Recover", "SafeClose", "SideLoadSnapshot"):
        sample = golden(f"ClientInput/{name}")
        assert lab.commands.handle(0, json.dumps(sample)) is None
        last = lab.seen.messages[0][-1]
        assert (last["tag"], last["clientInput"]["tag"]) == ("CommandFailed", name), "no head is open"
    # That of a transaction with failed scripts, which this ledger does not know.
    answer = json.loads(lab.commands.handle(0, json.dumps(golden("ClientInput/NewTx"))))
    assert "isValid" in answer["reason"]
    assert lab.commands.handle(0, json.dumps(golden("ClientInput/Init"))) is None
    lab.time.run(0.5)
    assert lab.seen.all("HeadIsOpen")
