"""Looking at buckets before the run starts, as their writer and as a reader; and pruning after it: `fednode bucket`."""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
import time
from collections.abc import Awaitable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from fednode.errors import ConfigError, Denied, FednodeError, NotFound, StorageError
from fednode.node.buckets import WARN_DAYS, bucket_settings, party_prefix, place_of, run_prefix
from fednode.node.places import BucketPlace
from fednode.node.site import Site
from fednode.storage.credentials import read_credentials
from fednode.storage.explained import explained
from fednode.storage.local import LocalBucket
from fednode.storage.opening import open_bucket
from fednode.storage.remote import RemoteBucket
from fednode.storage.settings import LocalSettings
from fednode.storage.wire import Entry
from fednode.types import PartyName

Verdict = Literal["ok", "warning", "failed"]
OpenBucket = LocalBucket | RemoteBucket
_MAX_CHECK = 200
"""Bytes of a check object."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried on one party's bucket. Shows no secret."""

    party: PartyName
    what: str
    verdict: Verdict
    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class _Look:
    """One party's bucket, seen from this home."""

    site: Site
    party: PartyName
    place: BucketPlace
    bucket: OpenBucket

    def finding(self, what: str, verdict: Verdict, text: str, hint: str = "") -> Finding:
        return Finding(self.party, what, verdict, text, hint)

    def key(self, name: str) -> str:
        return f"{run_prefix(self.site, self.party)}check/{name}.txt"


async def check(site: Site) -> tuple[Finding, ...]:
    """Try the own bucket as its writer and every peer's as its reader.

    Leaves one small object in the own bucket, the same one each time, for the readers to find.
    """
    found = await asyncio.gather(*(_check_one(site, party) for party in site.rules.parties))
    return tuple(finding for findings in found for finding in findings)


async def _check_one(site: Site, party: PartyName) -> list[Finding]:
    found: list[Finding] = []
    try:
        place = place_of(site, party)
        if place.credentials is not None:
            found.append(_expiry(party, read_credentials(place.credentials).not_after))
        bucket = open_bucket(bucket_settings(place))
    except FednodeError as error:
        return [*found, Finding(party, "settings", "failed", error.message, error.hint)]
    look = _Look(site, party, place, bucket)
    steps = [_create, _list, _delete] if party == site.rules.me else [_list, _read, _write]
    if place.backend == "s3" and party == site.rules.me:
        steps.append(_replace)
    try:
        found += [await _tried(look, step.__name__.lstrip("_"), step(look)) for step in steps]
    finally:
        await bucket.aclose()
    return found


async def _tried(look: _Look, what: str, step: Awaitable[Finding]) -> Finding:
    try:
        return await step
    except FednodeError as error:
        return look.finding(what, "failed", error.message, error.hint)


def _expiry(party: PartyName, not_after: float | None) -> Finding:
    if not_after is None:
        return Finding(party, "expiry", "ok", "the credentials do not say when they end")
    days = (not_after - time.time()) / 86_400
    text = f"the credentials end on {time.strftime('%Y-%m-%d %H:%M', time.localtime(not_after))}"
    verdict: Verdict = "failed" if days <= 0 else "warning" if days < WARN_DAYS else "ok"
    return Finding(party, "expiry", verdict, text, "" if verdict == "ok" else "put new ones in the file's place")


async def _create(look: _Look) -> Finding:
    await _put(look, look.key(look.party), _content(look))
    return look.finding("create", "ok", "an object was created, or stands there from an earlier check")


async def _list(look: _Look) -> Finding:
    entries = [entry async for entry in look.bucket.list(run_prefix(look.site, look.party))]
    return look.finding("list", "ok", f"{len(entries)} objects of this run, {sum(e.size for e in entries)} bytes")


async def _delete(look: _Look) -> Finding:
    """Whether the writer's credentials could destroy what was signalled."""
    if look.place.backend == "local":
        return look.finding("delete", "ok", "a folder: its permissions decide who may delete")
    try:
        await look.bucket.delete(look.key(look.party))
    except Denied:
        nothing = "" if look.place.backend == "s3" else ", and so replace nothing"
        return look.finding("delete", "ok", f"the daemon's credentials may not delete{nothing}")
    await _put(look, look.key(look.party), _content(look))
    return look.finding(
        "delete", "warning", "the daemon's credentials may delete what it signalled",
        "give it credentials without that permission: see docs/storage.md",
    )  # fmt: skip


