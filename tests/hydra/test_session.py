from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fednode import reports
from fednode.errors import ConfigError, HeadError
from fednode.hydra.fields import Fields
from fednode.hydra.sender import lost_with_inputs
from fednode.hydra.session import Session
from fednode.hydra.settings import endpoints
from fednode.hydra.utxo import parse_utxo
from fednode.hydra.wire import read_snapshot
from fednode.types import HeadStatus, TxKind

from . import node as model
from .node import DEPOSIT, HEAD, Node, funded
from .party import ADA, BO, CY, KEYS, MEMBERS, content


def refresh(session: Session, node: Node) -> list[reports.HeadReport]:
    """What the shell does when the session asks for the node's last snapshot."""
    if not session.wants_snapshot:
        return []
    snapshot = read_snapshot(Fields(node.snapshots[-1], "s")) if node.snapshots else None
    return session.load(snapshot, node.version, 1.0)


def feed(session: Session, frames: list[str], node: Node | None = None) -> list[reports.HeadReport]:
    result: list[reports.HeadReport] = []
    for frame in frames:
        result += session.receive(frame, 1.0)
        if node:
            result += refresh(session, node)
    return result


def connected(node: Node, after: int = 0, *, history: bool = True, **changes: Any) -> tuple[Session, list[Any]]:
    session = Session(model.settings(**changes), after)
    session.connecting(HEAD if node.status != "Idle" else None)
    return session, feed(session, [*(node.history() if history else []), node.greetings()], node)


def numbers(found: list[Any]) -> list[int]:
    return [report.number for report in found if isinstance(report, reports.SnapshotConfirmed)]


def test_replay_then_live() -> None:
    node = funded()
    for number in range(3):
        node.round(number)
    session, found = connected(node)
    kinds = [type(report).__name__ for report in found]
    assert kinds[0] == "HeadOpened"
    assert kinds.count("HeadOpened") == 1
    assert kinds.count("DepositRecorded") == kinds.count("DepositFinalized") == 3
    assert kinds[-2:] == ["HeadConnected", "SnapshotsSynced"]
    assert numbers(found) == [1, 2, 3, 4, 5, 6]
    assert found[-1].number == 6
    signals = [tx for report in found if isinstance(report, reports.SnapshotConfirmed) for tx in report.transactions]
    assert [(tx.sender, tx.content and tx.content.round) for tx in signals] == [
        (member.name, number) for number in range(3) for member in MEMBERS
    ]
    assert {tx.kind for tx in signals} == {TxKind.SIGNAL}
    assert session.view.utxo == node.utxo
    assert [session.view.balance(member.address) for member in MEMBERS] == [DEPOSIT] * 3
    live = feed(session, [node.round(3)], node)
    assert numbers(live) == [7]
    assert feed(session, [json.dumps(node.log[-1])], node) == [], "an event born during the replay comes twice"
    assert session.view.utxo == node.utxo
    finalised = next(report for report in found if isinstance(report, reports.DepositFinalized))
    assert (finalised.party, finalised.lovelace) == ("ada", DEPOSIT)
    assert finalised.at > 1_700_000_000, "the node's own time"


@pytest.mark.parametrize("history", [True, False])
@pytest.mark.parametrize("missing", [0, 1])
def test_journal_restart(history: bool, missing: int) -> None:
    """After a restart nothing journalled is reported again, and the view is right, with and without the history."""
    node = funded()
    for number in range(4):
        node.round(number)
    session, found = connected(node, after=7 - missing, history=history)
    assert numbers(found) == [7][:missing]
    assert isinstance(found[-1], reports.SnapshotsSynced)
    assert found[-1].number == 7
    assert session.view.utxo == node.utxo
    assert any(isinstance(report, reports.HeadOpened) for report in found)
    assert numbers(feed(session, [node.round(4)], node)) == [8]
    assert session.view.utxo == node.utxo


def test_behind_without_history() -> None:
    node = funded()
    node.round(0)
    session, found = connected(node, after=1, history=False)
    assert session.behind
    assert not any(isinstance(report, reports.SnapshotsSynced) for report in found)
    session.connecting(HEAD)
    found = feed(session, [*node.history(), node.greetings()], node)
    assert (numbers(found), found[-1]) == ([2, 3, 4], reports.SnapshotsSynced(1.0, 4))
    assert not session.behind


