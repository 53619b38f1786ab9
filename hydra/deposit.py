"""A deposit into the head: the node drafts and signs with its fuel key, we add the witness of the funds key.

The body is never encoded anew: its original bytes are what both keys sign (docs: hydra-node, commit a UTxO).
"""

from __future__ import annotations

from typing import Final

import cbor2

from fednode.errors import FundsError, HeadError
from fednode.hydra.cbor import CborError, array_items, map_items, untag
from fednode.hydra.keys import SigningKey
from fednode.hydra.transactions import SET_TAG, RawTransaction, parse
from fednode.hydra.utxo import Coin
from fednode.types import SignedTx, TxId

_VKEYS: Final = b"\x00"
"""Encoded key 0 of the witness set."""


def funding_coin(funding: str, address: str, lovelace: int) -> tuple[str, Coin]:
    """The layer-1 output to deposit, whole. FundsError where `funding` is not `txid#ix`."""
    transaction, separator, index = funding.partition("#")
    if not separator or len(transaction) != 64 or not index.isdecimal() or transaction.strip("0123456789abcdef"):
        raise FundsError(
            f"funding output {funding[:100]!r}: expected TXID#INDEX of an output of {lovelace} lovelace at {address}",
            hint="send exactly the deposit to the funds address and name that output in fednode.toml",
        )
    return f"{transaction}#{int(index)}", Coin(address, lovelace)


def sign_draft(draft: bytes, funding: str, key: SigningKey) -> SignedTx:
    """Check that the draft deposits `funding`, then add the witness of `key`. HeadError where it does not."""
    try:
        transaction = parse(draft)
        if funding not in transaction.inputs:
            raise HeadError(f"the node's deposit draft does not spend {funding}; it spends {transaction.inputs[:10]}")
        return SignedTx(TxId(transaction.id), add_witness(draft, transaction, key).hex())
    except CborError as error:
        raise HeadError(f"the node's deposit draft is not a transaction: {error}") from None


def add_witness(raw: bytes, transaction: RawTransaction, key: SigningKey) -> bytes:
    """`raw` with one more vkey witness; every other byte of body, witnesses and auxiliary data stays as it was."""
    vkey = bytes.fromhex(key.vkey)
    if any(signer == vkey for signer, _ in transaction.witnesses):
        return raw
    body, witnesses, *rest = array_items(raw)
    witness = cbor2.dumps([vkey, key.sign(bytes.fromhex(transaction.id))])
    entries = map_items(witnesses)
    if not any(entry_key == _VKEYS for entry_key, _ in entries):
        entries.insert(0, (_VKEYS, cbor2.dumps(cbor2.CBORTag(SET_TAG, []))))
    spliced = [(name, _append(value, witness) if name == _VKEYS else value) for name, value in entries]
    encoded = _head(5, len(spliced)) + b"".join(name + value for name, value in spliced)
    return _head(4, 2 + len(rest)) + body + encoded + b"".join(rest)


def _append(array: bytes, item: bytes) -> bytes:
    """The array, or tagged set, with `item` at its end."""
    tag, untagged = untag(array, SET_TAG)
    items = [*array_items(untagged), item]
    return tag + _head(4, len(items)) + b"".join(items)


def _head(major: int, count: int) -> bytes:
    """The head of a definite array (4) or map (5), by changing the major type of an encoded unsigned integer."""
    encoded = cbor2.dumps(count)
    return bytes([encoded[0] | major << 5]) + encoded[1:]
