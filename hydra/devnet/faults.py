"""What can go wrong in the embedded head on purpose, from within the process (tests, demos of failures)."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class Faults:
    """Switches by party name; every change takes effect at once. A party is a hydra-node here, not a daemon."""

    def __init__(self) -> None:
        self._offline: set[str] = set()
        self._silent: set[str] = set()
        self._unsynced: set[str] = set()
        self._slow: dict[str, float] = {}
        self._lost_closes = 0
        self._stale_closes = 0
        self._names: frozenset[str] | None = None
        self._listener: Callable[[], None] | None = None

    def bind(self, names: Sequence[str], changed: Callable[[], None]) -> None:
        """Called by the head: the names that exist, and whom to tell of a change."""
        self._names = frozenset(names)
        self._listener = changed
        self._check(*self._offline, *self._silent, *self._unsynced, *self._slow)

    def take_offline(self, name: str) -> None:
        """Cut the node off from its peers. Its API goes on answering; what it is to send and to hear waits."""
        self._switch(self._offline, name, on=True)

    def bring_back(self, name: str) -> None:
        """End `take_offline`: what waited is delivered in order."""
        self._switch(self._offline, name, on=False)

    def silence(self, name: str) -> None:
        """The node hears everything but signs no snapshot."""
        self._switch(self._silent, name, on=True)

    def unsilence(self, name: str) -> None:
        """The node signs again, also the snapshot in flight."""
        self._switch(self._silent, name, on=False)

    def lose_sync(self, name: str) -> None:
        """The node falls behind its layer 1 and refuses every input."""
        self._switch(self._unsynced, name, on=True)

    def regain_sync(self, name: str) -> None:
        self._switch(self._unsynced, name, on=False)

    def slow_down(self, name: str, seconds: float) -> None:
        """The node signs every snapshot so much later; 0 ends it."""
        self._check(name)
        self._slow[name] = seconds
        self._changed()

    def lose_closes(self, count: int = 1) -> None:
        """The next closes vanish on layer 1 without a word."""
        self._lost_closes = count

    def close_stale(self, count: int = 1) -> None:
        """The next closes post the snapshot before the last; another node contests by itself."""
        self._stale_closes = count

    def is_offline(self, name: str) -> bool:
        return name in self._offline

    def is_unsynced(self, name: str) -> bool:
        return name in self._unsynced

    def signs(self, name: str) -> bool:
        return name not in self._silent and name not in self._offline

    def delay(self, name: str) -> float:
        """Seconds."""
        return self._slow.get(name, 0.0)

    def take_lost_close(self) -> bool:
        """Whether this close is lost; counts down."""
        self._lost_closes, lost = max(0, self._lost_closes - 1), self._lost_closes > 0
        return lost

    def take_stale_close(self) -> bool:
        """Whether this close is stale; counts down."""
        self._stale_closes, stale = max(0, self._stale_closes - 1), self._stale_closes > 0
        return stale

    def _switch(self, group: set[str], name: str, *, on: bool) -> None:
        self._check(name)
        if on:
            group.add(name)
        else:
            group.discard(name)
        self._changed()

    def _changed(self) -> None:
        if self._listener is not None:
            self._listener()

    def _check(self, *names: str) -> None:
        if self._names is not None and not self._names.issuperset(names):
            raise ValueError(f"{sorted(set(names) - self._names)}: no such party in this head")
