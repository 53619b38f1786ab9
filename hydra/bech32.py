"""Bech32 (BIP-173), without its limit of 90 characters, as CIP-19 uses it for addresses.

Own code because the alternative, pycardano, takes over a second to import and every command reads addresses;
the tests compare both.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_VALUES: Final = {character: value for value, character in enumerate(_ALPHABET)}
_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_MAX_LENGTH: Final = 200


def encode(prefix: str, payload: bytes) -> str:
    """`prefix`1`payload` with its checksum, lower case."""
    values = _regroup(payload, 8, 5)
    padding = -len(payload) * 8 % 5
    if padding:
        values[-1] <<= padding
    remainder = _polymod([*_expand(prefix), *values, 0, 0, 0, 0, 0, 0]) ^ 1
    checksum = [remainder >> 5 * (5 - index) & 31 for index in range(6)]
    return f"{prefix}1" + "".join(_ALPHABET[value] for value in [*values, *checksum])


def decode(text: str) -> tuple[str, bytes] | None:
    """(prefix, payload), or None where `text` is not valid bech32 in lower case with zero padding bits."""
    prefix, separator, data = text.rpartition("1")
    if len(text) > _MAX_LENGTH or not separator or not prefix or len(data) < 6:
        return None
    if any(not "!" <= character <= "~" or character.isupper() for character in prefix):
        return None
    values = [_VALUES[character] for character in data if character in _VALUES]
    if len(values) != len(data) or _polymod([*_expand(prefix), *values]) != 1:
        return None
    body = values[:-6]
    spare = len(body) * 5 % 8
    if spare >= 5 or (spare and body[-1] & ((1 << spare) - 1)):
        return None
    return prefix, bytes(_regroup(body, 5, 8)[: len(body) * 5 // 8])


def _regroup(values: Iterable[int], source: int, target: int) -> list[int]:
    """Bits in groups of `source` to groups of `target`; the last group may hold fewer bits (low aligned)."""
    groups: list[int] = []
    store = bits = 0
    for value in values:
        store = (store << source) | value
        bits += source
        while bits >= target:
            bits -= target
            groups.append(store >> bits)
            store &= (1 << bits) - 1
    if bits:
        groups.append(store)
    return groups


def _expand(prefix: str) -> list[int]:
    return [ord(character) >> 5 for character in prefix] + [0] + [ord(character) & 31 for character in prefix]


def _polymod(values: Iterable[int]) -> int:
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for index, generator in enumerate(_GENERATOR):
            checksum ^= generator if top >> index & 1 else 0
    return checksum
