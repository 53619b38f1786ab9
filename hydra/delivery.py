"""When to send a signal again (protocol.md section 4, "Sending again"). Pure: observations in, actions out.

Sending the same bytes twice is harmless and mends a node that lost them; sending other bytes never is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

PATIENCE: Final = 30.0
"""Seconds that a snapshot may take before the node is asked what it lacks."""
PATIENCE_EMBEDDED: Final = 5.0
RESEND_ALL_EVERY: Final = 60.0
"""Seconds between two rounds of sending every pending signal again."""
OFFER_SIDE_LOAD_AFTER: Final = 600.0
"""Seconds without finality after which a person must look."""


class Action(Enum):
    NOTHING = auto()
    SEND = auto()
    """Send the own bytes: the own node does not have them."""
    SEND_ALL = auto()
    """Send all pending signals, own and peers' that were refused for lack of their inputs: no snapshot comes."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What the own node says about a signal that is not final."""

    present: bool
    """Its ledger or its current snapshot holds the transaction."""
    progress: str
    """Any text that changes when a snapshot is requested, signed or confirmed."""


class Delivery:
    """The life of one signal between its first sending and its finality."""

    def __init__(self, now: float, *, embedded: bool) -> None:
        self.patience: float = PATIENCE_EMBEDDED if embedded else PATIENCE
        """Seconds after which the node is asked, and without progress is helped."""
        self._started = self._changed = now
        self._progress = ""
        self._sent_all = float("-inf")
        self._offered = now

    def next(self, now: float, seen: Observation) -> Action:
        """What to do, asked every `patience` seconds."""
        if seen.progress != self._progress:
            self._progress, self._changed = seen.progress, now
        if not seen.present:
            return Action.SEND
        stalled = now - self._changed >= self.patience
        if stalled and now - self._sent_all >= RESEND_ALL_EVERY:
            self._sent_all = now
            return Action.SEND_ALL
        return Action.NOTHING

    def offer_side_load(self, now: float) -> bool:
        """True once per OFFER_SIDE_LOAD_AFTER seconds without finality."""
        if now - self._offered < OFFER_SIDE_LOAD_AFTER:
            return False
        self._offered = now
        return True

    def age(self, now: float) -> float:
        """Seconds since the first sending."""
        return now - self._started
