"""What single nodes of the embedded head can lack or do wrong, on purpose."""

from __future__ import annotations

import asyncio
import json

import pytest

from fednode.hydra.devnet import Faults, create, views

ADA = 1_000_000


def _valid(lab, party):
    return [each["transactionId"] for each in lab.seen.all("TxValid", party)]


def _invalid(lab, party):
    return [each["transaction"]["txId"] for each in lab.seen.all("TxInvalid", party)]


def _confirmed(lab, party):
    return [tx["txId"] for each in lab.seen.all("SnapshotConfirmed", party) for tx in each["snapshot"]["confirmed"]]


def _finalise(lab, party):
    """A deposit, up to the moment at which the first node sees it become final."""
    count = len(lab.seen.all("CommitFinalized", 0))
    lab.deposit(party)
    while len(lab.seen.all("CommitFinalized", 0)) == count:
        lab.time.run(0.01)


def test_a_lagging_node_refuses_what_spends_a_deposit_it_has_not_seen(make_lab):
    lab = make_lab(3)
    lab.open(fund=False)
    lab.faults.lag("party2", 3.0)
    _finalise(lab, 0)
    assert lab.seen.all("CommitFinalized", 1)
    assert not lab.seen.all("CommitFinalized", 2)
    cbor, txid = lab.signal(0)
    lab.new_tx(0, cbor)
    lab.time.run(1)
    assert [_valid(lab, party) for party in range(3)] == [[txid], [txid], []]
    assert [_invalid(lab, party) for party in range(3)] == [[], [], [txid]]
    seen = json.loads(views.last_seen(lab.world))
    assert set(seen["signatories"]) == {lab.world.parties[party].hydra.vkey for party in range(2)}
    lab.time.run(10)
    assert lab.seen.all("CommitFinalized", 2)
    assert _confirmed(lab, 0) == [], "the body is gone at one node, and only sending it again brings it back"
    lab.new_tx(1, cbor)
    lab.time.run(1)
    assert [_confirmed(lab, party) for party in range(3)] == [[txid]] * 3
    assert _valid(lab, 2) == [txid]


def test_a_small_lag_is_bridged_by_the_retries(make_lab):
    lab = make_lab(3)
    lab.open(fund=False)
    lab.faults.lag("party2", 0.3)
    _finalise(lab, 0)
    cbor, txid = lab.signal(0)
    lab.new_tx(0, cbor)
    lab.time.run(2)
    assert [_invalid(lab, party) for party in range(3)] == [[], [], []]
    assert [_confirmed(lab, party) for party in range(3)] == [[txid]] * 3


def test_what_is_built_on_a_transaction_that_a_node_refused_is_refused_there_too(make_lab):
    lab = make_lab(2)
    lab.open(fund=False)
    lab.faults.lag("party1", 2.0)
    _finalise(lab, 0)
    parent, parent_id = lab.signal(0)
    child, child_id = lab.wallets[0].transaction([f"{parent_id}#1"], [(lab.wallets[0].raw, 99 * ADA)])
    lab.new_tx(0, parent)
    lab.new_tx(0, child)
    lab.time.run(5)
    assert (_valid(lab, 0), _invalid(lab, 1)) == ([parent_id, child_id], [parent_id, child_id])
    lab.new_tx(0, child)
    lab.new_tx(0, parent)
    lab.time.run(2)
    assert _valid(lab, 1) == [parent_id, child_id]
    assert _confirmed(lab, 1) == [parent_id, child_id]


def test_a_lagging_node_tells_the_blocks_late_and_in_order(make_lab):
    lab = make_lab(2)
    lab.faults.lag("party1", 1.0)
    lab.open()
    lab.send(0, "Close")
    lab.time.run(0.2)
    assert [len(lab.seen.all("HeadIsClosed", party)) for party in range(2)] == [1, 0]
    lab.faults.lag("party1", 0)
    lab.time.run(10)
    layer_1 = {"HeadIsOpen", "CommitRecorded", "DepositActivated", "CommitFinalized", "HeadIsClosed", "ReadyToFanout"}
    heard = [[tag for tag in lab.seen.tags(party) if tag in layer_1] for party in range(2)]
    assert heard[0] == heard[1]
    assert len(heard[0]) == 9