def test_snapshot_between_replay_and_answer() -> None:
    """The node confirms two more while we ask: they come live, and only then is the replay complete."""
    node = funded()
    node.round(0)
    session = Session(model.settings(), 0)
    session.connecting(HEAD)
    found = feed(session, [*node.history(), node.greetings()])
    assert session.wants_snapshot
    live = [node.round(1), node.round(2)]
    ahead = refresh(session, node)
    assert ahead == []
    assert session.behind
    assert session.view.utxo == node.utxo
    found = feed(session, live, node)
    assert (numbers(found), found[-1]) == ([5, 6], reports.SnapshotsSynced(1.0, 6))
    assert session.view.utxo == node.utxo


def test_a_lost_snapshot_is_an_error() -> None:
    node = funded()
    node.round(0)
    session, _ = connected(node)
    node.round(1)
    node.round(2)
    with pytest.raises(HeadError, match="no longer has snapshots 5 to 6"):
        feed(session, [node.round(3)], node)


def test_side_load_reports_the_skipped_snapshot() -> None:
    node = funded()
    session, _ = connected(node)
    node.round(0)
    node.log.pop()
    found = feed(session, [node.event("SnapshotSideLoaded", snapshotNumber=4)], node)
    assert numbers(found) == [4]
    assert session.view.utxo == node.utxo


def test_deposit_is_spendable_only_when_finalised() -> None:
    node = Node()
    node.open()
    session, _ = connected(node)
    recorded, snapshot, finalised = node.deposit(ADA, "01" * 32 + "#3")
    feed(session, [recorded, snapshot], node)
    assert session.view.owned(ADA.address) == {}
    feed(session, [finalised], node)
    assert session.view.owned(ADA.address) == {"01" * 32 + "#3": DEPOSIT}


def test_deposit_finalised_before_connecting() -> None:
    """No newer snapshot shows it: the head's version does."""
    node = Node()
    node.open()
    node.deposit(ADA, "01" * 32 + "#3")
    session, _ = connected(node, after=1, history=False)
    assert session.view.owned(ADA.address) == {"01" * 32 + "#3": DEPOSIT}
    feed(session, [json.dumps(node.log[-1])], node)
    assert session.view.utxo == node.utxo


def test_late_finalised_message_does_not_bring_spent_money_back() -> None:
    node = funded()
    late = [message for message in node.history() if "CommitFinalized" in message or "CommitRecorded" in message]
    node.round(0)
    session, _ = connected(node, after=4, history=False)
    feed(session, late, node)
    assert session.view.utxo == node.utxo


def test_deposits_that_fail_and_strangers() -> None:
    node = Node()
    node.open()
    session, _ = connected(node)
    stranger = {"02" * 32 + "#0": {"address": "addr_test1stranger", "value": {"lovelace": 5}}}
    found = feed(
        session,
        [
            node.event(
                "CommitRecorded", utxoToCommit=stranger, pendingDeposit="dd" * 32, deadline="2030-01-01T00:00:00Z"
            ),
            node.event("DepositActivated", depositTxId="dd" * 32, deadline="", chainTime=""),
            node.event("DepositExpired", depositTxId="dd" * 32, deadline="", chainTime=""),
            node.event("CommitRecovered", recoveredTxId="dd" * 32, recoveredUTxO={}),
        ],
    )
    assert [type(report).__name__ for report in found] == ["DepositRecorded", "DepositFailed", "DepositFailed"]
    assert (found[0].party, found[0].lovelace, found[0].deadline) == (None, 5, 1893456000.0)  # type: ignore[union-attr]


def test_refused_transactions() -> None:
    node = funded()
    session, _ = connected(node)
    signal = node.signal(BO, content(0))
    refused = {"transaction": {"cborHex": signal.cbor}, "utxo": {}, "validationError": {"reason": "BadInputsUTxO"}}
    found = feed(session, [node.event("TxInvalid", **refused)], node)
    assert found == [reports.TransactionRefused(1.0, signal.id, "BadInputsUTxO")]
    assert session.lost == {signal.id: bytes.fromhex(signal.cbor)}
    assert lost_with_inputs(node.signal(ADA, content(0)), session) == [signal.cbor]
    assert lost_with_inputs(signal, session) == [], "the own one is sent anyway"
    other = node.signal(BO, content(1))
    feed(session, [node.snapshot([other])], node)
    assert lost_with_inputs(node.signal(ADA, content(0)), session) == [], "its inputs are spent"


