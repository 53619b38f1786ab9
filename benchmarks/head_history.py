"""The whole history of a head as one node tells it, for benchmarks: made by rule, the same each time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from fednode.hydra.addresses import enterprise_address, key_hash
from fednode.hydra.head import HeadSettings
from fednode.hydra.keys import SigningKey
from fednode.hydra.signals import build_signal
from fednode.hydra.transactions import parse
from fednode.hydra.utxo import Coin, outputs_of
from fednode.types import Digest, HeadId, Lovelace, Member, PartyName, RunId, SignalContent, SignedTx

HEAD = HeadId("aa" * 28)
RUN = RunId("11" * 16)
FUND = 100_000_000
AT = "2026-01-02T03:04:05.678901Z"


def key(name: str, kind: str) -> SigningKey:
    return SigningKey(f"{name}/{kind}".encode().ljust(32, b"."))


def members(parties: int) -> tuple[Member, ...]:
    def member(name: str) -> Member:
        funds = key(name, "funds").vkey
        hydra, fuel = key(name, "hydra").vkey, key(name, "fuel").vkey
        return Member(PartyName(name), hydra, funds, fuel, enterprise_address(funds, 42))

    return tuple(member(f"p{index}") for index in range(parties))


def settings(url: str, parties: int) -> HeadSettings:
    everybody = members(parties)
    return HeadSettings(
        url=url,
        me=everybody[0].name,
        members=everybody,
        magic=42,
        version="2.3.0",
        funds_key=key("p0", "funds"),
        funding="",
        deposit=Lovelace(FUND),
        contestation_period_s=60,
        deposit_period_s=30,
        bound_head=HEAD,
    )


class History:
    """The messages of one node over a whole run, and its answers at the end of it."""

    def __init__(self, parties: int, rounds: int) -> None:
        self.members = members(parties)
        self.utxo = {f"{i:064x}#0": Coin(m.address, FUND) for i, m in enumerate(self.members)}
        self.frames: list[str] = []
        self.snapshots = 0
        self.event("HeadIsOpen", parties=[{"vkey": m.hydra_vkey} for m in self.members])
        for reference, coin in self.utxo.items():
            self._deposit(reference, coin)
        for number in range(rounds + 2):
            signals = [self._signal(member, number, rounds) for member in self.members]
            for signal in signals:
                self.event("TxValid", transactionId=signal.id)
            self._snapshot(signals[:1])  # the first comes alone, those that arrive meanwhile share the next
            self._snapshot(signals[1:])

    def event(self, tag: str, **fields: Any) -> None:
        message = {"tag": tag, "headId": HEAD, **fields, "seq": 3 * len(self.frames) + 1, "timestamp": AT}
        self.frames.append(json.dumps(message, separators=(",", ":")))

    def _deposit(self, reference: str, coin: Coin) -> None:
        told = {reference: {"address": coin.address, "value": {"lovelace": coin.lovelace}}}
        self.event("CommitRecorded", utxoToCommit=told, pendingDeposit=reference[:64], deadline=AT)
        self._snapshot([], told)
        self.event("CommitFinalized", depositTxId=reference[:64])

    def _signal(self, member: Member, number: int, rounds: int) -> SignedTx:
        owned = {ref: coin.lovelace for ref, coin in self.utxo.items() if coin.address == member.address}
        last = number == rounds + 1
        content = SignalContent(
            RUN,
            number,
            Digest(f"{number:064x}"),
            None if last else Digest("cd" * 32),
            None if last else 12345,
            {"run": "11" * 8} if number == 0 else None,
        )
        return build_signal(content, owned, me=member.name, members=self.members, key=key(member.name, "funds"))

    def _snapshot(self, signals: list[SignedTx], commit: Mapping[str, Any] | None = None) -> None:
        for signal in signals:
            raw = parse(bytes.fromhex(signal.cbor))
            for reference in raw.inputs:
                del self.utxo[reference]
            self.utxo |= outputs_of(raw)
        self.snapshots += 1
        confirmed = [{"type": "Tx ConwayEra", "description": "", "cborHex": x.cbor, "txId": x.id} for x in signals]
        self.last = {
            "headId": HEAD,
            "version": len(self.members),
            "number": self.snapshots,
            "confirmed": confirmed,
            "utxoToCommit": commit,
            "utxoToDecommit": None,
            "accumulator": "00" * 48,
        }
        version = self.snapshots - 1 if commit else len(self.members)
        signatures = {"multiSignature": ["ab" * 64] * len(self.members)}
        self.event("SnapshotConfirmed", snapshot=self.last | {"version": version}, signatures=signatures)

    def greetings(self) -> str:
        me, *others = self.members
        env = {
            "party": {"vkey": me.hydra_vkey},
            "otherParties": [{"vkey": member.hydra_vkey} for member in others],
            "participants": [key_hash(member.fuel_vkey).hex() for member in self.members],
            "contestationPeriod": 60,
            "depositPeriod": 30,
        }
        fields = {"headStatus": "Open", "hydraHeadId": HEAD, "hydraNodeVersion": "2.3.0-benchmark", "env": env}
        return json.dumps({"tag": "Greetings", "me": {"vkey": me.hydra_vkey}, "chainSyncedStatus": "InSync", **fields})

    def get(self, path: str) -> object:
        if path == "/head":
            state = {"version": len(self.members), "localTxs": [], "allTxs": {}}
            return {"tag": "Open", "contents": {"headId": HEAD, "coordinatedHeadState": state}}
        utxo = {ref: {"address": c.address, "value": {"lovelace": c.lovelace}} for ref, c in self.utxo.items()}
        return {"tag": "ConfirmedSnapshot", "snapshot": self.last | {"utxo": utxo}, "signatures": {}}

    def http(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path.startswith("/?"):
            return None
        return connection.respond(HTTPStatus.OK, json.dumps(self.get(request.path)))

    async def talk(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        for frame in self.frames if "history=yes" in connection.request.path else []:
            await connection.send(frame)
        await connection.send(self.greetings())
        await connection.wait_closed()
