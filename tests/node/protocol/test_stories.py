"""Rounds as stories: what the core asks for, step by step, and what stops it."""

from __future__ import annotations

from typing import Any

import pytest

from fednode import reports as r
from fednode.errors import Diverged, PeerFault
from fednode.node.protocol import events as e
from fednode.node.protocol import facts as f
from fednode.node.protocol import pending as c
from fednode.node.protocol.outcome import ended
from fednode.node.protocol.state import waiting_for
from fednode.types import HeadStatus, PartyName, SignedTx, Transaction, TxId, TxKind

from .story import ANNA, BERT, CLEO, HEAD, OTHER_RUN, S0, SIZE, Node, content, error_of, h, rules, signal


def ready(rounds_done: int = 0, **changes: Any) -> Node:
    """A node that runs, with so many of its rounds (0 counts) behind it."""
    node = Node(rules(**changes)).begin().open()
    for _ in range(rounds_done):
        node.do_round()
    return node


def kinds(facts: tuple[f.Fact, ...]) -> list[str]:
    return [type(fact).__name__ for fact in facts]


def evidence(node: Node) -> None:
    while any(isinstance(x, c.StoreEvidence) for x in node.pending()):
        node.do(c.StoreEvidence)


def pay_out(node: Node, *, verified: bool = True) -> None:
    node.take(
        r.HeadClosed(node.now, node.snapshot, node.now + 60),
        r.FanoutPossible(node.now + 60),
        r.HeadFinalized(node.now + 61, (), (), verified),
    )


def test_a_whole_run_asks_for_one_step_of_the_own_part_at_a_time() -> None:
    node = ready()
    steps: list[str] = []
    while node.state.round <= 3:
        number = node.state.round
        for kind in (c.Prepare, c.CheckOwnBucket, c.Train, c.Publish, c.Sign, c.StoreSignal):
            if any(isinstance(x, kind) for x in node.pending()):
                assert len(node.pending()) == 1
                node.do(kind)
                steps.append(f"{kind.__name__}{number}")
        assert node.kinds() == ["Send"]
        node.confirm(node.own())
        assert node.kinds() == []
        assert waiting_for(node.state) == (BERT, CLEO)
        node.confirm(node.peer_signal(CLEO))
        if 0 < number < 3:
            assert node.pending() == (c.Fetch(number, CLEO),)
            node.do(c.Fetch)
        node.confirm(node.peer_signal(BERT))
        if 0 < number < 3:
            node.do(c.Fetch)
            assert node.pending() == (c.Aggregate(number),)
            node.do(c.Aggregate)
    assert steps == [
        *("Prepare0", "CheckOwnBucket0", "Publish0", "Sign0", "StoreSignal0"),
        *("Train1", "Publish1", "Sign1", "StoreSignal1"),
        *("Train2", "Publish2", "Sign2", "StoreSignal2"),
        *("Sign3", "StoreSignal3"),
    ]
    assert node.state.digests == (S0, h("S", 1), h("S", 2))
    assert node.state.certified
    assert node.kinds() == ["StoreTranscript", "CloseHead"]
    pay_out(node)
    assert ended(node.state) is None
    node.do(c.StoreTranscript)
    assert error_of(node) is None


def test_peers_objects_are_fetched_while_the_own_part_is_still_at_work() -> None:
    node = ready(1)
    node.confirm(node.peer_signal(BERT))
    assert set(node.pending()) == {c.Fetch(1, BERT), c.Train(1)}
    node.do(c.Fetch)
    assert node.pending() == (c.Train(1),)


def test_nothing_runs_before_the_head_is_read_to_its_end() -> None:
    node = ready(1).restart().begin()
    assert node.pending() == ()
    node.open()
    assert node.kinds() == ["CheckOwnBucket"]


def test_a_signal_is_neither_signed_nor_sent_before_the_deposit_has_settled() -> None:
    node = ready()
    node.take(r.DepositFinalized(500.0, TxId("d1"), BERT, rules().deposit))
    node.take(r.DepositFinalized(510.0, TxId("d2"), ANNA, rules().deposit))
    for kind in (c.Prepare, c.CheckOwnBucket, c.Publish):
        node.do(kind)
    assert node.pending()[0].not_before == 513.0
    node.do(c.Sign)
    node.do(c.StoreSignal)
    assert (node.kinds(), node.pending()[0].not_before) == (["Send"], 513.0)


def test_a_head_that_is_not_open_gets_no_signature() -> None:
    node = Node(rules()).begin()
    node.take(r.HeadConnected(1.0, HeadStatus.IDLE, None, True, "2.3.0"), r.SnapshotsSynced(1.0, 0))
    for kind in (c.Prepare, c.CheckOwnBucket, c.Publish):
        node.do(kind)
    assert node.pending() == ()
    node.take(r.HeadOpened(2.0, HEAD))
    assert node.kinds() == ["Sign"]


