"""Reading Conway transactions (docs: cardano-ledger conway.cddl) as far as a head needs, from their original bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from fednode.hydra.cbor import TRUE, CborError, Map, Tag, Value, array_parts

MAX_TRANSACTION: Final = 16_384
"""No head accepts a longer transaction (maxTxSize of the largest ledger parameters in use)."""
SET_TAG: Final = 258

Assets = tuple[tuple[str, str, int], ...]
"""(policy id hex, asset name hex, quantity), sorted."""


@dataclass(frozen=True, slots=True)
class TxOutput:
    """An output: raw address bytes, lovelace, other assets; `bare` = no datum, script or other field."""

    address: bytes
    lovelace: int
    assets: Assets
    bare: bool
    has_script: bool


@dataclass(frozen=True, slots=True)
class RawTransaction:
    """The parts of a transaction that matter here. References are `txid#ix`."""

    id: str
    body: bytes
    """The original bytes: what the id and every signature are over."""
    keys: frozenset[int]
    """The keys that the body has."""
    inputs: tuple[str, ...]
    outputs: tuple[TxOutput, ...]
    fee: int
    auxiliary_hash: bytes | None
    witnesses: tuple[tuple[bytes, bytes], ...]
    """(verification key, signature) pairs, not verified."""
    other_witnesses: frozenset[int]
    """Keys of the witness set besides 0: scripts, redeemers, data, bootstrap witnesses."""
    phase_two_valid: bool
    auxiliary: bytes | None
    """Original bytes of the auxiliary data."""


def blake2b_256(data: bytes) -> bytes:
    """The 32-byte hash that transaction ids and auxiliary data hashes use."""
    return hashlib.blake2b(data, digest_size=32).digest()


def parse(raw: bytes) -> RawTransaction:
    """Read a whole transaction: [body, witness set, bool, auxiliary data or null]. CborError where it is not one."""
    if len(raw) > MAX_TRANSACTION:
        raise CborError(f"{len(raw)} bytes, expected at most {MAX_TRANSACTION}")
    parts = array_parts(raw)
    if len(parts) != 4:
        raise CborError(f"an array of {len(parts)} elements, expected 4")
    (body_bytes, body_value), (_, witness_value), (_, valid), (auxiliary, _) = parts
    body, witnesses = _keyed(body_value, "body"), _keyed(witness_value, "witness set")
    auxiliary_hash = body.get(7)
    if auxiliary_hash is not None and not isinstance(auxiliary_hash, bytes):
        raise CborError("the auxiliary data hash is not a byte string")
    return RawTransaction(
        id=blake2b_256(body_bytes).hex(),
        body=body_bytes,
        keys=frozenset(body),
        inputs=tuple(_input(item) for item in _items(body.get(0), "inputs")),
        outputs=tuple(_output(item) for item in _items(body.get(1), "outputs")),
        fee=_natural(body.get(2), "fee"),
        auxiliary_hash=auxiliary_hash,
        witnesses=tuple(_witness(item) for item in _items(witnesses.get(0, ()), "vkey witnesses")),
        other_witnesses=frozenset(witnesses) - {0},
        phase_two_valid=valid == TRUE,
        auxiliary=None if auxiliary == b"\xf6" else auxiliary,
    )


def _keyed(value: Value, what: str) -> dict[int, Value]:
    if not isinstance(value, Map):
        raise CborError(f"the {what} is not a map")
    return {_natural(key, f"a key of the {what}"): item for key, item in value.unique().items()}


def _items(value: Value | None, what: str) -> tuple[Value, ...]:
    if isinstance(value, Tag) and value.number == SET_TAG:
        value = value.value
    if not isinstance(value, tuple):
        raise CborError(f"{what}: expected an array or a set")
    return value


def _natural(value: Value | None, what: str) -> int:
    if not isinstance(value, int) or value < 0:
        raise CborError(f"{what}: expected an unsigned integer")
    return value


def _input(value: Value) -> str:
    match value:
        case (bytes() as transaction, int() as index) if len(transaction) == 32 and index >= 0:
            return f"{transaction.hex()}#{index}"
        case _:
            raise CborError("an input is not [transaction id, index]")


def _witness(value: Value) -> tuple[bytes, bytes]:
    match value:
        case (bytes() as vkey, bytes() as signature):
            return vkey, signature
        case _:
            raise CborError("a vkey witness is not [key, signature]")


def _output(value: Value) -> TxOutput:
    """Both forms: the legacy array [address, value, datum hash?] and the map {0: address, 1: value, ...}."""
    if isinstance(value, Map):
        fields = _keyed(value, "output")
        address, amount = fields.get(0), fields.get(1)
        bare, script = set(fields) == {0, 1}, 3 in fields
    elif isinstance(value, tuple) and len(value) in (2, 3):
        address, amount = value[0], value[1]
        bare, script = len(value) == 2, False
    else:
        raise CborError("an output is neither a map nor an array of two or three")
    if not isinstance(address, bytes) or not address:
        raise CborError("an output's address is not a byte string")
    lovelace, assets = _amount(amount)
    return TxOutput(address, lovelace, assets, bare and isinstance(amount, int), script)


def _amount(value: Value | None) -> tuple[int, Assets]:
    if not isinstance(value, tuple):
        return _natural(value, "an output's value"), ()
    if len(value) != 2 or not isinstance(value[1], Map):
        raise CborError("an output's value is neither lovelace nor [lovelace, assets]")
    assets: list[tuple[str, str, int]] = []
    for policy, names in value[1].unique().items():
        if not isinstance(policy, bytes) or not isinstance(names, Map):
            raise CborError("an output's assets are not {policy: {name: quantity}}")
        for name, quantity in names.unique().items():
            if not isinstance(name, bytes):
                raise CborError("an asset name is not a byte string")
            assets.append((policy.hex(), name.hex(), _natural(quantity, "an asset's quantity")))
    return _natural(value[0], "an output's value"), tuple(sorted(assets))
