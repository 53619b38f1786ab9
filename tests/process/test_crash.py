"""Killed in every phase, started again by the same command: the same digest, one signal a round, nothing lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from crash import around, kill_along
from federation import Federation

from fednode.node.protocol import facts as f

pytestmark = pytest.mark.process

Copy = Callable[..., Federation]


@pytest.fixture(scope="module")
def reference(opened: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the undisturbed run."""
    return undisturbed(opened, tmp_path_factory.mktemp("reference") / "f")


def undisturbed(opened: Path, folder: Path) -> str:
    whole = Federation.copy(opened, folder)
    try:
        whole.serve()
        digest = str(whole.finish()["alice"]["digest"])
        whole.check_complete(digest)
        return digest
    finally:
        whole.end()


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


def test_init_head_killed_then_trainer_head_and_everything(federation: Copy, tmp_path: Path) -> None:
    whole = federation(steps=4000)
    whole.serve()
    kills = kill_along(whole, "init_head", OPEN)
    assert not kills.missed
    for name in whole.names:
        state = whole.state(name)
        assert {p: state.head.funded(p) for p in whole.names} == dict.fromkeys(whole.names, state.rules.deposit)
    whole.kill_all()
    digest = undisturbed(whole.root, tmp_path / "undisturbed")

    whole.serve()
    daemons = {name: whole.party(name, "run") for name in whole.names}
    kill_trainer(whole, "alice", 1)

    whole.wait(lambda: whole.has("bob", f.SignalSigned, round=2), "bob has signed round 2")
    assert whole.server is not None
    whole.server.kill()
    for name, daemon in daemons.items():
        whole.wait(lambda d=daemon: "cannot be reached" in d.talk, f"{name} says that its node is gone")
        assert not daemon.over
    whole.serve()

    whole.wait(lambda: whole.has("carol", f.Trained, round=3), "carol has trained round 3")
    whole.kill_all()
    whole.serve()
    whole.finish()
    whole.check_complete(digest)


def test_a_deposit_that_was_signed_and_never_sent_is_drafted_again(federation: Copy) -> None:
    whole = federation(parties=2)
    whole.serve()
    bob = whole.party("bob", "init_head")
    killed = whole.party("alice", "init_head", crash_at="after-journal:DepositSigned")
    assert whole.over(killed).status == -9
    whole.wait(lambda: whole.has("bob", f.DepositChanged, party="bob", stage="final"), "bob's deposit is in the head")
    whole.succeed([whole.party("alice", "init_head"), bob])
    assert whole.has("alice", f.DepositChanged, stage="failed", reason="its validity is over")
    final = [d for d in whole.state("bob").head.deposits.values() if d.stage == "final"]
    assert sorted((d.party, d.lovelace) for d in final) == [("alice", 30_000_000), ("bob", 30_000_000)]


def kill_trainer(whole: Federation, party: str, number: int) -> None:
    """kill -9 of the party's trainer child in mid-step of a round; the daemon itself goes on."""
    daemon = [each for each in whole.processes if each.name == f"{party}-run"][-1]
    stepping = '"step": '
    whole.wait(lambda: stepping in daemon.talk, f"{party} is in a step of round {number}")
    trainer = daemon.trainer()
    assert trainer is not None
    trainer.suspend()
    assert not whole.has(party, f.Trained, round=number), "too late: training is over"
    trainer.kill()
    whole.wait(lambda: "Train failed and is tried again" in daemon.talk, f"{party} says that its trainer is gone")
    whole.wait(lambda: whole.has(party, f.Trained, round=number), f"{party} has trained round {number}")
    assert not daemon.over


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
