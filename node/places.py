"""The tables of fednode.toml that say where a bucket is: [storage] for the own one, [peers.NAME] for the others'."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, StringConstraints

from fednode.node.agreement_tables import Prefix, Store
from fednode.node.tomlfile import Strict, checked_address

Backend = Literal["local", "s3", "uplink", "rclone"]
STORE: Final[dict[Backend, Store]] = {"local": "local", "s3": "s3", "uplink": "storj", "rclone": "storj"}
"""What the agreement calls the bucket that a backend keeps; uplink and rclone are two ways to one kind."""

PathText = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=4000)]


def _endpoint(value: str) -> str:
    return checked_address(value, ("http", "https"), "https://HOST[:PORT]") if value else value


class Place(Strict):
    """Where one bucket is, and with what it is opened."""

    backend: Backend = Field(default="local", description='"local" folder, "s3", or Storj by "uplink" or "rclone"')
    bucket: PathText = Field(default="", description='local: its folder; else its name, "" = the agreement\'s')
    credentials: PathText = Field(default="", description="file (0600) with the Storj grant or the S3 keys")
    endpoint: Annotated[str, StringConstraints(max_length=500), AfterValidator(_endpoint)] = Field(
        default="", description='for s3: "https://gateway.storjshare.io" or another address'
    )
    region: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,60}$")] = Field(
        default="us-east-1", description="for s3"
    )
    ca_file: PathText = Field(
        default="", description="for s3: certificate (PEM) of the store's own authority, empty = this machine's"
    )
    allow_plain: bool = Field(default=False, description="for s3: allow an unencrypted connection to another machine")
    library: PathText = Field(
        default="", description="for uplink: libuplinkc.so, empty = the one that scripts/build-libuplink made"
    )


class Storage(Place):
    """The own bucket."""

    bucket: PathText = Field(default="bucket", min_length=1, description="local: its folder; else its name")
    name: Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,62})?$")] = Field(
        default="", description='for local: its name in the agreement, "" = the own name'
    )
    prefix: Prefix = Field(default="", description="the own keys in the bucket start with this; may be empty")
    credentials: PathText = Field(
        default="keys/bucket.grant", description="file (0600) with the Storj grant or the S3 keys; not for local"
    )


class Peer(Place):
    """A peer's bucket."""


@dataclass(frozen=True, slots=True)
class BucketPlace:
    """Where one bucket is, with whole paths. Holds no secret."""

    table: Place
    bucket: str
    """Its name; for a local one its folder."""
    home: Path

    @property
    def backend(self) -> Backend:
        return self.table.backend

    @property
    def credentials(self) -> Path | None:
        """File with the secret; None for a folder."""
        return None if self.backend == "local" else under(self.home, self.table.credentials)

    @property
    def ca_file(self) -> Path | None:
        return under(self.home, self.table.ca_file) if self.table.ca_file else None

    @property
    def library(self) -> Path | None:
        return under(self.home, self.table.library) if self.table.library else None


def gap(table: Place) -> tuple[str, str] | None:
    """(key, what is expected) that the table's backend needs and the table lacks."""
    if table.backend == "local" and not table.bucket:
        return "bucket", "the folder where the peer's bucket is found on this machine"
    if table.backend == "s3" and not table.endpoint:
        return "endpoint", "the address of the S3 service, such as https://gateway.storjshare.io"
    if table.backend != "local" and not table.credentials:
        return "credentials", "a file (0600) with the Storj grant or the S3 keys"
    return None


def under(home: Path, text: str) -> Path:
    """An absolute path; a relative one counts from the home."""
    return (home / Path(text).expanduser()).absolute()