async def _replace(look: _Look) -> Finding:
    """Whether an S3 keeps two programs from writing one key: who may write there may replace. Sent is what stands."""
    assert isinstance(look.bucket, RemoteBucket)
    with _file(_content(look)) as path:
        if await look.bucket.is_refused_again(look.key(look.party), path):
            return look.finding("replace", "ok", "the store refuses to replace an object where it is asked to create")
    return look.finding(
        "replace", "warning", "the store ignores If-None-Match: of two programs that write one object the later wins",
        "let nothing else write to this bucket and prefix, and have the service keep versions of its objects",
    )  # fmt: skip


async def _read(look: _Look) -> Finding:
    try:
        data = await look.bucket.read(look.key(look.party), limit=_MAX_CHECK)
    except NotFound:
        hint = f"{look.party} has not run `fednode bucket check` for this run yet, or its bucket and prefix differ"
        return look.finding("read", "warning", "nothing to read was found", hint)
    if data != _content(look):
        return look.finding("read", "failed", "the object to read holds something else", "whose bucket is it?")
    return look.finding("read", "ok", "an object of the owner was read")


async def _write(look: _Look) -> Finding:
    """A reader that can write could put an object in the owner's way before the owner does."""
    bad = f"{look.site.rules.me} can write into it: {look.party} should give out read-only access"
    if look.place.backend == "local":
        if os.geteuid() != 0 and os.access(look.place.bucket, os.W_OK):
            return look.finding("write", "warning", bad, f"chmod the folder {look.place.bucket}, or mount it read-only")
        return look.finding("write", "ok", "a folder: its permissions decide who may write")
    # A new name each time: what an earlier check left says nothing about the credentials of today.
    key = look.key(f"{look.site.rules.me}-must-not-write-{secrets.token_hex(4)}")
    try:
        await look.bucket.head(key)
    except NotFound:
        pass
    except Denied:
        hint = "read-only credentials for the prefix may also list it: see docs/storage.md"
        return look.finding("write", "warning", "not tried: these credentials may not see what is absent", hint)
    try:
        await _put(look, key, b"written by a reader\n")
    except Denied:
        return look.finding("write", "ok", "writing is refused, as it should be")
    try:
        await look.bucket.delete(key)
    except StorageError:
        return look.finding("write", "failed", bad, f"revoke these credentials, and delete {key}")
    return look.finding("write", "failed", f"{bad}; it could also delete", "revoke these credentials")


async def _put(look: _Look, key: str, data: bytes) -> None:
    with _file(data) as path:
        await look.bucket.put(key, path)


@contextmanager
def _file(data: bytes) -> Generator[Path]:
    with explained(tempfile.gettempdir()), tempfile.TemporaryDirectory(prefix="fednode-") as folder:
        path = Path(folder) / "object"
        path.write_bytes(data)
        yield path


def _content(look: _Look) -> bytes:
    return f"{look.party} {look.site.rules.run}\n".encode()


# Pruning --------------------------------------------------------------------------------------------------------------


async def prunable(site: Site, run: str, credentials: Path | None) -> Sequence[Entry]:
    """What the own bucket holds of `run`, an id in hex."""
    bucket = _own(site, credentials)
    try:
        return [entry async for entry in bucket.list(f"{party_prefix(site, site.rules.me)}{run}/")]
    finally:
        await bucket.aclose()


async def prune(site: Site, entries: Sequence[Entry], credentials: Path | None) -> int:
    """Delete them with the janitor's credentials; returns how many. Safe to repeat."""
    bucket = _own(site, credentials)
    try:
        for entry in entries:
            await bucket.delete(entry.key)
    finally:
        await bucket.aclose()
    return len(entries)


def _own(site: Site, credentials: Path | None) -> OpenBucket:
    place = place_of(site, site.rules.me)
    settings = bucket_settings(place)
    if isinstance(settings, LocalSettings):
        return open_bucket(settings)
    if credentials is None:
        raise ConfigError(
            "pruning needs credentials that may delete, and the daemon's may not",
            hint="name them with --credentials FILE; `fednode bucket create` makes owner/janitor.grant",
        )
    return open_bucket(replace(settings, credentials=credentials))
