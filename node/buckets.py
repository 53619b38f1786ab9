"""The buckets of a home: which ones the settings name, opened. The way from settings to storage is only here."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from fednode.durable import make_folders
from fednode.errors import FednodeError
from fednode.node.places import BucketPlace
from fednode.node.ports import Bucket
from fednode.node.site import Site
from fednode.storage.credentials import read_credentials
from fednode.storage.opening import open_bucket
from fednode.storage.settings import BucketSettings, LocalSettings, RcloneSettings, S3Settings, UplinkSettings
from fednode.types import PartyName


def place_of(site: Site, party: PartyName) -> BucketPlace:
    """Where a party's bucket is. ConfigError where the settings do not say."""
    if party == site.rules.me:
        return site.settings.own_bucket(site.home.root)
    name = site.agreement.find(party).bucket
    return site.settings.peer_bucket(party, name, site.home.root)


def party_prefix(site: Site, party: PartyName) -> str:
    """What all keys of a party start with: empty, or ending in `/`."""
    prefix = site.agreement.find(party).prefix.strip("/")
    return f"{prefix}/" if prefix else ""


def run_prefix(site: Site, party: PartyName) -> str:
    """What the keys of this run in a party's bucket start with; ends in `/`."""
    return f"{party_prefix(site, party)}{site.rules.run}/"


def bucket_settings(place: BucketPlace) -> BucketSettings:
    """What the storage adapter must know."""
    credentials = place.credentials
    if credentials is None:
        return LocalSettings(Path(place.bucket))
    match place.backend:
        case "uplink":
            return UplinkSettings(place.bucket, credentials, place.library)
        case "rclone":
            return RcloneSettings(place.bucket, credentials)
        case _:
            table = place.table
            return S3Settings(place.bucket, credentials, table.endpoint, table.region, place.ca_file, table.allow_plain)


def open_buckets(site: Site) -> dict[PartyName, Bucket]:
    """Every party's bucket. ConfigError or KeyFileError where settings, programs or credentials cannot do."""
    places = {party: place_of(site, party) for party in site.rules.parties}
    for place in places.values():
        if place.credentials is not None:
            read_credentials(place.credentials)
    return {party: open_bucket(bucket_settings(place)) for party, place in places.items()}


def make_local(site: Site) -> None:
    """Make the folder of the own bucket, if it is one."""
    place = place_of(site, site.rules.me)
    if place.backend == "local":
        make_folders(Path(place.bucket))


@dataclass(frozen=True, slots=True)
class Expiry:
    """When the credentials of one party's bucket are over."""

    party: PartyName
    not_after: float
    """Unix time."""
    file: Path

    def days_left(self, now: float) -> float:
        return (self.not_after - now) / 86_400


WARN_DAYS = 14.0
"""How long before its end an expiry is announced."""


def expiries(site: Site) -> tuple[Expiry, ...]:
    """Of every bucket whose credentials say when they are over; files that cannot be read say nothing here."""
    found: list[Expiry] = []
    for party in site.rules.parties:
        try:
            path = place_of(site, party).credentials
            known = read_credentials(path) if path is not None else None
        except FednodeError:
            continue  # `run` and `bucket check` say what is wrong with it
        if path is not None and known is not None and known.not_after is not None:
            found.append(Expiry(party, known.not_after, path))
    return tuple(sorted(found, key=lambda each: each.not_after))


def expiring(site: Site) -> tuple[Expiry, ...]:
    """Those that end within WARN_DAYS, or did."""
    now = time.time()
    return tuple(each for each in expiries(site) if each.days_left(now) < WARN_DAYS)
