"""Names for the parties of a federation on one machine."""

from __future__ import annotations

from fednode.errors import UsageError

NAMES = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy")


def party_names(count: int) -> tuple[str, ...]:
    """The first `count` names, 2..10."""
    if not 2 <= count <= len(NAMES):
        raise UsageError(f"--parties {count}: expected 2..{len(NAMES)}", hint="a federation has at least two parties")
    return NAMES[:count]
