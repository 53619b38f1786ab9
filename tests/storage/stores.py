"""Every store that a bucket can be in, for the contract tests. A new backend adds one line to `STORES`."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fednode.errors import ConfigError
from fednode.storage.credentials import CredentialsFile, credentials_text
from fednode.storage.local import LocalBucket
from fednode.storage.opening import open_bucket
from fednode.storage.rclone import RcloneWire
from fednode.storage.remote import RemoteBucket
from fednode.storage.retry import Deadlines
from fednode.storage.s3 import S3Wire
from fednode.storage.settings import BucketSettings, RcloneSettings, S3Settings, UplinkSettings
from fednode.storage.uplink.library import find_library

from .services import Service

Bucket = LocalBucket | RemoteBucket
Seed = Callable[[Mapping[str, bytes]], Awaitable[None]]


@dataclass
class Box:
    """A bucket that may be shared with other tests, and a place in it that is not."""

    bucket: Bucket
    base: str
    """Ends in `/`."""
    seed: Seed
    """Puts small objects there by another, faster way where this store is slow."""
    leaves_partial: bool = False
    """A killed writer leaves a `.partial` file in the folder: the store is one only for tests."""

    @property
    def key(self) -> str:
        return f"{self.base}0123456789abcdef/000001/signal.cbor"

    async def names(self, prefix: str | None = None) -> list[str]:
        found = [entry.key async for entry in self.bucket.list(self.base if prefix is None else prefix)]
        return [key for key in found if not (self.leaves_partial and key.endswith(".partial"))]


@dataclass
class Makers:
    """What a store is made from: services by fixture, started when first asked for."""

    request: pytest.FixtureRequest
    folder: Path
    opened: list[Bucket] = field(default_factory=list[Bucket])

    def open(self, settings: BucketSettings, deadlines: Deadlines | None = None) -> Bucket:
        """A bucket that is closed at the end of the test."""
        self.opened.append(open_bucket(settings, deadlines))
        return self.opened[-1]

    def service(self, name: str) -> Service:
        found: Service = self.request.getfixturevalue(name)
        return found

    def secret_file(self, text: str) -> Path:
        path = self.folder / f"{secrets.token_hex(4)}.toml"
        path.touch(mode=0o600)
        path.write_text(text)
        return path


_numbers = itertools.count(1)


def new_base() -> str:
    """A place of its own for each test, also beside other pytest workers."""
    return f"t{next(_numbers)}-{secrets.token_hex(4)}/"


def _put_all(bucket: Bucket, folder: Path) -> Seed:
    async def seed(objects: Mapping[str, bytes]) -> None:
        gate = asyncio.Semaphore(16)

        async def one(number: int, key: str, data: bytes) -> None:
            path = folder / f"seed-{number}"
            path.write_bytes(data)
            async with gate:
                await bucket.put(key, path)

        await asyncio.gather(*(one(number, *item) for number, item in enumerate(objects.items())))

    return seed


def _write_all(folder: Path) -> Seed:
    async def seed(objects: Mapping[str, bytes]) -> None:
        for key, data in objects.items():
            path = folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    return seed


def _local(makers: Makers) -> Box:
    folder = makers.folder / "bucket"
    folder.mkdir()
    return Box(LocalBucket(folder), new_base(), _write_all(folder))


def s3_settings(makers: Makers, service: Service, secret: str | None = None) -> S3Settings:
    return S3Settings(service.bucket, makers.secret_file(service.text(secret)), service.endpoint, service.region)


def _s3(name: str) -> Callable[[Makers], Box]:
    def made(makers: Makers) -> Box:
        bucket = makers.open(s3_settings(makers, makers.service(name)))
        return Box(bucket, new_base(), _put_all(bucket, makers.folder))

    return made


def rclone_in_folder(makers: Makers, folder: Path, deadlines: Deadlines | None = None) -> RemoteBucket:
    """rclone over its own `local` backend."""
    settings = RcloneSettings("bucket", makers.secret_file('grant = "unused"\n'))
    remote = {"type": "alias", "remote": str(folder)}
    wire = RcloneWire(settings, CredentialsFile(settings.credentials), remote=lambda _: remote)
    return RemoteBucket(wire, deadlines=deadlines)


def _rclone(makers: Makers) -> Box:
    folder = makers.folder / "served" / "bucket"
    folder.mkdir(parents=True)
    return Box(rclone_in_folder(makers, folder.parent), new_base(), _write_all(folder), leaves_partial=True)


def needs_library() -> None:
    """Skip, and say why, where the native library is not built."""
    try:
        find_library(None)
    except ConfigError as error:
        pytest.skip(f"{error.message}; {error.hint}")


def _storj(settings_of: Callable[[str, Path], BucketSettings]) -> Callable[[Makers], Box]:
    """Natively, on the loopback network; seeded through the gateway before the same bucket."""

    def made(makers: Makers) -> Box:
        if settings_of is UplinkSettings:
            needs_library()
        gateway = makers.service("gateway")
        grant = makers.request.getfixturevalue("storj").grant
        file = makers.secret_file(credentials_text({"grant": grant}, None))
        fast = makers.open(s3_settings(makers, gateway))
        return Box(open_bucket(settings_of(gateway.bucket, file)), new_base(), _put_all(fast, makers.folder))

    return made


STORES: dict[str, Callable[[Makers], Box]] = {
    "local": _local,
    "s3-moto": _s3("moto_s3"),
    "s3-rclone": _s3("served_s3"),
    "rclone-folder": _rclone,
    "s3-gateway": _s3("gateway"),
    "rclone-storj": _storj(RcloneSettings),
    "uplink-storj": _storj(UplinkSettings),
}


@contextlib.asynccontextmanager
async def opened(url: str, credentials: Path, ca_file: Path | None = None) -> AsyncGenerator[S3Wire]:
    """The bucket "bucket" of the S3 at `url`, without what RemoteBucket adds."""
    wire = S3Wire(S3Settings("bucket", credentials, url, ca_file=ca_file), CredentialsFile(credentials))
    try:
        yield wire
    finally:
        await wire.aclose()
