"""A demo whose buckets are in a Storj network on this machine (`scripts/storj-devnet up`), one customer a party."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from fednode.errors import ConfigError
from fednode.node import app, sharing
from fednode.node.config import load_settings
from fednode.node.demo.prepare import Federation
from fednode.storage.credentials import HeldGrant, write_credentials
from fednode.types import PartyName

_DAYS = 30.0
_MAX_FILE = 1 << 20


@dataclass(frozen=True, slots=True)
class Network:
    """What `scripts/storj-devnet up` left in its folder. Its secrets open nothing but a test network."""

    grants: Sequence[str] = field(repr=False)
    """One for each customer of the satellite, for all that is his."""
    endpoint: str
    """Of the S3 gateway before the first customer; empty without one."""
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)


def read_network(folder: Path) -> Network:
    """ConfigError where no network was started there."""
    path = folder / "storj.json"
    try:
        with path.open("rb") as file:
            values = cast("dict[str, Any]", json.loads(file.read(_MAX_FILE)))
        gateway = values["gateway"] or {"endpoint": "", "access_key": "", "secret_key": ""}
        grants = [str(project["grant"]) for project in values["projects"]]
        return Network(grants, gateway["endpoint"], gateway["access_key"], gateway["secret_key"])
    except FileNotFoundError:
        hint = f"scripts/storj-devnet up --dir {folder} starts one"
        raise ConfigError(f"{path} does not exist, expected a Storj network on this machine", hint=hint) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{path} is not what scripts/storj-devnet writes") from None


@dataclass(frozen=True, slots=True)
class DemoStore:
    """How the demo's parties reach their buckets."""

    name: str
    """`s3`, `uplink` or `rclone`."""
    network: Network

    def tables(self, folder: Path, party: str, peers: Sequence[str]) -> tuple[dict[str, object], dict[str, Any]]:
        """The table [storage] of a party, and the tables [peers.NAME] of its peers."""
        common: dict[str, object] = {"backend": self.name}
        if self.name == "s3":
            common["endpoint"] = self._endpoint()
        prefix = "demo-" + hashlib.sha256(str(folder).encode()).hexdigest()[:12]
        own = {**common, "bucket": f"fednode-{party}", "prefix": prefix, "credentials": "keys/bucket.grant"}
        return own, {peer: {**common, "credentials": f"grants/{peer}.grant"} for peer in peers}

    async def furnish(self, federation: Federation) -> None:
        """Make the buckets and hand out the grants. Safe to repeat: what is there is kept."""
        for index, name in enumerate(federation.parties):
            await (self._keys if self.name == "s3" else self._grants)(federation, index, name)

    def _endpoint(self) -> str:
        if not self.network.endpoint:
            raise ConfigError("the Storj network has no S3 gateway", hint="scripts/storj-devnet up --gateway")
        return self.network.endpoint

    async def _keys(self, federation: Federation, _index: int, name: str) -> None:
        """The one gateway has one pair of keys, which everybody gets: nobody is kept from writing here."""
        place = load_settings(federation.home(name).settings).own_bucket(federation.home(name).root)
        async with sharing.sharer(HeldGrant(self.network.grants[0]), place) as storj:
            await storj.create_bucket(place.bucket)
        words = {"access_key_id": self.network.access_key, "secret_access_key": self.network.secret_key}
        _write(federation.home(name).root / "keys" / "bucket.grant", words)
        for peer in federation.parties:
            if peer != name:
                _write(federation.home(name).root / "grants" / f"{peer}.grant", words)

    async def _grants(self, federation: Federation, index: int, name: str) -> None:
        home = federation.home(name)
        project = home.root / "owner" / "project.grant"
        _write(project, {"grant": self.network.grants[index % len(self.network.grants)]})
        site = app.open_site(home, peers=federation.dir / "peers.toml", epochs=federation.rounds)
        await sharing.create(home, site.settings, project, _DAYS)
        for peer in federation.parties:
            granted = federation.home(peer).root / "grants" / f"{name}.grant"
            if peer != name and not granted.exists():
                await sharing.share(site, PartyName(peer), _DAYS, granted, sharing.owner_file(home))


def _write(path: Path, words: Mapping[str, str]) -> None:
    if not path.exists():
        write_credentials(path, dict(words), None)
