"""Building the signal transaction (protocol.md section 4), byte for byte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import cbor2

from fednode.errors import FundsError, HeadError
from fednode.hydra.addresses import address_bytes
from fednode.hydra.judge import Judge, judge
from fednode.hydra.keys import SigningKey
from fednode.hydra.metadata import encode_content
from fednode.hydra.transactions import SET_TAG, blake2b_256
from fednode.types import LOVELACE_PER_ADA, SIGNAL_LOVELACE, Member, PartyName, SignalContent, SignedTx, TxId

__all__ = ["MAX_INPUTS", "MAX_SIGNAL", "Judge", "build_signal", "judge", "select_inputs"]

MAX_INPUTS: Final = 200
MAX_SIGNAL: Final = 10_250
"""Bytes; the stricter maxTxSize of the ledger parameters in use."""
_INPUT_BYTES: Final = 36
"""The least that one input takes in the encoding."""


def build_signal(
    content: SignalContent, owned: Mapping[str, int], *, me: PartyName, members: Sequence[Member], key: SigningKey
) -> SignedTx:
    """Sign the signal that spends `owned` (`txid#ix` to lovelace, own plain outputs of the newest confirmed snapshot).

    Pays 1 ADA to each peer in agreement order (nobody where `content.object` is None) and the rest back.
    Raises FundsError where `owned` cannot pay that and leave 1 ADA.
    """
    sender = next(member for member in members if member.name == me)
    peers = [member for member in members if member.name != me and content.object is not None]
    auxiliary = encode_content(content)
    limit = MAX_INPUTS
    while True:
        inputs = select_inputs(owned, limit)
        change = sum(owned[reference] for reference in inputs) - SIGNAL_LOVELACE * len(peers)
        if change < SIGNAL_LOVELACE:
            raise _too_poor(owned, inputs, len(peers), me)
        payments = [(member.address, int(SIGNAL_LOVELACE)) for member in peers] + [(sender.address, change)]
        signed = _sign(_body(inputs, payments, auxiliary), auxiliary, key)
        excess = len(signed.cbor) // 2 - MAX_SIGNAL
        if excess <= 0:
            return signed
        if len(inputs) == 1:
            raise HeadError(f"the signal of round {content.round} has {excess} bytes over the limit of {MAX_SIGNAL}")
        # Long section names may leave no room for 200 inputs; receivers do not check that none is missing.
        limit = max(1, len(inputs) - -(-excess // _INPUT_BYTES))


def select_inputs(owned: Mapping[str, int], limit: int = MAX_INPUTS) -> list[str]:
    """The `limit` largest outputs, equal ones by reference; sorted by reference as a set is encoded."""
    largest = sorted(owned, key=lambda reference: (-owned[reference], _reference(reference)))[:limit]
    return sorted(largest, key=_reference)


def _reference(reference: str) -> tuple[bytes, int]:
    transaction, _, index = reference.partition("#")
    return bytes.fromhex(transaction), int(index)


def _body(inputs: Sequence[str], payments: Sequence[tuple[str, int]], auxiliary: bytes) -> bytes:
    body = {
        0: cbor2.CBORTag(SET_TAG, [list(_reference(reference)) for reference in inputs]),
        1: [[address_bytes(address), lovelace] for address, lovelace in payments],
        2: 0,
        7: blake2b_256(auxiliary),
    }
    return cbor2.dumps(body)


def _sign(body: bytes, auxiliary: bytes, key: SigningKey) -> SignedTx:
    """[body, {0: #6.258([[vkey, signature]])}, true, auxiliary data], from parts that are encoded already."""
    digest = blake2b_256(body)
    witness = cbor2.dumps({0: cbor2.CBORTag(SET_TAG, [[bytes.fromhex(key.vkey), key.sign(digest)]])})
    return SignedTx(TxId(digest.hex()), (b"\x84" + body + witness + b"\xf5" + auxiliary).hex())


def _too_poor(owned: Mapping[str, int], inputs: Sequence[str], peers: int, me: PartyName) -> FundsError:
    found = sum(owned[reference] for reference in inputs)
    return FundsError(
        f"{me} has {found / LOVELACE_PER_ADA:.6f} ADA in {len(owned)} confirmed outputs of the head, "
        f"a signal to {peers} peers needs {peers + 1} ADA",
        hint="wait for the peers' signals of this round, or deposit more",
    )