@pytest.mark.parametrize("again", ["train", "sign", "aggregate", "publish", "fetch", "prepare", "keep", "adopt"])
def test_an_outcome_of_the_past_is_no_news(again: str) -> None:
    node = ready(2)
    tx = signal(ANNA, content(1, S0, h("x")))
    events: dict[str, e.Event] = {
        "train": e.TrainingDone(node.now, 1, h("x"), SIZE, h("y"), 0.0, 0.0),
        "sign": e.SignalBuilt(node.now, 1, signal_bytes(tx)),
        "aggregate": e.AggregateDone(node.now, 1, h("x"), (), 0.0, None),
        "publish": e.ObjectPublished(node.now, 1, 0.0),
        "fetch": e.ObjectFetched(node.now, 1, BERT, 0.0),
        "prepare": e.AgreementPrepared(node.now, h("x"), 3, h("x")),
        "keep": e.SignalKept(node.now, 1),
        "adopt": e.OwnSignalFound(node.now, 1, signal_bytes(tx), content(1, S0, h("x"))),
    }
    before = node.state
    assert node.take(events[again]) == ()
    assert node.state == before


def signal_bytes(tx: Transaction) -> SignedTx:
    return SignedTx(tx.id, tx.cbor)


def test_a_second_signature_for_a_round_is_refused() -> None:
    node = ready(1)
    node.do_own_part()
    other = signal(ANNA, content(1, S0, h("other")), nonce=7)
    assert node.take(e.SignalBuilt(node.now, 1, signal_bytes(other))) == ()
    node.confirm(node.own())
    assert node.take(e.SignalBuilt(node.now, 1, signal_bytes(other))) == ()


# Faults --------------------------------------------------------------------------------------------------------------


def test_a_signal_ordered_before_the_last_one_of_the_round_before_is_a_fault() -> None:
    node = ready(1)
    facts = node.confirm(node.peer_signal(BERT), node.peer_signal(BERT, round_number=2, base=h("S", 1)))
    assert kinds(facts) == ["SnapshotNoted", "FaultFound"]
    fault = node.state.faults[0]
    assert (fault.party, fault.kind, fault.round) == (BERT, "early", 2)
    assert node.kinds() == ["StoreEvidence"]
    assert ended(node.state) is None
    evidence(node)
    assert node.pending() == ()
    error = error_of(node)
    assert isinstance(error, PeerFault)
    assert "bert" in error.message


def test_a_signal_for_the_next_round_after_the_last_one_is_kept_until_the_aggregate_is_known() -> None:
    node = ready(1)
    node.do_own_part()
    node.confirm(node.own(), node.peer_signal(BERT), node.peer_signal(CLEO))
    node.confirm(signal(BERT, content(2, h("S", 1), h("object", BERT, 2, h("S", 1)))))
    assert node.state.faults == ()
    assert node.state.round == 1
    for kind in (c.Fetch, c.Fetch, c.Aggregate):
        node.do(kind)
    assert set(node.pending()) == {c.Fetch(2, BERT), c.Train(2)}


def test_equivocation_carries_the_second_transaction_and_the_first_one_counts() -> None:
    node = ready(1)
    first = node.peer_signal(BERT)
    second = signal(BERT, content(1, S0, h("other")))
    node.confirm(first)
    node.confirm(second)
    fault = node.state.faults[0]
    assert (fault.party, fault.kind, fault.round, fault.raw) == (BERT, "equivocation", 1, (second.cbor,))
    assert node.state.transcript.signals(1)[BERT].tx == first.id


def test_an_equal_second_signal_is_reported_and_the_same_transaction_is_not_even_that() -> None:
    node = ready(1)
    node.confirm(node.peer_signal(BERT))
    assert kinds(node.confirm(node.peer_signal(BERT))) == ["SnapshotNoted"]
    assert kinds(node.confirm(node.peer_signal(BERT, nonce=1))) == ["SnapshotNoted", "RepeatSeen"]
    assert node.state.faults == ()


@pytest.mark.parametrize(
    ("kind", "expected"), [(TxKind.BROKEN_SIGNAL, "signal-rules"), (TxKind.DANGEROUS, "dangerous-transaction")]
)
def test_a_transaction_that_breaks_the_rules_is_a_fault_of_its_signer(kind: TxKind, expected: str) -> None:
    node = ready(1)
    node.confirm(Transaction(TxId("t"), "84ff", kind, CLEO, None, "fee is 5, expected 0"))
    fault = node.state.faults[0]
    assert (fault.party, fault.kind, fault.raw) == (CLEO, expected, ("84ff",))
    assert "fee is 5" in fault.message


@pytest.mark.parametrize(
    "what",
    [
        content(9, S0, h("x")),
        content(1, S0, None),
        content(3, S0, h("x"), rounds=9),
        content(0, S0, h("x"), rounds=-1),
    ],
    ids=["round", "no object", "object in the last", "no object in round 0"],
)
def test_content_that_does_not_fit_its_round_is_a_fault(what: Any) -> None:
    node = ready(1)
    node.confirm(signal(BERT, what))
    assert [x.kind for x in node.state.faults] == ["signal-rules"]


