"""Deadlines, deposits, the head's life, restarts and old backups."""

from __future__ import annotations

from typing import Any

import pytest

from fednode import reports as r
from fednode.errors import HeadError
from fednode.node.protocol import events as e
from fednode.node.protocol import facts as f
from fednode.node.protocol import pending as c
from fednode.node.protocol.outcome import ended, unfunded
from fednode.types import HeadId, HeadStatus, SignedTx, TxId

from .story import ANNA, BERT, CLEO, HEAD, S0, SIZE, Node, content, error_of, fold, h, rules, signal
from .test_stories import kinds, pay_out, ready

ADA10 = rules().deposit
OTHER = HeadId("bb" * 28)


# Deadlines -----------------------------------------------------------------------------------------------------------


def waiting(**changes: Any) -> Node:
    """Round 1; the own signal and bert's are final."""
    node = ready(1, **changes)
    node.do_own_part()
    node.confirm(node.own(), node.peer_signal(BERT))
    node.do(c.Fetch)
    return node


def test_a_passed_deadline_names_who_is_missing_and_waits() -> None:
    node = waiting()
    assert node.tick(999) == ()
    assert node.tick(1) == (f.DeadlinePassed(node.now, 1, (CLEO,)),)
    assert node.tick(5000) == ()
    assert node.pending() == ()
    node.confirm(node.peer_signal(CLEO))
    node.do(c.Fetch)
    node.do(c.Aggregate)
    assert (node.state.round, node.state.overdue) == (2, None)


def test_on_deadline_close_closes_the_head_and_says_why() -> None:
    node = waiting(on_deadline="close")
    assert kinds(node.tick(1000)) == ["DeadlinePassed", "CloseDecided"]
    assert node.kinds() == ["CloseHead"]
    assert node.pending()[0].not_before == 0.0
    pay_out(node)
    error = error_of(node)
    assert isinstance(error, HeadError)
    assert "cleo" in error.message


def test_the_deadline_passes_too_where_no_signal_can_become_final() -> None:
    node = ready(1, on_deadline="close")
    node.do_own_part()
    assert kinds(node.tick(1001)) == ["DeadlinePassed", "CloseDecided"]


def test_where_only_the_own_signal_hangs_the_own_party_is_named() -> None:
    node = ready(1)
    node.do_own_part()
    node.confirm(node.peer_signal(BERT), node.peer_signal(CLEO))
    node.do(c.Fetch)
    node.do(c.Fetch)
    assert node.tick(1001) == (f.DeadlinePassed(node.now, 1, (ANNA,)),)


def test_nobody_is_late_for_a_node_that_trains() -> None:
    assert ready(1).tick(1e9) == ()


def test_nobody_was_late_while_this_node_was_down() -> None:
    node = waiting(on_deadline="close").restart()
    node.now += 5000
    node.begin()
    assert node.tick() == ()
    node.open()
    assert node.tick(999) == ()
    assert kinds(node.tick(1)) == ["DeadlinePassed", "CloseDecided"]


def test_nobody_is_late_while_the_own_hydra_node_is_away() -> None:
    node = waiting(on_deadline="close")
    assert kinds(node.take(r.HeadUnreachable(node.now, "refused"), r.HeadUnreachable(node.now, "x"))) == ["HeadLost"]
    assert node.tick(5000) == ()
    node.confirm(node.peer_signal(CLEO))
    assert kinds(node.take(r.HeadConnected(node.now, HeadStatus.OPEN, HEAD, True, "2.3.0"))) == ["HeadRegained"]
    assert node.tick() == ()  # cleo's object has a deadline of its own
    assert kinds(node.tick(1000)) == ["DeadlinePassed", "CloseDecided"]


# The head ------------------------------------------------------------------------------------------------------------


def opening(me: Any = ANNA) -> Node:
    node = Node(rules(me)).begin("open")
    node.take(r.HeadConnected(1.0, HeadStatus.IDLE, None, True, "2.3.0"))
    return node


def test_only_the_first_party_posts_init() -> None:
    assert opening(ANNA).pending() == (c.InitHead(),)
    assert opening(BERT).pending() == ()


def opened() -> Node:
    node = opening()
    node.take(r.HeadOpened(2.0, HEAD), r.SnapshotsSynced(2.0, 0))
    assert node.state.head.id == HEAD
    return node


def test_a_deposit_is_drafted_submitted_recorded_and_final() -> None:
    node = opened()
    node.do(c.DraftDeposit)
    own = node.state.head.own_deposit
    assert own is not None
    assert node.pending() == (c.SubmitDeposit(own.id),)
    assert node.restart().begin("open").open().pending() == (c.SubmitDeposit(own.id),)
    node.take(r.DepositRecorded(3.0, own.id, ANNA, ADA10, 90.0))
    assert node.pending() == ()
    node.take(r.DepositFinalized(4.0, own.id, ANNA, ADA10))
    assert unfunded(node.state) == (BERT, CLEO)
    assert ended(node.state) is None
    assert node.take(r.DepositRecorded(5.0, own.id, ANNA, ADA10, 90.0)) == ()
    for party in (BERT, CLEO):
        node.take(r.DepositFinalized(6.0, TxId(f"d-{party}"), party, ADA10))
    assert error_of(node) is None


