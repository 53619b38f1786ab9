"""Limits that are just kept: the least fee, the least output, the largest value, the largest transaction."""

from __future__ import annotations

import random

from fednode.hydra.devnet.ledger import Rules

from .drafts import KEYS, Draft, Pay, address, digest, minimum, take
from .encoding import Style

LAYER_1 = Rules(network=0, max_tx_size=16_384, fee_fixed=155_381, fee_per_byte=44)


def exact_fee(draft: Draft) -> None:
    """The least fee of layer 1, which covers the transaction without the byte of isValid."""
    draft.rules, draft.network = LAYER_1, None
    for pay in [*draft.utxo.values(), *draft.outputs]:
        pay.address = bytes([pay.address[0] & 0xF0]) + pay.address[1:]
    while True:
        fee = LAYER_1.fee_fixed + LAYER_1.fee_per_byte * (len(draft.encode()) - 1)
        if fee == draft.fee:
            return
        take(draft, fee - draft.fee)
        draft.fee = fee


def exact_minimum(rng: random.Random, draft: Draft) -> None:
    """A further output, the last, with exactly the least lovelace that it must hold."""
    where = address(rng.choice(KEYS), draft.rules.network, base=rng.random() < 0.5)
    pay = Pay(where, 0, {}, rng.random() < 0.5)
    pay.coin = minimum(pay, draft)
    draft.utxo[draft.inputs[0]].coin += pay.coin
    draft.outputs.append(pay)


def fill(draft: Draft, size: int) -> None:
    """Metadata until the transaction has exactly `size` bytes."""
    draft.form, draft.hash, lines = "map", "right", [b"", b""]
    draft.metadata = {1729: lines}
    line = 66 if not draft.style.indefinite else 70
    lines += [b"\0" * 64] * ((size - len(draft.encode())) // line)
    while len(draft.encode()) > size - 3:
        lines.pop()
    for second in (b"", b"\0", b"\0\0", b"\0" * 30):
        lines[:2] = [b"", second]
        gap = size - len(draft.encode())
        for first in range(max(0, gap - 6), min(64, gap) + 1):
            lines[0] = b"\0" * first
            if len(draft.encode()) == size:
                return
    raise AssertionError(f"no metadata makes {size} bytes")


def fill_value(draft: Draft, size: int) -> None:
    """An output whose value has exactly `size` bytes as a ledger writes it, of tokens that an input holds."""
    pay, source, plain = draft.outputs[0], draft.utxo[draft.inputs[0]], Style()
    policy = digest(b"many", 28)
    pay.coin += 50_000_000
    source.coin += 50_000_000
    names: list[bytes] = []

    def put(name: bytes) -> None:
        names.append(name)
        pay.assets[policy, name] = source.assets[policy, name] = 1

    while (gap := size - len(pay.value(plain))) > 2 * 35:
        put(len(names).to_bytes(2) + b"n" * 30)
    cost = {length: (1 if length < 24 else 2) + length + 1 for length in range(1, 33)}
    first, second = next((a, b) for a in cost for b in cost if cost[a] + cost[b] == gap)
    put(b"y" * first)
    put(b"z" * second)
    if len(pay.value(plain)) != size:
        raise AssertionError(f"no value of {size} bytes")
