"""Writing settings files for people: every key with a comment, and comments survive later additions."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import tomlkit
from pydantic import BaseModel

from fednode.durable import make_folders, write_atomic
from fednode.errors import ConfigError
from fednode.node.agreement import CheckAddress, parse_agreement
from fednode.node.agreement_tables import Party, Tables
from fednode.node.config import SettingsTables, parse_settings
from fednode.node.tomlfile import Strict, TomlFile

Values = Mapping[str, Mapping[str, object]]
"""Table name to key to value."""
Peers = Mapping[str, str | Mapping[str, object]]
"""Peer's name to its table [peers.NAME], or to the folder of its local bucket."""

AUTOMATIC: Values = {
    "model": {"alpha": "auto"},
    "training": {"learning_rate": "auto"},
    "aggregation": {"rule": "auto"},
    "head": dict.fromkeys(
        ("magic", "contestation_period_s", "deposit_period_s", "deposit", "settle_s", "takeover_s"), "auto"
    ),
}
_HEADER = re.compile(r"\s*\[{1,2}[^\[\]]+\]{1,2}\s*(#.*)?$")
_PARTY = re.compile(r"\s*\[\[\s*party\s*\]\]")
_AGREEMENT_HEAD = """\
# The agreement: the same file at every party. `fednode peers hash` shows a hash of its meaning to read aloud.
# host, model.path and comments do not count for the hash. No secret belongs in here.
"""
_SETTINGS_HEAD = """\
# Private settings of this party: nothing here changes what the federation computes, and nobody else needs this file.
# Relative paths count from this folder.
"""


def agreement_text(values: Values, parties: Sequence[Mapping[str, object]] = ()) -> str:
    """A commented peers.toml. `values` replace defaults (model.name has none); absent automatic values are "auto"."""
    tables = [name for name in Tables.model_fields if name != "party"]
    merged = {name: {**AUTOMATIC.get(name, {}), **values.get(name, {})} for name in tables}
    text = _AGREEMENT_HEAD + "".join(_table(name, _class(Tables, name), merged[name]) for name in tables)
    return text + "".join("\n" + _party("[[party]]", party) for party in parties)


def settings_text(values: Values, peers: Peers | None = None) -> str:
    """A commented fednode.toml. `values` replace defaults (party.name has none)."""
    tables = [name for name in SettingsTables.model_fields if name != "peers"]
    text = _SETTINGS_HEAD + "".join(_table(name, _class(SettingsTables, name), values.get(name, {})) for name in tables)
    text += "\n# Where the peers' buckets are found on this machine, one table for each:\n"
    text += '#   [peers.bob]\n#   bucket = "/mnt/bob/bucket"\n'
    text += '#   [peers.carol]\n#   backend = "rclone"\n#   credentials = "grants/carol.grant"\n'
    return text + "".join(_peer(name, table) for name, table in (peers or {}).items())


def card_text(card: Mapping[str, object]) -> str:
    """A party's public card: what the others add to their peers.toml."""
    return f"# Public card of {card['name']} for `fednode peers add`. It holds no secret.\n" + _party("[party]", card)


def write_new(path: Path, text: str) -> None:
    """Create a settings file. ConfigError where one exists (it is never overwritten) or its folder cannot be made."""
    try:
        exists = path.exists()
        make_folders(path.parent)
    except OSError as error:
        shown = str(path) if len(str(path)) <= 300 else f"{str(path)[:297]}..."
        raise ConfigError(
            f"{shown} cannot be made: {error.strerror}", hint="is a file in the folder's place?"
        ) from None
    if exists:
        raise ConfigError(f"{path} exists; it is never overwritten", hint="edit it, or move it away first")
    write_atomic(path, text.encode())


def read_card(path: Path) -> dict[str, Any]:
    """The checked card in a TOML file with one table [party]. ConfigError names file, line, key and expectation."""
    file = TomlFile.read(path, missing_hint="a party makes its card with: fednode peers card -o FILE")
    tables = file.tables()
    extra = sorted(set(tables) - {"party"})
    card = tables.get("party")
    if extra or not isinstance(card, dict):
        found = f"table {extra[0]!r}" if extra else "no such table" if card is None else "another kind of value"
        raise ConfigError(
            f"{file.name}: {found}, expected one table [party]", hint="fednode peers card -o FILE makes one"
        )
    file.checked(_Card, tables)
    return cast("dict[str, Any]", card)


