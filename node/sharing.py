"""Making the own bucket at Storj, and granting and revoking access to it: `fednode bucket create|share|revoke`."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from fednode.errors import ConfigError, KeyFileError, UsageError
from fednode.node.buckets import place_of, run_prefix
from fednode.node.config import Settings
from fednode.node.home import Home
from fednode.node.places import STORE, BucketPlace
from fednode.node.site import Site
from fednode.secretfile import read_secret
from fednode.storage.credentials import (
    CredentialsFile,
    CredentialsSource,
    HeldGrant,
    read_credentials,
    write_credentials,
)
from fednode.types import PartyName

if TYPE_CHECKING:
    from fednode.storage.uplink.sharing import StorjSharer

_MAX_WORD = 60_000
DAY_S = 86_400.0


class _Allowed(TypedDict, total=False):
    read: bool
    write: bool
    list: bool
    delete: bool


_ALLOWED: Mapping[str, _Allowed] = {
    "writer": {"read": True, "write": True, "list": True},
    "owner": {"read": True, "write": True, "list": True, "delete": True},
    "janitor": {"list": True, "delete": True},
}


@dataclass(frozen=True, slots=True)
class Request:
    """With what a Storj project is entered: an address and two files (0600), one word in each."""

    satellite: str
    api_key: Path
    passphrase: Path


async def create(home: Home, settings: Settings, source: Request | Path, days: float | None) -> dict[str, Path]:
    """Make the bucket and the home's grants from a project's access, or from a grant file that allows all of it.

    `writer` is what the daemon works with: it reads, lists and creates, but neither replaces nor deletes. `owner`
    shares and revokes, `janitor` lists and deletes; both may be kept on another machine. Files that exist are kept.
    """
    place = settings.own_bucket(home.root)
    _require_storj(place, "create")
    wanted = {"writer": place.credentials, "owner": owner_file(home), "janitor": janitor_file(home)}
    files = {name: path for name, path in wanted.items() if path is not None}
    async with sharer(await _root(source, place), place) as storj:
        await storj.create_bucket(place.bucket)
        prefix = f"{settings.tables.storage.prefix}/" if settings.tables.storage.prefix else ""
        not_after = time.time() + days * DAY_S if days else None
        for name, path in files.items():
            if not path.exists():
                grant = await storj.share(place.bucket, prefix, **_ALLOWED[name], not_after=not_after)
                words = {"owner": settings.name, "bucket": place.bucket, "prefix": prefix, "grant": grant}
                write_credentials(path, words, not_after)
    return files


async def share(site: Site, reader: PartyName, days: float, output: Path, owner: Path) -> float:
    """A grant for `reader` to read and list this run's objects, and nothing else, until `days` from now.

    Written to `output` (0600); returns its end in Unix time. ConfigError where `output` exists.
    """
    place = place_of(site, site.rules.me)
    _require_storj(place, "share")
    if reader not in site.rules.parties or reader == site.rules.me:
        peers = ", ".join(party for party in site.rules.parties if party != site.rules.me)
        raise UsageError(f"{reader!r} is no peer of this run, expected one of {peers}")
    if output.exists():
        raise ConfigError(f"{output} exists; a grant is never overwritten", hint="name another file with -o")
    prefix, not_after = run_prefix(site, site.rules.me), time.time() + days * DAY_S
    async with sharer(CredentialsFile(owner), place) as storj:
        grant = await storj.share(place.bucket, prefix, read=True, list=True, not_after=not_after)
    words = {"owner": site.rules.me, "bucket": place.bucket, "prefix": prefix, "reader": reader, "grant": grant}
    write_credentials(output, words, not_after)
    return not_after


async def revoke(home: Home, settings: Settings, granted: Path, owner: Path) -> None:
    """Take back the grant in the file `granted`, and all that were made from it. The store may need some minutes."""
    place = settings.own_bucket(home.root)
    _require_storj(place, "revoke")
    grant = read_credentials(granted).grant
    if not grant:
        raise KeyFileError(f"{granted} holds no Storj grant, expected a file of `fednode bucket share`")
    async with sharer(CredentialsFile(owner), place) as storj:
        await storj.revoke(grant)


def owner_file(home: Home) -> Path:
    """Where `create` puts the grant that shares and revokes."""
    return home.root / "owner" / "owner.grant"


def janitor_file(home: Home) -> Path:
    """Where `create` puts the grant that prunes."""
    return home.root / "owner" / "janitor.grant"


def shared_file(home: Home, reader: PartyName) -> Path:
    """Where `share` puts a reader's grant unless told otherwise."""
    return home.root / "owner" / "shared" / f"{reader}.grant"


async def _root(source: Request | Path, place: BucketPlace) -> CredentialsSource:
    if isinstance(source, Path):
        return CredentialsFile(source)
    api_key, passphrase = _word(source.api_key), _word(source.passphrase)
    async with sharer(None, place) as storj:
        return HeldGrant(await storj.request_access(source.satellite, api_key, passphrase))


def _word(path: Path) -> str:
    try:
        data = read_secret(path, _MAX_WORD)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", hint="a file (0600) with one line") from None
    text = data.decode(errors="replace").rstrip("\r\n")
    if not re.fullmatch(r"[^\x00-\x1f\x7f\ufffd]{1,1000}", text):
        raise ConfigError(f"{path}: expected one line of text")
    return text


def _require_storj(place: BucketPlace, what: str) -> None:
    if STORE[place.backend] != "storj":
        raise ConfigError(
            f'fednode.toml: storage.backend is "{place.backend}", expected "uplink" or "rclone" for bucket {what}',
            hint="an S3 provider has its own pages for buckets and keys, a folder has permissions: see docs/storage.md",
        )


@asynccontextmanager
async def sharer(credentials: CredentialsSource | None, place: BucketPlace) -> AsyncGenerator[StorjSharer]:
    """What makes and takes back grants, over the native library. ConfigError where that is missing."""
    from fednode.storage.uplink.sharing import StorjSharer

    found = StorjSharer(credentials, place.library)
    try:
        yield found
    finally:
        await found.aclose()