@pytest.mark.parametrize("how", ["failed", "lapsed"])
def test_a_deposit_that_will_never_arrive_is_drafted_anew(how: str) -> None:
    node = opened()
    node.do(c.DraftDeposit)
    own = node.state.head.own_deposit
    assert own is not None
    if how == "failed":
        node.take(r.DepositRecorded(3.0, own.id, ANNA, ADA10, 90.0), r.DepositFailed(99.0, own.id, "expired"))
        assert node.state.head.deposits[own.id].lovelace == ADA10
    else:
        assert node.take(e.DepositLapsed(3.0, "another")) == ()
        node.take(e.DepositLapsed(3.0, own.id))
    assert node.pending() == (c.DraftDeposit(),)
    node.now += 1
    node.do(c.DraftDeposit)
    assert node.state.head.own_deposit not in (None, own)


def test_a_deposit_that_is_on_the_chain_does_not_lapse_and_one_in_the_head_never_fails() -> None:
    node = opened()
    node.do(c.DraftDeposit)
    own = node.state.head.own_deposit
    assert own is not None
    node.take(r.DepositRecorded(3.0, own.id, ANNA, ADA10, 90.0))
    assert node.take(e.DepositLapsed(3.0, own.id)) == ()
    node.take(r.DepositFailed(4.0, own.id, "expired"))
    node.take(r.DepositFinalized(5.0, own.id, ANNA, ADA10))
    assert node.take(r.DepositFailed(6.0, own.id, "expired")) == ()
    assert node.state.head.funded(ANNA) == ADA10


def test_a_closed_head_cannot_be_opened_again() -> None:
    node = Node(rules()).begin("open")
    node.take(r.HeadConnected(1.0, HeadStatus.CLOSED, HEAD, True, "2.3.0"))
    assert isinstance(error_of(node), HeadError)


def test_the_home_and_the_run_are_bound_once() -> None:
    node = Node(rules()).begin("open")
    assert (node.state.binding, node.state.run) == (rules().binding, None)
    node.begin("run")
    assert node.state.run == rules().run
    facts = node.take(e.Begin(1.0, "run", "other", None, 9))
    assert kinds(facts) == ["Begun"]
    assert node.state.binding == rules().binding
    fresh = Node(rules())
    assert kinds(fresh.take(e.Begin(1.0, "close", "b", reason="why"))) == ["Begun"]
    assert fresh.state.reason == "why"


def test_parties_close_and_fan_out_in_turn() -> None:
    turns: list[tuple[float, float]] = []
    for me in (ANNA, BERT, CLEO):
        node = ready(4, me=me)
        close = next(x for x in node.pending() if isinstance(x, c.CloseHead))
        node.take(r.HeadClosed(node.now, node.snapshot, node.now + 60))
        assert "CloseHead" not in node.kinds()
        assert "Fanout" not in node.kinds()
        node.take(r.FanoutPossible(1000.0))
        fanout = next(x for x in node.pending() if isinstance(x, c.Fanout))
        turns.append((close.not_before - 100.0, fanout.not_before - 1000.0))
    assert turns == [(0.0, 0.0), (30.0, 30.0), (60.0, 60.0)]


def test_a_node_that_lags_behind_the_closed_snapshot_fans_out_last() -> None:
    node = ready(4)
    node.take(r.HeadClosed(node.now, node.snapshot + 1, 60.0), r.FanoutPossible(1000.0))
    assert next(x for x in node.pending() if isinstance(x, c.Fanout)).not_before == 1090.0


def test_old_news_of_a_contested_head_changes_nothing() -> None:
    node = ready(4)
    node.take(r.HeadClosed(1.0, 3, 60.0), r.HeadClosed(2.0, 4, 90.0))
    assert node.take(r.HeadClosed(1.0, 3, 60.0), r.HeadClosed(1.0, 4, 90.0)) == ()
    assert (node.state.head.closed_snapshot, node.state.head.contestation_deadline) == (4, 90.0)
    node.take(r.FanoutPossible(91.0))
    assert node.take(r.FanoutPossible(92.0), r.HeadClosed(1.0, 4, 90.0)) == ()
    assert node.state.head.status is HeadStatus.FANOUT_POSSIBLE


def test_another_head_on_the_own_node_changes_nothing() -> None:
    node = opened()
    before = node.state
    node.take(r.HeadOpened(3.0, OTHER), r.HeadConnected(3.0, HeadStatus.CLOSED, OTHER, True, "2.3.0"))
    assert node.state == before


