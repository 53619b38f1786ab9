"""What is journalled already is skipped before it is decoded, and nothing else is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fednode import reports
from fednode.hydra import session as session_module
from fednode.hydra.session import Session
from fednode.hydra.skip import snapshot_number
from fednode.hydra.wire import decode

from . import node as model
from .node import HEAD, Node, funded
from .party import ADA

SNAPSHOT: dict[str, Any] = {"number": 7, "version": 1, "confirmed": [], "utxoToCommit": None, "headId": HEAD}


def frame(snapshot: dict[str, Any], **more: Any) -> str:
    return json.dumps({"tag": "SnapshotConfirmed", "snapshot": snapshot, "seq": 3, **more})


def test_the_number_is_found_in_any_layout() -> None:
    message = json.loads(frame(SNAPSHOT))
    for text in (
        json.dumps(message),
        json.dumps(message, indent=2),
        json.dumps(message, separators=(",", ":"), sort_keys=True),
        json.dumps(dict(reversed(message.items())), separators=(",", ":")),
    ):
        assert snapshot_number(text) == snapshot_number(text.encode()) == 7


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"tag": "HeadIsClosed", "snapshotNumber": 7}),
        json.dumps({"tag": "SnapshotSideLoaded", "snapshotNumber": 7}),
        json.dumps({"tag": "TxInvalid", "number": 7}),
        json.dumps({"tag": "TxInvalid", "number": 7, "validationError": {"reason": '{"tag":"SnapshotConfirmed"}'}}),
        json.dumps({"tag": "TxInvalid", "number": 7, "reason": "SnapshotConfirmed"}),
        frame(SNAPSHOT | {"utxoToCommit": {"00#0": {}}}),
        frame(SNAPSHOT | {"number": 7.5}),
        frame(SNAPSHOT | {"number": "7"}),
        frame(SNAPSHOT | {"number": -7}),
        frame({key: value for key, value in SNAPSHOT.items() if key != "number"}),
        # Two that look alike: only reading it tells which counts.
        frame(SNAPSHOT, number=3),
        frame(SNAPSHOT, note='"number":3'),
        frame(SNAPSHOT, note='my "tag":"SnapshotConfirmed"'),
        frame(SNAPSHOT, note='the "SnapshotConfirmed"'),
        "",
        '"SnapshotConfirmed"',
    ],
)
def test_what_is_not_plain_to_see_is_decoded(text: str) -> None:
    found = snapshot_number(text)
    assert found is None or found == decode(text).message.snapshot.number  # type: ignore[union-attr]  # a snapshot


def replayed(node: Node, after: int, monkeypatch: pytest.MonkeyPatch, head: Any = HEAD) -> tuple[Session, list[Any]]:
    """A daemon with a journal up to `after` reads the whole history; the second result has the decoded messages."""
    decoded: list[Any] = []

    def noting(text: str | bytes) -> Any:
        decoded.append(decode(text))
        return decoded[-1]

    monkeypatch.setattr(session_module, "decode", noting)
    session = Session(model.settings(), after)
    session.connecting(head)
    return session, decoded


def test_journalled_snapshots_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    node = funded()
    for number in range(20):
        node.round(number)
    session, decoded = replayed(node, 21, monkeypatch)
    found = [report for text in [*node.history(), node.greetings()] for report in session.receive(text, 1.0)]
    read = [each.message.snapshot.number for each in decoded if hasattr(each.message, "snapshot")]
    assert read == [1, 2, 3, 22, 23], "those with deposits, and those after the journal"
    assert [report.number for report in found if isinstance(report, reports.SnapshotConfirmed)] == [22, 23]
    assert session.view.stale
    assert session.wants_snapshot
    (snapshot, version) = answer(node)
    assert session.load(snapshot, version, 1.0) == [reports.SnapshotsSynced(1.0, 23)]
    assert session.view.utxo == node.utxo


def answer(node: Node) -> tuple[Any, int]:
    frame = json.dumps({"tag": "SnapshotConfirmed", "snapshot": node.get("/snapshot")[1]["snapshot"]})  # type: ignore[index]
    return decode(frame).message.snapshot, node.version  # type: ignore[union-attr]


def test_a_finalised_head_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """No snapshot can be asked for any more: what was paid is compared with what the history says."""
    node = funded()
    for number in range(3):
        node.round(number)
    node.status = "Idle"
    paid = {f"{index:064x}#9": coin for index, coin in enumerate(node.utxo.values())}
    node.event("HeadIsFinalized", finalizedUTxO=model.utxo_json(paid))
    session, decoded = replayed(node, 6, monkeypatch, head=None)
    found = [report for text in [*node.history(), node.greetings()] for report in session.receive(text, 1.0)]
    assert len(decoded) == len(node.log) + 1
    (final,) = [report for report in found if isinstance(report, reports.HeadFinalized)]
    assert final.verified


def test_a_head_that_is_finalised_during_the_replay_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    node = funded()
    node.round(0)
    session, _ = replayed(node, 4, monkeypatch)
    node.status = "Idle"
    node.event("HeadIsFinalized", finalizedUTxO=model.utxo_json(dict(node.utxo)))
    found = [report for text in node.history() for report in session.receive(text, 1.0)]
    assert session.wants_history
    assert not any(isinstance(report, reports.HeadFinalized) for report in found)
    session.connecting(None)
    found = [report for text in [*node.history(), node.greetings()] for report in session.receive(text, 1.0)]
    (final,) = [report for report in found if isinstance(report, reports.HeadFinalized)]
    assert final.verified
    assert dict(final.paid)[ADA.name] == model.DEPOSIT
