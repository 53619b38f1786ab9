"""A stall is a fact that `status` and the talk show and that changes nothing; a danger before the run is a fault."""

from __future__ import annotations

import io
from typing import Any

import pytest

from fednode import reports as r
from fednode.node import views
from fednode.node.protocol import facts as f
from fednode.node.protocol.decide import decide
from fednode.node.protocol.events import Begin
from fednode.node.protocol.evolve import evolve
from fednode.node.protocol.facts import Fact
from fednode.node.protocol.pending import pending
from fednode.node.protocol.records import from_record, to_record
from fednode.node.protocol.state import Rules, State, initial
from fednode.node.watch import Talk
from fednode.types import HeadId, HeadStatus, Lovelace, PartyName, RunId, Transaction, TxId, TxKind

ANNA, BERT = PartyName("anna"), PartyName("bert")
HEAD, RUN = HeadId("aa" * 28), RunId("11" * 16)


def rules() -> Rules:
    times: dict[str, Any] = {"deadline_s": 1e9, "settle_s": 0.0, "takeover_s": 1.0}
    modes: dict[str, Any] = {"on_deadline": "wait", "on_fault": "halt"}
    return Rules(ANNA, (ANNA, BERT), rounds=2, run=RUN, binding="b", sections={}, deposit=Lovelace(5), **times, **modes)


class Core:
    def __init__(self, goal: Any = "run") -> None:
        self.facts: list[Fact] = []
        self.state: State = initial(rules())
        self.talk = Talk(stream=io.StringIO())
        run = goal == "run"
        self.take(Begin(1.0, "open", "b"), r.HeadOpened(2.0, HEAD))
        self.take(Begin(3.0, goal, "b", RUN if run else None, 2 if run else None), r.SnapshotsSynced(4.0, 0))

    def take(self, *events: Any) -> list[Fact]:
        """The facts of these events, through the journal's form, shown to the talk."""
        found: list[Fact] = []
        for event in events:
            for fact in decide(self.state, event):
                again = from_record(*to_record(fact))
                assert again == fact
                self.state = evolve(self.state, again)
                self.talk.fact(self.state, again)
                found.append(again)
        self.facts += found
        return found

    def status(self) -> dict[str, Any]:
        view = views.History(initial(rules()), "alternate")
        for fact in self.facts:
            view.add(fact)
        return views.status(view, pid=1)

    def said(self) -> str:
        assert isinstance(self.talk.stream, io.StringIO)
        return self.talk.stream.getvalue()


def stalled(kind: Any = "unsigned", snapshot: int = 1, *parties: PartyName, at: float = 40.0) -> r.HeadStalled:
    return r.HeadStalled(at, kind, snapshot, parties or (BERT,), 10.0)


def test_a_stall_is_told_once_and_shown() -> None:
    core = Core()
    before = pending(core.state)
    assert core.status()["stalled"] is None
    assert core.take(stalled()) == [f.HeadStalled(40.0, "unsigned", 1, (BERT,), 10.0)]
    assert core.take(stalled(at=50.0)) == []
    assert pending(core.state) == before, "information only"
    shown = core.status()["stalled"]
    assert (shown["kind"], shown["snapshot"], shown["parties"], shown["since"]) == ("unsigned", 1, ["bert"], 10.0)
    assert "not been signed by bert" in shown["text"]
    assert "the head stands still since" in core.said()
    assert "bert" in core.said()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("unsigned", "has not been signed by bert"),
        ("unanswered", "asked for by the own hydra-node, does not come"),
        ("unrequested", "bert does not ask for snapshot 1"),
    ],
)
def test_the_three_shapes_have_their_own_words(kind: Any, words: str) -> None:
    core = Core()
    core.take(stalled(kind))
    assert words in core.said()


def test_other_parties_are_news() -> None:
    core = Core()
    core.take(stalled("unsigned", 1, ANNA, BERT))
    assert len(core.take(stalled("unsigned", 1, BERT))) == 1
    assert core.status()["stalled"]["parties"] == ["bert"]


@pytest.mark.parametrize(
    "event",
    [
        r.SnapshotConfirmed(50.0, 1, ()),
        r.HeadResumed(50.0),
        Begin(50.0, "run", "b", RUN, 2),
        r.HeadClosed(50.0, 0, 99.0),
    ],
    ids=lambda event: type(event).__name__,
)
def test_it_ends(event: Any) -> None:
    core = Core()
    core.take(stalled())
    core.take(event)
    assert core.status()["stalled"] is None
    assert core.state.head.stall is None


def test_stale_news_is_none() -> None:
    core = Core()
    assert core.take(r.HeadResumed(9.0)) == []
    core.take(r.SnapshotConfirmed(10.0, 1, ()))
    assert core.take(stalled("unsigned", 1)) == [], "that one is confirmed"
    core.take(r.HeadClosed(20.0, 1, 99.0))
    assert core.take(stalled("unsigned", 2)) == [], "a closed head confirms nothing"


def test_the_talk_says_until_when_and_who_must_stay() -> None:
    core = Core()
    core.take(r.HeadClosed(20.0, 1, 99.0))
    assert core.state.head.status is HeadStatus.CLOSED
    assert "Closed with snapshot 1, contestation until 19" in core.said()
    assert "every party's hydra-node must stay online" in core.said()


def danger(kind: TxKind = TxKind.DANGEROUS) -> Transaction:
    return Transaction(TxId("cc" * 32), "84", kind, BERT, None, "fee: expected 0, found 1")


@pytest.mark.parametrize(
    ("kind", "fault"), [(TxKind.DANGEROUS, "dangerous-transaction"), (TxKind.BROKEN_SIGNAL, "signal-rules")]
)
def test_a_danger_before_the_first_round_is_a_fault_with_its_proof(kind: TxKind, fault: str) -> None:
    core = Core("open")
    found = core.take(r.SnapshotConfirmed(5.0, 1, (danger(kind),)))
    (fact,) = [fact for fact in found if isinstance(fact, f.FaultFound)]
    assert (fact.party, fact.kind, fact.raw) == ("bert", fault, ("84",))
    assert "fee" in fact.message


def test_a_stranger_is_counted() -> None:
    core = Core("open")
    stranger = Transaction(TxId("cc" * 32), "84", TxKind.DANGEROUS, None, None, "fee: expected 0, found 1")
    core.take(r.SnapshotConfirmed(5.0, 1, (stranger, stranger)))
    assert core.state.faults == ()
    assert core.status()["unlabelled_transactions"] == 2


def test_an_own_deposit_that_expired_says_how_to_get_it_back() -> None:
    core = Core("open")
    core.take(
        r.DepositRecorded(5.0, TxId("d1"), ANNA, Lovelace(5_000_000), 50.0),
        r.DepositRecorded(6.0, TxId("d2"), BERT, Lovelace(5_000_000), 50.0),
        r.DepositFailed(7.0, TxId("d1"), "it expired before the head took it in"),
        r.DepositFailed(8.0, TxId("d2"), "it expired before the head took it in"),
    )
    own, peers = core.said().splitlines()[-2:]
    why = "failed, 5 ADA it expired before the head took it in"
    assert own.endswith(f"deposit of anna: {why}; get it back with `fednode deposit recover d1`")
    assert peers.endswith(f"deposit of bert: {why}")
