"""Unspent outputs of a head as the node's JSON and transactions show them, in one comparable form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

from fednode.errors import HeadError
from fednode.hydra.addresses import bech32_address
from fednode.hydra.transactions import Assets, RawTransaction


@dataclass(frozen=True, slots=True)
class Coin:
    """What an output holds: bech32 address (hex where the bytes are no Shelley address), lovelace, other assets."""

    address: str
    lovelace: int
    assets: Assets = ()


Utxo = Mapping[str, Coin]
"""`txid#ix` to output."""


def outputs_of(transaction: RawTransaction) -> dict[str, Coin]:
    """The outputs that a transaction creates, with their references."""
    return {
        f"{transaction.id}#{index}": Coin(_address_text(output.address), output.lovelace, output.assets)
        for index, output in enumerate(transaction.outputs)
    }


def parse_utxo(value: object, where: str) -> dict[str, Coin]:
    """The node's JSON `{txid#ix: {address, value: {lovelace, policy: {name: quantity}}}}`, else HeadError."""
    result: dict[str, Coin] = {}
    for reference, output in _entries(value, where):
        fields = dict(_entries(output, f"{where}.{reference[:80]}"))
        address = fields.get("address")
        if not isinstance(address, str):
            raise HeadError(f"hydra-node {where}.{reference[:80]}: expected an address")
        lovelace, assets = 0, list[tuple[str, str, int]]()
        for unit, amount in _entries(fields.get("value"), f"{where}.{reference[:80]}.value"):
            if unit == "lovelace":
                lovelace = _quantity(amount, where)
            else:
                assets += [(unit, name, _quantity(item, where)) for name, item in _entries(amount, where)]
        result[reference] = Coin(address, lovelace, tuple(sorted(assets)))
    return result


def same_money(left: Iterable[Coin], right: Iterable[Coin]) -> bool:
    """Whether both hold the same multiset of (address, value), whatever their references."""
    return Counter(left) == Counter(right)


def _entries(value: object, where: str) -> list[tuple[str, object]]:
    if not isinstance(value, dict):
        raise HeadError(f"hydra-node {where}: expected a JSON object, found {type(value).__name__}")
    return list(cast("dict[str, object]", value).items())


def _quantity(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise HeadError(f"hydra-node {where}: expected a quantity, a whole number of at least 0")
    return value


@lru_cache(maxsize=4096)
def _address_text(address: bytes) -> str:
    return bech32_address(address) if address[0] >> 4 < 8 else address.hex()
