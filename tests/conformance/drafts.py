"""Random payments as data: what they spend, pay, say and sign, and the bytes that follow from it."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fednode.hydra.devnet.ledger import Rules
from fednode.hydra.keys import SigningKey

from .encoding import Style, array, head, integer, mapping, members, metadatum, octets

KEYS = [SigningKey(bytes([index]) * 32) for index in range(1, 9)]
SLOT = 5_000
OVERHEAD = 160
Assets = dict[tuple[bytes, bytes], int]


def digest(data: bytes, size: int = 32) -> bytes:
    return hashlib.blake2b(data, digest_size=size).digest()


def key_hash(key: SigningKey) -> bytes:
    return digest(bytes.fromhex(key.vkey), 28)


def address(key: SigningKey, network: int, *, base: bool = False) -> bytes:
    """Of the payment key alone, or with a stake key."""
    if base:
        return bytes([network]) + key_hash(key) + digest(b"stake", 28)
    return bytes([0x60 | network]) + key_hash(key)


@dataclass
class Pay:
    """One output."""

    address: bytes
    coin: int
    assets: Assets = field(default_factory=dict)
    legacy: bool | None = None
    """None: as the style of the transaction says."""

    def value(self, style: Style) -> bytes:
        if not self.assets:
            return integer(self.coin, style)
        policies: dict[bytes, list[tuple[bytes, bytes]]] = {}
        for (policy, name), quantity in self.assets.items():
            policies.setdefault(policy, []).append((octets(name), integer(quantity, style)))
        bundle = mapping([(octets(policy), mapping(names, style)) for policy, names in policies.items()], style)
        return array([integer(self.coin, style), bundle], style)

    def encode(self, style: Style) -> bytes:
        value = self.value(style)
        if style.legacy if self.legacy is None else self.legacy:
            return array([octets(self.address), value], style)
        return mapping([(b"\x00", octets(self.address)), (b"\x01", value)], style)


@dataclass
class Draft:
    """A transaction that is not written yet, and the ledger that it meets."""

    style: Style
    rules: Rules
    utxo: dict[tuple[bytes, int], Pay] = field(default_factory=dict)
    inputs: list[tuple[bytes, int]] = field(default_factory=list)
    outputs: list[Pay] = field(default_factory=list)
    fee: int = 0
    start: int | None = None
    ttl: int | None = None
    network: int | None = None
    signers: list[bytes] = field(default_factory=list)
    metadata: Any = None
    form: str = "map"
    """Of the auxiliary data: `map`, `pair` (with an empty list of scripts) or `tag` (259)."""
    hash: str = "right"
    """Of the auxiliary data in the body: `right`, `none` or `wrong`."""
    witnesses: list[SigningKey] = field(default_factory=list)
    more: list[tuple[int, bytes]] = field(default_factory=list)
    """Further body fields."""
    change_body: Callable[[bytes], bytes] = lambda body: body
    change_signature: Callable[[bytes], bytes] = lambda signature: signature
    change_whole: Callable[[bytes], bytes] = lambda whole: whole
    change_witnesses: Callable[[list[bytes]], list[bytes]] = lambda witnesses: witnesses
    valid_flag: bytes = b"\xf5"

    def auxiliary(self) -> bytes | None:
        if self.metadata is None:
            return None
        content = metadatum(self.metadata, self.style)
        if self.form == "pair":
            return array([content, array([], self.style)], self.style)
        if self.form == "tag":
            return b"\xd9\x01\x03" + mapping([(b"\x00", content)], self.style)
        return content

    def encode(self) -> bytes:
        """The four-element transaction, signed."""
        body, auxiliary = self.change_body(self._body()), self.auxiliary()
        pairs = []
        for key in self.witnesses:
            signature = self.change_signature(key.sign(digest(body)))
            pairs.append(array([octets(bytes.fromhex(key.vkey)), octets(signature)], self.style))
        signed = members(self.change_witnesses(pairs), self.style)
        witnesses = mapping([(b"\x00", signed)] if pairs else [], self.style)
        parts = [body, witnesses, self.valid_flag, b"\xf6" if auxiliary is None else auxiliary]
        return self.change_whole(array(parts, self.style))

    def _body(self) -> bytes:
        style = self.style
        spent = [array([octets(txid), integer(index, style)], style) for txid, index in self.inputs]
        fields = [
            (0, members(spent, style)),
            (1, array([each.encode(style) for each in self.outputs], style)),
            (2, integer(self.fee, style)),
        ]
        fields += [(key, integer(value, style)) for key, value in self._numbers()]
        auxiliary = self.auxiliary()
        if (auxiliary is not None and self.hash == "right") or self.hash == "wrong":
            claimed = digest(b"wrong" if self.hash == "wrong" else auxiliary or b"")
            fields.append((7, octets(claimed)))
        if self.signers:
            fields.append((14, members([octets(each) for each in self.signers], style)))
        return mapping([(head(0, key), value) for key, value in [*fields, *self.more]], style)

    def _numbers(self) -> list[tuple[int, int]]:
        found = ((3, self.ttl), (8, self.start), (15, self.network))
        return [(key, value) for key, value in found if value is not None]


def take(draft: Draft, amount: int) -> None:
    """Lovelace out of the largest output, for a change that costs something."""
    max(draft.outputs, key=lambda pay: pay.coin).coin -= amount


def minimum(pay: Pay, draft: Draft) -> int:
    """The least lovelace of an output whose own size depends on it."""
    while True:
        least = (OVERHEAD + len(pay.encode(draft.style))) * draft.rules.utxo_cost_per_byte
        if pay.coin == least:
            return least
        pay = Pay(pay.address, least, pay.assets, pay.legacy)


def valid(rng: random.Random, *, rules: Rules | None = None) -> Draft:
    """A payment that every rule allows."""
    style = Style(*(rng.random() < chance for chance in (0.25, 0.1, 0.6, 0.35)))
    draft = Draft(style, rules or Rules(network=int(rng.random() < 0.1)))
    owners = rng.choices(KEYS[:5], k=rng.randint(1, 5))
    for owner in owners:
        _fund(rng, draft, owner)
    _pay(rng, draft)
    draft.witnesses = list(dict.fromkeys(owners))
    if rng.random() < 0.2:
        draft.witnesses.append(KEYS[7])
    if rng.random() < 0.2:
        draft.signers = [key_hash(key) for key in rng.sample(draft.witnesses, rng.randint(1, len(draft.witnesses)))]
    if rng.random() < 0.5:
        draft.metadata = _metadata(rng)
        draft.form = rng.choice(["map", "pair", "tag"])
    if rng.random() < 0.3:
        draft.start = SLOT - rng.choice([0, 1, 100])
    if rng.random() < 0.3:
        draft.ttl = SLOT + rng.choice([1, 2, 100])
    if rng.random() < 0.3:
        draft.network = draft.rules.network
    rng.shuffle(draft.witnesses)
    return draft


def _fund(rng: random.Random, draft: Draft, owner: SigningKey) -> None:
    assets = {}
    if rng.random() < 0.15:
        assets = {(digest(b"policy", 28), rng.randbytes(rng.randint(0, 32))): rng.randint(1, 10**12)}
    held = Pay(
        address(owner, draft.rules.network, base=rng.random() < 0.3),
        rng.randint(20_000_000, 200_000_000),
        assets,
        rng.random() < 0.3,
    )
    reference = (rng.randbytes(32), rng.choice([0, 1, 23, 24, 255, 65_535]))
    draft.utxo[reference] = held
    draft.inputs.append(reference)


def _pay(rng: random.Random, draft: Draft) -> None:
    """Split what is spent over some outputs."""
    network = draft.rules.network
    count = rng.randint(1, 5)
    total = sum(draft.utxo[each].coin for each in draft.inputs) - draft.fee
    assets = Counter[tuple[bytes, bytes]]()
    for each in draft.inputs:
        assets.update(draft.utxo[each].assets)
    share = total // count
    for index in range(count):
        where = address(rng.choice(KEYS), network, base=rng.random() < 0.3)
        if rng.random() < 0.05:
            where = bytes([0x70 | network]) + digest(b"script", 28)
        legacy = None if rng.random() < 0.8 else rng.random() < 0.5
        draft.outputs.append(Pay(where, share if index else total - share * (count - 1), {}, legacy))
    for asset, quantity in assets.items():
        rng.choice(draft.outputs).assets[asset] = quantity


def _metadata(rng: random.Random) -> Any:
    return {
        rng.choice([0, 23, 1729, 2**32, 2**64 - 1]): rng.choice(
            [
                0, -1, 2**64 - 1, -(2**64) + 1, b"", rng.randbytes(64), "x" * 64, "é" * 32, [],
                {1: [b"a", "b", {b"k": -5}], "s": {}}, [[[[]]]], {"v": 1, "r": 7, "h": rng.randbytes(32)},
            ]
        )
        for _ in range(rng.randint(0, 3))
    }  # fmt: skip
