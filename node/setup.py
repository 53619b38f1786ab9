"""Making a home and a card: where settings meet keys. Safe to repeat: what exists is kept, never overwritten."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fednode.durable import make_folders
from fednode.errors import ConfigError
from fednode.hydra.addresses import check_network, enterprise_address, key_hash, payment_credential
from fednode.hydra.keys import load_verification_key, write_pair
from fednode.node.agreement import Agreement, load_agreement
from fednode.node.agreement_tables import MAGIC
from fednode.node.config import Settings, load_settings, parse_settings
from fednode.node.home import Home
from fednode.node.tomlwrite import Peers, Values, agreement_text, settings_text, write_new
from fednode.training.trainers.builtin import TINY_BYTE_LLAMA, builtin_sha256

KeyKind = Literal["hydra", "fuel", "funds"]
KINDS: tuple[KeyKind, ...] = ("hydra", "fuel", "funds")


@dataclass(frozen=True, slots=True)
class Made:
    """What `make_home` found and made."""

    home: Path
    name: str
    address: str
    created: tuple[str, ...]
    kept: tuple[str, ...]


def make_home(home: Home, values: Values, *, peers: Peers | None = None) -> Made:
    """Create the home's folder, keys and fednode.toml (`values` as in `settings_text`), and keep what exists.

    A public key file that is missing beside its secret is made from it. ConfigError where fednode.toml exists for
    another party; KeyFileError where only a public key file exists, or others may enter the folder of the keys.
    """
    text = settings_text(values, peers)
    name = _checked_name(home, values, text)
    make_folders(home.root)
    done: dict[bool, list[str]] = {True: [], False: []}
    for kind in KINDS:
        secret, public = home.key(kind, "sk").exists(), home.key(kind, "vk").exists()
        if not (secret and public):
            write_pair(home.keys, kind, kind)
        done[secret].append(f"keys/{kind}.sk")
        if secret and not public:
            done[False].append(f"keys/{kind}.vk")
    exists = home.settings.exists()
    if not exists:
        write_new(home.settings, text)
    done[exists].append(home.settings.name)
    return Made(home.root, name, str(own_card(home)["address"]), tuple(done[False]), tuple(done[True]))


def _checked_name(home: Home, values: Values, text: str) -> str:
    """The party's name. Everything is checked before anything is written."""
    wanted = str(values["party"]["name"])
    if not home.settings.exists():
        return parse_settings(tomllib.loads(text)).name
    found = load_settings(home.settings).name
    if found != wanted:
        raise ConfigError(
            f"{home.settings}: party.name is {found!r}, expected {wanted!r} as asked for",
            hint="one home serves one party: use another --home, or --name " + found,
        )
    return found


def own_card(home: Home, settings: Settings | None = None) -> dict[str, object]:
    """The public card of the home's party: its [[party]] table without weight. Reads public key files only."""
    settings = settings or load_settings(home.settings)
    storage, place = settings.tables.storage, settings.own_bucket(home.root)
    hydra, cardano, fuel = (
        load_verification_key(path(home.root).with_suffix(".vk"))
        for path in (settings.hydra_key, settings.funds_key, settings.fuel_key)
    )
    return {
        "name": settings.name,
        "hydra_vkey": hydra,
        "cardano_vkey": cardano,
        "fuel_vkey": fuel,
        "address": enterprise_address(cardano, MAGIC[settings.tables.head.network]),
        "host": settings.tables.party.host,
        "store": settings.store,
        "bucket": settings.bucket_name,
        "prefix": storage.prefix,
        "read": storage.endpoint if settings.store == "s3" else place.bucket if settings.store == "local" else "",
    }


def new_agreement(home: Home, path: Path) -> None:
    """Create a commented peers.toml without parties: the defaults, with the base model that comes with fednode."""
    network = load_settings(home.settings).tables.head.network if home.settings.exists() else "embedded"
    model = {"name": TINY_BYTE_LLAMA, "sha256": builtin_sha256(TINY_BYTE_LLAMA), "rank": 8}
    write_new(path, agreement_text({"head": {"network": network}, "model": model}))


def check_address(address: str, cardano_vkey: str, magic: int) -> None:
    """ConfigError unless `address` is on the network and its payment credential is the hash of the key."""
    check_network(address, magic)
    found, expected = payment_credential(address).hex(), key_hash(cardano_vkey).hex()
    if found != expected:
        raise ConfigError(f"its payment credential is {found}, the hash of cardano_vkey is {expected}")


def read_agreement(path: Path) -> Agreement:
    """`load_agreement` with the addresses checked."""
    return load_agreement(path, check_address=check_address)
