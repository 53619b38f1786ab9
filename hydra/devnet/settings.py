"""The one file that describes an embedded head: `<folder>/devnet/settings.json`. It holds no secret.

Party keys lie in `<folder>/<name>/keys` (hydra.sk, fuel.sk, funds.vk), as in every home; serving reads them.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, cast

from fednode.durable import make_folders, write_atomic
from fednode.errors import ConfigError
from fednode.hydra.keys import KeyKind, write_pair

PORTS: Final = range(10_000, 32_768)
"""Below those that outgoing connections are given: a port stays free while the head does not run, also from daemons
that try to reach it."""
MAX_PARTIES: Final = 29
"""The largest head that hydra-node 2.x opens."""
_KINDS: Final[tuple[KeyKind, ...]] = ("hydra", "fuel", "funds")


@dataclass(frozen=True, slots=True)
class DevnetParty:
    """One party of the embedded head."""

    name: str
    port: int
    """Loopback port of its API."""
    fund: int
    """Lovelace that genesis gives to the party's funds address, in one output."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def funding(self) -> str:
        """`txid#ix` of the genesis output at the funds address."""
        return f"{faucet_txid(self.name)}#0"


@dataclass(frozen=True, slots=True)
class DevnetSettings:
    """Everything that shapes the simulated layer 1 and its head. Periods in seconds of chain time."""

    folder: Path
    """The folder of the homes; state lies in `folder / "devnet"`."""
    parties: tuple[DevnetParty, ...]
    magic: int
    contestation_period_s: int
    deposit_period_s: int
    block_s: float = 0.1
    """A block, and so a chain tick, every so many seconds."""
    slot_s: float = 0.3
    """Longer than a block, so that a draft deposit, valid for slots, lives 0.45 deposit periods on this short chain."""
    hop_s: float = 0.001
    """What a message takes between two nodes."""
    max_utxo: int = 4095
    """Beyond it a snapshot request fails in silence, as from hydra-node 2.2 on."""

    @property
    def state(self) -> Path:
        return self.folder / "devnet"


def faucet_txid(name: str) -> str:
    """The id of the genesis transaction that funds party `name`."""
    return hashlib.blake2b(b"fednode devnet faucet/" + name.encode(), digest_size=32).hexdigest()


def least_deposit_period(parties: int) -> int:
    """Seconds. A draft lives about 0.45 periods; 0.55 remain for `parties` increments, one per block."""
    return max(3, math.ceil(parties * 0.5))


def create(
    folder: Path,
    names: Sequence[str],
    *,
    magic: int = 42,
    contestation_period_s: int = 2,
    deposit_period_s: int | None = None,
    fund: int = 100_000_000,
    ports: Sequence[int] | None = None,
) -> DevnetSettings:
    """Write the settings of a new embedded head and generate the party keys that are missing.

    Existing settings are loaded and returned as they are; ConfigError where they are for other parties.
    Free loopback ports are picked where `ports` is None; the deposit period defaults to `least_deposit_period`.
    """
    path = folder / "devnet" / "settings.json"
    if path.exists():
        found = load(folder)
        if tuple(party.name for party in found.parties) != tuple(names):
            listed = ", ".join(party.name for party in found.parties)
            raise ConfigError(
                f"{path} is for the parties {listed}, asked for {', '.join(names)}",
                hint="use another folder, or the same names in the same order",
            )
        return found
    chosen = tuple(ports) if ports is not None else _free_ports(len(names))
    if len(chosen) != len(names):
        raise ConfigError(f"{len(chosen)} ports for {len(names)} parties, expected one each")
    parties = tuple(DevnetParty(name, port, fund) for name, port in zip(names, chosen, strict=True))
    period = least_deposit_period(len(names)) if deposit_period_s is None else deposit_period_s
    settings = _checked(DevnetSettings(folder, parties, magic, contestation_period_s, period), path)
    for name in names:
        _generate_keys(folder / name / "keys")
    make_folders(path.parent)
    document = {key: value for key, value in asdict(settings).items() if key != "folder"}
    write_atomic(path, (json.dumps(document, indent=2) + "\n").encode())
    return settings


def load(folder: Path) -> DevnetSettings:
    """Read `folder/devnet/settings.json`. ConfigError names the file and the key that is wrong."""
    path = folder / "devnet" / "settings.json"
    try:
        found: object = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist, expected the settings of an embedded head") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path} is not a JSON object")
    document = cast("Mapping[str, object]", found)
    entries = document.get("parties")
    if not isinstance(entries, list):
        raise ConfigError(f"{path}: parties is not a list")
    parties = tuple(_party(entry, path) for entry in cast("list[object]", entries))
    settings = DevnetSettings(
        folder=folder,
        parties=parties,
        magic=_integer(document, "magic", path),
        contestation_period_s=_integer(document, "contestation_period_s", path),
        deposit_period_s=_integer(document, "deposit_period_s", path),
        block_s=_seconds(document, "block_s", path),
        slot_s=_seconds(document, "slot_s", path),
        hop_s=_seconds(document, "hop_s", path),
        max_utxo=_integer(document, "max_utxo", path),
    )
    return _checked(settings, path)


def _party(entry: object, path: Path) -> DevnetParty:
    if not isinstance(entry, dict):
        raise ConfigError(f"{path}: a party is not an object")
    fields = cast("Mapping[str, object]", entry)
    name = fields.get("name")
    if not isinstance(name, str):
        raise ConfigError(f"{path}: a party has no name")
    return DevnetParty(name, _integer(fields, "port", path), _integer(fields, "fund", path))


def _integer(document: Mapping[str, object], key: str, path: Path) -> int:
    value = document.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ConfigError(f"{path}: {key} is {value!r}, expected an integer from 0 on")
    return value


def _seconds(document: Mapping[str, object], key: str, path: Path) -> float:
    value = document.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 3600:
        raise ConfigError(f"{path}: {key} is {value!r}, expected seconds between 0 and 3600")
    return float(value)


def _checked(settings: DevnetSettings, path: Path) -> DevnetSettings:
    names = [party.name for party in settings.parties]
    if not 1 <= len(names) <= MAX_PARTIES or len(set(names)) != len(names):
        raise ConfigError(f"{path}: {len(names)} parties, expected 1 to {MAX_PARTIES} with different names")
    for name in names:
        if not name or name in {".", "..", "devnet"} or "/" in name or "\0" in name:
            raise ConfigError(f"{path}: {name!r} cannot be the name of a party")
    ports = [party.port for party in settings.parties]
    if len(set(ports)) != len(ports) or not all(0 < port < 65536 for port in ports):
        raise ConfigError(f"{path}: ports {ports}, expected different ones between 1 and 65535")
    if settings.contestation_period_s < 1 or settings.deposit_period_s < 1:
        raise ConfigError(f"{path}: a contestation or deposit period is below 1 second")
    return settings


def _generate_keys(folder: Path) -> None:
    for kind in _KINDS:
        if not (folder / f"{kind}.vk").exists():
            write_pair(folder, kind, kind)


def _free_ports(count: int) -> tuple[int, ...]:
    """Distinct free ports of `PORTS`: all are held at once before any is released."""
    sockets: list[socket.socket] = []
    try:
        while len(sockets) < count:
            each = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                each.bind(("127.0.0.1", random.choice(PORTS)))
            except OSError:
                each.close()
            else:
                sockets.append(each)
        return tuple(cast("int", each.getsockname()[1]) for each in sockets)
    finally:
        for each in sockets:
            each.close()
