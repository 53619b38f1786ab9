"""Private settings: fednode.toml. Who am I, which keys, node, data and device. Nothing here changes the aggregate.

Relative paths count from the home.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints

from fednode.errors import ConfigError
from fednode.node.agreement_tables import Host, Line, Network, PartyNameText, Store
from fednode.node.places import STORE, BucketPlace, PathText, Peer, Storage, gap, under
from fednode.node.tomlfile import Strict, TomlFile, checked_address
from fednode.types import PartyName


def _url(value: str) -> str:
    expected = "http://HOST:PORT, ws://HOST:PORT, https://HOST:PORT or wss://HOST:PORT"
    return checked_address(value, ("http", "https", "ws", "wss"), expected)


class PartyTable(Strict):
    name: PartyNameText = Field(description="own name in the agreement: 1 to 32 of a-z, 0-9 and -")
    host: Host = Field(default="", description="host:port where the peers reach the own hydra-node; goes on the card")


class Keys(Strict):
    funds: PathText = Field(default="keys/funds.sk", min_length=1, description="signing key of the funds (0600)")
    hydra: PathText = Field(default="keys/hydra.sk", min_length=1, description="signing key of the hydra-node's party")
    fuel: PathText = Field(default="keys/fuel.sk", min_length=1, description="signing key of the hydra-node's fuel")


class HeadPrivate(Strict):
    network: Network = Field(default="embedded", description='of a new peers.toml; "embedded", "devnet", "preprod"')
    url: Annotated[str, StringConstraints(max_length=500), AfterValidator(_url)] = Field(
        default="http://127.0.0.1:4001", description="API of the own hydra-node"
    )
    funding: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64}#\d{1,5})?$")] = Field(
        default="", description='output at the funds address that the deposit is made from, "txid#ix"'
    )
    allow_plain: bool = Field(default=False, description="allow an unencrypted connection to another machine")
    ca_file: PathText = Field(
        default="", description="for https: certificate (PEM) of the node's own authority, empty = this machine's"
    )


class Data(Strict):
    path: PathText = Field(default="", description="file or folder with the own training data")
    format: Literal["auto", "text", "jsonl"] = Field(
        default="auto", description='"text", "jsonl"; "auto" = by the file\'s name'
    )
    field: Line = Field(default="text", min_length=1, description="for jsonl: the field that holds the text")
    held_out: PathText = Field(default="", description="file with own data that is never trained on")
    micro_batch: int = Field(
        default=0, ge=0, le=65_536, description="sequences in the model at once, 0 = all; saves memory, changes nothing"
    )
    checkpointing: bool = Field(default=False, description="recompute activations: less memory, more time")
    parties: int = Field(default=0, ge=0, le=29, description="for the task digits: over how many parties it is dealt")


class Train(Strict):
    device: Annotated[str, StringConstraints(pattern=r"^(auto|cpu|cuda)$")] = Field(
        default="auto", description='"auto", "cpu" or "cuda"'
    )
    threads: int = Field(default=0, ge=0, le=4096, description="threads of the trainer, 0 = one per core")


class Log(Strict):
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description='"debug", "info", "warning" or "error"'
    )


class SettingsTables(Strict):
    party: PartyTable = Field(description="table [party] with name")
    keys: Keys = Field(default_factory=Keys, description="table [keys]")
    head: HeadPrivate = Field(default_factory=HeadPrivate, description="table [head]")
    storage: Storage = Field(default_factory=Storage, description="table [storage]")
    data: Data = Field(default_factory=Data, description="table [data]")
    train: Train = Field(default_factory=Train, description="table [train]")
    log: Log = Field(default_factory=Log, description="table [log]")
    peers: dict[PartyNameText, Peer] = Field(
        default_factory=dict[PartyNameText, Peer], description="tables [peers.NAME] that say where a peer's bucket is"
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """Checked private settings. Methods that give paths take the home's folder."""

    tables: SettingsTables

    @property
    def name(self) -> PartyName:
        return PartyName(self.tables.party.name)

    @property
    def head_url(self) -> str:
        return self.tables.head.url

    @property
    def funding(self) -> str:
        """`txid#ix` of the output that the deposit is made from; may be empty."""
        return self.tables.head.funding

    @property
    def allow_plain(self) -> bool:
        """Whether an unencrypted connection may leave this machine."""
        return self.tables.head.allow_plain

    def ca_file(self, home: Path) -> Path | None:
        """Certificate of the authority that signed the node's; None: the authorities of this machine."""
        return under(home, self.tables.head.ca_file) if self.tables.head.ca_file else None

    @property
    def device(self) -> str:
        return self.tables.train.device

    @property
    def threads(self) -> int:
        """0 = the number of cores."""
        return self.tables.train.threads

    @property
    def log_level(self) -> str:
        return self.tables.log.level

    @property
    def bucket_name(self) -> str:
        """The own bucket's name in the agreement."""
        storage = self.tables.storage
        return storage.name or self.name if storage.backend == "local" else storage.bucket

    @property
    def store(self) -> Store:
        """The own bucket's kind in the agreement."""
        return STORE[self.tables.storage.backend]

    def funds_key(self, home: Path) -> Path:
        return under(home, self.tables.keys.funds)

    def hydra_key(self, home: Path) -> Path:
        return under(home, self.tables.keys.hydra)

    def fuel_key(self, home: Path) -> Path:
        return under(home, self.tables.keys.fuel)

    def own_bucket(self, home: Path) -> BucketPlace:
        storage = self.tables.storage
        name = str(under(home, storage.bucket)) if storage.backend == "local" else storage.bucket
        return BucketPlace(storage, name, home)

    def peer_bucket(self, party: PartyName, name: str, home: Path) -> BucketPlace:
        """Where a peer's bucket is, which the agreement calls `name`. ConfigError where the settings do not say."""
        peer = self.tables.peers.get(party)
        if peer is None:
            raise ConfigError(
                f"{home / 'fednode.toml'}: peers.{party}.bucket is missing, expected the folder of {party}'s bucket",
                hint=f'add a table [peers.{party}] with bucket = "/path/to/the/bucket", or with another backend',
            )
        return BucketPlace(
            peer, str(under(home, peer.bucket)) if peer.backend == "local" else peer.bucket or name, home
        )

    def data_table(self, home: Path) -> dict[str, Any]:
        """The [data] table as JSON values for the trainer: absolute paths, unset keys left out, `auto` resolved."""
        data = self.tables.data
        table: dict[str, Any] = {"field": data.field, "checkpointing": data.checkpointing}
        if data.path:
            kind = "jsonl" if data.path.endswith(".jsonl") else "text"
            table |= {"path": str(under(home, data.path)), "format": kind if data.format == "auto" else data.format}
        if data.held_out:
            table["held_out"] = str(under(home, data.held_out))
        return table | {k: v for k, v in (("micro_batch", data.micro_batch), ("parties", data.parties)) if v}


def load_settings(path: Path) -> Settings:
    """Read fednode.toml. ConfigError names file, line, key, value, expectation and fix."""
    file = TomlFile.read(path, missing_hint="make it with: fednode init --name NAME")
    return parse_settings(file.tables(), file=file)


def parse_settings(tables: dict[str, Any], *, file: TomlFile | None = None) -> Settings:
    """Check raw tables. ConfigError as in `load_settings`."""
    file = file or TomlFile("fednode.toml")
    checked = file.checked(SettingsTables, tables)
    if checked.party.name in checked.peers:
        name = checked.party.name
        raise ConfigError(
            f"{file.name}: peers.{name} names the own party, expected peers only",
            hint="the own bucket is storage.bucket",
        )
    for where, place in ((("storage",), checked.storage), *((("peers", n), p) for n, p in checked.peers.items())):
        lacking = gap(place)
        if lacking is not None:
            key, expected = lacking
            raise file.missing((*where, key), f'{expected} (backend is "{place.backend}")')
    return Settings(checked)
