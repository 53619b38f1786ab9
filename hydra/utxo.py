"""Unspent outputs of a head as the node's JSON and transactions show them, in one comparable form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from fednode.hydra.addresses import bech32_address
from fednode.hydra.fields import Fields
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
    for reference, output in Fields(value, where).items():
        place = f"{where}.{reference[:80]}"
        fields = Fields(output, place)
        lovelace, assets = 0, list[tuple[str, str, int]]()
        for unit, amount in (values := fields.child("value")).items():
            if unit == "lovelace":
                lovelace = values.natural(unit)
            else:
                names = Fields(amount, f"{place}.value")
                assets += [(unit, name, names.natural(name)) for name, _ in names.items()]
        result[reference] = Coin(fields.text("address"), lovelace, tuple(sorted(assets)))
    return result


def same_money(left: Iterable[Coin], right: Iterable[Coin]) -> bool:
    """Whether both hold the same multiset of (address, value), whatever their references."""
    return Counter(left) == Counter(right)


@lru_cache(maxsize=4096)
def _address_text(address: bytes) -> str:
    return bech32_address(address) if address[0] >> 4 < 8 else address.hex()
