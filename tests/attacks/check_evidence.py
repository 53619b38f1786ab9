"""Checks a piece of evidence without any code of fednode: cbor2, cryptography and the standard library.

    python check_evidence.py EVIDENCE.json AGREEMENT.json

AGREEMENT.json is the object of round 0, as every party's bucket holds it under 000000/. Ends with 0 and says what is
proven, or with 1 and says what is not. What rests on the witness's word alone is named as such.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

LABEL, ADA, BLOCK, CHUNK = 1729, 1_000_000, 64, 4096


class Unproven(Exception):
    """The evidence does not show what it says."""


@dataclass(frozen=True)
class Tx:
    id: bytes
    body: dict[int, Any]
    signers: tuple[bytes, ...]
    """Keys whose signature of the id holds."""
    others: frozenset[int]
    """Keys of the witness set besides 0."""
    metadata: Any
    """The decoded auxiliary data; None without, or where it is not what the signed body names."""
    auxiliary: bytes

    @property
    def content(self) -> dict[str, Any]:
        found = self.metadata.get(LABEL) if isinstance(self.metadata, dict) else None
        return found if isinstance(found, dict) else {}


def read(raw: bytes) -> Tx:
    """A transaction with its signatures verified."""
    stream = io.BytesIO(raw)
    require(stream.read(1) == b"\x84", "a transaction is an array of four")
    parts: list[tuple[Any, bytes]] = []
    for _ in range(4):
        start = stream.tell()
        value = cbor2.CBORDecoder(stream).decode()
        parts.append((value, raw[start : stream.tell()]))
    (body, body_raw), (witnesses, _), _, (metadata, metadata_raw) = parts
    identity = blake(body_raw)
    good = tuple(bytes(key) for key, signature in items(witnesses.get(0, [])) if verifies(key, signature, identity))
    covered = body.get(7) == blake(metadata_raw)
    return Tx(identity, body, good, frozenset(witnesses) - {0}, metadata if covered else None, metadata_raw)


def check(evidence: Path, agreement: Path) -> str:
    """What the evidence proves. Raises Unproven."""
    document = json.loads(evidence.read_text())
    require(document.get("evidence") == "fednode/1", "not evidence of fednode/1")
    law = Law(agreement.read_bytes(), document["run"])
    accused, kind = law.party(document["accused"]), document["kind"]
    transactions = [read(bytes.fromhex(raw)) for raw in document["transactions"]]
    key = bytes.fromhex(accused["cardano_vkey"])
    require(bool(transactions), "there is no transaction")
    require(all(key in tx.signers for tx in transactions), f"a transaction is not signed by {accused['name']}")
    if kind.startswith("object-"):
        file = evidence.parent / document["object_file"] if document["object_file"] else None
        return law.judge_object(transactions[0], accused["name"], document["round"], file)
    last = transactions[-1]
    if kind == "equivocation":
        (first, second) = (tx.content for tx in transactions)
        require(first["run"] == second["run"] and first["round"] == second["round"], "two different rounds")
        require(first != second, "both say the same")
        return f"{accused['name']} signed two signals of round {first['round']} with different content"
    if kind == "early":
        require(last.content.get("round", 0) > document["round"] - 1, "not a later round")
        return f"{accused['name']} signed round {last.content['round']}; the order is the witness's word"
    broken = law.broken_rule(last, accused, dangerous=kind == "dangerous-transaction")
    require(bool(broken), "the transaction breaks no rule")
    return f"{accused['name']} signed a transaction that breaks a rule: {broken}"


class Law:
    """What the parties agreed on: the object of round 0."""

    def __init__(self, data: bytes, run: str) -> None:
        cut = data.index(b',"schema":{')
        self.agreement, self.schema = json.loads(data)["agreement"], json.loads(data)["schema"]
        text = data[len(b'{"agreement":') : cut]
        require(hashlib.sha256(text).hexdigest()[:32] == run, "the agreement is not the one of the run")
        self.schema_digest = hashlib.sha256(data[cut + len(b',"schema":') : -1]).hexdigest()
        self.run = run
        self.parties: list[dict[str, Any]] = self.agreement["party"]

    def party(self, name: str) -> dict[str, Any]:
        found = [party for party in self.parties if party["name"] == name]
        require(len(found) == 1, f"{name} is no party")
        return found[0]

    def broken_rule(self, tx: Tx, sender: dict[str, Any], *, dangerous: bool) -> str:
        """The first rule of a signal that the transaction breaks, "" if none."""
        if tx.body.get(2) != 0:
            return f"fee {tx.body.get(2)}"
        if 9 in tx.body:
            return "mint"
        if tx.others:
            return f"witnesses {sorted(tx.others)}"
        if dangerous:
            return f"body keys {sorted(tx.body)}" if set(tx.body) - {0, 1, 2, 3, 7, 8, 14, 15} else ""
        if set(tx.body) != {0, 1, 2, 7}:
            return f"body keys {sorted(tx.body)}"
        return self._content(tx) or self._payments(tx, sender)

    def _content(self, tx: Tx) -> str:
        if not isinstance(tx.metadata, dict) or set(tx.metadata) != {LABEL} or not tx.content:
            return "auxiliary data is no plain map of the one label"
        content, last = tx.content, self.agreement["run"]["rounds"] + 1
        # {1729: map of so many pairs}: the decoder merges equal keys.
        if (
            tx.auxiliary[:4] == b"\xa1\x19\x06\xc1"
            and 0xA0 <= tx.auxiliary[4] < 0xB8
            and tx.auxiliary[4] - 0xA0 > len(content)
        ):
            return "a key twice"
        number = content.get("round")
        if type(number) is not int or not 0 <= number <= last:
            return f"round {number!r}"
        types: dict[str, tuple[type, int]] = {"run": (bytes, 16), "base": (bytes, 32)}
        if number != last:
            types["object"] = (bytes, 32)
        for name, (kind, length) in types.items():
            value = content.get(name)
            if type(value) is not kind or len(value) != length:
                return f"{name} {value!r}"
        keys = {"v", "run", "round", "base"} | ({"object", "size"} if number != last else set())
        if set(content) != keys | ({"sections"} if number == 0 else set()):
            return f"keys {sorted(map(str, content))}"
        size = content.get("size", 1)
        return f"v {content['v']!r}" if content["v"] != 1 else f"size {size!r}" if not good_size(size) else ""

    def _payments(self, tx: Tx, sender: dict[str, Any]) -> str:
        last = tx.content["round"] == self.agreement["run"]["rounds"] + 1
        peers = [] if last else [party for party in self.parties if party is not sender]
        # An enterprise address is one header byte and the hash of the key.
        expected = [(credential(peer), ADA) for peer in peers]
        found = [(output[0][1:], output[1]) if isinstance(output, list) else (b"", 0) for output in tx.body[1]]
        if found[:-1] != expected:
            return "recipients, order or amounts"
        return "" if found[-1][0] == credential(sender) and found[-1][1] >= ADA else "change"

    def judge_object(self, tx: Tx, party: str, number: int, file: Path | None) -> str:
        """What the signed signal and the bytes show about an object."""
        content = tx.content
        require(content.get("run") == bytes.fromhex(self.run) and content.get("round") == number, "of another round")
        moving, phase = self._phase(number)
        size = self.elements(moving)
        head = self._prefix(phase, size, number, party, content["base"].hex())
        expected = len(head) + sum(length for _, _, _, length in self._sections(size))
        if content["size"] != expected:
            return f"{party} signed an object of {content['size']} bytes, the agreement fixes {expected}"
        require(file is not None, "there is no object")
        assert file is not None
        data = file.read_bytes()
        if len(data) != expected or hashlib.sha256(data).digest() != content["object"]:
            return f"the bytes are not those that {party} signed; that they lay in the bucket is the witness's word"
        if not data.startswith(head):
            return f"{party} signed an object with another header than run, round, party, base and schema fix"
        require(self._bad_codes(data[len(head) :], size, moving), "the object keeps the format")
        return f"{party} signed an object with forbidden codes"

    def _phase(self, number: int) -> tuple[list[list[Any]], str]:
        both = self.agreement["training"]["phase"] == "both"
        phase = "AB" if both else "B" if number % 2 else "A"
        return [t for t in self.schema["tensors"] if t[0].split(".lora_")[1][0] in phase], phase

    def elements(self, moving: list[list[Any]]) -> int:
        size = sum(-(-shape[0] * shape[1] // BLOCK) * BLOCK for _, shape in moving)
        return -(-size // CHUNK) * CHUNK if self.schema["codec"] == "tk64" else size

    def _sections(self, size: int) -> list[tuple[str, str, int, int]]:
        """(name, dtype, elements, bytes), in the order of the data."""
        scales = ("s", "U8", size // BLOCK, size // BLOCK)
        return {
            "i8": [("q", "I8", size, size), scales],
            "i4": [("q", "U8", size // 2, size // 2), scales],
            "tk64": [(n, "U8", size // CHUNK * k, size // CHUNK * k) for n, k in (("i", 96), ("v", 16), ("s", 1))],
            "f32": [("x", "F32", size, 4 * size)],
        }[self.schema["codec"]]

    def _prefix(self, phase: str, size: int, number: int, party: str, base: str) -> bytes:
        meta = {"fmt": "fednode/1", "codec": self.schema["codec"], "schema": self.schema_digest, "run": self.run}
        header: dict[str, Any] = {"__metadata__": meta | {"base": base, "round": str(number), "party": party}}
        header["__metadata__"]["phase"] = phase
        at = 0
        for name, dtype, count, length in self._sections(size):
            header[name] = {"dtype": dtype, "shape": [count], "data_offsets": [at, at + length]}
            at += length
        text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
        text += b" " * (-(8 + len(text)) % 64)
        return len(text).to_bytes(8, "little") + text

    def _bad_codes(self, data: bytes, size: int, moving: list[list[Any]]) -> bool:
        require(self.schema["codec"] == "i8", "this checker reads the codes of i8 only")
        codes, scales = data[:size], data[size:]
        if 0x80 in codes or any(not scale and any(codes[64 * b : 64 * b + 64]) for b, scale in enumerate(scales)):
            return True
        at = 0
        for _, shape in moving:
            end = at + shape[0] * shape[1]
            at = -(-end // BLOCK) * BLOCK
            if any(codes[end:at]):
                return True
        return False


def credential(party: dict[str, Any]) -> bytes:
    return hashlib.blake2b(bytes.fromhex(party["cardano_vkey"]), digest_size=28).digest()


def good_size(value: object) -> bool:
    return type(value) is int and 0 < value < 1 << 53


def blake(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=32).digest()


def items(value: Any) -> list[Any]:
    return list(value.value if isinstance(value, cbor2.CBORTag) else value)


def verifies(key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise Unproven(otherwise)


def main() -> int:
    try:
        verdict, status = check(Path(sys.argv[1]), Path(sys.argv[2])), 0
    except Unproven as error:
        verdict, status = f"not proven: {error}", 1
    sys.stdout.write(verdict + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
