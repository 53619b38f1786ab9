"""Cardano addresses (CIP-19) of parties: enterprise and base addresses with a key as payment credential."""

from __future__ import annotations

import hashlib
from typing import Final

from fednode.errors import ConfigError
from fednode.hydra import bech32

MAINNET_MAGIC: Final = 764824073
_KEY_PAYMENT_TYPES: Final = frozenset({0b0000, 0b0010, 0b0100, 0b0110})
"""Header types whose payment part is a key hash: base (key, script), pointer, enterprise."""


def network_id(magic: int) -> int:
    """The network nibble of an address header: 1 on mainnet, 0 on every test network."""
    return 1 if magic == MAINNET_MAGIC else 0


def key_hash(vkey_hex: str) -> bytes:
    """blake2b-224 of a raw 32-byte verification key given in hex: 28 bytes. ConfigError for anything else."""
    try:
        raw = bytes.fromhex(vkey_hex)
    except ValueError:
        raw = b""
    if len(raw) != 32 or len(vkey_hex) != 64:
        raise ConfigError(f"verification key {vkey_hex[:80]!r}: expected 64 hex characters (raw 32 bytes)")
    return hashlib.blake2b(raw, digest_size=28).digest()


def enterprise_address(vkey_hex: str, magic: int) -> str:
    """Bech32 address of a verification key without a staking part, `addr_test1v...` or `addr1v...`."""
    network = network_id(magic)
    return bech32.encode(_prefix(network), bytes([0x60 | network]) + key_hash(vkey_hex))


def address_bytes(address: str) -> bytes:
    """The raw bytes of a bech32 Shelley address. ConfigError where it is not one (Byron addresses are refused)."""
    decoded = bech32.decode(address)
    if decoded is None or not 29 <= len(decoded[1]) <= 57 or decoded[0] != _prefix(decoded[1][0] & 0x0F):
        raise ConfigError(f"address {address[:120]!r}: expected a bech32 Shelley address, addr_test1... or addr1...")
    return decoded[1]


def bech32_address(raw: bytes) -> str:
    """The bech32 text of raw Shelley address bytes."""
    return bech32.encode(_prefix(raw[0] & 0x0F), raw)


def payment_credential(address: str) -> bytes:
    """The 28-byte key hash that must sign for `address`. ConfigError for script and staking addresses."""
    raw = address_bytes(address)
    if raw[0] >> 4 not in _KEY_PAYMENT_TYPES:
        raise ConfigError(f"address {address}: its payment part is a script or missing, expected a key address")
    return raw[1:29]


def check_network(address: str, magic: int) -> None:
    """ConfigError unless `address` belongs to the network of `magic` (only mainnet and test networks differ)."""
    expected = network_id(magic)
    if address_bytes(address)[0] & 0x0F != expected:
        names = {0: "a test network (addr_test1...)", 1: "mainnet (addr1...)"}
        raise ConfigError(f"address {address}: expected an address of {names[expected]}, magic {magic}")


def _prefix(network: int) -> str:
    return "addr" if network == 1 else "addr_test"
