"""The dishonest party: the shipped daemon, whose signatures, objects or bucket are not what they should be."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cbor2

from fednode.hydra.signals import build_signal
from fednode.hydra.transactions import SET_TAG, blake2b_256
from fednode.types import Digest, PartyName, RunId, SignalContent, SignedTx, TrainResult, TxId

from .ledger import Snapshot, Tx
from .setting import NAMES, address, key

if TYPE_CHECKING:
    from .party import Party
    from .world import World


class Adversary:
    """Does its one lie in the plan's round (spam, foreign runs and repeats more often)."""

    def __init__(self, world: World) -> None:
        self.world, self.plan = world, world.plan
        self.lie = world.plan.lie
        self.index = world.plan.liar
        self.name: PartyName | None = NAMES[self.index] if self.lie else None
        self.acted = 0
        self.contents: dict[int, SignalContent] = {}

    def _mine(self, party: Party, number: int) -> bool:
        return party.me == self.name and number == self.plan.lie_round

    # In its daemon ----------------------------------------------------------------------------------------------------

    def trained(self, party: Party, data: bytes, done: TrainResult) -> tuple[bytes, TrainResult]:
        if self.lie == "bad-object" and self._mine(party, done.round):
            self.acted += 1
            # A code of -128, or another party's name: the digest is right, the object is not.
            bad = data[:-40] + b"\x80" + data[-39:]
            if self.plan.seed % 2:
                bad = data.replace(f'"{party.me}"'.encode(), b'"' + b"x" * len(party.me) + b'"')
            return bad, replace(done, object=Digest(hashlib.sha256(bad).hexdigest()))
        return data, done

    def content(self, party: Party, content: SignalContent) -> SignalContent:
        if party.me != self.name:
            return content
        self.contents[content.round] = content
        if not self._mine(party, content.round):
            return content
        if self.lie == "wrong-size" and content.size is not None and content.round > 0:
            self.acted += 1
            return replace(content, size=content.size + 64)
        if self.lie == "wrong-base":
            self.acted += 1
            return replace(content, base=Digest(hashlib.sha256(b"another base").hexdigest()))
        return content

    def signed(self, party: Party, content: SignalContent, signed: SignedTx) -> SignedTx:
        if self.lie == "wrong-amount" and self._mine(party, content.round) and content.object is not None:
            self.acted += 1
            body = cbor2.loads(bytes.fromhex(signed.cbor))[0]
            outputs = body[1]
            outputs[0][1] += 1
            outputs[-1][1] -= 1
            parts = {**body, 1: outputs}
            return _sign(party, parts, bytes.fromhex(signed.cbor))
        return signed

    # In the world -----------------------------------------------------------------------------------------------------

    def stored(self, owner: PartyName, name: str, data: bytes) -> None:
        """An object lies in the own bucket: it may show another one."""
        number = name.split("/")[1]
        if owner != self.name or not name.endswith(".safetensors") or int(number) != self.plan.lie_round:
            return
        store = self.world.stores[owner]
        if self.lie == "wrong-object":
            self.acted += 1
            store.shown[name, None] = (data[:-1] + bytes([data[-1] ^ 1]), data[:-1], data + b"\0")[self.plan.seed % 3]
            store.shown[name, owner] = data
        elif self.lie == "missing":
            self.acted += 1
            store.shown[name, None] = None
            store.shown[name, owner] = data
        elif self.lie == "two-faced":
            victim = next(p.me for p in self.world.parties if p.me != owner)
            self.acted += 1
            store.shown[name, victim] = self.world.spoiled(data)

    def confirmed(self, snapshot: Snapshot) -> None:
        """After every snapshot: send what an honest party would not."""
        if self.name is None or self.world.network.status != "Open":
            return
        mine = [tx for tx in snapshot.txs if self._is_mine(tx)]
        if self.lie in ("spam", "foreign", "repeat", "dangerous"):
            if self.acted < 5 and len(self.contents) > self.plan.lie_round:
                self.world.later(0.1, self._extra)
        elif self.lie in ("equivocate", "early") and mine and self.acted < 3:
            number = max(self.contents, default=-1)
            if number >= self.plan.lie_round:
                self.world.later(0.01, lambda: self._second(number))

    def _is_mine(self, tx: Tx) -> bool:
        assert self.name is not None
        vkey = bytes.fromhex(key("funds", self.name).vkey)
        return any(k == vkey for k, _ in tx.raw.witnesses)

    def _owned(self) -> dict[str, int]:
        assert self.name is not None
        member = self.world.setting.members[self.index]
        utxo = self.world.network.nodes[self.index].local()
        return {ref: coin.lovelace for ref, coin in utxo.items() if coin.address == member.address}

    def _send(self, content: SignalContent) -> None:
        members = self.world.setting.members
        owned = self._owned()
        if sum(owned.values()) < 1_000_000 * (len(members) + 1):
            return
        self.acted += 1
        assert self.name is not None
        signed = build_signal(content, owned, me=self.name, members=members, key=key("funds", self.name))
        self.world.network.nodes[self.index].new_tx(signed.cbor)

    def _second(self, number: int) -> None:
        """Another signal: of the same round with other content, or of the next round too early."""
        content = self.contents[number]
        other = Digest(hashlib.sha256(b"another object").hexdigest())
        last = self.world.setting.terms.rounds + 1
        if self.lie == "equivocate":
            if content.object is None:
                self._send(replace(content, base=other))
            else:
                self._send(replace(content, object=other))
        elif number + 1 < last:
            name = NAMES[self.index]
            size = self.world.setting.aggregator.object_size(number + 1, name)
            self._send(replace(content, round=number + 1, object=other, size=size, sections=None))

    def _extra(self) -> None:
        """A transaction that is no signal of this run."""
        content = self.contents[max(self.contents)]
        if self.lie == "foreign":
            self._send(replace(content, run=RunId("cd" * 16)))
        elif self.lie == "repeat":
            self._send(content)
        elif owned := self._owned():
            self.acted += 1
            fee = 1000 if self.lie == "dangerous" else 0
            assert self.name is not None
            member = self.world.setting.members[self.index]
            inputs = [[bytes.fromhex(r[:64]), int(r[65:])] for r in sorted(owned)]
            change = [[address(member.address), sum(owned.values()) - fee]]
            body = cbor2.dumps({0: cbor2.CBORTag(SET_TAG, inputs), 1: change, 2: fee})
            signed = b"\x84" + body + _witness(self.name, body) + b"\xf5\xf6"
            self.world.network.nodes[self.index].new_tx(signed.hex())


def _witness(name: PartyName, body: bytes) -> bytes:
    secret = key("funds", name)
    return cbor2.dumps({0: cbor2.CBORTag(SET_TAG, [[bytes.fromhex(secret.vkey), secret.sign(blake2b_256(body))]])})


def _sign(party: Party, body: dict[int, Any], before: bytes) -> SignedTx:
    """The transaction `before` with another body and a right signature."""
    _, _, _, auxiliary = cbor2.loads(before)
    inputs = body[0].value if isinstance(body[0], cbor2.CBORTag) else body[0]
    body = {**body, 0: cbor2.CBORTag(SET_TAG, [list(item) for item in sorted(inputs)])}
    raw, extra = cbor2.dumps(body), cbor2.dumps(auxiliary)
    assert blake2b_256(extra) == body[7]
    return SignedTx(TxId(blake2b_256(raw).hex()), (b"\x84" + raw + _witness(party.me, raw) + b"\xf5" + extra).hex())