def test_a_confirmed_transaction_is_not_lost() -> None:
    node = funded()
    session, _ = connected(node)
    signal = node.signal(BO, content(0))
    refused = {"transaction": {"cborHex": signal.cbor}, "utxo": {}, "validationError": {"reason": "BadInputsUTxO"}}
    feed(session, [node.event("TxInvalid", **refused), node.snapshot([signal])], node)
    assert session.lost == {}
    assert feed(session, [node.event("TxInvalid", **refused)], node) == [], "refused again after it was confirmed"
    _, found = connected(node)
    assert not any(isinstance(report, reports.TransactionRefused) for report in found), "history is no news"


def test_close_contest_fanout() -> None:
    node = funded()
    node.round(0)
    session, _ = connected(node)
    node.status = "Closed"
    closed = {"snapshotNumber": 4, "contestationDeadline": "2030-01-01T00:00:00Z"}
    paid = {f"{index:064x}#7": coin for index, coin in enumerate(node.utxo.values())}
    found = feed(
        session,
        [
            node.event("HeadIsClosed", **closed),
            node.event("HeadIsContested", **closed),
            node.event("ReadyToFanout"),
            node.event("HeadIsFinalized", finalizedUTxO=model.utxo_json(paid)),
        ],
        node,
    )
    expected = tuple((member.name, DEPOSIT) for member in MEMBERS)
    assert found == [
        reports.HeadClosed(1.0, 4, 1893456000.0),
        reports.HeadClosed(1.0, 4, 1893456000.0),
        reports.FanoutPossible(1.0),
        reports.HeadFinalized(1.0, expected, expected, True),
    ]
    assert session.status == HeadStatus.FINALIZED
    node.status = "Idle"
    away, found = connected(node, after=2)
    assert away.status == HeadStatus.FINALIZED, "finalised while we were away"
    assert next(report for report in found if isinstance(report, reports.HeadFinalized)).verified
    assert numbers(found) == [3, 4]
    assert found[-1] == reports.SnapshotsSynced(1.0, 4)


@pytest.mark.parametrize("change", ["less", "address", "missing"])
def test_wrong_payout_is_seen(change: str) -> None:
    node = funded()
    session, _ = connected(node)
    paid = model.utxo_json(node.utxo)
    first = next(iter(paid))
    if change == "less":
        paid[first]["value"]["lovelace"] -= 1
    elif change == "address":
        paid[first]["address"] = BO.address
    else:
        del paid[first]
    (report,) = feed(session, [node.event("HeadIsFinalized", finalizedUTxO=paid)])
    assert isinstance(report, reports.HeadFinalized)
    assert not report.verified


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "version": ({"hydraNodeVersion": "2.2.0"}, "'2.2.0', the agreement expects 2.3.0"),
    "version digits": ({"hydraNodeVersion": "2.30.0"}, "2.30.0"),
    "key": ({"me": {"vkey": BO.hydra_vkey}}, f"{BO.hydra_vkey}, the agreement expects {ADA.hydra_vkey} for ada"),
    "party missing": ({"env": {"otherParties": [{"vkey": BO.hydra_vkey}]}}, f"missing {CY.hydra_vkey}"),
    "participants": ({"env": {"participants": ["ee" * 28]}}, "not in the agreement " + "ee" * 28),
    "contestation": ({"env": {"contestationPeriod": 3}}, "contestation period of 3 s, the agreement expects 60 s"),
    "deposit period": ({"env": {"depositPeriod": 31}}, "deposit period of 31 s, the agreement expects 30 s"),
    "head": ({"hydraHeadId": "bb" * 28}, f"head {'bb' * 28}, this home is bound to head {HEAD}"),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_node_must_be_the_agreements(name: str) -> None:
    changes, words = WRONG[name]
    node = funded()
    session = Session(model.settings(), 0)
    with pytest.raises(HeadError) as caught:
        session.receive(node.greetings(**changes), 1.0)
    assert words in caught.value.message
    assert "5ec2e7" not in caught.value.message