def test_a_restarted_node_has_lost_what_no_snapshot_holds(make_lab):
    lab = make_lab(3)
    lab.open()
    lab.faults.silence("party2")
    cbor, txid = lab.signal(0)
    lab.new_tx(0, cbor)
    lab.time.run(1)
    lab.faults.restart("party2")
    lab.faults.unsilence("party2")
    lab.time.run(30)
    assert _confirmed(lab, 0) == []
    state = [json.loads(views.head_state(lab.world, party))["contents"]["coordinatedHeadState"] for party in range(3)]
    assert [list(each["allTxs"]) for each in state] == [[txid], [txid], []]
    lab.new_tx(0, cbor)
    lab.time.run(2)
    assert [_confirmed(lab, party) for party in range(3)] == [[txid]] * 3
    assert [_valid(lab, party).count(txid) for party in range(3)] == [1, 1, 2]


def test_a_leader_that_lost_a_transaction_does_not_ask_for_it(make_lab):
    lab = make_lab(2)
    lab.open()
    leader = lab.world.head.leader(lab.world.head.number + 1)
    lab.faults.take_offline(f"party{leader}")
    other = 1 - leader
    lab.faults.bring_back(f"party{leader}")
    lab.faults.silence(f"party{other}")
    first, first_id = lab.signal(0)
    lab.new_tx(0, first)
    lab.time.run(1)
    second, second_id = lab.signal(1)
    lab.new_tx(1, second)
    lab.time.run(1)
    # The next leader restarts while the first snapshot waits: the second transaction is lost there.
    following = lab.world.head.leader(lab.world.head.number + 2)
    lab.faults.restart(f"party{following}")
    lab.faults.unsilence(f"party{other}")
    lab.time.run(5)
    lab.new_tx(0, first)
    lab.time.run(5)
    assert _confirmed(lab, 0) == [first_id]
    assert json.loads(views.last_seen(lab.world))["tag"] == "LastSeenSnapshot"
    lab.new_tx(1, second)
    lab.time.run(2)
    assert _confirmed(lab, 0) == [first_id, second_id]


def test_a_restart_loses_what_is_on_its_way_and_refuses_inputs_until_it_is_in_sync(make_lab):
    lab = make_lab(2)
    lab.open()
    cbor, txid = lab.signal(0)
    lab.new_tx(0, cbor)
    lab.faults.restart("party1")
    assert lab.seen.messages[1][-1]["tag"] == "disconnected"
    lab.send(1, "Close")
    assert lab.seen.messages[1][-1]["tag"] == "RejectedInputBecauseUnsynced"
    lab.time.run(5)
    assert (_valid(lab, 0), _valid(lab, 1), _confirmed(lab, 0)) == ([txid], [], [])
    assert lab.seen.all("NodeSynced", 1)
    lab.new_tx(1, cbor)
    lab.time.run(1)
    assert _confirmed(lab, 1) == [txid]


def test_a_side_load_frees_a_node_that_lost_a_transaction(make_lab):
    lab = make_lab(2)
    lab.open()
    lab.faults.silence("party1")
    lab.new_tx(0, lab.signal(0)[0])
    lab.time.run(1)
    lab.faults.restart("party1")
    lab.faults.unsilence("party1")
    lab.time.run(1)
    lab.send(0, "SideLoadSnapshot", snapshot=json.loads(views.confirmed_snapshot(lab.world)))
    cbor, txid = lab.signal(1)
    lab.new_tx(1, cbor)
    lab.time.run(1)
    assert _confirmed(lab, 0) == [txid]


def _history(lab, party):
    name = lab.settings.parties[party].name
    after = lab.world.rotated.get(name, 1) - 1
    return [json.loads(each.text(party, with_utxo=True)) for each in lab.store.history(party, after, 10_000)]


