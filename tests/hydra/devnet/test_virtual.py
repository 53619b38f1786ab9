"""The head's protocol and layer 1 in virtual time."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ADA = 1_000_000


def test_deposits_go_through_the_whole_chain_of_events_in_order(make_lab):
    lab = make_lab(3)
    lab.open()
    for party in range(3):
        tags = lab.seen.tags(party)
        own = [tag for tag in tags if tag not in {"PostTxOnChainFailed"}]
        assert own[0] == "HeadIsOpen"
        assert own[1:4] == ["CommitRecorded"] * 3
        steps = [tag for tag in own[4:] if tag != "DepositActivated"]
        assert steps == ["SnapshotConfirmed", "CommitApproved", "CommitFinalized"] * 3
        recorded = [each["pendingDeposit"] for each in lab.seen.all("CommitRecorded", party)]
        assert [each["depositTxId"] for each in lab.seen.all("CommitFinalized", party)] == recorded
    versions = [each["snapshot"]["version"] for each in lab.seen.all("SnapshotConfirmed")]
    assert versions == [0, 1, 2]
    # Every node posts the increment, all but one lose the race.
    assert sum(len(lab.seen.all("PostTxOnChainFailed", party)) for party in range(3)) == 3 * 2
    assert lab.world.head.version == 3
    assert sorted(lab.own(0)) == [lab.settings.parties[0].funding]


@pytest.mark.parametrize(("parties", "period"), [(3, 3), (10, 3), (10, None), (29, None)])
def test_all_deposits_fit_their_window(make_lab, parties, period):
    lab = make_lab(parties, deposit_period_s=period)
    lab.open()
    assert len(lab.seen.all("CommitFinalized")) == parties
    assert lab.seen.all("DepositExpired") == []
    assert all(sum(lab.own(party).values()) == 100 * ADA for party in range(parties))


def test_first_transaction_alone_then_the_batch_with_the_next_leader(make_lab):
    lab = make_lab(4)
    lab.open()
    before = lab.world.head.number
    ids = []
    for party in range(4):
        cbor, txid = lab.signal(party)
        lab.new_tx(party, cbor)
        ids.append(txid)
    lab.time.run(1)
    confirmed = lab.seen.all("SnapshotConfirmed")[before:]
    assert [[tx["txId"] for tx in each["snapshot"]["confirmed"]] for each in confirmed] == [ids[:1], ids[1:]]
    assert [each["snapshot"]["number"] for each in confirmed] == [before + 1, before + 2]
    assert [each["transactionId"] for each in lab.seen.all("TxValid", 3)] == ids
    assert all(sum(lab.own(party).values()) == 100 * ADA for party in range(4))


def test_a_batch_holds_at_most_a_hundred(make_lab):
    lab = make_lab(1, fund=1000 * ADA)
    lab.open()
    source, value = next(iter(lab.own(0).items()))
    wallet = lab.wallets[0]
    cbor, txid = wallet.transaction([source], [(wallet.raw, 4 * ADA)] * 149 + [(wallet.raw, value - 596 * ADA)])
    lab.new_tx(0, cbor)
    lab.time.run(1)
    for index in range(150):
        held = lab.own(0)[f"{txid}#{index}"]
        lab.new_tx(0, wallet.transaction([f"{txid}#{index}"], [(wallet.raw, held)])[0])
    lab.time.run(1)
    sizes = [len(each["snapshot"]["confirmed"]) for each in lab.seen.all("SnapshotConfirmed")]
    assert sizes[-3:] == [1, 100, 49]


def test_every_party_signs_every_snapshot(make_lab):
    lab = make_lab(3)
    lab.open()
    lab.new_tx(1, lab.signal(1)[0])
    requests = []
    receive = lab.world.head.confirm
    lab.world.head.confirm = lambda: requests.append(lab.world.head.in_flight) or receive()
    lab.time.run(1)
    signatures = lab.seen.all("SnapshotConfirmed")[-1]["signatures"]["multiSignature"]
    parties = lab.seen.all("HeadIsOpen")[0]["parties"]
    for party, signature in zip(parties, signatures, strict=True):
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(party["vkey"]))
        key.verify(bytes.fromhex(signature), requests[0].message)


def test_a_child_before_its_parent_is_retried_and_a_conflict_is_refused_everywhere(make_lab):
    lab = make_lab(2)
    lab.open()
    wallet = lab.wallets[0]
    parent, parent_id = lab.signal(0)
    child, child_id = wallet.transaction([f"{parent_id}#1"], [(wallet.raw, 99 * ADA)])
    other, other_id = wallet.transaction(list(lab.own(0)), [(wallet.raw, 100 * ADA)])
    lab.new_tx(0, child)
    lab.time.run(0.2)
    lab.new_tx(0, parent)
    lab.new_tx(0, other)
    lab.time.run(0.4)
    assert lab.seen.all("TxInvalid", 1) == []
    lab.time.run(2)
    for party in range(2):
        valid = [each["transactionId"] for each in lab.seen.all("TxValid", party)]
        assert valid == [parent_id, child_id]
        (invalid,) = lab.seen.all("TxInvalid", party)
        assert invalid["transaction"]["txId"] == other_id
        assert "BadInputsUTxO" in invalid["validationError"]["reason"]
        assert set(invalid["utxo"]) == set(lab.world.head.local)


def test_one_party_offline_stalls_finality_not_validity_and_heals(make_lab):
    lab = make_lab(3)
    lab.open()
    lab.faults.take_offline("party2")
    assert lab.seen.tags(0)[-1] == "PeerDisconnected"
    assert lab.seen.tags(2)[-1] == "NetworkDisconnected"
    before, cut_before = len(lab.seen.all("SnapshotConfirmed")), len(lab.seen.all("TxValid", 2))
    cbor, txid = lab.signal(0)
    lab.new_tx(0, cbor)
    late, late_id = lab.signal(2)
    lab.new_tx(2, late)
    lab.time.run(30)
    assert lab.seen.all("TxValid")[-1]["transactionId"] == txid
    assert len(lab.seen.all("SnapshotConfirmed")) == before
    assert len(lab.seen.all("TxValid", 2)) == cut_before
    lab.faults.bring_back("party2")
    lab.time.run(2)
    for party in range(3):
        assert [each["transactionId"] for each in lab.seen.all("TxValid", party)][-2:] == [txid, late_id]
        snapshots = lab.seen.all("SnapshotConfirmed", party)
        confirmed = [tx["txId"] for each in snapshots for tx in each["snapshot"]["confirmed"]]
        assert confirmed == [txid, late_id]
        numbers = [each["seq"] for each in lab.seen.messages[party] if "seq" in each]
        assert numbers == sorted(set(numbers))


def test_two_parties_lose_the_quorum_with_one(make_lab):
    lab = make_lab(2)
    lab.open()
    lab.faults.take_offline("party1")
    assert [lab.seen.all("NetworkDisconnected", party) != [] for party in range(2)] == [True, True]
    cbor, txid = lab.signal(0)
    lab.new_tx(0, cbor)
    lab.time.run(5)
    assert lab.seen.all("TxValid") == []
    lab.faults.bring_back("party1")
    lab.time.run(1)
    assert [each["transactionId"] for each in lab.seen.all("TxValid")] == [txid]
    assert lab.world.head.pending == {}


def test_last_seen_names_who_has_not_signed(make_lab):
    import json

    from fednode.hydra.devnet import views

    lab = make_lab(3)
    assert json.loads(views.last_seen(lab.world)) == {"tag": "NoSeenSnapshot"}
    lab.open()
    number = lab.world.head.number
    assert json.loads(views.last_seen(lab.world)) == {"tag": "LastSeenSnapshot", "lastSeen": number}
    lab.faults.silence("party1")
    cbor, txid = lab.signal(0)
    lab.new_tx(0, cbor)
    lab.time.run(1.5 * lab.settings.hop_s)
    expected = {"tag": "RequestedSnapshot", "lastSeen": number, "requested": number + 1}
    assert json.loads(views.last_seen(lab.world)) == expected
    lab.time.run(5)
    seen = json.loads(views.last_seen(lab.world))
    signed = {lab.world.parties[0].hydra.vkey, lab.world.parties[2].hydra.vkey}
    assert (seen["tag"], set(seen["signatories"])) == ("SeenSnapshot", signed)
    assert [tx["txId"] for tx in seen["snapshot"]["confirmed"]] == [txid]
    lab.faults.unsilence("party1")
    assert lab.world.head.number == number + 1


def test_a_slow_party_delays_and_is_waited_for(make_lab):
    lab = make_lab(2)
    lab.open()
    before = lab.world.head.number
    lab.faults.slow_down("party1", 3.0)
    lab.new_tx(0, lab.signal(0)[0])
    lab.time.run(2.9)
    assert lab.world.head.number == before
    lab.time.run(0.5)
    assert lab.world.head.number == before + 1


def test_commands_in_a_wrong_state_fail_with_the_state(make_lab):
    lab = make_lab(2)
    for tag in ("Close", "SafeClose", "Fanout", "Contest"):
        lab.send(0, tag)
        assert lab.seen.messages[0][-1]["clientInput"] == {"tag": tag}
        assert (lab.seen.messages[0][-1]["tag"], lab.seen.messages[0][-1]["state"]["tag"]) == ("CommandFailed", "Idle")
    lab.open()
    cbor, txid = lab.signal(0)
    lab.new_tx(0, cbor)
    lab.time.run(1)
    for tag in ("Init", "Fanout", "Contest"):
        lab.send(1, tag)
        failed = lab.seen.messages[1][-1]
        assert (failed["tag"], failed["state"]["tag"]) == ("CommandFailed", "Open")
        confirmed = failed["state"]["contents"]["coordinatedHeadState"]["confirmedSnapshot"]
        assert [tx["txId"] for tx in confirmed["snapshot"]["confirmed"]] == [txid]
    assert not lab.seen.all("CommandFailed", 0)[4:]
    assert "seq" not in failed


def test_unsynced_nodes_refuse_inputs(make_lab):
    lab = make_lab(2)
    assert len(lab.seen.all("NodeSynced")) == 1
    lab.faults.lose_sync("party0")
    lab.time.run(0.2)
    lab.send(0, "Init")
    assert lab.seen.messages[0][-1] == {
        "tag": "RejectedInputBecauseUnsynced",
        "clientInput": {"tag": "Init"},
        "drift": 0,
    }
    lab.faults.regain_sync("party0")
    lab.time.run(0.2)
    lab.open(fund=False)
    assert [each["tag"] for each in lab.seen.messages[0] if "Synced" in each["tag"] or "Unsynced" in each["tag"]]


def test_invalid_inputs_are_answered_without_a_tag(make_lab):
    lab = make_lab(1)
    lab.open()
    cbor, txid = lab.signal(0)
    bad = [
        "{",
        "[]",
        '{"tag":"Abort"}',
        '{"tag":"NewTx"}',
        '{"tag":"NewTx","transaction":"84"}',
        '{"tag":"NewTx","transaction":{"cborHex":"84"}}',
        f'{{"tag":"NewTx","transaction":{{"cborHex":"{cbor}00"}}}}',
        f'{{"tag":"NewTx","transaction":{{"cborHex":"{cbor}","txId":"{"00" * 32}"}}}}',
        b"\xff\xfe",
    ]
    import json

    for each in bad:
        answer = json.loads(lab.commands.handle(0, each))
        assert set(answer) == {"reason", "input"}
    assert lab.commands.handle(0, f'{{"tag":"NewTx","transaction":{{"cborHex":"{cbor}","txId":"{txid}"}}}}') is None


def test_close_contest_fanout_and_a_new_head(make_lab):
    lab = make_lab(3)
    lab.open()
    lab.new_tx(0, lab.signal(0)[0])
    lab.time.run(1)
    number, first = lab.world.head.number, lab.world.head.head_id
    lab.faults.lose_closes(1)
    lab.send(1, "Close")
    lab.time.run(10)
    assert lab.seen.all("HeadIsClosed") == []
    lab.faults.close_stale(1)
    lab.send(1, "Close")
    lab.time.run(0.2)
    (closed,), (contested,) = lab.seen.all("HeadIsClosed", 2), lab.seen.all("HeadIsContested", 2)
    assert (closed["snapshotNumber"], contested["snapshotNumber"]) == (number - 1, number)
    assert contested["contestationDeadline"] > closed["contestationDeadline"]
    assert lab.seen.all("ReadyToFanout") == []
    lab.send(0, "Fanout")
    assert lab.seen.messages[0][-1]["state"]["tag"] == "Closed"
    lab.time.run(7)
    assert len(lab.seen.all("ReadyToFanout")) == 1
    held = {party: sorted(lab.own(party).values()) for party in range(3)}
    lab.send(2, "Fanout")
    lab.time.run(1)
    (final,) = lab.seen.all("HeadIsFinalized", 1)
    for party, values in held.items():
        address = lab.wallets[party].address
        paid = {
            key: each["value"]["lovelace"] for key, each in final["finalizedUTxO"].items() if each["address"] == address
        }
        assert sorted(paid.values()) == values
        assert all(lab.world.chain.utxo[key].lovelace == value for key, value in paid.items())
    assert lab.world.head.status.value == "Idle"
    lab.open(fund=False)
    assert lab.world.head.head_id != first


def test_burned_fees_wedge_the_close(make_lab):
    lab = make_lab(2)
    lab.open()
    wallet, own = lab.wallets[0], lab.own(0)
    lab.new_tx(0, wallet.transaction(list(own), [(wallet.raw, 99 * ADA)], fee=ADA)[0])
    lab.time.run(1)
    assert len(lab.seen.all("TxValid")) == 1
    lab.send(1, "Close")
    lab.time.run(5)
    failed = lab.seen.messages[1]
    assert [each["postTxError"]["failureReason"][:3] for each in failed if each["tag"] == "PostTxOnChainFailed"][
        -1
    ] == "H65"
    assert lab.seen.all("HeadIsClosed") == []


def test_too_many_outputs_stall_the_head_in_silence(make_lab):
    lab = make_lab(1)
    object.__setattr__(lab.settings, "max_utxo", 20)
    lab.open()
    wallet, own = lab.wallets[0], lab.own(0)
    before = len(lab.seen.tags())
    lab.new_tx(0, wallet.transaction(list(own), [(wallet.raw, 4 * ADA)] * 25)[0])
    lab.time.run(60)
    assert lab.seen.tags()[before:] == ["TxValid"]


def test_a_missed_deposit_expires_and_is_recovered_after_its_deadline(make_lab):
    lab = make_lab(2)
    lab.open(fund=False)
    lab.faults.silence("party1")
    txid = lab.deposit(0)
    funding = lab.settings.parties[0].funding
    assert funding not in lab.world.chain.utxo
    lab.time.run(1)
    assert lab.chain.unrecoverable(txid) is not None
    lab.faults.take_offline("party0")
    lab.time.run(20)
    assert [tag for tag in lab.seen.tags(1) if "Deposit" in tag] == ["DepositActivated", "DepositExpired"]
    lab.send(1, "Recover", recoverTxId=txid)
    lab.time.run(0.2)
    (recovered,) = lab.seen.all("CommitRecovered", 1)
    assert recovered["recoveredTxId"] == txid
    ((txin, output),) = recovered["recoveredUTxO"].items()
    assert txin != funding
    assert (output["address"], output["value"]) == (lab.wallets[0].address, {"lovelace": 100 * ADA})
    assert lab.world.chain.utxo[txin].lovelace == 100 * ADA


def test_draft_deposit_carries_a_foreign_witness_and_tagged_sets(make_lab):
    from fednode.hydra.devnet.txview import parse_transaction

    lab = make_lab(1)
    lab.open(fund=False)
    funding = lab.settings.parties[0].funding
    raw = lab.chain.draft_deposit(0, {funding: lab.world.chain.utxo[funding]})
    draft = parse_transaction(raw)
    ((vkey, signature),) = draft.witnesses
    assert vkey.hex() == lab.world.parties[0].fuel.vkey
    Ed25519PublicKey.from_public_bytes(vkey).verify(signature, bytes.fromhex(draft.id))
    assert raw.count(b"\xd9\x01\x02") == 2
    refused = lab.chain.submit(raw)
    assert refused is not None
    assert "MissingVKeyWitnessesUTXOW" in refused
    signed = bytes.fromhex(lab.wallets[0].witness(raw.hex()))
    assert lab.chain.submit(signed) is None
    again = lab.chain.submit(signed)
    assert again is not None
    assert "All inputs are spent" in again


def test_a_late_draft_is_refused(make_lab):
    lab = make_lab(1)
    lab.open(fund=False)
    funding = lab.settings.parties[0].funding
    raw = lab.chain.draft_deposit(0, {funding: lab.world.chain.utxo[funding]})
    lab.time.run(10)
    refused = lab.chain.submit(bytes.fromhex(lab.wallets[0].witness(raw.hex())))
    assert refused is not None
    assert "OutsideValidityIntervalUTxO" in refused


def test_a_restart_keeps_everything_and_goes_on(make_lab):
    lab = make_lab(3)
    lab.open()
    lab.new_tx(0, lab.signal(0)[0])
    lab.time.run(1)
    lab.faults.silence("party1")
    cbor, txid = lab.signal(1)
    lab.new_tx(1, cbor)
    lab.time.run(1)
    head, chain = lab.world.head, lab.world.chain
    old = (head.number, head.version, {k: v.raw for k, v in head.snapshot.items()}, set(head.local), set(chain.utxo))
    history = [each.text(2, with_utxo=True) for each in lab.store.history(2, 0, 1000)]
    lab.restart()
    head, chain = lab.world.head, lab.world.chain
    assert old == (
        head.number, head.version, {k: v.raw for k, v in head.snapshot.items()}, set(head.local), set(chain.utxo),
    )  # fmt: skip
    assert [each.text(2, with_utxo=True) for each in lab.store.history(2, 0, 1000)][: len(history)] == history
    lab.faults.unsilence("party1")
    lab.time.run(1)
    confirmed = lab.seen.all("SnapshotConfirmed")[-1]["snapshot"]["confirmed"]
    assert [(tx["txId"], tx["cborHex"]) for tx in confirmed] == [(txid, cbor)]


def test_a_restart_between_approval_and_increment_finishes_the_deposit(make_lab):
    lab = make_lab(2)
    lab.open(fund=False)
    lab.deposit(0)
    while not lab.seen.all("CommitApproved"):
        lab.time.run(0.001)
    assert lab.seen.all("CommitFinalized") == []
    lab.restart()
    lab.time.run(0.5)
    assert len(lab.seen.all("CommitFinalized")) == 1
    assert sum(lab.own(0).values()) == 100 * ADA
    lab.new_tx(0, lab.signal(0)[0])
    lab.time.run(1)
    assert sum(lab.own(1).values()) == ADA


def test_a_side_load_drops_what_is_pending(make_lab):
    import json

    from fednode.hydra.devnet import views

    lab = make_lab(2)
    lab.open()
    lab.faults.silence("party1")
    lab.new_tx(0, lab.signal(0)[0])
    lab.time.run(1)
    assert len(lab.world.head.pending) == 1
    known = json.loads(views.confirmed_snapshot(lab.world))
    other = json.loads(json.dumps(known))
    other["snapshot"]["number"] += 1
    lab.send(0, "SideLoadSnapshot", snapshot=other)
    assert lab.seen.messages[0][-1]["tag"] == "SideLoadSnapshotRejected"
    lab.send(0, "SideLoadSnapshot", snapshot=known)
    assert lab.seen.tags()[-1] == "SnapshotSideLoaded"
    assert lab.world.head.pending == {}
    lab.faults.unsilence("party1")
    cbor, txid = lab.signal(0)
    lab.new_tx(0, cbor)
    lab.time.run(1)
    assert [tx["txId"] for tx in lab.seen.all("SnapshotConfirmed")[-1]["snapshot"]["confirmed"]] == [txid]


def test_memory_holds_no_confirmed_transaction(make_lab):
    lab = make_lab(2)
    lab.open()
    for _ in range(30):
        for party in range(2):
            lab.new_tx(party, lab.signal(party)[0])
        lab.time.run(0.5)
    head = lab.world.head
    assert len(lab.seen.all("TxValid")) == 60
    assert (head.pending, head.in_flight, lab.store.pending()) == ({}, None, [])
    assert len(head.local) <= 4


def test_genesis_ids_are_those_that_were_agreed(make_lab):
    lab = make_lab(1)
    party = lab.settings.parties[0]
    expected = hashlib.blake2b(b"fednode devnet faucet/party0", digest_size=32).hexdigest() + "#0"
    assert party.funding == expected
    assert lab.world.chain.utxo[expected].lovelace == party.fund
