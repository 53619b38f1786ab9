"""Which hydra-node releases may do what, and what people are told."""

from __future__ import annotations

from typing import Any

import pytest

from fednode import reports
from fednode.errors import HeadError
from fednode.hydra.head import HydraHead
from fednode.hydra.session import Session
from fednode.hydra.verify import Support, support
from fednode.types import HeadStatus

from . import node as model
from .node import HEAD, Node, funded
from .party import content

AGREED = "2.3.0"
RELEASES = [
    ("2.3.0", Support.FULL),
    ("2.3.0-ca8d19bca", Support.FULL),
    ("2.3.0-fednode-embedded", Support.FULL),
    ("2.3.1", Support.READ_ONLY),
    ("2.2.0-ab", Support.READ_ONLY),
    ("2.1.0", Support.READ_ONLY),
    ("2.0.0", Support.READ_ONLY),
    ("2.4.0", Support.READ_ONLY),
    ("2.30.0", Support.READ_ONLY),
    ("1.3.0", Support.REFUSED),
    ("0.22.4", Support.REFUSED),
    ("3.0.0", Support.REFUSED),
    ("12.3.0", Support.REFUSED),
    ("2.3", Support.REFUSED),
    ("2.3.0.1", Support.REFUSED),
    ("", Support.REFUSED),
    ("\f", Support.REFUSED),
    ("unknown", Support.REFUSED),
]


@pytest.mark.parametrize(("version", "level"), RELEASES)
def test_levels(version: str, level: Support) -> None:
    found, reason = support(version, AGREED)
    assert found is level
    assert bool(reason) == (level is not Support.FULL)


def test_the_agreements_release_counts() -> None:
    assert support("2.3.1-x", "2.3.1")[0] is Support.FULL
    assert support("2.2.0", "2.2.0")[0] is Support.READ_ONLY, "agreeing on it does not make it fit"


def greet(version: str, *, read_only: bool, **changes: Any) -> tuple[Session, list[Any]]:
    node = funded()
    node.node_version = version
    session = Session(model.settings(read_only=read_only), 3)
    session.connecting(HEAD)
    return session, session.receive(node.greetings(**changes), 1.0)


@pytest.mark.parametrize(("version", "level"), [row for row in RELEASES if row[1] is not Support.FULL])
def test_no_other_release_takes_part(version: str, level: Support) -> None:
    with pytest.raises(HeadError) as caught:
        greet(version, read_only=False)
    assert f"{version[:60]!r}, the agreement expects {AGREED}: " in caught.value.message
    assert "close-head" in caught.value.hint


@pytest.mark.parametrize(("version", "level"), RELEASES)
def test_a_head_can_be_closed_with_any_release_of_its_family(version: str, level: Support) -> None:
    if level is Support.REFUSED:
        with pytest.raises(HeadError):
            greet(version, read_only=True)
        return
    session, found = greet(version, read_only=True)
    assert session.status is HeadStatus.OPEN
    assert any(isinstance(report, reports.HeadConnected) for report in found)


def test_other_periods_do_not_keep_a_head_from_being_closed() -> None:
    changed = {"env": {"depositPeriod": 99}}
    with pytest.raises(HeadError, match="deposit period of 99 s"):
        greet(AGREED, read_only=False, **changed)
    assert greet(AGREED, read_only=True, **changed)[0].status is HeadStatus.OPEN
    with pytest.raises(HeadError, match="other parties"):
        greet(AGREED, read_only=True, env={"otherParties": []})


async def test_a_closing_connection_puts_nothing_into_the_head() -> None:
    head = HydraHead(model.settings(read_only=True))
    stream = head.reports(0)
    first = await anext(stream)
    assert isinstance(first, reports.HeadUnreachable)
    signal = funded().signal(model.ADA, content(0))
    for action in (head.init(), head.draft_deposit(), head.deliver(signal)):
        with pytest.raises(HeadError, match="only follows, closes and fans out"):
            await action
    with pytest.raises(HeadError, match="only follows, closes and fans out"):
        head.build_signal(content(0))
    await stream.aclose()
    await head.aclose()


def test_fields_of_older_releases() -> None:
    """Up to 2.1 the fanout's outputs have another name; the signing key that these releases leak is not kept."""
    node = funded()
    session = Session(model.settings(read_only=True), 0)
    session.connecting(HEAD)
    node.node_version = "2.1.0"
    for frame in [*node.history(), node.greetings()]:
        session.receive(frame, 1.0)
    node.status = "Idle"
    (final,) = session.receive(node.event("HeadIsFinalized", utxo=model.utxo_json(node.utxo)), 1.0)
    assert isinstance(final, reports.HeadFinalized)
    assert final.verified
    assert "5ec2e7" not in repr(vars(session))


def test_what_is_wrong_now_is_said_live_and_not_from_the_history(caplog: pytest.LogCaptureFixture) -> None:
    node = Node()
    session = Session(model.settings(bound_head=None), 0)
    session.connecting(None)
    told = [
        node.event("NetworkVersionMismatch", ourVersion=1, theirVersion=2),
        node.event("NetworkClusterIDMismatch", clusterPeers="a:5001", misconfiguredPeers="b:5001"),
        node.event("NetworkDisconnected"),
        node.event("EventLogRotated", checkpoint={}),
        node.event("DecommitRequested", decommitTx={}, utxoToDecommit={}),
    ]
    for frame in told:
        assert session.receive(frame, 1.0) == []
    assert caplog.text == ""
    session.receive(node.greetings(), 1.0)
    for frame in (
        node.event("NetworkDisconnected"),
        node.event("EventLogRotated", checkpoint={}),
        node.event("DecommitRequested", decommitTx={}, utxoToDecommit={}),
        node.event("NetworkVersionMismatch", ourVersion=1, theirVersion=None),
        node.event("NetworkClusterIDMismatch", clusterPeers="a:5001", misconfiguredPeers="b:5001"),
    ):
        session.receive(frame, 1.0)
    assert "network protocol None, the own one 1" in caplog.text
    assert "other peers: b:5001; own: a:5001" in caplog.text
    for words in ("half of its peers", "old-state/", "DecommitRequested: a party takes money out"):
        assert words in caplog.text
