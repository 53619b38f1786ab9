"""The HTTP side of a hydra-node 2.3 (docs: hydra-node api.yaml): bounded answers, bounded waits, typed errors."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from dataclasses import dataclass
from typing import Final

import httpx

from fednode.errors import FundsError, HeadError, HeadUnavailable
from fednode.hydra.fields import Fields, parse_json
from fednode.hydra.messages import Snapshot
from fednode.hydra.seen import LastSeen, read_last_seen
from fednode.hydra.stall import Sighting
from fednode.hydra.utxo import Coin, Utxo, parse_utxo
from fednode.hydra.wire import envelope, read_snapshot
from fednode.types import HeadId

MAX_ANSWER: Final = 64 << 20
"""Bytes. The head state of a large head is megabytes."""
_WHOLE: Final = 300.0
"""Seconds for a whole answer: one that only drips is no answer."""
_TIMEOUT: Final = httpx.Timeout(30.0, connect=5.0)
_RECOVERY_TIMEOUT: Final = httpx.Timeout(330.0, connect=5.0)
"""A node waits up to 300 s for layer 1 before it answers."""
_FUNDS_ERRORS: Final = (
    "UnsupportedLegacyOutput",
    "DepositTooLow",
    "DepositTooLarge",
    "FailedToConstructDepositTx",
    "NotEnoughFuel",
    "NoFuelUTXOFound",
    "FailedToPostTx",
)


@dataclass(frozen=True, slots=True)
class HeadState:
    """The part of GET /head that the client needs; ids are of transactions in the node's own, unconfirmed ledger."""

    tag: str
    head_id: HeadId | None
    version: int
    """Grows by one with each finalised deposit or decommit; 0 unless open."""
    seen: frozenset[str]