def test_a_rotated_log_begins_with_a_checkpoint_and_lacks_the_snapshot_of_that_moment(make_lab):
    lab = make_lab(2)
    lab.open()
    lab.new_tx(0, lab.signal(0)[0])
    lab.time.run(1)
    lab.faults.silence("party0")
    cbor, txid = lab.signal(1)
    lab.new_tx(1, cbor)
    lab.time.run(1)
    lab.faults.rotate("party1")
    lab.faults.unsilence("party0")
    lab.new_tx(0, lab.signal(0)[0])
    lab.time.run(1)
    assert _confirmed(lab, 1)[-2] == txid, "told live"
    kept = _history(lab, 1)
    assert kept[0]["tag"] == "EventLogRotated"
    state = kept[0]["checkpoint"]["headState"]["contents"]["coordinatedHeadState"]
    assert list(state["allTxs"]) == [txid]
    snapshots = [each["snapshot"]["number"] for each in kept if each["tag"] == "SnapshotConfirmed"]
    assert snapshots == [lab.world.head.number], "the one before it is in no history any more"
    assert _history(lab, 0)[0]["tag"] != "EventLogRotated"
    lab.restart()
    assert _history(lab, 1)[: len(kept)] == kept


def test_who_is_offline_at_the_close_never_learns_the_last_snapshots(make_lab):
    lab = make_lab(3)
    lab.open()
    lab.new_tx(0, lab.signal(0)[0])
    lab.time.run(1)
    before = lab.world.head.number
    # Its signature left it in time; what it was to hear did not come.
    lab.faults.silence("party1")
    cbor, txid = lab.signal(1)
    lab.new_tx(1, cbor)
    lab.time.run(1)
    request = lab.world.head.in_flight
    assert 2 in request.signatures
    lab.faults.take_offline("party2")
    lab.faults.unsilence("party1")
    lab.time.run(1)
    assert [txid in _confirmed(lab, party) for party in range(3)] == [True, True, False]
    lab.send(0, "Close")
    lab.time.run(0.5)
    lab.faults.bring_back("party2")
    lab.restart()
    lab.time.run(1)
    assert [each["snapshotNumber"] for each in _history(lab, 2) if each["tag"] == "HeadIsClosed"] == [before + 1]
    assert txid not in _confirmed(lab, 2)
    known = [json.loads(views.confirmed_snapshot(lab.world, party))["snapshot"]["number"] for party in range(3)]
    assert known == [before + 1, before + 1, before]
    lab.time.run(10)
    lab.send(2, "Fanout")
    lab.time.run(0.5)
    (failed,) = lab.seen.all("PostTxOnChainFailed", 2)
    assert (failed["postChainTx"]["tag"], failed["postTxError"]) == ("FanoutTx", {"tag": "FailedToConstructFanoutTx"})
    lab.send(0, "Fanout")
    lab.time.run(0.5)
    assert len(lab.seen.all("HeadIsFinalized", 2)) == 1


def test_signatures_after_the_close_confirm_nothing(make_lab):
    lab = make_lab(2)
    lab.open()
    number = lab.world.head.number
    lab.faults.slow_down("party1", 2.0)
    lab.new_tx(0, lab.signal(0)[0])
    lab.time.run(1)
    lab.send(0, "Close")
    lab.time.run(10)
    assert _confirmed(lab, 0) == []
    assert lab.seen.all("HeadIsClosed")[0]["snapshotNumber"] == number
    lab.send(0, "Fanout")
    lab.time.run(0.5)
    paid = [each["value"]["lovelace"] for each in lab.seen.all("HeadIsFinalized")[0]["finalizedUTxO"].values()]
    assert paid == [100 * ADA] * 2


def test_what_was_held_back_survives_a_restart_of_the_process(make_lab):
    lab = make_lab(3)
    lab.open()
    lab.faults.take_offline("party2")
    cbor, txid = lab.signal(0)
    lab.new_tx(0, cbor)
    lab.time.run(1)
    lab.faults = Faults()
    lab.restart()
    lab.time.run(1)
    assert [each["transactionId"] for each in _history(lab, 2) if each["tag"] == "TxValid"] == [txid]
    assert txid in [
        tx["txId"]
        for each in _history(lab, 2)
        if each["tag"] == "SnapshotConfirmed"
        for tx in each["snapshot"]["confirmed"]
    ]


