"""Shapes on the wire, exactly as hydra-node 2.3.0 writes them (JSON by hand where it is hot, `json` elsewhere)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Final

from fednode.hydra.devnet.txview import Output, TxView

VERSION: Final = "2.3.0-fednode-embedded"


@dataclass(frozen=True)
class Event:
    """A server output with a place in the history.

    `body` is its JSON without the last closing brace; where `utxo` is given also without the brace of the last key,
    `snapshot`, which takes the UTxO as its last field.
    """

    id: int
    time: str
    body: str
    utxo: str | None
    parties: int
    """Bit i: party i gets it."""
    note: tuple[str, tuple[str, ...]] = ("", ())
    """Tag and ids for those who wait in the process; not stored."""

    @cached_property
    def full(self) -> str:
        return self.body if self.utxo is None else f'{self.body},"utxo":{self.utxo}}}'

    @cached_property
    def short(self) -> str:
        return self.body if self.utxo is None else self.body + "}"

    def text(self, party: int, *, with_utxo: bool) -> str:
        """The whole message for party index `party`, with its own sequence number: increasing, with gaps."""
        return f'{self.full if with_utxo else self.short},"seq":{3 * self.id + party},"timestamp":"{self.time}"}}'


def encode(value: object) -> str:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":"))


def joined(fields: Mapping[str, object], raw: Mapping[str, str]) -> str:
    """A JSON object: `fields` are encoded, `raw` values are JSON already."""
    parts = [f"{encode(key)}:{encode(value)}" for key, value in fields.items()]
    parts += [f"{encode(key)}:{text}" for key, text in raw.items()]
    return "{" + ",".join(parts) + "}"


def opened(tag: str, fields: Mapping[str, object] | None = None, raw: Mapping[str, str] | None = None) -> str:
    """The `body` of an event: a JSON object without its last brace."""
    return joined({"tag": tag, **(fields or {})}, raw or {})[:-1]


def message(tag: str, fields: Mapping[str, object] | None = None, raw: Mapping[str, str] | None = None) -> str:
    """A whole client message, without sequence number and time."""
    return opened(tag, fields, raw) + "}"


def utxo_text(utxo: Mapping[str, Output]) -> str:
    """The JSON map of a UTxO."""
    return "{" + ",".join([f'"{txin}":{output.text}' for txin, output in utxo.items()]) + "}"


def transactions_text(txs: Sequence[TxView]) -> str:
    return "[" + ",".join([tx.envelope() for tx in txs]) + "]"


def timestamp(seconds: float) -> str:
    """UTC with microseconds and Z, for Unix `seconds`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
