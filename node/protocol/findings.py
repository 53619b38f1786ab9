"""What a finding in the transcript is worth to this node: news, or a fault with its proof."""

from __future__ import annotations

from fednode.node.protocol import facts as f
from fednode.node.protocol.facts import Fact
from fednode.node.protocol.state import State
from fednode.node.protocol.transcript import Finding


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
