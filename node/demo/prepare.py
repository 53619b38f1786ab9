"""The demo's folders: a home per party, one agreement, the shares of the text. Starts nothing; safe to repeat."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fednode.durable import make_folders, write_atomic
from fednode.errors import ConfigError
from fednode.node import app
from fednode.node.demo.tables import DEPOSIT_ADA, MODEL, agreement_values
from fednode.node.home import Home
from fednode.node.names import party_names
from fednode.node.setup import own_card
from fednode.node.tomlwrite import Values, agreement_text, settings_text
from fednode.training.trainers.builtin import builtin_sha256

CONTESTATION_S = 2


@dataclass(frozen=True, slots=True)
class PartyCommands:
    """One party's home and what its user types."""

    home: Path
    init_head: Sequence[str]
    run: Sequence[str]
    close_head: Sequence[str]
    status: Sequence[str]


@dataclass(frozen=True, slots=True)
class Federation:
    """A prepared demo."""

    dir: Path
    task: str
    rounds: int
    seed: int
    env: Mapping[str, str]
    devnet: Sequence[str]
    parties: Mapping[str, PartyCommands]
    held_out: Path

    def home(self, party: str) -> Home:
        return Home(self.parties[party].home)


class Store(Protocol):
    """Where the buckets are, if they are no folders."""

    def tables(self, folder: Path, party: str, peers: Sequence[str]) -> tuple[dict[str, object], dict[str, Any]]:
        """The table [storage] of a party, and the tables [peers.NAME] of its peers."""
        ...


def prepare(folder: Path, count: int, task: str, rounds: int, seed: int, store: Store | None = None) -> Federation:
    """Make `folder` ready. ConfigError where it holds a demo with other settings."""
    folder = folder.absolute()
    names = party_names(count)
    node = app.devnet_settings(folder, count, contestation_period_s=CONTESTATION_S, fund_ada=DEPOSIT_ADA)
    head = {
        "contestation_period_s": node.contestation_period_s,
        "deposit_period_s": node.deposit_period_s,
        "magic": node.magic,
    }
    held_out = _shares(folder / "data", names, task)
    base = {} if task == "linear" else builtin_sha256(str(MODEL[task]["name"]))
    values = agreement_values(task, rounds, seed, base)
    values["head"] |= head
    for party in node.parties:
        own, peers = _buckets(folder, names, party.name, store)
        head_table = {"url": party.url, "funding": party.funding}
        _write_settings(folder, names, party.name, {"head": head_table, "storage": own}, peers, task)
    cards = [own_card(Home(folder / name)) for name in names]
    _write(folder / "peers.toml", agreement_text(values, cards))
    words = [sys.executable, "-m", "fednode"]
    return Federation(
        dir=folder,
        task=task,
        rounds=rounds,
        seed=seed,
        env={},
        devnet=[*words, "devnet", "--parties", str(count), "--dir", str(folder), "--json"],
        parties={name: _commands(words, folder, name, rounds) for name in names},
        held_out=held_out,
    )


def _commands(words: Sequence[str], folder: Path, name: str, rounds: int) -> PartyCommands:
    home = folder / name
    tail = ["--home", str(home), "--json"]
    return PartyCommands(
        home=home,
        init_head=[*words, "init-head", "--peers", str(folder / "peers.toml"), *tail],
        run=[*words, "run", "--epochs", str(rounds), *tail],
        close_head=[*words, "close-head", "--yes", *tail],
        status=[*words, "status", "--peers", str(folder / "peers.toml"), *tail],
    )


def _shares(folder: Path, names: Sequence[str], task: str) -> Path:
    """The held-out file; only `lm` has text, the other tasks make or bring their own data."""
    if task != "lm":
        return folder / "held-out.txt"
    from fednode.node.demo.corpus import write_shares

    return write_shares(folder, names).held_out


def _buckets(
    folder: Path, names: Sequence[str], name: str, store: Store | None
) -> tuple[dict[str, object], dict[str, Any]]:
    others = [peer for peer in names if peer != name]
    if store is not None:
        return store.tables(folder, name, others)
    return {}, {peer: str(folder / peer / "bucket") for peer in others}


def _write_settings(
    folder: Path, names: Sequence[str], name: str, tables: Values, peers: Mapping[str, Any], task: str
) -> None:
    values: dict[str, Mapping[str, object]] = {
        "party": {"name": name},
        **tables,
        "train": {"threads": 1, "device": "cpu"},
        "data": {"parties": len(names)} if task == "digits" else {},
    }
    if task == "lm":
        data = folder / "data"
        values["data"] = {"path": str(data / f"{name}.txt"), "held_out": str(data / "held-out.txt")}
    _write(folder / name / "fednode.toml", settings_text(values, peers))


def _write(path: Path, text: str) -> None:
    """Write a file of the demo, or find the same one: a repeated demo goes on, another one needs another folder."""
    if path.exists():
        if path.read_text() != text:
            raise ConfigError(
                f"{path} is of a demo with other settings",
                hint="repeat the first demo's options to go on with it, or use another --dir",
            )
        return
    make_folders(path.parent)
    write_atomic(path, text.encode())
