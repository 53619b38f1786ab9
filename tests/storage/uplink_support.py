"""A stand-in for Storj's native library, and buckets over it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from fednode.storage.credentials import CredentialsFile
from fednode.storage.settings import UplinkSettings
from fednode.storage.uplink.wire import UplinkWire

ROOT = Path(__file__).parents[2]
GRANT = "grant1NfEFS9eR2QA5o6dov3QGNWrFRYZcufde1EcfS99cJB5ZewJZrWpJEZX"


def build_stub(folder: Path) -> Path:
    """The library of uplink_stub.c."""
    if shutil.which("gcc") is None:
        pytest.skip("no stand-in for Storj's library: gcc is missing")
    library = folder / "libuplinkc.so"
    source = Path(__file__).with_name("uplink_stub.c")
    include = ROOT / "storage" / "libuplink"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", "-I", str(include), "-o", str(library), str(source), "-lpthread"],
        check=True, timeout=60,
    )  # fmt: skip
    return library


def grant_file(folder: Path, grant: str = GRANT, name: str = "grant.toml") -> CredentialsFile:
    """A credentials file with one grant."""
    path = folder / name
    path.touch(mode=0o600)
    path.write_text(f'grant = "{grant}"\n')
    return CredentialsFile(path)


def wire(library: Path | None, credentials: CredentialsFile, bucket: str = "bucket") -> UplinkWire:
    return UplinkWire(UplinkSettings(bucket, credentials.path, library), credentials)
