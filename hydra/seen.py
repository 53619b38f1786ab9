"""How far the node's next snapshot is: GET /snapshot/last-seen, and what waits for it in GET /head."""

from __future__ import annotations

from dataclasses import dataclass

from fednode.hydra.fields import Fields

_KEY = 64
"""Hex characters of a Hydra key; longer names of signers are not kept."""


@dataclass(frozen=True, slots=True)
class LastSeen:
    """`tag` is the node's: NoSeenSnapshot, LastSeenSnapshot, RequestedSnapshot or SeenSnapshot."""

    tag: str
    number: int
    """Of the snapshot that is asked for or being signed, else of the last one."""
    signed: frozenset[str] = frozenset()
    """Hydra keys of those who signed, for SeenSnapshot."""

    def __str__(self) -> str:
        """One text that changes with every progress."""
        if self.tag != "SeenSnapshot":
            return f"{self.tag} {self.number}"
        return f"{self.tag} {self.number} signed by {', '.join(sorted(self.signed)) or 'nobody'}"


def read_last_seen(fields: Fields) -> LastSeen:
    """HeadError where the answer has another shape."""
    tag = fields.text("tag")
    if tag == "SeenSnapshot":
        signed = fields.child("signatories") if "signatories" in fields else None
        keys = frozenset(key[:_KEY] for key, _ in signed.items()) if signed else frozenset[str]()
        return LastSeen(tag, fields.child("snapshot").natural("number"), keys)
    if tag == "RequestedSnapshot":
        return LastSeen(tag, fields.natural("requested"))
    return LastSeen(tag[:60], fields.natural("lastSeen") if "lastSeen" in fields else 0)
