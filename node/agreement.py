"""The agreement: peers.toml checked, and the hashes that parties compare (protocol.md section 1)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import rfc8785

from fednode.errors import ConfigError
from fednode.node.agreement_tables import (
    MAGIC,
    MAX_PARTIES,
    MAX_ROUNDS,
    MAX_WEIGHTS,
    Aggregation,
    HeadTable,
    Model,
    Party,
    Run,
    Tables,
    Training,
    minimum_deposit,
    resolve_auto,
)
from fednode.node.tomlfile import TomlFile
from fednode.types import Digest, Member, PartyName, RunId

CheckAddress = Callable[[str, str, int], None]
"""(address, cardano_vkey, magic): ConfigError unless it is an address of that key on that network."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """A checked agreement: defaults filled in, `auto` resolved, parties sorted by name."""

    tables: Tables
    path: Path = Path("peers.toml")
    """Where it was read from."""
    source: bytes = b""
    """The very bytes that were checked; empty where it was not read from a file."""

    @property
    def run(self) -> Run:
        return self.tables.run

    @property
    def model(self) -> Model:
        return self.tables.model

    @property
    def training(self) -> Training:
        return self.tables.training

    @property
    def aggregation(self) -> Aggregation:
        return self.tables.aggregation

    @property
    def head(self) -> HeadTable:
        return self.tables.head

    @property
    def party(self) -> tuple[Party, ...]:
        """Sorted by name: the agreement order."""
        return self.tables.party

    @property
    def members(self) -> tuple[Member, ...]:
        """The parties as the other packages know them, in agreement order."""
        return tuple(
            Member(PartyName(p.name), p.hydra_vkey, p.cardano_vkey, p.fuel_vkey, p.address, p.weight)
            for p in self.party
        )

    @property
    def content(self) -> dict[str, Any]:
        """The hash input as JSON values: everything but host:port and file paths."""
        content = self.tables.model_dump(mode="json")
        del content["model"]["path"]
        for party in content["party"]:
            del party["host"]
            if party["store"] == "local":
                del party["read"]  # where a folder is mounted is each machine's own business
        return content

    @property
    def agreement_hash(self) -> Digest:
        """sha256 of the canonical JSON of `content`, hex."""
        return Digest(_sha256(self.content).hex())

    @property
    def run_id(self) -> RunId:
        """The first 16 bytes of the agreement hash, hex."""
        return RunId(self.agreement_hash[:32])

    @property
    def sections(self) -> dict[str, str]:
        """For every table, and for each party `party.<name>`, the first 8 bytes of sha256 of its JSON, hex."""
        content = self.content
        parts = {f"party.{party['name']}": party for party in content.pop("party")} | content
        return {name: _sha256(part)[:8].hex() for name, part in sorted(parts.items())}

    @property
    def binding_hash(self) -> str:
        """Hash of the agreement without run.rounds, hex: what init-head binds a home to."""
        content = self.content
        del content["run"]["rounds"]
        return _sha256(content).hex()

    def object_json(self, schema_json: bytes) -> bytes:
        """The object of round 0: canonical JSON `{agreement, schema}`."""
        return rfc8785.dumps({"agreement": self.content, "schema": json.loads(schema_json)})

    def with_rounds(self, rounds: int) -> Agreement:
        """The same agreement with another run.rounds (`--epochs`). ConfigError out of range."""
        if not 1 <= rounds <= MAX_ROUNDS:
            raise ConfigError(f"--epochs is {rounds}, expected 1 to {MAX_ROUNDS}")
        run = self.run.model_copy(update={"rounds": rounds})
        return replace(self, tables=self.tables.model_copy(update={"run": run}))

    def model_table(self, home: Path) -> dict[str, Any]:
        """The [model] table as JSON values; a relative path counts from `home`, an empty one is left out."""
        table = self.model.model_dump(mode="json")
        path = table.pop("path")
        return table | ({"path": str((home / Path(path).expanduser()).absolute())} if path else {})

    def training_table(self) -> dict[str, Any]:
        """The [training] table as JSON values."""
        return self.training.model_dump(mode="json")

    def find(self, name: str, *, source: str = "fednode.toml") -> Party:
        """The party `name`. ConfigError where the agreement has no such party."""
        for party in self.party:
            if party.name == name:
                return party
        names = ", ".join(party.name for party in self.party)
        raise ConfigError(
            f"{source}: party.name is {name!r}, expected a party of the agreement: {names}",
            hint="fednode peers add CARD, or correct party.name",
        )

    def index(self, name: str) -> int:
        """Place of the party in agreement order. ConfigError where there is none of that name."""
        return self.party.index(self.find(name))


def load_agreement(path: Path, *, check_address: CheckAddress | None = None) -> Agreement:
    """Read peers.toml. ConfigError names file, line, key, value, expectation and fix."""
    file = TomlFile.read(path, missing_hint="make it with: fednode peers add CARD..., or name it: --peers FILE")
    return replace(parse_agreement(file.tables(), file=file, check_address=check_address), path=path, source=file.data)


def parse_agreement(
    tables: Mapping[str, Any],
    *,
    file: TomlFile | None = None,
    check_address: CheckAddress | None = None,
    least: int = 2,
) -> Agreement:
    """Check raw tables (from a file, or the `agreement` of a round-0 object). ConfigError as in `load_agreement`.

    `least` = 1 while an agreement is being put together.
    """
    file = file or TomlFile("peers.toml")
    checked = file.checked(Tables, resolve_auto(dict(tables)))
    _check_parties(file, checked, least)
    _check_rules(file, checked)
    for index, party in enumerate(checked.party if check_address is not None else ()):
        try:
            cast(CheckAddress, check_address)(party.address, party.cardano_vkey, checked.head.magic)
        except ConfigError as error:
            expected = f"the funds address of cardano_vkey: {error.message}"
            raise file.wrong(("party", index, "address"), party.address, expected, error.hint) from None
    ordered = tuple(sorted(checked.party, key=lambda party: party.name.encode()))
    return Agreement(checked.model_copy(update={"party": ordered}))


def _check_parties(file: TomlFile, tables: Tables, least: int) -> None:
    parties = tables.party
    if not least <= len(parties) <= MAX_PARTIES:
        hint = "fednode peers add CARD adds one"
        raise ConfigError(f"{file.name}: party: {len(parties)} parties, expected 2 to {MAX_PARTIES}", hint=hint)
    for key in ("name", "hydra_vkey", "cardano_vkey", "fuel_vkey", "address", "host"):
        seen: dict[str, str] = {}
        for index, party in enumerate(parties):
            value = cast(str, getattr(party, key))
            if value and value in seen:
                hint = f"{seen[value]} has the same"
                raise file.wrong(("party", index, key), value, "a value that no other party has", hint)
            seen[value] = party.name
    for index, party in enumerate(parties):
        if party.fuel_vkey == party.cardano_vkey:
            expected = "another key than cardano_vkey: the hydra-node must not spend the funds"
            raise file.wrong(("party", index, "fuel_vkey"), party.fuel_vkey, expected)
        port = party.host.rpartition(":")[2]
        if port and not 1 <= int(port) <= 65535:
            raise file.wrong(("party", index, "host"), party.host, "a port from 1 to 65535")
        if party.store != "local" and not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", party.bucket):
            expected = f"a name that {party.store} takes: 3 to 63 of a-z, 0-9, dot and -, no dot or - at the ends"
            raise file.wrong(("party", index, "bucket"), party.bucket, expected)


def _check_rules(file: TomlFile, tables: Tables) -> None:
    parties, head, rule = tables.party, tables.head, tables.aggregation.rule
    weights = [party.weight for party in parties]
    if sum(weights) > MAX_WEIGHTS:
        index = weights.index(max(weights))
        raise file.wrong(("party", index, "weight"), weights[index], f"a sum of all weights of at most {MAX_WEIGHTS}")
    for index, weight in enumerate(weights):
        if weight != 1 and rule != "mean":
            hint = "make every weight 1, or aggregation.rule mean"
            raise file.wrong(("party", index, "weight"), weight, f"1 with aggregation.rule {rule!r}", hint)
    least = minimum_deposit(len(parties))
    if head.deposit < least:
        expected = f"at least {least} lovelace: max(10, 3 N) ADA for {len(parties)} parties"
        raise file.wrong(("head", "deposit"), head.deposit, expected, f"deposit = {least}")
    if head.network in ("preprod", "preview") and head.magic != MAGIC[head.network]:
        expected = f"{MAGIC[head.network]}, the magic of {head.network}"
        raise file.wrong(("head", "magic"), head.magic, expected, 'magic = "auto"')


def _sha256(value: Any) -> bytes:
    return hashlib.sha256(rfc8785.dumps(value)).digest()
