"""What a transaction is, judged from its bytes alone (protocol.md section 4). Never raises for hostile bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fednode.hydra.addresses import address_bytes, check_network
from fednode.hydra.cbor import CborError, decode
from fednode.hydra.metadata import BrokenContent, decode_content, has_label
from fednode.hydra.transactions import MAX_TRANSACTION, RawTransaction, TxOutput, blake2b_256, parse
from fednode.types import SIGNAL_LOVELACE, Member, SignalContent, Transaction, TxId, TxKind

SIGNAL_KEYS: Final = frozenset({0, 1, 2, 7})
_HARMLESS_KEYS: Final = frozenset({0, 1, 2, 3, 7, 8, 14, 15})
"""Inputs, outputs, fee, validity, auxiliary data hash, required signers, network id. All others (certificates,
withdrawals, mint, collateral, votes, donation ...) change what layer 1 must pay out, or cannot be paid out at all."""


_ADDABLE: Final = frozenset({2})
"""Bootstrap witnesses: like vkey witnesses, a ledger takes one that nothing asks for. Scripts it takes only where the
signed body needs them."""


class Judge:
    """`judge` for one agreement, with the address bytes of its members at hand."""

    def __init__(self, members: Sequence[Member], magic: int) -> None:
        """`members` in agreement order. ConfigError where an address is not one of the network of `magic`."""
        for member in members:
            check_network(member.address, magic)
        self._members = tuple(members)
        self._by_key = {bytes.fromhex(member.cardano_vkey): member for member in members}
        self._addresses = {member.name: address_bytes(member.address) for member in members}

    def judge(self, cbor: bytes) -> Transaction:
        """Classify transaction bytes from anywhere.

        The signature covers the body, and the body's hash the auxiliary data; nothing that these two do not cover is
        ever held against a party: anybody may add a witness to what another has signed, and the id stays the same.
        What cannot be read or attributed is OTHER.

        The content of a BROKEN_SIGNAL is set where it can be read and the transaction endangers nothing: a signal by
        the rules of another agreement, with other parties or amounts, is then known by its run.
        """
        try:
            raw = parse(cbor)
        except CborError as error:
            # Unreadable bytes have no transaction id; their own hash names them. Oversized ones are not kept.
            kept = cbor.hex() if len(cbor) <= MAX_TRANSACTION else ""
            return Transaction(TxId(blake2b_256(cbor).hex()), kept, TxKind.OTHER, problem=f"unreadable: {error}")
        return self.judge_raw(raw, cbor)

    def judge_raw(self, raw: RawTransaction, cbor: bytes) -> Transaction:
        """As `judge`, for bytes that `parse` has read already."""

        def verdict(kind: TxKind, problem: str | None = None, content: SignalContent | None = None) -> Transaction:
            name = sender.name if sender else None
            return Transaction(TxId(raw.id), cbor.hex(), kind, name, content, problem)

        sender: Member | None = None
        forged = _forged(raw)
        if forged:
            return verdict(TxKind.OTHER, forged)
        sender, danger = self._sender(raw), _danger(raw)
        if sender is None or raw.auxiliary is None or not has_label(raw.auxiliary):
            return verdict(TxKind.DANGEROUS, danger) if danger else verdict(TxKind.OTHER)
        if danger:
            return verdict(TxKind.BROKEN_SIGNAL, danger)
        try:
            content = decode_content(decode(raw.auxiliary))
        except BrokenContent as error:
            return verdict(TxKind.BROKEN_SIGNAL, str(error))
        problem = _broken_form(raw) or self._broken_payments(raw.outputs, sender, last=content.object is None)
        if problem:
            return verdict(TxKind.BROKEN_SIGNAL, problem, content)
        return verdict(TxKind.SIGNAL, content=content)

    def _sender(self, raw: RawTransaction) -> Member | None:
        """The party that signed; of several the one that gets the change, else the first in agreement order."""
        keys = {vkey for vkey, _ in raw.witnesses}
        signers = [member for key, member in self._by_key.items() if key in keys]
        change = raw.outputs[-1].address if raw.outputs else b""
        return next((m for m in signers if self._addresses[m.name] == change), signers[0] if signers else None)

    def _broken_payments(self, outputs: Sequence[TxOutput], sender: Member, *, last: bool) -> str | None:
        peers = [] if last else [member for member in self._members if member.name != sender.name]
        if len(outputs) != len(peers) + 1:
            return f"outputs: expected {len(peers) + 1}, found {len(outputs)}"
        if not all(output.bare for output in outputs):
            return "outputs: expected plain lovelace without datum, script or assets"
        for number, (output, peer) in enumerate(zip(outputs, peers, strict=False)):
            if output.address != self._addresses[peer.name]:
                return f"output {number}: expected the address of {peer.name}, found {output.address.hex()[:120]}"
            if output.lovelace != SIGNAL_LOVELACE:
                return f"output {number} to {peer.name}: expected {SIGNAL_LOVELACE} lovelace, found {output.lovelace}"
        change = outputs[-1]
        if change.address != self._addresses[sender.name]:
            return f"change: expected the address of {sender.name}, found {change.address.hex()[:120]}"
        if change.lovelace < SIGNAL_LOVELACE:
            return f"change: expected at least {SIGNAL_LOVELACE} lovelace, found {change.lovelace}"
        return None


def judge(cbor: bytes, members: Sequence[Member], magic: int) -> Transaction:
    """Classify transaction bytes from anywhere for the members (in agreement order) of one agreement."""
    return Judge(members, magic).judge(cbor)


def _forged(raw: RawTransaction) -> str | None:
    """Why the bytes prove nothing about anybody: what a ledger would refuse and no sender has signed."""
    if not raw.phase_two_valid:
        return "marked as failed in phase two"
    expected = blake2b_256(raw.auxiliary) if raw.auxiliary is not None else None
    if raw.auxiliary_hash != expected:
        return "auxiliary data hash: not the hash of the auxiliary data"
    message = bytes.fromhex(raw.id)
    for vkey, signature in raw.witnesses:
        try:
            Ed25519PublicKey.from_public_bytes(vkey).verify(signature, message)
        except (InvalidSignature, ValueError):
            return f"witness of {vkey.hex()[:64]}: not a valid signature of the body"
    return None if raw.witnesses else "no vkey witness"


def _danger(raw: RawTransaction) -> str | None:
    if raw.fee:
        return f"fee: expected 0, found {raw.fee}"
    if raw.keys - _HARMLESS_KEYS:
        return f"body keys: expected {sorted(_HARMLESS_KEYS)} at most, found {sorted(raw.keys)}"
    if raw.other_witnesses - _ADDABLE or any(output.has_script for output in raw.outputs):
        return "script: expected vkey witnesses only and outputs without reference script"
    return None


def _broken_form(raw: RawTransaction) -> str | None:
    if raw.keys != SIGNAL_KEYS:
        return f"body keys: expected {sorted(SIGNAL_KEYS)}, found {sorted(raw.keys)}"
    return None if raw.inputs else "inputs: expected at least one"
