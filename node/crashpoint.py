"""Named crash points, for the crash tests: the process kills itself (SIGKILL) when it reaches the one that is named.

`FEDNODE_CRASH_AT` holds one name, such as `after-journal:Trained:3` or `before:Publish:3`; unset, nothing happens. A
point stands before and after every journal write (`before-journal:FACT`, `after-journal:FACT`) and before and after
every effect (`before:COMMAND`, `after:COMMAND`). Where the fact or command has a round, or a snapshot's number, `:3`
chooses the one with that number, and the bare name the first that comes.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable

VARIABLE = "FEDNODE_CRASH_AT"
_CHOSEN = os.environ.get(VARIABLE, "")


def reach(where: str, things: Iterable[object]) -> None:
    """Die here if one of `things` (facts or commands) at `where` is the chosen point."""
    if _CHOSEN and any(_CHOSEN in names(where, thing) for thing in things):
        os.kill(os.getpid(), signal.SIGKILL)


def names(where: str, thing: object) -> tuple[str, str]:
    """The names of a point: where and what, and the same with its round or snapshot number."""
    bare = f"{where}:{type(thing).__name__}"
    return bare, f"{bare}:{getattr(thing, 'round', getattr(thing, 'number', None))}"