def test_nodes_that_post_too_late_say_so(make_lab):
    lab = make_lab(3)
    lab.open()
    increments = [[each["postChainTx"]["tag"] for each in lab.seen.all("PostTxOnChainFailed", p)] for p in range(3)]
    assert sum(map(len, increments)) == 3 * 2, "for every deposit all nodes but one"
    assert {tag for tags in increments for tag in tags} == {"IncrementTx"}
    for party in range(3):
        lab.send(party, "Close")
    lab.time.run(10)
    assert len(lab.seen.all("HeadIsClosed")) == 1
    for party in range(3):
        lab.send(party, "Fanout")
    lab.time.run(1)
    assert len(lab.seen.all("HeadIsFinalized")) == 1
    late = [[each["postChainTx"]["tag"] for each in lab.seen.all("PostTxOnChainFailed", p)] for p in range(3)]
    assert sorted(tag for tags in late for tag in tags if tag != "IncrementTx") == ["CloseTx"] * 2 + ["FanoutTx"] * 2


def test_names_are_checked(make_lab):
    lab = make_lab(1)
    for fault in ("restart", "rotate", "hold_replay", "take_offline"):
        with pytest.raises(ValueError, match="no such party"):
            getattr(lab.faults, fault)("nobody")
    with pytest.raises(ValueError, match="no such party"):
        lab.faults.lag("nobody", 1.0)
    early = Faults()
    early.restart("nobody")
    with pytest.raises(ValueError, match="no such party"):
        early.bind(["party0"], lambda: None)


async def test_during_the_replay_nothing_is_read_and_no_ping_is_answered(tmp_path, serving, make_peer):
    settings, faults = create(tmp_path, ["alice"]), Faults()
    async with serving(settings, faults):
        first = await make_peer(settings, 0).connect()
        await first.synced()
        faults.hold_replay("alice")
        peer = await make_peer(settings, 0).connect("?history=yes")
        pong = await peer.socket.ping()
        await peer.send("Init")
        await peer.until("NodeSynced")
        # Another connection to the same node is not held, and Init did not come through.
        other = await make_peer(settings, 0).connect()
        assert (await other.until("Greetings"))["headStatus"] == "Idle"
        await (await other.socket.ping())
        assert not pong.done()
        faults.finish_replay("alice")
        await peer.until("Greetings")
        await pong
        await peer.until("HeadIsOpen")
        for each in (first, peer, other):
            await each.close()


async def test_events_around_the_replay_come_twice(tmp_path, serving, make_peer):
    settings, faults = create(tmp_path, ["alice", "bob"]), Faults()
    async with serving(settings, faults):
        first = await make_peer(settings, 0).connect()
        await first.synced()
        await first.send("Init")
        await first.until("HeadIsOpen")
        faults.repeat_history("alice", 2)
        peer = await make_peer(settings, 0).connect("?history=yes")
        await peer.until("Greetings")
        history = [each["seq"] for each in peer.seen[:-1]]
        again = [(await peer.receive())["seq"] for _ in range(2)]
        assert again == history[-2:]
        await first.close()
        await peer.close()


async def test_a_restart_cuts_the_clients_off(tmp_path, serving, make_peer):
    settings, faults = create(tmp_path, ["alice", "bob"]), Faults()
    async with serving(settings, faults):
        peers = [await make_peer(settings, index).connect() for index in range(2)]
        for peer in peers:
            await peer.synced()
        faults.restart("alice")
        await asyncio.wait_for(peers[0].socket.wait_closed(), 10)
        again = await make_peer(settings, 0).connect()
        await again.synced()
        await again.send("Init")
        await peers[1].until("HeadIsOpen")
        await again.close()
        await peers[1].close()
