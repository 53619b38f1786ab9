"""A head that stands still: information for people, which changes nothing that the node does."""

from __future__ import annotations

from fednode import reports as r
from fednode.node.protocol import facts as f
from fednode.node.protocol.facts import Fact
from fednode.node.protocol.state import State
from fednode.types import HeadStatus


def stalled(state: State, event: r.HeadStalled) -> list[Fact]:
    """News where another snapshot hangs, in another way or because of others."""
    known, head = state.head.stall, state.head
    if head.status is not HeadStatus.OPEN or event.snapshot <= head.snapshot:
        return []
    if known is not None and (known.kind, known.snapshot, known.parties) == (event.kind, event.snapshot, event.parties):
        return []
    return [f.HeadStalled(event.at, event.kind, event.snapshot, event.parties, event.since)]


def resumed(state: State, event: r.HeadResumed) -> list[Fact]:
    return [f.HeadResumed(event.at)] if state.head.stall is not None else []


def words(stall: f.HeadStalled | r.HeadStalled) -> str:
    """Who could make the head go on, in one line."""
    who = ", ".join(stall.parties) or "unknown parties"
    if stall.kind == "unsigned":
        return f"snapshot {stall.snapshot} has not been signed by {who}: is their hydra-node running and in sync?"
    if stall.kind == "unanswered":
        return (
            f"snapshot {stall.snapshot}, asked for by the own hydra-node, does not come: "
            "is the node connected to its peers?"
        )
    return (
        f"transactions wait, and {who} does not ask for snapshot {stall.snapshot}: "
        "is that hydra-node running and in sync?"
    )
