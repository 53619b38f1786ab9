"""A head that stands still: three shapes, who is named, and when it is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fednode import reports as r
from fednode.hydra import client as client_module
from fednode.hydra.devnet import DevnetSettings, Faults, create, serve
from fednode.hydra.fields import Fields
from fednode.hydra.head import HydraHead
from fednode.hydra.seen import LastSeen, read_last_seen
from fednode.hydra.stall import Sighting, StallDetector
from fednode.types import PartyName

from . import node as model
from .node import funded
from .party import ADA, BO, CY, MEMBERS, NAMES, content
from .test_client import FakeServer
from .test_client import serving as serving_fake
from .test_client_against_devnet import Daemon, daemons, fund, play

ORDER = tuple(member.hydra_vkey for member in (CY, ADA, BO))
PATIENCE = 30.0


def detector() -> StallDetector:
    return StallDetector(ADA.name, {member.hydra_vkey: member.name for member in MEMBERS})


def seen(number: int, *signed: Any, waiting: int = 0) -> Sighting:
    keys = frozenset(member.hydra_vkey for member in signed)
    return Sighting(LastSeen("SeenSnapshot", number, keys), waiting, ORDER)


def last(number: int, waiting: int) -> Sighting:
    return Sighting(LastSeen("LastSeenSnapshot", number), waiting, ORDER)


def look(found: StallDetector, at: float, sighting: Sighting) -> Any:
    return found.look(at, 1000.0 + at, sighting, PATIENCE)


def test_who_has_not_signed_is_named_and_named_again_when_that_changes() -> None:
    found = detector()
    assert look(found, 0.0, seen(7, ADA)) is None
    assert look(found, 29.9, seen(7, ADA)) is None, "patience"
    assert look(found, 30.0, seen(7, ADA)) == r.HeadStalled(1030.0, "unsigned", 7, (BO.name, CY.name), 1000.0)
    assert look(found, 45.0, seen(7, ADA)) is None, "said once"
    assert look(found, 60.0, seen(7, ADA, CY)) == r.HeadStalled(1060.0, "unsigned", 7, (BO.name,), 1000.0)
    assert look(found, 75.0, seen(8, ADA)) is None, "the next snapshot has its own time"
    assert look(found, 80.0, last(8, 0)) == r.HeadResumed(1080.0)
    assert look(found, 81.0, last(8, 0)) is None


def test_a_request_that_comes_to_nothing_is_the_own_nodes() -> None:
    found = detector()
    asked = Sighting(LastSeen("RequestedSnapshot", 8), 1, ORDER)
    assert look(found, 0.0, asked) is None
    assert look(found, 31.0, asked) == r.HeadStalled(1031.0, "unanswered", 8, (ADA.name,), 1000.0)


@pytest.mark.parametrize(("number", "leader"), [(0, CY), (1, ADA), (2, BO), (3, CY), (6, CY)])
def test_transactions_without_a_request_name_the_leader(number: int, leader: Any) -> None:
    """Leader of snapshot s is number (s - 1) mod N in the head's order."""
    found = detector()
    assert look(found, 0.0, last(number, 2)) is None
    stalled = look(found, 30.0, last(number, 2))
    assert stalled == r.HeadStalled(1030.0, "unrequested", number + 1, (leader.name,), 1000.0)


def test_nothing_waits_nothing_stalls() -> None:
    found = detector()
    for at in range(0, 1000, 15):
        assert look(found, float(at), last(5, 0)) is None
        assert look(found, at + 7.0, Sighting(LastSeen("NoSeenSnapshot", 0), 0, ORDER)) is None


def test_a_confirmed_snapshot_starts_anew() -> None:
    found = detector()
    look(found, 0.0, seen(7, ADA))
    assert found.moved(1020.0) is None, "nothing was said, nothing is over"
    assert look(found, 35.0, seen(7, ADA)) is None
    look(found, 65.0, seen(7, ADA))
    assert found.moved(1070.0) == r.HeadResumed(1070.0)
    assert found.moved(1071.0) is None


def test_a_leader_nobody_knows_has_no_name() -> None:
    found = detector()
    unknown = Sighting(LastSeen("LastSeenSnapshot", 1), 1, ())
    look(found, 0.0, unknown)
    assert look(found, 40.0, unknown).parties == ()