def test_a_snapshot_that_was_noted_is_no_news() -> None:
    node = ready(1)
    report = r.SnapshotConfirmed(node.now, node.snapshot + 1, (node.peer_signal(BERT),))
    assert kinds(node.take(report)) == ["SnapshotNoted"]
    assert node.take(report, r.SnapshotConfirmed(node.now, 1, ())) == ()


def test_unlabelled_transactions_and_strangers_are_only_counted() -> None:
    node = ready(1)
    node.confirm(
        Transaction(TxId("t1"), "84", TxKind.OTHER, BERT),
        Transaction(TxId("t2"), "84", TxKind.DANGEROUS, None, None, "mints"),
        Transaction(TxId("t3"), "84", TxKind.SIGNAL, PartyName("dora"), content(1, S0, h("x"))),
    )
    assert node.state.transcript.unlabelled == 3
    assert node.state.faults == ()


def test_a_faulty_object_names_the_party_and_keeps_its_bytes_as_evidence() -> None:
    node = ready(1)
    node.confirm(node.peer_signal(CLEO))
    event = e.ObjectFaulty(node.now, 1, CLEO, "digest", "wrong bytes", "/cache/kept")
    assert kinds(node.take(event, event)) == ["FaultFound"]
    fault = node.state.faults[0]
    assert (fault.kind, fault.file) == ("object-digest", "/cache/kept")


def test_on_fault_close_writes_the_evidence_and_closes_the_head() -> None:
    node = ready(1, on_fault="close")
    facts = node.confirm(node.peer_signal(BERT), node.peer_signal(BERT, round_number=2))
    assert kinds(facts) == ["SnapshotNoted", "FaultFound", "CloseDecided"]
    assert node.kinds() == ["StoreEvidence", "CloseHead"]
    evidence(node)
    assert ended(node.state) is None
    pay_out(node)
    assert isinstance(error_of(node), PeerFault)


def test_a_fault_after_the_run_is_complete_leaves_evidence_and_does_not_keep_the_head_open() -> None:
    node = ready(4)
    assert node.state.certified
    node.confirm(signal(BERT, content(4, S0, h("x"), rounds=9)))
    evidence(node)
    assert ended(node.state) is None
    assert "CloseHead" in node.kinds()


def test_evidence_is_written_whatever_the_daemon_was_started_for() -> None:
    node = ready(1)
    node.confirm(node.peer_signal(BERT), node.peer_signal(BERT, round_number=2))
    for goal in ("open", "close", "run"):
        again = node.restart()
        again.take(e.Begin(again.now, goal, again.rules.binding))
        assert c.StoreEvidence(0) in again.pending()


# Divergence and foreign runs -----------------------------------------------------------------------------------------


def test_a_divergence_lists_the_parties_by_digest_and_ends_the_run() -> None:
    node = ready(2)
    node.do_own_part()
    node.confirm(node.own(), node.peer_signal(BERT, base=h("elsewhere")))
    assert node.state.divergence is None
    assert node.pending() == ()  # nothing about bert's object can be judged
    node.confirm(node.peer_signal(CLEO))
    assert node.state.divergence is not None
    assert node.state.divergence.digests == {ANNA: h("S", 1), BERT: h("elsewhere"), CLEO: h("S", 1)}
    error = error_of(node)
    assert isinstance(error, Diverged)
    assert "anna, cleo" in error.message
    assert node.pending() == ()
    assert node.state.faults == ()


def test_different_last_digests_are_a_divergence_and_no_completed_run() -> None:
    node = ready(3)
    node.do_own_part()
    node.confirm(node.own(), node.peer_signal(CLEO), node.peer_signal(BERT, base=h("elsewhere")))
    assert not node.state.certified
    assert isinstance(error_of(node), Diverged)


def test_another_schema_shows_in_round_zero() -> None:
    node = ready()
    node.do_own_part()
    bert = signal(BERT, content(0, S0, h("another schema")))
    node.confirm(node.own(), bert, node.peer_signal(CLEO))
    assert node.state.round == 0
    assert node.state.divergence is not None
    assert node.state.divergence.digests[BERT] == h("another schema")


def test_a_foreign_run_is_reported_once_with_its_sections_and_waited_for() -> None:
    node = ready()
    theirs = content(0, S0, h("x"), run=OTHER_RUN)
    object.__setattr__(theirs, "sections", {"run": "ff" * 8, "model": "02" * 8, "party.dora": "03" * 8})
    facts = node.confirm(signal(BERT, theirs), signal(BERT, content(1, S0, h("y"), run=OTHER_RUN)))
    assert kinds(facts) == ["SnapshotNoted", "ForeignRunSeen"]
    assert facts[1] == f.ForeignRunSeen(node.now, BERT, OTHER_RUN, ("party.dora", "run"))
    assert node.state.faults == ()
    node.do_round()
    assert node.state.round == 1
