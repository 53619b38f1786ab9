"""Errors of the worker as JSON, and that JSON as the errors that say what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from fednode.errors import (
    ConfigError,
    Conflict,
    Denied,
    FednodeError,
    KeyFileError,
    NotFound,
    QuotaExceeded,
    StorageError,
    Throttled,
    Unavailable,
)  # fmt: skip
from fednode.storage.credentials import Credentials
from fednode.storage.explained import explained
from fednode.storage.uplink.abi import Code
from fednode.storage.uplink.access import GrantError
from fednode.storage.uplink.calls import SourceChangedError, StoreError
from fednode.storage.uplink.frames import Message

_STANDS: Final = "delete existing object"
"""A satellite's words to an upload by a grant without delete where something stands already."""
_QUOTA: Final[dict[int, str]] = {
    Code.BANDWIDTH_LIMIT: "the project's bandwidth limit is reached",
    Code.STORAGE_LIMIT: "the project's storage limit is reached",
    Code.SEGMENTS_LIMIT: "the project's segment limit is reached",
}


class CancelledError(Exception):
    """The daemon does not want this call any more."""


def tamed(text: str) -> str:
    """A library's text for messages: one short line, and no word that could be a grant or a key."""
    line = "".join(letter if letter.isprintable() else " " for letter in text[-2000:])
    return re.sub(r"[0-9A-Za-z_+/=-]{30,}", "(hidden)", line)[:300].strip()


def error_to_json(error: BaseException) -> Message:
    """Kinds: store (the library's code), grant, file (errno), changed, cancelled, config, refused (by us), internal.

    Never a secret.
    """
    match error:
        case StoreError():
            return {"kind": "store", "code": error.code, "text": tamed(error.text)}
        case GrantError():
            return {"kind": "grant"}
        case ConfigError():
            return {"kind": "config", "text": error.message, "hint": error.hint}
        case StorageError():
            return {"kind": "refused", "text": error.message, "hint": error.hint}
        case SourceChangedError():
            return {"kind": "changed"}
        case CancelledError():
            return {"kind": "cancelled"}
        case OSError():
            return {"kind": "file", "errno": error.errno or 0, "text": error.strerror or ""}
        case _:
            # Its text may quote a request.
            return {"kind": "internal", "text": type(error).__name__}


def error_from_json(error: Message, what: str, credentials: Credentials | None, path: Path | None) -> FednodeError:
    """`what` was tried, with these credentials, between the store and this file."""
    text = str(error.get("text", ""))
    match error.get("kind"):
        case "store":
            return _of_code(int(error["code"]), text, what, credentials)
        case "grant":
            source = f"{credentials.source}: " if credentials is not None else ""
            return KeyFileError(f"{source}this is not an access grant of Storj", hint="is the file whole?")
        case "file":
            return _of_file(OSError(int(error["errno"]), text), str(path))
        case "changed":
            return StorageError(f"{path} changed while it was uploaded; nothing is visible in the store")
        case "config":
            return ConfigError(text, hint=str(error.get("hint", "")))
        case "refused":
            return StorageError(f"{what}: {text}", hint=str(error.get("hint", "")))
        case "cancelled":
            return Unavailable(f"{what}: cancelled")
        case _:
            return StorageError(f"{what}: the uplink worker failed: {text}")


def _of_code(code: int, text: str, what: str, credentials: Credentials | None) -> FednodeError:
    match code:
        case Code.OBJECT_NOT_FOUND:
            return NotFound(f"{what}: not there")
        case Code.BUCKET_NOT_FOUND:
            return Unavailable(
                f"{what}: there is no such bucket", hint="its owner makes it with `fednode bucket create`"
            )
        case Code.PERMISSION_DENIED if _STANDS in text:
            return Conflict(f"{what}: something stands there already, and the grant may not replace it")
        case Code.PERMISSION_DENIED:
            return _refused(what, credentials)
        case Code.TOO_MANY_REQUESTS:
            return Throttled(f"{what}: the satellite wants fewer requests a second")
        case Code.BANDWIDTH_LIMIT | Code.STORAGE_LIMIT | Code.SEGMENTS_LIMIT:
            return QuotaExceeded(f"{what}: {_QUOTA[code]}", hint="raise it in the console of the bucket's owner")
        case Code.INTERNAL if "api key" in text.lower():
            return KeyFileError(f"{what}: {text}", hint="copy the whole API key from the satellite's console")
        case Code.INTERNAL if "nodeurl" in text.lower().replace(" ", ""):
            return ConfigError(f"{what}: {text}", hint="expected a satellite as NODE_ID@HOST:PORT")
        case Code.INTERNAL | Code.CANCELED | Code.INVALID_HANDLE:
            hint = "look at the network: Storj needs port 7777 of the satellite and the ports of the storage nodes"
            return Unavailable(f"{what}: {text or 'the connection ended'}", hint=hint)
        case _:
            return StorageError(f"{what}: {text or 'refused'} (code 0x{code & 0xFFFF:02x})")


def _refused(what: str, credentials: Credentials | None) -> FednodeError:
    if credentials is None:
        hint = "make a new API key, or use a grant that allows it"
        return Denied(f"{what}: the satellite refuses: revoked, over, or without this permission", hint=hint)
    try:
        return credentials.refused(what)
    except FednodeError as over:
        return over


def _of_file(error: OSError, path: str) -> FednodeError:
    try:
        with explained(path):
            raise error
    except StorageError as told:
        return told
