"""What a finding in the transcript is worth to this node: news, or a fault with its proof."""

from __future__ import annotations

from collections.abc import Iterable

from fednode.node.protocol import facts as f
from fednode.node.protocol.facts import Fact
from fednode.node.protocol.state import State
from fednode.node.protocol.transcript import Finding

_KEPT = 64
"""Findings that wait for the run to be bound."""


def timely(state: State, finding: Finding) -> bool:
    """Until the run is bound nobody knows its id here: only what bytes alone prove can be held against a party."""
    return state.run is not None or (finding.transaction.content is None and finding.kind != "foreign")


def kept_for_later(state: State, findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings that are judged when the run is bound; peers cannot make them more than a few."""
    late = [finding for finding in findings if not timely(state, finding)]
    return (*state.untimely, *late)[:_KEPT] if late else state.untimely


def judged_late(state: State, at: float) -> list[Fact]:
    """The facts of what was found before the run was bound."""
    found: list[Fact] = []
    for finding in state.untimely:
        fact = fact_of(state, at, finding)
        if not known_fault(fact, (*state.faults, *found)):
            found.append(fact)
    return found


def fact_of(state: State, at: float, finding: Finding) -> Fact:
    """The fact of a finding (protocol.md sections 3 and 4). Foreign runs and equal repeats are never faults."""
    content = finding.transaction.content
    if finding.kind == "foreign" and content is not None:
        theirs = content.sections or {}
        differ = sorted({*theirs, *state.rules.sections}, key=str.encode) if theirs else []
        differ = [name for name in differ if theirs.get(name) != state.rules.sections.get(name)]
        return f.ForeignRunSeen(at, finding.party, content.run, tuple(differ))
    if finding.kind == "repeat":
        return f.RepeatSeen(at, finding.party, finding.round, finding.transaction.id)
    round_number = finding.round if finding.round >= 0 else state.transcript.open_round
    raw = (finding.transaction.cbor,)
    return f.FaultFound(at, finding.party, round_number, finding.kind, finding.message, raw, "")


def known_fault(fact: Fact, known: Iterable[Fact]) -> bool:
    """One rule broken many times in a round is one fault with one piece of evidence: nobody can fill our disk."""
    if not isinstance(fact, f.FaultFound):
        return False
    key = (fact.party, fact.round, fact.kind)
    return any(isinstance(x, f.FaultFound) and (x.party, x.round, x.kind) == key for x in known)
