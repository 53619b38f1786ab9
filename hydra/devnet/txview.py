"""A Conway transaction as the embedded head's ledger reads it: its original bytes, and what the rules ask for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Final

from fednode.hydra.addresses import bech32_address
from fednode.hydra.devnet.cborview import CborError, Item, Map, Span, Tag, array_spans, map_spans

MAX_TX_BYTES: Final = 65_536
"""Longer bytes are not even read; the ledger's own limit is far below."""
_UNSUPPORTED: Final = {
    4: "certificates", 5: "withdrawals", 6: "update", 9: "mint", 11: "script data hash", 13: "collateral",
    16: "collateral return", 17: "total collateral", 18: "reference inputs", 19: "votes", 20: "proposals",
    21: "treasury value", 22: "donation",
}  # fmt: skip
_WORD: Final = 1 << 64


@dataclass(frozen=True, eq=False)
class Output:
    """One transaction output. `raw` are its own bytes, in legacy or map form."""

    raw: bytes
    address: bytes
    lovelace: int
    assets: Mapping[tuple[bytes, bytes], int]
    datum: Item = None
    """The inline datum's bytes; anything but None is refused in the head."""
    script: bool = False

    @property
    def bech32(self) -> str:
        return _bech32(self.address)

    @property
    def value_size(self) -> int:
        """Bytes of the value as the ledger would write it anew, whatever its form in `raw`."""
        size = _head_size(self.lovelace)
        if not self.assets:
            return size
        policies: dict[bytes, list[int]] = {}
        for (policy, name), quantity in self.assets.items():
            policies.setdefault(policy, []).append(_head_size(len(name)) + len(name) + _head_size(quantity))
        bundles = sum(30 + _map_overhead(len(held)) + sum(held) for held in policies.values())
        return 1 + size + _map_overhead(len(policies)) + bundles

    @cached_property
    def text(self) -> str:
        """Its JSON in the shape of hydra-node's UTxO values."""
        value: dict[str, object] = {"lovelace": self.lovelace}
        for (policy, name), quantity in self.assets.items():
            held = value.setdefault(policy.hex(), {})
            if isinstance(held, dict):
                held[name.hex()] = quantity
        shape = {
            "address": self.bech32,
            "datum": None,
            "datumhash": None,
            "inlineDatum": None,
            "inlineDatumRaw": None,
            "referenceScript": None,
            "value": value,
        }
        return json.dumps(shape, separators=(",", ":"))


@dataclass(frozen=True, eq=False)
class TxView:
    """A transaction. Inputs are `txid#ix`; `id` is blake2b-256 of the original body bytes in hex."""

    raw: bytes
    id: str
    inputs: tuple[str, ...]
    outputs: tuple[Output, ...]
    fee: int
    start: int | None
    ttl: int | None
    network: int | None
    auxiliary_hash: bytes | None
    auxiliary: bytes | None
    metadata: Item
    signers: tuple[bytes, ...]
    witnesses: tuple[tuple[bytes, bytes], ...]
    unsupported: tuple[str, ...] = field(default=())

    @property
    def size(self) -> int:
        """Bytes by which the ledger limits and prices it: without the one of isValid."""
        return len(self.raw) - 1

    def produced(self) -> dict[str, Output]:
        """The UTxO that this transaction adds."""
        return {f"{self.id}#{index}": output for index, output in enumerate(self.outputs)}

    def envelope(self, kind: str = "Tx ConwayEra") -> str:
        """The JSON text envelope of hydra-node."""
        return f'{{"cborHex":"{self.raw.hex()}","description":"","txId":"{self.id}","type":"{kind}"}}'


