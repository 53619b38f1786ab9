"""What rclone says when it fails, as our errors. Its exit status tells little; the texts are those of uplink 1.14 and
of rclone 1.75, and the contract tests hear them from both."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from fednode.errors import Conflict, Denied, NotFound, QuotaExceeded, StorageError, Throttled, Unavailable

_TEXTS: Final[tuple[tuple[str, str], ...]] = (
    # A grant without delete permission: this is how Storj refuses to replace an object.
    ("conflict", r"no permissions to delete existing object"),
    ("no bucket", r"bucket not found"),
    ("no folder", r"directory not found"),
    ("no grant", r"invalid access grant format|unable to parse access|storj: access:"),
    ("throttled", r"too many requests|rate limit"),
    (
        "quota",
        r"(storage|segments?|bandwidth|usage) limit exceeded|exceeded usage limit|quota exceeded"
        r"|no space left|file too large",
    ),
    ("denied", r"permission denied|unauthorized|api credentials|access denied|forbidden|revoked"),
    ("absent", r"object not found"),
    (
        "unavailable",
        r"connection (refused|reset|closed)|broken pipe|dial tcp|no such host|no route to host|network is unreachable"
        r"|i/o timeout|deadline exceeded|unexpected eof|rpc: |internal error|not enough|insufficient|metainfo: "
        # Whatever else Storj's library says has no code there either: too few nodes that take or give pieces, mostly.
        r"|uplink: ",
    ),
)
_LONG_WORD: Final = re.compile(r"[0-9A-Za-z+/_=-]{40,}")


class NoFolder(Unavailable):
    """There is no such bucket, or in a store of folders no object under the prefix that was to be listed."""


def explained_messages(said: str, where: str, refused: Callable[[str], Denied]) -> StorageError:
    """The error of ours for the messages of a failed process about `where`; `refused` makes the Denied."""
    text = said.lower()
    kind = next((kind for kind, pattern in _TEXTS if re.search(pattern, text)), "")
    match kind:
        case "conflict":
            return Conflict(f"{where}: the store has an object there already, and these credentials replace nothing")
        case "no bucket" | "no folder":
            kinds = {"no bucket": Unavailable, "no folder": NoFolder}
            hint = "make it with `fednode bucket create`"
            return kinds[kind](f"{where}: the store has no such bucket", hint=hint)
        case "no grant":
            return Denied(f"{where}: the credentials file holds no access grant that Storj understands")
        case "throttled":
            return Throttled(f"{where}: the store asks to go slower")
        case "quota":
            return QuotaExceeded(f"{where}: no room", hint="is a disk full, or the account's limit reached?")
        case "denied":
            return refused(where)
        case "absent":
            return NotFound(f"{where}: there is no such object")
        case "unavailable":
            return Unavailable(f"{where}: no connection to the store, or it broke off: {shown(said)}")
        case _:
            return StorageError(f"{where}: rclone failed: {shown(said) or 'without a word'}")


def shown(said: str) -> str:
    """The newest message, short and printable; whatever is long enough for a grant or a key is left out."""
    lines = [line for line in said.splitlines() if line.strip()]
    text = "".join(char if char.isprintable() else " " for char in lines[-1]) if lines else ""
    return _LONG_WORD.sub("...", text)[:300]
