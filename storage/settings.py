"""Where a bucket is and with what it is opened. Secrets are named by file, never held here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """A folder on this machine."""

    folder: Path


@dataclass(frozen=True, slots=True)
class S3Settings:
    """Storj's gateway or any other S3."""

    bucket: str
    credentials: Path
    endpoint: str
    """https://HOST[:PORT]; http only to this machine, or where `allow_plain`."""
    region: str = "us-east-1"
    ca_file: Path | None = None
    """Certificate (PEM) of the store's own authority; None: the authorities of this machine."""
    allow_plain: bool = False


@dataclass(frozen=True, slots=True)
class UplinkSettings:
    """Storj, natively, by the library that uplink-python loads."""

    bucket: str
    credentials: Path
    library: Path | None = None
    """libuplinkc.so; None: where scripts/build-libuplink puts it."""


@dataclass(frozen=True, slots=True)
class RcloneSettings:
    """Storj, natively, by the program rclone."""

    bucket: str
    credentials: Path


BucketSettings = LocalSettings | S3Settings | UplinkSettings | RcloneSettings