def add_parties(
    path: Path, cards: Sequence[Mapping[str, Any]], *, check_address: CheckAddress | None = None
) -> list[str]:
    """Add cards to an existing peers.toml, keep its comments, sort the parties by name; returns the names added.

    A card that is there already changes nothing. ConfigError, and nothing written, for another card of the same name
    and wherever the result would be no valid agreement (one party alone is allowed while it is put together).
    """
    file = TomlFile.read(path, missing_hint="fednode peers add CARD makes it")
    tables = file.tables()
    old: Any = tables.get("party", [])
    others, parties = _segments(file.text)
    if not isinstance(old, list) or len(cast("list[object]", old)) != len(parties):
        raise ConfigError(f"{path}: party is written in another form, expected one table [[party]] for each party")
    present: dict[str, Mapping[str, Any]] = {
        str(party.get("name")): party for party in cast("list[dict[str, Any]]", old)
    }
    added = [card for card in cards if not _is_present(path, card, present)]
    if not added:
        return []
    blocks = parties + [_party("[[party]]", card) for card in added]
    blocks.sort(key=lambda block: str(tomllib.loads(block)["party"][0].get("name")).encode())
    text = "\n\n".join(part.strip("\n") for part in (others[0], *blocks, *others[1:])).lstrip("\n") + "\n"
    changed = TomlFile(file.name, text)
    parse_agreement(changed.tables(), file=changed, check_address=check_address, least=1)
    write_atomic(path, text.encode(), mode=path.stat().st_mode & 0o777)
    return [str(card["name"]) for card in added]


def add_peers(path: Path, peers: Peers) -> list[str]:
    """Add tables [peers.NAME] to an existing fednode.toml for the peers that have none; returns their names."""
    file = TomlFile.read(path, missing_hint="make it with: fednode init --name NAME")
    settings = parse_settings(file.tables(), file=file)
    added = [name for name in peers if name not in settings.tables.peers and name != settings.name]
    if added:
        text = file.text.rstrip("\n") + "\n" + "".join(_peer(name, peers[name]) for name in added)
        changed = TomlFile(file.name, text)
        parse_settings(changed.tables(), file=changed)
        write_atomic(path, text.encode(), mode=path.stat().st_mode & 0o777)
    return added


def _is_present(path: Path, card: Mapping[str, Any], present: dict[str, Mapping[str, Any]]) -> bool:
    """Whether exactly this card is in the file, or was given before. ConfigError where another one of its name is."""
    name = str(card["name"])
    old = present.get(name)
    if old is None:
        present[name] = card
        return False
    # What only the agreement says (the weight) is no difference; what a card leaves out has its default.
    differ = ", ".join(key for key, value in card.items() if old.get(key, Party.model_fields[key].default) != value)
    if differ:
        raise ConfigError(
            f"{path}: there is another party {name}; the card differs in {differ}",
            hint=f"remove the [[party]] table of {name} first if the new card is the right one",
        )
    return True


def _segments(text: str) -> tuple[list[str], list[str]]:
    """The file cut before each table, with the comment lines right above a table: (other parts, [[party]] parts).

    The first other part is everything up to the first party; the second, if any, what follows.
    """
    lines = text.split("\n")
    starts = [0]
    for number, line in enumerate(lines):
        if _HEADER.match(line):
            start = number
            while start > starts[-1] and lines[start - 1].lstrip().startswith("#"):
                start -= 1
            starts.append(start)
    pieces = ["\n".join(lines[a:b]) for a, b in zip(starts, [*starts[1:], len(lines)], strict=True)]
    flags = [any(_PARTY.match(line) for line in piece.split("\n")) for piece in pieces]
    first = flags.index(True) if True in flags else len(pieces)
    before = "\n".join(pieces[:first])
    after = "\n".join(piece for piece, party in zip(pieces[first:], flags[first:], strict=True) if not party)
    return [before, after] if after.strip() else [before], [p for p, flag in zip(pieces, flags, strict=True) if flag]


def _table(name: str, model: type[BaseModel], values: Mapping[str, object]) -> str:
    """A table with every key, its value or default, and its description as a comment."""
    unknown = set(values) - set(model.model_fields)
    if unknown:
        raise ValueError(f"no such keys in [{name}]: {sorted(unknown)}")
    lines = ["", f"[{name}]"]
    for key, field in model.model_fields.items():
        value = values[key] if key in values else field.get_default(call_default_factory=True)
        lines.append(f"{key} = {_toml(value)}  # {field.description}")
    return "\n".join(lines) + "\n"


def _party(header: str, card: Mapping[str, object]) -> str:
    return "\n".join([header, *(f"{key} = {_toml(value)}" for key, value in card.items())]) + "\n"


def _peer(name: str, table: str | Mapping[str, object]) -> str:
    values = {"bucket": table} if isinstance(table, str) else table
    return "\n".join(["", f"[peers.{name}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]) + "\n"


def _toml(value: object) -> str:
    """One line of TOML for a value."""
    if isinstance(value, Mapping):
        items = cast("Mapping[str, object]", value).items()
        return "{" + ", ".join(f"{_toml(key)} = {_toml(item)}" for key, item in items) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in cast("Sequence[object]", value)) + "]"
    return str(tomlkit.item(value).as_string())  # text, number or truth value


def _class(model: type[BaseModel], name: str) -> type[BaseModel]:
    return cast("type[BaseModel]", model.model_fields[name].annotation)


class _Card(Strict):
    party: Party
