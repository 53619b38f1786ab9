"""What can go wrong in the embedded head on purpose, from within the process (tests, demos of failures)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence


class Faults:
    """Switches by party name; every change takes effect at once. A party is a hydra-node here, not a daemon."""

    def __init__(self) -> None:
        self._offline: set[str] = set()
        self._silent: set[str] = set()
        self._unsynced: set[str] = set()
        self._slow: dict[str, float] = {}
        self._lagging: dict[str, float] = {}
        self._replays: dict[str, asyncio.Event] = {}
        self._repeated: dict[str, int] = {}
        self._restarts: list[str] = []
        self._rotations: list[str] = []
        self._lost_closes = 0
        self._stale_closes = 0
        self._names: frozenset[str] | None = None
        self._listener: Callable[[], None] | None = None

    def bind(self, names: Sequence[str], changed: Callable[[], None]) -> None:
        """Called by the head: the names that exist, and whom to tell of a change."""
        self._names = frozenset(names)
        self._listener = changed
        named = (
            self._offline,
            self._silent,
            self._unsynced,
            self._slow,
            self._lagging,
            self._replays,
            self._repeated,
        )
        self._check(*(name for names in named for name in names), *self._restarts, *self._rotations)

    def take_offline(self, name: str) -> None:
        """Cut the node off from its peers. Its API goes on answering; what it is to send and to hear waits.

        Where the head closes meanwhile, it never hears the rest: signatures that come after Close are dropped.
        """
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

    def lag(self, name: str, seconds: float) -> None:
        """The node sees every block so much later than the others; 0 ends it.

        Until it sees a deposit become final it refuses what spends it, and signs nothing.
        """
        self._check(name)
        self._lagging[name] = seconds
        self._changed()

    def restart(self, name: str) -> None:
        """Kill the node and start it again: its clients are cut off, and whatever it had not written is gone.

        That is every transaction which no confirmed snapshot holds. It signs no snapshot with one of them before
        somebody sends the same bytes again.
        """
        self._check(name)
        self._restarts.append(name)
        self._changed()

    def rotate(self, name: str) -> None:
        """The node rotates its event log: the history begins anew, with a checkpoint.

        A snapshot that is being signed just then is told live, but never stands in the history.
        """
        self._check(name)
        self._rotations.append(name)
        self._changed()

    def hold_replay(self, name: str) -> None:
        """Connections with history get no Greetings; the node reads nothing meanwhile and answers no ping."""
        self._check(name)
        self._replays.setdefault(name, asyncio.Event())

    def finish_replay(self, name: str) -> None:
        """End `hold_replay`."""
        self._replays.pop(name).set()

    def repeat_history(self, name: str, count: int) -> None:
        """After Greetings come the last `count` events of the history again, as those born during the replay do."""
        self._check(name)
        self._repeated[name] = count

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

    def lag_of(self, name: str) -> float:
        """Seconds."""
        return self._lagging.get(name, 0.0)

    async def replay_finished(self, name: str) -> None:
        """Returns when no replay of this node is held."""
        held = self._replays.get(name)
        if held is not None:
            await held.wait()

    def repeats(self, name: str) -> int:
        """Events that come twice around the Greetings of a connection."""
        return self._repeated.get(name, 0)

    def take_restarts(self) -> list[str]:
        """Nodes to restart now."""
        taken, self._restarts = self._restarts, []
        return taken

    def take_rotations(self) -> list[str]:
        """Nodes whose log is to be rotated now."""
        taken, self._rotations = self._rotations, []
        return taken

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
