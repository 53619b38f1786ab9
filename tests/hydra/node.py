"""A small model of one hydra-node: it makes the messages and answers that a real one would, for these tests."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from fednode.hydra.addresses import key_hash
from fednode.hydra.keys import SigningKey
from fednode.hydra.settings import HeadSettings
from fednode.hydra.signals import build_signal
from fednode.hydra.transactions import parse
from fednode.hydra.utxo import Coin, outputs_of
from fednode.types import HeadId, Lovelace, Member, SignalContent, SignedTx

from .party import ADA, KEYS, MAGIC, MEMBERS, content

HEAD = HeadId("aa" * 28)
DEPOSIT = 30_000_000
FUNDING = "f0" * 32 + "#0"


def settings(url: str = "http://127.0.0.1:1", member: Member = ADA, **changes: Any) -> HeadSettings:
    fields: dict[str, Any] = {
        "url": url,
        "me": member.name,
        "members": MEMBERS,
        "magic": MAGIC,
        "version": "2.3.0",
        "funds_key": KEYS[member.name],
        "funding": FUNDING,
        "deposit": Lovelace(DEPOSIT),
        "contestation_period_s": 60,
        "deposit_period_s": 30,
        "bound_head": HEAD,
    }
    return HeadSettings(**(fields | changes))


def utxo_json(coins: dict[str, Coin]) -> dict[str, Any]:
    return {
        ref: {"address": coin.address, "datum": None, "value": {"lovelace": coin.lovelace}}
        for ref, coin in coins.items()
    }


class Node:
    """The ledger, the history and the answers of one party's node; `log` holds every message that has a number."""

    def __init__(self, member: Member = ADA, version: str = "2.3.0-abc") -> None:
        self.member, self.node_version = member, version
        self.utxo: dict[str, Coin] = {}
        self.log: list[dict[str, Any]] = []
        self.snapshots: list[dict[str, Any]] = []
        self.pending: dict[str, Coin] | None = None
        self.version = 0
        self.status = "Idle"
        self.head_id = HEAD
        self.seen: list[SignedTx] = []

    def event(self, tag: str, **fields: Any) -> str:
        """Append a numbered event of this head; numbers have gaps."""
        now = datetime.now(UTC).isoformat()
        message = {"tag": tag, "headId": self.head_id, **fields, "seq": len(self.log) * 3 + 5, "timestamp": now}
        self.log.append(message)
        return json.dumps(message)

    def open(self) -> str:
        self.status = "Open"
        return self.event("HeadIsOpen", parties=[{"vkey": m.hydra_vkey} for m in reversed(MEMBERS)])

    def deposit(self, member: Member, reference: str) -> list[str]:
        coin = {reference: Coin(member.address, DEPOSIT)}
        recorded = self.event(
            "CommitRecorded",
            utxoToCommit=utxo_json(coin),
            pendingDeposit=reference[:64],
            deadline="2030-01-01T00:00:00Z",
        )
        self.pending = coin
        frames = [recorded, self.snapshot([])]
        self.utxo |= coin
        self.pending, self.version = None, self.version + 1
        return [*frames, self.event("CommitFinalized", depositTxId=reference[:64])]

    def signal(self, member: Member, value: SignalContent) -> SignedTx:
        owned = {ref: coin.lovelace for ref, coin in self.utxo.items() if coin.address == member.address}
        key: SigningKey = KEYS[member.name]
        return build_signal(value, owned, me=member.name, members=MEMBERS, key=key)

    def snapshot(self, transactions: list[SignedTx]) -> str:
        for transaction in transactions:
            raw = parse(bytes.fromhex(transaction.cbor))
            for reference in raw.inputs:
                del self.utxo[reference]
            self.utxo |= outputs_of(raw)
        snapshot = {
            "headId": self.head_id,
            "version": self.version,
            "number": len(self.snapshots) + 1,
            "confirmed": [{"type": "Tx ConwayEra", "cborHex": tx.cbor, "txId": tx.id} for tx in transactions],
            "utxoToCommit": utxo_json(self.pending) if self.pending else None,
            "utxoToDecommit": None,
        }
        self.snapshots.append(snapshot | {"utxo": utxo_json(self.utxo)})
        return self.event("SnapshotConfirmed", snapshot=snapshot, signatures={"multiSignature": []})

    def round(self, number: int, *, last: bool = False) -> str:
        return self.snapshot([self.signal(member, content(number, last=last)) for member in MEMBERS])

    def greetings(self, **changes: Any) -> str:
        env = {
            "party": {"vkey": self.member.hydra_vkey},
            "otherParties": [{"vkey": m.hydra_vkey} for m in MEMBERS if m is not self.member],
            "participants": [key_hash(m.fuel_vkey).hex() for m in MEMBERS],
            "contestationPeriod": 60,
            "depositPeriod": 30,
            "signingKey": "5ec2e7",
        }
        message = {
            "tag": "Greetings",
            "me": {"vkey": self.member.hydra_vkey},
            "headStatus": self.status,
            "hydraNodeVersion": self.node_version,
            "chainSyncedStatus": "InSync",
            "env": env | changes.pop("env", {}),
        }
        if self.status != "Idle":
            message["hydraHeadId"] = self.head_id
        return json.dumps(message | changes)

    def history(self) -> list[str]:
        return [json.dumps(message) for message in self.log]

    def get(self, path: str) -> tuple[int, object]:
        """The answer to GET `path`."""
        if path == "/head":
            if self.status == "Idle":
                return 200, {"tag": "Idle", "contents": {"chainState": {}}}
            state = {
                "version": self.version,
                "localTxs": [{"txId": tx.id, "cborHex": tx.cbor} for tx in self.seen],
                "allTxs": {},
            }
            contents = {"headId": self.head_id, "coordinatedHeadState": state}
            return 200, {"tag": "Open" if self.status == "Open" else "Closed", "contents": contents}
        if path == "/snapshot":
            if self.status == "Idle":
                return 404, ""
            if not self.snapshots:
                return 200, {"tag": "InitialSnapshot", "headId": self.head_id}
            return 200, {"tag": "ConfirmedSnapshot", "snapshot": self.snapshots[-1], "signatures": {}}
        if path == "/snapshot/last-seen":
            return 200, {"tag": "LastSeenSnapshot", "lastSeen": len(self.snapshots)}
        return 400, "Resource not found"


def funded() -> Node:
    """An open head with every party's deposit in it."""
    node = Node()
    node.open()
    for index, member in enumerate(MEMBERS):
        node.deposit(member, f"{index + 1:064x}#0")
    return node
