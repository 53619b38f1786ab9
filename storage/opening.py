"""From settings to a bucket: the one place that knows every backend."""

from __future__ import annotations

from fednode.storage.credentials import CredentialsFile
from fednode.storage.local import LocalBucket
from fednode.storage.remote import RemoteBucket
from fednode.storage.retry import Deadlines
from fednode.storage.settings import BucketSettings, LocalSettings, RcloneSettings, S3Settings, UplinkSettings


def open_bucket(settings: BucketSettings, deadlines: Deadlines | None = None) -> LocalBucket | RemoteBucket:
    """A bucket that connects when it is first used. ConfigError where a program, library or address cannot do."""
    match settings:
        case LocalSettings():
            return LocalBucket(settings.folder, deadlines)
        case S3Settings():
            from fednode.storage.s3 import S3Wire

            return RemoteBucket(S3Wire(settings, CredentialsFile(settings.credentials)), deadlines=deadlines)
        case RcloneSettings():
            from fednode.storage.rclone import RcloneWire

            return RemoteBucket(RcloneWire(settings, CredentialsFile(settings.credentials)), deadlines=deadlines)
        case UplinkSettings():
            from fednode.storage.uplink.wire import UplinkWire

            return RemoteBucket(UplinkWire(settings, CredentialsFile(settings.credentials)), deadlines=deadlines)