def test_last_seen_is_read_in_all_its_forms() -> None:
    key = ADA.hydra_vkey
    signed = {key: "00"}
    forms: list[tuple[dict[str, Any], str]] = [
        ({"tag": "NoSeenSnapshot"}, "NoSeenSnapshot 0"),
        ({"tag": "LastSeenSnapshot", "lastSeen": 4}, "LastSeenSnapshot 4"),
        ({"tag": "RequestedSnapshot", "lastSeen": 4, "requested": 5}, "RequestedSnapshot 5"),
        ({"tag": "SeenSnapshot", "snapshot": {"number": 5}, "signatories": {}}, "SeenSnapshot 5 signed by nobody"),
        ({"tag": "SeenSnapshot", "snapshot": {"number": 5}, "signatories": signed}, "SeenSnapshot 5 signed by " + key),
    ]  # fmt: skip
    texts = [str(read_last_seen(Fields(form, "x"))) for form, _ in forms]
    assert texts == [text for _, text in forms]


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PATIENCE", 0.05)
    monkeypatch.setattr(client_module, "PATIENCE_EMBEDDED", 0.3)


async def reported(found: AsyncIterator[Any], kind: type) -> Any:
    async for report in found:
        if isinstance(report, kind):
            return report
    raise AssertionError("the reports ended")


@pytest.mark.usefixtures("_impatient")
async def test_the_client_asks_its_node_while_nothing_comes() -> None:
    node = funded()
    waiting = [node.signal(BO, content(0))]
    plain = node.get

    def get(path: str) -> tuple[int, Any]:
        status, body = plain(path)
        if path == "/head" and node.status == "Open":
            body["contents"]["parameters"] = {"parties": [{"vkey": key} for key in ORDER]}  # type: ignore[index]
        return status, body

    node.get = get  # type: ignore[method-assign]
    node.seen = waiting
    server = FakeServer(node)
    async with serving_fake(server):
        head = HydraHead(model.settings(server.url))
        async with aclosing(head.reports(0)) as found:
            stalled = await reported(found, r.HeadStalled)
            assert (stalled.kind, stalled.snapshot, stalled.parties) == ("unrequested", 4, (CY.name,))
            node.seen = []
            server.live.put_nowait(node.snapshot(waiting))
            # A look may find that nothing hangs any more before the snapshot is read.
            due = {r.SnapshotConfirmed, r.HeadResumed}
            while due:
                due.discard(type(await anext(found)))
        await head.aclose()


@asynccontextmanager
async def embedded(folder: Path, faults: Faults) -> AsyncIterator[list[Daemon]]:
    devnet: DevnetSettings = create(folder, NAMES, fund=30_000_000)
    ready = asyncio.Event()
    task = asyncio.create_task(serve(devnet, ready=ready.set, faults=faults))
    await ready.wait()
    try:
        async with daemons(devnet) as running:
            await fund(running)
            yield running
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.mark.process
@pytest.mark.usefixtures("_impatient")
async def test_a_node_of_the_embedded_head_that_does_not_sign(tmp_path: Path) -> None:
    faults = Faults()
    async with embedded(tmp_path, faults) as running:
        faults.silence("bo")
        playing = asyncio.create_task(play(running, 0))
        for daemon in running:
            (stalled, *_) = await daemon.have(1, r.HeadStalled)
            assert (stalled.kind, stalled.parties) == ("unsigned", (PartyName("bo"),))
        faults.unsilence("bo")
        await playing
        for daemon in running:
            await daemon.have(1, r.HeadResumed)


@pytest.mark.process
@pytest.mark.usefixtures("_impatient")
async def test_a_leader_of_the_embedded_head_that_is_away(tmp_path: Path) -> None:
    faults = Faults()
    async with embedded(tmp_path, faults) as running:
        due = max(running[0].numbers()) + 1
        leader = NAMES[(due - 1) % len(NAMES)]  # the first party posted Init, so the head has the agreement's order
        faults.take_offline(leader)
        other = next(daemon for daemon, name in zip(running, NAMES, strict=True) if name != leader)
        sending = asyncio.create_task(other.head.deliver(other.head.build_signal(content(0))))
        (stalled, *_) = await other.have(1, r.HeadStalled)
        assert (stalled.kind, stalled.snapshot, stalled.parties) == ("unrequested", due, (PartyName(leader),))
        faults.bring_back(leader)
        await other.have(1, r.HeadResumed)
        sending.cancel()