def test_heads_of_earlier_runs_are_ignored_until_one_opens_live() -> None:
    node = funded()
    node.round(0)
    old = node.history()
    node.status = "Idle"
    session = Session(model.settings(bound_head=None), 0)
    session.connecting(None)
    found = feed(session, [*old, node.greetings()])
    assert [type(report).__name__ for report in found] == ["HeadConnected", "SnapshotsSynced"]
    assert (session.status, session.head_id) == (HeadStatus.IDLE, None)
    fresh = Node()
    fresh.head_id = "cc" * 28  # type: ignore[assignment]  # another head
    fresh.log = node.log[:]
    found = feed(session, [fresh.open()])
    assert found == [reports.HeadOpened(1.0, fresh.head_id)]
    wrong = json.loads(fresh.open()) | {"parties": [{"vkey": ADA.hydra_vkey}]}
    with pytest.raises(HeadError, match="other parties"):
        feed(session, [json.dumps(wrong)])


def test_node_sync_state_and_advice() -> None:
    node = funded()
    session, _ = connected(node)
    found = feed(
        session,
        [
            node.event("NodeUnsynced", drift=1),
            json.dumps({"tag": "CommandFailed", "clientInput": {"tag": "Close"}, "state": {}}),
            json.dumps({"tag": "CommandFailed", "clientInput": 7}),
            json.dumps({"tag": "SyncedStatusReport"}),
        ],
    )
    assert [(type(report).__name__, report.in_sync) for report in found] == [("HeadConnected", False)]  # type: ignore[union-attr]
    assert not session.in_sync


@pytest.mark.parametrize(
    ("reason", "level"), [("NotEnoughFuel", "WARNING"), ("NoFuelUTXOFound", "WARNING"), ("FailedToPostTx", "INFO")]
)
def test_a_node_without_fuel_is_told_from_one_that_lost_a_race(
    reason: str, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    session, _ = connected(funded())
    message = {"tag": "PostTxOnChainFailed", "postChainTx": {"tag": "CloseTx"}, "postTxError": {"tag": reason}}
    with caplog.at_level("INFO", "fednode.head"):
        assert feed(session, [json.dumps(message)]) == []
    (record,) = caplog.records
    assert record.levelname == level
    assert ("fuel address" in record.message) is (level == "WARNING")
    assert "CloseTx" in record.message


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_reconnects_keep_order_and_view(data: st.DataObject) -> None:
    """Cut the stream anywhere, replay with or without history, restart with any journal: once each, in order."""
    node = funded()
    session, found = connected(node)
    seen = numbers(found)
    for number in range(data.draw(st.integers(1, 6))):
        frame = node.round(number)
        action = data.draw(st.sampled_from(["live", "twice", "reconnect", "restart"]))
        if action in ("live", "twice"):
            seen += numbers(feed(session, [frame] * (2 if action == "twice" else 1), node))
        else:
            if action == "restart":
                session = Session(model.settings(), session.reported)
            session.connecting(HEAD)
            history = node.history() if data.draw(st.booleans()) else []
            seen += numbers(feed(session, [*history, node.greetings()], node))
        assert session.view.utxo == node.utxo
        assert session.reported == node.snapshots[-1]["number"]
    assert seen == list(range(1, len(node.snapshots) + 1))


def test_utxo_json_with_assets() -> None:
    value = {"aa#0": {"address": "x", "value": {"lovelace": 3, "ab": {"01": 2, "00": 1}}}}
    assert parse_utxo(value, "t")["aa#0"].assets == (("ab", "00", 1), ("ab", "01", 2))
    for bad in (
        [],
        {"aa#0": 3},
        {"aa#0": {"address": 3, "value": {}}},
        {"aa#0": {"address": "x", "value": {"lovelace": -1}}},
    ):
        with pytest.raises(HeadError):
            parse_utxo(bad, "t")  # fmt: skip


def test_endpoints() -> None:
    assert endpoints("ws://127.0.0.1:4001", allow_plain=False) == ("http://127.0.0.1:4001", "ws://127.0.0.1:4001")
    assert endpoints("https://node.example:443/", allow_plain=False)[1] == "wss://node.example:443"
    assert endpoints("http://[::1]:4001", allow_plain=False)[0] == "http://[::1]:4001"
    assert endpoints("http://node-1:4001", allow_plain=True)[1] == "ws://node-1:4001"
    with pytest.raises(ConfigError, match="plain text"):
        endpoints("ws://node-1:4001", allow_plain=False)
    for bad in ("", "ftp://x:1", "http://127.0.0.1", "http://127.0.0.1:99999", "http://u:p@127.0.0.1:1", "http://[:1"):
        with pytest.raises(ConfigError):
            endpoints(bad, allow_plain=True)
    with pytest.raises(ConfigError, match="funds key"):
        _ = model.settings(funds_key=KEYS["bo"]).member
