"""Signals that the shipped code builds, read by the independent reader."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from reader import read_signal

from fednode.hydra.addresses import enterprise_address
from fednode.hydra.keys import SigningKey
from fednode.hydra.signals import build_signal
from fednode.types import Digest, Member, PartyName, RunId, SignalContent

KEYS = {name: SigningKey(bytes([number]) * 32) for number, name in enumerate(("alice", "bob", "carol"), start=1)}
ROUNDS = 3
RUN = "0f" * 16


def members() -> list[Member]:
    return [
        Member(PartyName(name), "00" * 32, key.vkey, "11" * 32, enterprise_address(key.vkey, 42))
        for name, key in KEYS.items()
    ]


def agreement() -> dict[str, Any]:
    parties = [{"name": m.name, "cardano_vkey": m.cardano_vkey, "address": m.address} for m in members()]
    return {"run": {"rounds": ROUNDS}, "party": parties}


def built(content: SignalContent, sender: str) -> bytes:
    owned = {f"{'ab' * 32}#1": 7_000_000, f"{'cd' * 32}#0": 1_000_000}
    signed = build_signal(content, owned, me=PartyName(sender), members=members(), key=KEYS[sender])
    return bytes.fromhex(signed.cbor)


@pytest.mark.parametrize("sender", KEYS)
@pytest.mark.parametrize("number", range(ROUNDS + 2))
def test_the_reader_accepts_ours(number: int, sender: str) -> None:
    last = number == ROUNDS + 1
    content = SignalContent(
        run=RunId(RUN),
        round=number,
        base=Digest("aa" * 32),
        object=None if last else Digest("bb" * 32),
        size=None if last else 4096,
        sections={"run": "12" * 8} if number == 0 else None,
    )
    signal = read_signal(built(content, sender), agreement(), RUN)
    assert signal is not None
    assert (signal.party, signal.content["round"]) == (sender, number)
    assert signal.content["base"].hex() == content.base
    assert sum(value for _, value in signal.outputs) == 8_000_000
    assert read_signal(built(content, sender), agreement(), "f0" * 16) is None


def test_a_signal_that_pays_in_the_last_round_is_refused() -> None:
    content = SignalContent(RunId(RUN), ROUNDS + 1, Digest("aa" * 32), Digest("bb" * 32), 1)
    with pytest.raises(ValueError, match="wrong fields"):
        read_signal(built(content, "bob"), agreement(), RUN)


def test_the_keys_are_plain_ed25519() -> None:
    raw = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32).public_key().public_bytes_raw()
    assert KEYS["alice"].vkey == raw.hex()