def parse_transaction(raw: bytes) -> TxView:
    """Read the four-element form. CborError says what is wrong; never another exception."""
    if len(raw) > MAX_TX_BYTES:
        raise CborError(f"{len(raw)} bytes, at most {MAX_TX_BYTES} are read")
    parts, end = array_spans(raw, 0)
    if end != len(raw):
        raise CborError(f"{len(raw) - end} trailing bytes after the transaction")
    if len(parts) != 4:
        raise CborError(f"a transaction has 4 elements, found {len(parts)}")
    body, witness, valid, auxiliary = parts
    if valid.item is not True:
        raise CborError("isValid is not true")
    fields, unsupported = _body_fields(raw, body)
    witnesses, more = _witnesses(witness.item)
    auxiliary_raw = None if auxiliary.item is None else raw[auxiliary.start : auxiliary.end]
    metadata, scripts = _metadata(auxiliary.item)
    return TxView(
        raw=raw,
        id=hashlib.blake2b(raw[body.start : body.end], digest_size=32).hexdigest(),
        inputs=_inputs(fields[0].item),
        outputs=_outputs(raw, fields[1]),
        fee=_word(fields[2].item, "fee"),
        ttl=_optional_word(fields.get(3), "ttl"),
        start=_optional_word(fields.get(8), "validity start"),
        network=_optional_word(fields.get(15), "network id"),
        auxiliary_hash=_bytes(fields[7].item, 32, "auxiliary data hash") if 7 in fields else None,
        auxiliary=auxiliary_raw,
        metadata=metadata,
        signers=_signers(fields[14].item) if 14 in fields else (),
        witnesses=witnesses,
        unsupported=(*unsupported, *more, *scripts),
    )


def parse_output(raw: bytes) -> Output:
    """One output in legacy or map form. CborError for anything else."""
    if raw and raw[0] >> 5 == 5:
        places, end = map_spans(raw, 0)
        fields = dict(places)
        if end != len(raw) or len(fields) != len(places) or not {0, 1} <= fields.keys() <= {0, 1, 2, 3}:
            raise CborError("an output in map form has unknown or duplicate keys or trailing bytes")
        datum = fields[2].item if 2 in fields else None
        return _output(raw, fields[0].item, fields[1].item, datum, 3 in fields)
    spans, end = array_spans(raw, 0)
    if end != len(raw) or len(spans) not in {2, 3}:
        raise CborError("an output is neither a map nor an array of 2 or 3")
    return _output(raw, spans[0].item, spans[1].item, spans[2].item if len(spans) == 3 else None, False)


def _output(raw: bytes, address: Item, value: Item, datum: Item, script: bool) -> Output:
    if not isinstance(address, bytes) or not _is_shelley(address):
        raise CborError("an output's address is not a Shelley address")
    lovelace, assets = _value(value)
    return Output(raw, address, lovelace, assets, datum, script)


def _is_shelley(address: bytes) -> bool:
    kind = address[0] >> 4 if address else 15
    return len(address) == (57 if kind <= 3 else 29) and (kind <= 3 or kind in {6, 7})


def _value(value: Item) -> tuple[int, dict[tuple[bytes, bytes], int]]:
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], Map):
        assets: dict[tuple[bytes, bytes], int] = {}
        for policy, names in value[1].unique("value").items():
            if not isinstance(names, Map) or not names.pairs:
                raise CborError("an asset bundle is not a map, or is empty")
            for name, quantity in names.unique("asset bundle").items():
                if not isinstance(name, bytes) or len(name) > 32:
                    raise CborError("an asset name is not at most 32 bytes")
                if _word(quantity, "asset quantity") == 0:
                    raise CborError("an asset quantity is 0")
                assets[_bytes(policy, 28, "policy id"), name] = _word(quantity, "asset quantity")
        return _word(value[0], "lovelace"), assets
    return _word(value, "lovelace"), {}


def _body_fields(raw: bytes, body: Span) -> tuple[dict[int, Span], tuple[str, ...]]:
    places, _ = map_spans(raw, body.start)
    fields: dict[int, Span] = {}
    for key, place in places:
        if not isinstance(key, int) or isinstance(key, bool) or key in fields:
            raise CborError("a body key is no integer or stands twice")
        if key not in {0, 1, 2, 3, 7, 8, 14, 15} and key not in _UNSUPPORTED:
            raise CborError(f"unknown body key {key}")
        fields[key] = place
    for key, name in ((0, "inputs"), (1, "outputs"), (2, "fee")):
        if key not in fields:
            raise CborError(f"the body has no {name}")
    return fields, tuple(name for key, name in _UNSUPPORTED.items() if key in fields)


