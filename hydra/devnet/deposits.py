"""Deposit transactions: the draft that a node signs with its fuel key, and the reading of one that was submitted.

What is committed stands in the inline datum of the first output: [head id, deadline in ms, [[tx id, index, output]]].
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import cbor2

from fednode.hydra.addresses import address_bytes, enterprise_address
from fednode.hydra.devnet.cborview import CborError, Item, Tag, decode
from fednode.hydra.devnet.ledger import Rules
from fednode.hydra.devnet.txview import Output, TxView, parse_output
from fednode.hydra.keys import SigningKey

METADATA_LABEL: Final = 55555
_WITNESS_ROOM: Final = 220
"""Bytes that fee and the depositor's own witnesses may still add to a draft."""


class DraftRefused(Exception):
    """A draft cannot be made; `error` is the PostTxError that the API answers."""

    def __init__(self, error: Mapping[str, object]) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass
class Deposit:
    """A deposit on layer 1. Times in Unix seconds of chain time."""

    txid: str
    head_id: str
    utxo: dict[str, Output]
    created: float
    """Upper validity bound of its transaction."""
    deadline: float
    status: str = "Inactive"
    """`Inactive`, `Active` or `Expired`."""
    order: int = 0
    """Position on layer 1: deposits are taken oldest first."""


@dataclass(frozen=True, slots=True)
class DepositContent:
    """What the datum of a deposit transaction says."""

    head_id: str
    deadline: float
    utxo: dict[str, Output]


def script_address(network: int) -> bytes:
    """Where deposits lie: a script address, nobody's key."""
    return bytes([0x70 | network]) + hashlib.blake2b(b"fednode devnet deposit", digest_size=28).digest()


def draft(
    *,
    head_id: str,
    deadline: float,
    ttl: int,
    commits: Mapping[str, Output],
    layer1: Mapping[str, Output],
    fuel: SigningKey,
    magic: int,
    rules: Rules,
) -> bytes:
    """A deposit of `commits`, its fee paid and signed by the fuel key; tag-258 sets. DraftRefused where impossible."""
    total = sum(output.lovelace for output in commits.values())
    deposit_output: dict[int, object] = {
        0: script_address(rules.network),
        1: total,
        2: [1, cbor2.CBORTag(24, _datum(head_id, deadline, commits))],
    }
    least = rules.minimum(parse_output(cbor2.dumps(deposit_output)))
    if total < least:
        raise DraftRefused({"tag": "DepositTooLow", "providedValue": total, "minimumValue": least})
    own = address_bytes(enterprise_address(fuel.vkey, magic))
    fuels = {txin: out.lovelace for txin, out in layer1.items() if out.address == own and txin not in commits}
    if not fuels:
        raise DraftRefused({"tag": "NoFuelUTXOFound"})
    source = max(fuels, key=lambda txin: fuels[txin])
    inputs = [*commits, source]
    trial = _sign(inputs, [deposit_output, {0: own, 1: fuels[source]}], 0, ttl, fuel)
    fee = rules.fee_fixed + rules.fee_per_byte * (len(trial) + _WITNESS_ROOM)
    if fuels[source] - fee < 1_000_000:
        raise DraftRefused({"tag": "NotEnoughFuel"})
    return _sign(inputs, [deposit_output, {0: own, 1: fuels[source] - fee}], fee, ttl, fuel)


def _sign(inputs: list[str], outputs: list[dict[int, object]], fee: int, ttl: int, fuel: SigningKey) -> bytes:
    auxiliary = cbor2.dumps({METADATA_LABEL: "deposit"})
    pairs = [[bytes.fromhex(txin[:64]), int(txin[65:])] for txin in inputs]
    body = cbor2.dumps(
        {
            0: cbor2.CBORTag(258, pairs),
            1: outputs,
            2: fee,
            3: ttl,
            7: hashlib.blake2b(auxiliary, digest_size=32).digest(),
        }
    )
    signature = fuel.sign(hashlib.blake2b(body, digest_size=32).digest())
    witnesses = cbor2.dumps({0: cbor2.CBORTag(258, [[bytes.fromhex(fuel.vkey), signature]])})
    return b"\x84" + body + witnesses + b"\xf5" + auxiliary


def _datum(head_id: str, deadline: float, commits: Mapping[str, Output]) -> bytes:
    listed = [[bytes.fromhex(txin[:64]), int(txin[65:]), output.raw] for txin, output in commits.items()]
    return cbor2.dumps([bytes.fromhex(head_id), round(deadline * 1000), listed])


def read_deposit(tx: TxView, layer1: Mapping[str, Output], network: int) -> DepositContent | None:
    """What `tx` deposits, where it is an honest deposit: it commits inputs of its own, as they are, with their sum."""
    if not tx.outputs or tx.outputs[0].address != script_address(network):
        return None
    content = _read_datum(tx.outputs[0].datum)
    if content is None or not content.utxo:
        return None
    for txin, output in content.utxo.items():
        if txin not in tx.inputs or txin not in layer1 or layer1[txin].raw != output.raw:
            return None
    total = sum(output.lovelace for output in content.utxo.values())
    return content if total == tx.outputs[0].lovelace else None


def _read_datum(datum: Item) -> DepositContent | None:
    if not isinstance(datum, tuple) or len(datum) != 2 or not isinstance(datum[1], Tag):
        return None
    inner = datum[1].value
    try:
        item = decode(inner) if isinstance(inner, bytes) else None
        if not isinstance(item, tuple) or len(item) != 3:
            return None
        head_id, deadline, listed = item
        if not isinstance(head_id, bytes) or not isinstance(deadline, int) or not isinstance(listed, tuple):
            return None
        utxo = dict(_read_commit(each) for each in listed)
    except CborError:
        return None
    return DepositContent(head_id.hex(), deadline / 1000, utxo)


def _read_commit(item: Item) -> tuple[str, Output]:
    if not isinstance(item, tuple) or len(item) != 3:
        raise CborError("a commit is not a triple")
    txid, index, raw = item
    if not isinstance(txid, bytes) or not isinstance(index, int) or not isinstance(raw, bytes):
        raise CborError("a commit is not (tx id, index, output)")
    return f"{txid.hex()}#{index}", parse_output(raw)
