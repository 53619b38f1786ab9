"""The file with which a bucket is opened: a Storj access grant or S3 keys. A bearer secret, mode 0600.

Written by `fednode bucket share` or by hand (TOML); a file that holds nothing but a Storj grant will do as well.
"""

from __future__ import annotations

import logging
import os
import re
import time
import tomllib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from fednode.durable import make_folders, write_atomic
from fednode.errors import Denied, GrantExpired, KeyFileError
from fednode.secretfile import read_secret

_log = logging.getLogger("fednode.storage")
_MAX_FILE: Final = 64 * 1024
_BARE_GRANT: Final = re.compile(r"[1-9A-HJ-NP-Za-km-z]{100,60000}\Z")
"""base58check, as `uplink access create --export-to` writes it."""
_TEXTS: Final = (
    "grant", "access_key_id", "secret_access_key", "session_token", "owner", "reader", "bucket", "prefix", "endpoint"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a credentials file says. Shows no secret."""

    source: Path
    not_after: float | None
    """Unix time; None: unknown, or for ever."""
    owner: str = ""
    reader: str = ""
    bucket: str = ""
    prefix: str = ""
    endpoint: str = ""
    grant: str = field(default="", repr=False)
    access_key_id: str = field(default="", repr=False)
    secret_access_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)

    def check_time(self) -> None:
        """GrantExpired where our own clock says that they are over: a store's answer does not tell why it refuses."""
        if self.not_after is not None and time.time() >= self.not_after:
            raise GrantExpired(
                f"{self.source}: expired on {_shown(self.not_after)}",
                hint="ask the bucket's owner for a new grant and put its file in the place of this one",
            )

    def refused(self, what: str) -> Denied:
        """The error for a store's plain no."""
        self.check_time()
        return Denied(
            f"{what}: refused by the store: revoked, not valid for this prefix, or without this permission"
            f" (credentials: {self.source})",
            hint="see what they allow with `fednode bucket check`; the bucket's owner can give new ones",
        )


class CredentialsSource(Protocol):
    """Where a call finds the newest credentials."""

    def read(self) -> Credentials: ...


@dataclass(frozen=True, slots=True)
class HeldGrant:
    """A Storj grant that is in no file (yet)."""

    grant: str = field(repr=False)

    def read(self) -> Credentials:
        return Credentials(Path("the access that was asked for"), None, grant=self.grant)


class CredentialsFile:
    """A credentials file that may be replaced at any time: the next call works with the new one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, ...] | None = None
        self._known: Credentials | None = None
        self._told = ""

    def read(self) -> Credentials:
        """The newest credentials. GrantExpired where they are over.

        KeyFileError where the file is missing, open to others or not understood at the first time; later, while it is
        being replaced, the ones known before stay in use.
        """
        known = self._known
        try:
            seen = _stamp(self.path)
            if known is None or seen != self._seen:
                known = read_credentials(self.path)
                self._known, self._seen = known, seen
        except KeyFileError as error:
            if known is None:
                raise
            if str(error) != self._told:
                self._told = str(error)
                _log.warning("the credentials read before stay in use: %s", error)
        known.check_time()
        return known


def read_credentials(path: Path) -> Credentials:
    """Errors as `CredentialsFile.read`, but does not look at the clock."""
    try:
        data = read_secret(path, _MAX_FILE)
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        text = data.decode("ascii").strip()
    except UnicodeDecodeError:
        raise _not_understood(path, "expected plain text") from None
    if len(data) > _MAX_FILE:
        raise _not_understood(path, f"expected at most {_MAX_FILE} bytes")
    if _BARE_GRANT.match(text):
        return Credentials(path, None, grant=text)
    return _of_table(path, text)


def credentials_text(values: dict[str, str], not_after: float | None) -> str:
    """The TOML text of a credentials file, which is a secret."""
    lines = ["# A bearer secret: whoever reads this file has what it grants. Keep its mode 0600.\n"]
    lines += [f'{key} = "{values[key]}"\n' for key in _TEXTS if values.get(key)]
    if not_after is not None:
        lines.append(f"not_after = {_shown(not_after)}\n")
    return "".join(lines)


def write_credentials(path: Path, values: dict[str, str], not_after: float | None) -> None:
    """Create or replace a credentials file (0600); its folder is made (0700) where it is missing."""
    make_folders(path.parent, mode=0o700)
    write_atomic(path, credentials_text(values, not_after).encode(), mode=0o600)


def _of_table(path: Path, text: str) -> Credentials:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"\(at line \d+", str(error))
        raise _not_understood(path, f"not TOML {where.group() + ')' if where else ''}") from None
    texts: dict[str, str] = {}
    for key in _TEXTS:
        value = table.pop(key, "")
        if not isinstance(value, str) or not re.fullmatch(r"[\x21-\x7e]*", value) or '"' in value or "\\" in value:
            raise _not_understood(path, f"{key}: expected one word of printable characters")
        texts[key] = value
    not_after = table.pop("not_after", None)
    if table:
        raise _not_understood(path, f"unknown key {sorted(table)[0][:40]!r}; known: {', '.join(_TEXTS)}, not_after")
    if not_after is not None and not isinstance(not_after, datetime):
        raise _not_understood(path, "not_after: expected a time such as 2027-01-31T00:00:00Z")
    if not texts["grant"] and not (texts["access_key_id"] and texts["secret_access_key"]):
        raise _not_understood(path, "expected grant, or access_key_id and secret_access_key")
    if not_after is not None and not_after.tzinfo is None:
        not_after = not_after.replace(tzinfo=UTC)
    return Credentials(path, not_after.timestamp() if not_after else None, **texts)


def _stamp(path: Path) -> tuple[int, ...]:
    """Changes when the file is replaced, written or changes its mode; also with the times of the one before."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise _unreadable(path, error) from None
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_mode


def _shown(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _unreadable(path: Path, error: OSError) -> KeyFileError:
    if isinstance(error, FileNotFoundError):
        return KeyFileError(
            f"{path} does not exist, expected the credentials of a bucket",
            hint="the bucket's owner makes one with `fednode bucket share NAME`; put it there with mode 0600",
        )
    return KeyFileError(f"{path} cannot be read: {error.strerror}")


def _not_understood(path: Path, why: str) -> KeyFileError:
    return KeyFileError(f"{path}: {why}", hint="expected a file of `fednode bucket share`, or a bare Storj grant")