def _elements(item: Item, what: str) -> tuple[Item, ...]:
    """A set: tag 258 or a plain array, without duplicates."""
    value = item.value if isinstance(item, Tag) and item.number == 258 else item
    if not isinstance(value, tuple):
        raise CborError(f"{what}: expected a set")
    if len(set(value)) != len(value):
        raise CborError(f"{what}: duplicate element")
    return value


def _some(item: Item, what: str) -> tuple[Item, ...]:
    """A set that may be left out, and so is never empty."""
    found = _elements(item, what)
    if not found:
        raise CborError(f"{what}: empty set")
    return found


def _inputs(item: Item) -> tuple[str, ...]:
    found: list[str] = []
    for each in _elements(item, "inputs"):
        if not isinstance(each, tuple) or len(each) != 2:
            raise CborError("an input is not a pair")
        index = _word(each[1], "input index")
        if index >= 1 << 16:
            raise CborError("an input index is over 65535")
        found.append(f"{_bytes(each[0], 32, 'input').hex()}#{index}")
    return tuple(found)


def _outputs(raw: bytes, place: Span) -> tuple[Output, ...]:
    return tuple(parse_output(raw[span.start : span.end]) for span in array_spans(raw, place.start)[0])


def _signers(item: Item) -> tuple[bytes, ...]:
    return tuple(_bytes(each, 28, "required signer") for each in _some(item, "required signers"))


def _witnesses(item: Item) -> tuple[tuple[tuple[bytes, bytes], ...], tuple[str, ...]]:
    if not isinstance(item, Map):
        raise CborError("the witness set is not a map")
    found: list[tuple[bytes, bytes]] = []
    unsupported: list[str] = []
    for key, value in item.unique("witness set").items():
        if key != 0:
            unsupported.append(f"witness kind {key!r}")
            continue
        for each in _some(value, "witnesses"):
            if not isinstance(each, tuple) or len(each) != 2:
                raise CborError("a witness is not a pair")
            found.append((_bytes(each[0], 32, "verification key"), _bytes(each[1], 64, "signature")))
    return tuple(found), tuple(unsupported)


def _metadata(item: Item) -> tuple[Item, tuple[str, ...]]:
    """The metadata map of the three auxiliary-data forms, and what of scripts comes with it."""
    if item is None or isinstance(item, Map):
        return item, ()
    if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], Map):
        return item[0], ("auxiliary scripts",) if item[1] else ()
    if isinstance(item, Tag) and item.number == 259 and isinstance(item.value, Map):
        fields = item.value.unique("auxiliary data")
        return fields.get(0), ("auxiliary scripts",) if fields.keys() - {0} else ()
    raise CborError("unknown form of auxiliary data")


def _word(item: Item, what: str) -> int:
    if not isinstance(item, int) or isinstance(item, bool) or not 0 <= item < _WORD:
        raise CborError(f"{what} is not an unsigned 64-bit integer")
    return item


def _optional_word(place: Span | None, what: str) -> int | None:
    return None if place is None else _word(place.item, what)


def _bytes(item: Item, length: int, what: str) -> bytes:
    if not isinstance(item, bytes) or len(item) != length:
        raise CborError(f"{what} is not {length} bytes")
    return item


def _head_size(number: int) -> int:
    """Bytes of the head of an item with this argument."""
    return 1 if number < 24 else 2 if number < 1 << 8 else 3 if number < 1 << 16 else 5 if number < 1 << 32 else 9


def _map_overhead(length: int) -> int:
    """Bytes around the pairs of a map: the ledger writes longer ones without their length."""
    return 1 if length < 24 else 2


@lru_cache(maxsize=4096)
def _bech32(address: bytes) -> str:
    return bech32_address(address)
