"""What an attack must come to, by protocol.md: asserted for every honest daemon."""

from __future__ import annotations

import json
from pathlib import Path

from fednode.errors import Diverged, PeerFault

from . import check_evidence
from .conftest import Record
from .federation import Federation, Running


async def fault(
    federation: Federation, running: list[Running], record: Record, attack: str, kind: str, *, proves: str = "mallory"
) -> None:
    """Every honest daemon ends with the error that names mallory, and holds evidence that a program can check."""
    verdict = ""
    for daemon in running:
        error = await daemon.error()
        assert isinstance(error, PeerFault), (error, daemon.talk)
        assert error.exit_status == 8
        assert "mallory broke the protocol in round" in error.message
        assert f"({kind})" in error.message, error.message
        assert "close-head" in error.hint
        assert "FAULT of mallory in round" in daemon.talk
        verdict = proof(federation, daemon, kind)
        assert proves in verdict
        status = federation.status(daemon.site.rules.me)
        assert status["state"] == "stopped (halted)"
        assert [x["party"] for x in status["faults"]] == ["mallory"] * len(status["faults"])
    record(attack, f"fault {kind}: {verdict}")


def proof(federation: Federation, daemon: Running, kind: str) -> str:
    """The checker's verdict on the evidence that a daemon wrote."""
    files = sorted(daemon.site.home.evidence.glob(f"*-mallory-{kind}.json"))
    assert files, sorted(daemon.site.home.evidence.glob("*"))
    document = json.loads(files[0].read_text())
    assert document["accused"] == "mallory"
    assert document["witnessed_by"] == daemon.site.rules.me
    assert (
        document["message"] in str(daemon.task.exception())
        or len(files) > 1
        or "closed" in str(daemon.task.exception())
    )
    return check_evidence.check(files[0], law(federation, daemon))


def law(federation: Federation, daemon: Running) -> Path:
    """The object of round 0 in the witness's bucket."""
    name = daemon.site.rules.me
    (path,) = (federation.bucket(name) / daemon.site.rules.run / "000000").glob("*.json")
    return path


async def goes_on(running: list[Running], record: Record, attack: str, outcome: str, *, faults: int = 0) -> None:
    """Every honest daemon finishes round 1 with the same adapter."""
    for daemon in running:
        await daemon.reached(lambda state: state.round >= 2)
        assert len(daemon.state.faults) == faults
    assert len({daemon.state.digests[1] for daemon in running}) == 1
    record(attack, outcome)


async def diverged(running: list[Running], record: Record, attack: str) -> None:
    for daemon in running:
        error = await daemon.error()
        assert isinstance(error, Diverged), error
        assert error.exit_status == 8
        assert "alice, bob: " in error.message
        assert "mallory: " in error.message
    record(attack, "the run stops, parties listed by digest")