class Rest:
    """One node's HTTP API. Methods raise HeadUnavailable (no answer, 5xx) and HeadError (any other refusal)."""

    def __init__(self, base: str, tls: ssl.SSLContext | None = None) -> None:
        """`base`: http(s)://host:port; `tls` for https, else the authorities of this machine."""
        # A plain connection needs no authorities, and loading them takes longer than all the rest.
        verify = tls or not base.startswith("http://")
        # No proxies from the environment: the node is the party's own.
        self._client = httpx.AsyncClient(base_url=base, timeout=_TIMEOUT, trust_env=False, verify=verify)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def head(self) -> HeadState:
        """GET /head."""
        fields = Fields(await self._get("/head"), "GET /head")
        tag, contents = fields.text("tag"), fields.child("contents")
        coordinated = contents.child("coordinatedHeadState") if tag == "Open" else None
        return HeadState(
            tag=tag,
            head_id=HeadId(contents.text("headId")) if "headId" in contents else None,
            version=coordinated.natural("version") if coordinated else 0,
            seen=_seen_transactions(coordinated) if coordinated else frozenset(),
        )

    async def snapshot(self) -> Snapshot | None:
        """GET /snapshot: the last confirmed one with its UTxO; None before the first and where no head is open."""
        answer = await self._get("/snapshot", missing_ok=True)
        if answer is None:
            return None
        fields = Fields(answer, "GET /snapshot")
        return read_snapshot(fields.child("snapshot")) if fields.get("tag") != "InitialSnapshot" else None

    async def snapshot_utxo(self) -> Utxo | None:
        """GET /snapshot/utxo: confirmed outputs **and** the deposit that is not spendable yet; for comparison only."""
        answer = await self._get("/snapshot/utxo", missing_ok=True)
        return None if answer is None else parse_utxo(answer, "GET /snapshot/utxo")

    async def last_seen(self) -> LastSeen:
        """GET /snapshot/last-seen: how far the next snapshot is, and who has signed it."""
        return read_last_seen(Fields(await self._get("/snapshot/last-seen"), "GET /snapshot/last-seen"))

    async def sighting(self) -> Sighting | None:
        """What hangs in an open head; None where none is open."""
        fields = Fields(await self._get("/head"), "GET /head")
        if fields.text("tag") != "Open":
            return None
        contents = fields.child("contents")
        state = contents.child("coordinatedHeadState")
        parties = contents.child("parameters").children("parties") if "parameters" in contents else []
        waiting = len(state.children("localTxs")) if "localTxs" in state else 0
        return Sighting(await self.last_seen(), waiting, tuple(party.text("vkey") for party in parties))

    async def pending_deposits(self) -> tuple[str, ...]:
        """GET /commits: transaction ids of deposits on layer 1 that the head has not taken in."""
        return Fields({"commits": await self._get("/commits")}, "GET /commits").texts("commits")

    async def recover(self, deposit: str) -> None:
        """DELETE /commits/{txid}: pay a deposit back that no head took in. Returns when layer 1 shows it."""
        path = f"/commits/{deposit}"
        status, body = await self._call("DELETE", path, None, limits=_RECOVERY_TIMEOUT)
        self._answer("DELETE", path, status, body)

    async def protocol_parameters(self) -> object:
        """GET /protocol-parameters: the ledger parameters of the head as JSON."""
        return await self._get("/protocol-parameters")

    async def draft_commit(self, reference: str, coin: Coin) -> bytes:
        """POST /commit: a deposit of one whole layer-1 output, drafted, balanced and signed by the node's fuel key."""
        output = {
            "address": coin.address,
            "value": {"lovelace": coin.lovelace},
            "datum": None,
            "datumhash": None,
            "inlineDatum": None,
            "referenceScript": None,
        }
        answer = await self._post("/commit", {reference: output})
        return Fields(answer, "POST /commit").raw_hex("cborHex")

    async def submit(self, cbor: str) -> None:
        """POST /cardano-transaction: put a signed transaction on layer 1."""
        await self._post("/cardano-transaction", envelope(cbor))

    async def _get(self, path: str, *, missing_ok: bool = False) -> object:
        status, body = await self._call("GET", path, None)
        if missing_ok and status == 404:
            return None
        return self._answer("GET", path, status, body)

    async def _post(self, path: str, content: object) -> object:
        status, body = await self._call("POST", path, json.dumps(content).encode())
        return self._answer("POST", path, status, body)

    async def _call(
        self, method: str, path: str, content: bytes | None, limits: httpx.Timeout = _TIMEOUT
    ) -> tuple[int, bytes]:
        headers = {"content-type": "application/json"} if content is not None else {}
        parts: list[bytes] = []
        try:
            call = self._client.stream(method, path, content=content, headers=headers, timeout=limits)
            async with asyncio.timeout(_WHOLE), call as response:
                size = 0
                async for part in response.aiter_bytes():
                    size += len(part)
                    if size > MAX_ANSWER:
                        raise HeadError(f"hydra-node {method} {path}: the answer exceeds {MAX_ANSWER} bytes")
                    parts.append(part)
                return response.status_code, b"".join(parts)
        except (httpx.HTTPError, TimeoutError) as error:
            place = f"{str(self._client.base_url).rstrip('/')}{path}"
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise HeadError(
                    f"hydra-node {method} {place}: its certificate is not trusted: {str(error)[:300]}",
                    hint="set [head] ca_file in fednode.toml to the certificate of the node's own authority",
                ) from None
            raise HeadUnavailable(
                f"hydra-node {method} {place}: {type(error).__name__} {error}".strip(), hint="is the node running?"
            ) from None

    def _answer(self, method: str, path: str, status: int, body: bytes) -> object:
        where = f"{method} {path}"
        if status == 200:
            return parse_json(body, where)
        text = _reason_first(body)
        message = f"hydra-node {where}: status {status}, expected 200: {text[:1500]}"
        if status >= 500 or status in (202, 429):
            raise HeadUnavailable(message)
        if any(tag in text for tag in _FUNDS_ERRORS):
            raise FundsError(message, hint="check the funding output and the fuel of the node")
        raise HeadError(message)


def _reason_first(body: bytes) -> str:
    """A refusal as text, with the reason before the transaction that it quotes: that one may be long."""
    text = body.decode(errors="replace").strip()
    found = re.search(r'"failureReason"\s*:\s*"(?:[^"\\]|\\.)*"', text)
    return f"{found.group()} in {text}" if found else text


def _seen_transactions(state: Fields) -> frozenset[str]:
    """Ids anywhere in the node's ledger state: waiting, in a snapshot that is being signed, or just confirmed."""
    found = {identifier for identifier, _ in state.child("allTxs").items()} if "allTxs" in state else set[str]()
    found |= _ids(state, "localTxs")
    for name in ("seenSnapshot", "confirmedSnapshot"):
        if name in state and "snapshot" in state.child(name):
            found |= _ids(state.child(name).child("snapshot"), "confirmed")
    return frozenset(found)


def _ids(fields: Fields, name: str) -> set[str]:
    return {item.text("txId") for item in fields.children(name)} if name in fields else set()
