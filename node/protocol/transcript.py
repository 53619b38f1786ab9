"""The transcript: every party's signals in confirmed order, and what a further confirmed transaction means.

Counted in confirmed order and independent of how far the own node has come: a home restored from an old backup
reads the signals of many rounds before it has recomputed the first of them (protocol.md sections 3 and 4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fednode.node.protocol.changed import changed
from fednode.types import Digest, PartyName, RunId, SignalContent, Transaction, TxId, TxKind


@dataclass(frozen=True, slots=True)
class Signal:
    """A confirmed signal, reduced to what later decisions need; the bytes are in the journal."""

    tx: TxId
    base: Digest
    object: Digest | None
    size: int | None


@dataclass(frozen=True, slots=True)
class Transcript:
    """Every party's first confirmed signal of each round. Only one round is open at a time."""

    parties: tuple[PartyName, ...]
    last_round: int
    """R + 1, the round of the last signals."""
    done: tuple[Mapping[PartyName, Signal], ...] = ()
    """The complete rounds from 0 on."""
    open: Mapping[PartyName, Signal] = field(default_factory=dict[PartyName, "Signal"])
    """The signals of the next round so far."""
    unlabelled: int = 0
    """Confirmed transactions that are no signals: counted only."""
    foreign: Mapping[PartyName, RunId] = field(default_factory=dict[PartyName, RunId])
    """The last foreign run of each party, so that each is reported once."""

    def signals(self, round_number: int) -> Mapping[PartyName, Signal]:
        """The confirmed signals of a round so far."""
        if round_number < len(self.done):
            return self.done[round_number]
        return self.open if round_number == len(self.done) else {}

    def complete(self, round_number: int) -> bool:
        """Every party's signal of the round is final."""
        return round_number < len(self.done)

    @property
    def open_round(self) -> int:
        """The first round that lacks a signal: the only one for which a new signal is in order."""
        return len(self.done)

    @property
    def rounds(self) -> tuple[Mapping[PartyName, Signal], ...]:
        """All rounds that have a signal."""
        return (*self.done, self.open) if self.open else self.done


@dataclass(frozen=True, slots=True)
class Finding:
    """What a confirmed transaction means beyond a first, orderly signal."""

    kind: str
    """`foreign`, `repeat`, or the kind of a fault: signal-rules, dangerous-transaction, early, round, equivocation."""
    party: PartyName
    round: int
    message: str
    transaction: Transaction


def fold(transcript: Transcript, run: RunId, tx: Transaction) -> tuple[Transcript, Finding | None]:
    """The transcript after one confirmed transaction. Total: any transaction is either counted, kept or a finding."""
    if tx.kind is TxKind.OTHER or tx.sender is None or tx.sender not in transcript.parties:
        return changed(transcript, unlabelled=transcript.unlabelled + 1), None
    if tx.kind is TxKind.DANGEROUS:
        return transcript, _finding("dangerous-transaction", tx, -1, tx.problem or "endangers the head")
    content = tx.content
    if content is not None and content.run != run:
        return _foreign(transcript, tx, content)
    if tx.kind is TxKind.BROKEN_SIGNAL or content is None:
        return transcript, _finding("signal-rules", tx, -1, tx.problem or "breaks the rules of a signal")
    return _own_run(transcript, tx, tx.sender, content)


def _own_run(
    transcript: Transcript, tx: Transaction, sender: PartyName, content: SignalContent
) -> tuple[Transcript, Finding | None]:
    problem = _content_problem(transcript, content)
    if problem:
        return transcript, _finding("signal-rules", tx, content.round, problem)
    expected = transcript.open_round
    signal = Signal(tx.id, content.base, content.object, content.size)
    before = transcript.signals(content.round).get(sender)
    if before is not None:
        if before.tx == tx.id:
            return transcript, None
        if changed(before, tx=tx.id) == signal:
            return transcript, _finding("repeat", tx, content.round, f"signalled round {content.round} twice, equally")
        message = f"signalled round {content.round} twice with other content: {before.tx} was confirmed first"
        return transcript, _finding("equivocation", tx, content.round, message)
    if content.round > expected:
        message = f"signal of round {content.round} was ordered before the last signal of round {expected}"
        return transcript, _finding("early", tx, content.round, message)
    signals = {**transcript.open, sender: signal}
    if len(signals) == len(transcript.parties):
        return changed(transcript, done=(*transcript.done, signals), open={}), None
    return changed(transcript, open=signals), None


def _foreign(transcript: Transcript, tx: Transaction, content: SignalContent) -> tuple[Transcript, Finding | None]:
    """Never a fault: a party that was started with another agreement. Reported once per party and run."""
    assert tx.sender is not None
    if transcript.foreign.get(tx.sender) == content.run:
        return transcript, None
    known = {**transcript.foreign, tx.sender: content.run}
    finding = _finding("foreign", tx, content.round, f"signals for run {content.run}")
    return changed(transcript, foreign=known), finding


def _content_problem(transcript: Transcript, content: SignalContent) -> str:
    """Which rule of section 4 the content breaks for its round; "" if none."""
    if content.round < 0 or content.round > transcript.last_round:
        return f"round {content.round}, expected 0..{transcript.last_round}"
    if (content.object is None) != (content.round == transcript.last_round):
        return f"round {content.round} {'lacks' if content.object is None else 'has'} an object"
    if (content.size is None) != (content.object is None):
        return f"round {content.round} {'lacks' if content.size is None else 'has'} the size of an object"
    if (content.sections is not None) != (content.round == 0):
        return f"round {content.round} {'lacks' if content.round == 0 else 'has'} sections"
    return ""


def _finding(kind: str, tx: Transaction, round_number: int, message: str) -> Finding:
    assert tx.sender is not None
    return Finding(kind, tx.sender, round_number, message, tx)
