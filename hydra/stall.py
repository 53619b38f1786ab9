"""Does the head stand still, and because of whom? Pure: what the node says now and then in, at most one report out.

A head needs every signature, so one stopped hydra-node stops it. Three shapes can be told apart from one's own node:
a snapshot that lacks signatures, one that the own node asked for and that does not come, and none asked for at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fednode.hydra.seen import LastSeen
from fednode.reports import HeadResumed, HeadStalled, StallKind
from fednode.types import PartyName


@dataclass(frozen=True, slots=True)
class Sighting:
    """The own node's view of an open head."""

    last: LastSeen
    waiting: int
    """Transactions in its ledger that no snapshot has taken up."""
    order: tuple[str, ...]
    """Hydra keys in the head's order: who leads snapshot s is number (s - 1) mod N."""


class StallDetector:
    """Asked now and then; remembers since when the same snapshot hangs."""

    def __init__(self, me: PartyName, names: Mapping[str, PartyName]) -> None:
        """`names`: Hydra key in hex to party."""
        self._me = me
        self._names = names
        self._what: tuple[StallKind, int] | None = None
        self._since = (0.0, 0.0)
        self._reported: HeadStalled | None = None

    def look(self, clock: float, wall: float, sighting: Sighting, patience: float) -> HeadStalled | HeadResumed | None:
        """`clock` is monotonic, `wall` Unix time, `patience` the seconds that a snapshot may take."""
        what = _hanging(sighting)
        if what != self._what:
            self._what, self._since = what, (clock, wall)
        if what is None or clock - self._since[0] < patience:
            return self.moved(wall) if what is None else None
        kind, number = what
        found = HeadStalled(wall, kind, number, self._missing(kind, number, sighting), self._since[1])
        known = self._reported
        if known is not None and (known.kind, known.snapshot, known.parties) == (kind, number, found.parties):
            return None
        self._reported = found
        return found

    def moved(self, wall: float) -> HeadResumed | None:
        """A snapshot was confirmed, or nothing hangs any more."""
        self._what, before, self._reported = None, self._reported, None
        return HeadResumed(wall) if before is not None else None

    def _missing(self, kind: StallKind, number: int, sighting: Sighting) -> tuple[PartyName, ...]:
        if kind == "unsigned":
            return tuple(name for key, name in self._names.items() if key not in sighting.last.signed)
        if kind == "unanswered":
            return (self._me,)
        leader = sighting.order[(number - 1) % len(sighting.order)] if sighting.order else ""
        return (self._names[leader],) if leader in self._names else ()


def _hanging(sighting: Sighting) -> tuple[StallKind, int] | None:
    """The snapshot that is due, and why it is not there yet."""
    last = sighting.last
    if last.tag == "SeenSnapshot":
        return "unsigned", last.number
    if last.tag == "RequestedSnapshot":
        return "unanswered", last.number
    return ("unrequested", last.number + 1) if sighting.waiting else None
