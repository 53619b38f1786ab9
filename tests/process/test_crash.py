"""Killed in every phase, started again by the same command: the same digest, one signal a round, nothing lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from crash import around, kill_along, kill_node, kill_trainer
from federation import Federation, undisturbed

from fednode.node.protocol import facts as f

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]

Copy = Callable[..., Federation]


RUN = {
    "alice": [
        *around("RunBound"),
        *around("CheckOwnBucket:0", "OwnBucketChecked:0"),
        *around("Sign:2", "SignalSigned:2"),
        *around("Fetch:3", "Fetched:3"),
        *around("CloseHead", "HeadChanged"),
        "before:Fanout",
        *around("PaidOut"),
    ],
    "bob": [
        *around("Prepare", "Prepared"),
        *around("Train:1", "Trained:1"),
        *around("StoreSignal:2", "SignalStored:2"),
        *around("Aggregate:3", "Aggregated:3"),
        *around("StoreTranscript", "TranscriptStored"),
    ],
    "carol": [
        *around("Begun", "ReplayDone"),
        *around("Publish:1", "Published:1"),
        *around("Send:2", "SnapshotNoted"),
        *around("Sign:4", "SignalStored:4", "Send:4"),
        *around("HeadChanged"),
    ],
}


def test_run_killed_before_and_after_every_step(copy: Copy, reference: str) -> None:
    whole = copy()
    whole.serve()
    kills = kill_along(whole, "run", RUN)
    assert not kills.missed
    assert len(kills.survived) == sum(map(len, RUN.values()))
    whole.check_complete(reference)


OPEN = {
    "alice": [*around("InitHead", "HeadBound", "DraftDeposit", "DepositSigned")],
    "bob": [*around("HomeBound", "SubmitDeposit"), "after-journal:DepositChanged"],
    "carol": ["after-journal:DepositSigned", "before-journal:DepositChanged", *around("SnapshotNoted")],
}


def test_init_head_killed_and_one_deposit_late_then_trainer_head_and_everything(
    federation: Copy, tmp_path: Path
) -> None:
    whole = federation(steps=4000)
    whole.serve()
    late = {"carol": lambda: whole.has("bob", f.DepositChanged, party="bob", stage="final")}
    kills = kill_along(whole, "init_head", OPEN, hold=late)
    assert not kills.missed
    assert whole.has("carol", f.DepositChanged, stage="failed", reason="its validity is over"), "it was drafted again"
    for name in whole.names:
        state = whole.state(name)
        assert {p: state.head.funded(p) for p in whole.names} == dict.fromkeys(whole.names, state.rules.deposit)
    whole.kill_all()
    digest = undisturbed(whole.root, tmp_path / "undisturbed")

    whole.serve()
    daemons = {name: whole.party(name, "run") for name in whole.names}
    kill_trainer(whole, daemons["alice"], "alice", 1)

    whole.wait(lambda: whole.has("bob", f.SignalSigned, round=2), "bob has signed round 2")
    kill_node(whole, daemons)

    whole.wait(lambda: whole.has("carol", f.Trained, round=3), "carol has trained round 3")
    whole.kill_all()
    whole.serve()
    whole.finish()
    whole.check_complete(digest)


def test_close_head_killed_in_the_middle_of_a_run(copy: Copy) -> None:
    whole = copy()
    whole.serve()
    daemons = [whole.party(name, "run") for name in whole.names[1:]]
    first = whole.party("alice", "run", crash_at="after-journal:Aggregated:1")
    assert whole.over(first).status == -9
    kills = kill_along(whole, "close_head", {"alice": around("Begun", "CloseHead", "HeadChanged", "Fanout")})
    assert not kills.missed
    paid = dict(whole.state("alice").paid.paid)
    assert sum(paid.values()) == 3 * 30_000_000
    for daemon in daemons:
        answer = whole.over(daemon)
        assert (answer.status, answer.error["code"]) == (5, "head")
        assert "closed in round 2 of 3" in answer.error["message"]
    for name in whole.names:
        answer = whole.command(name, "close_head")
        assert answer.status == 0
        assert answer.json["verified"]
        assert answer.json["paid"] == answer.json["expected"] == paid
