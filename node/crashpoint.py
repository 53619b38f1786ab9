"""Named crash points, for the crash tests: the process kills itself (SIGKILL) when it reaches the one that is named.

`FEDNODE_CRASH_AT` holds one name, such as `after-journal:Trained:3` or `before:Publish:3`; unset, nothing happens. A
point stands before and after every journal write (`before-journal:FACT`, `after-journal:FACT`) and before and after
every effect (`before:COMMAND`, `after:COMMAND`), with `:ROUND` where the fact or command has a round.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable

VARIABLE = "FEDNODE_CRASH_AT"
_CHOSEN = os.environ.get(VARIABLE, "")


def reach(where: str, things: Iterable[object]) -> None:
    """Die here if one of `things` (facts or commands) at `where` is the chosen point."""
    if _CHOSEN and any(name(where, thing) == _CHOSEN for thing in things):
        os.kill(os.getpid(), signal.SIGKILL)


def name(where: str, thing: object) -> str:
    """The name of a point: where, what, and the round if it has one."""
    round_number = getattr(thing, "round", None)
    return f"{where}:{type(thing).__name__}" + ("" if round_number is None else f":{round_number}")
