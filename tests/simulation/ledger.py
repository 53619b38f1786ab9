"""Transactions and snapshots of the simulated head, with the ledger rules that matter to signals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from fednode.hydra.cbor import CborError
from fednode.hydra.transactions import RawTransaction, parse
from fednode.hydra.utxo import Coin, outputs_of

Utxo = dict[str, Coin]
parsed = lru_cache(maxsize=1 << 15)(parse)
"""Reading is pure: every node of every seed reads the same bytes."""


@dataclass(frozen=True, slots=True)
class Tx:
    id: str
    cbor: bytes
    raw: RawTransaction
    outputs: Mapping[str, Coin]


@lru_cache(maxsize=1 << 15)
def read_tx(cbor: bytes) -> Tx | None:
    """None for bytes that are no transaction."""
    try:
        raw = parsed(cbor)
    except CborError:
        return None
    return Tx(raw.id, cbor, raw, outputs_of(raw))


def problem(tx: Tx, utxo: Mapping[str, Coin]) -> str:
    """Why a ledger refuses the transaction on top of `utxo`; "" where it takes it."""
    if not tx.raw.inputs or any(reference not in utxo for reference in tx.raw.inputs):
        return "BadInputsUTxO"
    spent = sum(utxo[reference].lovelace for reference in tx.raw.inputs)
    if spent != sum(coin.lovelace for coin in tx.outputs.values()) + tx.raw.fee:
        return "ValueNotConservedUTxO"
    return ""


def apply(tx: Tx, utxo: Utxo) -> None:
    for reference in tx.raw.inputs:
        del utxo[reference]
    utxo.update(tx.outputs)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Confirmed by all. `utxo` is the state after it, without the deposit `commit` that it takes in."""

    number: int
    version: int
    txs: tuple[Tx, ...]
    utxo: Mapping[str, Coin]
    commit: str | None
    commit_utxo: Mapping[str, Coin] | None