def test_close_head_closes_at_once_and_waits_for_the_payout() -> None:
    node = ready(1, me=CLEO)
    node.take(e.Begin(node.now, "close", node.rules.binding, reason="operator"))
    assert node.pending() == (c.CloseHead(),)
    assert node.pending()[0].not_before == 0.0
    pay_out(node)
    assert error_of(node) is None


def test_a_wrong_payout_is_an_error_even_of_a_complete_run() -> None:
    node = ready(4)
    node.do(c.StoreTranscript)
    pay_out(node, verified=False)
    assert isinstance(error_of(node), HeadError)


def test_a_head_closed_by_somebody_else_ends_an_unfinished_run() -> None:
    node = ready(2)
    pay_out(node)
    error = error_of(node)
    assert isinstance(error, HeadError)
    assert "round 2 of 2" in error.message


# Restarts and old backups --------------------------------------------------------------------------------------------


def test_a_head_that_was_finalized_while_this_node_was_down_is_read_before_it_is_judged() -> None:
    node = ready(3)
    node.do_own_part()
    own, others = node.own(), (node.peer_signal(BERT), node.peer_signal(CLEO))
    node = node.restart().begin()
    node.take(r.HeadConnected(node.now, HeadStatus.FINALIZED, HEAD, True, "2.3.0"))
    node.take(r.HeadFinalized(node.now, (), (), True))
    assert ended(node.state) is None
    node.confirm(own, *others)
    node.take(r.SnapshotsSynced(node.now, node.snapshot))
    assert node.kinds() == ["StoreTranscript"]
    node.do(c.StoreTranscript)
    assert error_of(node) is None


def test_an_old_backup_recomputes_the_whole_run_though_the_head_is_closed() -> None:
    whole = ready(4)
    signals = [line for line in whole.journal if line.startswith('["SnapshotNoted"')]
    node = Node(rules()).begin()
    node.take(r.HeadConnected(1.0, HeadStatus.CLOSED, HEAD, True, "2.3.0"))
    replayed = fold(rules(), signals).transcript
    assert replayed.complete(3)
    for number in range(4):
        node.confirm(
            *[
                signal(p, content(number, s.base, s.object if number < 3 else None))
                for p, s in replayed.signals(number).items()
            ]
        )
    node.take(r.SnapshotsSynced(1.0, node.snapshot))
    node.take(r.HeadFinalized(2.0, (), (), True))
    assert ended(node.state) is None
    node.do(c.Prepare)
    for _ in (1, 2):
        for _ in (ANNA, BERT, CLEO):
            node.do(c.Fetch)
        assert node.kinds() == ["Aggregate"]
        node.do(c.Aggregate)
    assert node.kinds() == ["StoreTranscript"]
    node.do(c.StoreTranscript)
    assert node.state.digests == whole.state.digests
    assert error_of(node) is None


def test_an_own_signal_in_the_own_bucket_is_adopted_and_sent_once_its_object_is_there() -> None:
    node = ready(1)
    kept = len(node.journal)
    tx = node.do_own_part()
    assert tx.content is not None
    old = node.restart(keep=kept).begin().open()
    assert old.pending() == (c.CheckOwnBucket(1),)
    old.take(e.OwnSignalFound(old.now, 1, SignedTx(tx.id, tx.cbor), tx.content))
    assert old.state.work.signal == SignedTx(tx.id, tx.cbor)
    assert old.pending() == (c.Fetch(1, ANNA),)
    old.do(c.Fetch)
    assert old.pending() == (c.Send(1),)
    old.confirm(tx, old.peer_signal(BERT), old.peer_signal(CLEO))
    for kind in (c.Fetch, c.Fetch, c.Aggregate):
        old.do(kind)
    assert old.kinds() == ["CheckOwnBucket"]  # of the next round: only an absent one ends the search


def test_an_own_signal_in_the_transcript_is_adopted_with_its_object() -> None:
    node = ready(1)
    kept = len(node.journal)
    tx = node.do_own_part()
    old = node.restart(keep=kept).begin()
    old.confirm(tx)
    old.open()
    assert old.pending() == (c.Fetch(1, ANNA),)
    old.do(c.Fetch)
    assert old.pending() == ()


def test_another_own_object_than_the_signalled_one_never_enters_the_aggregate() -> None:
    node = ready(1)
    node.do(c.Train)
    real = signal(ANNA, content(1, S0, h("what the lost journal knew")))
    node.confirm(real, node.peer_signal(BERT), node.peer_signal(CLEO))
    assert "Aggregate" not in node.kinds()
    assert c.Fetch(1, ANNA) in node.pending()
    for kind in (c.Fetch, c.Fetch, c.Fetch, c.Aggregate):
        node.do(kind)
    assert node.state.round == 2


def test_training_that_ends_after_the_own_signal_is_final_is_no_news() -> None:
    node = ready(1)
    node.confirm(signal(ANNA, content(1, S0, h("real"))))
    assert node.take(e.TrainingDone(node.now, 1, h("late"), SIZE, h("b"), 0.0, 0.0)) == ()
