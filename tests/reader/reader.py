"""An independent reader of a finished run: recomputes everything that docs/protocol.md says from the parties' buckets.

    python tests/reader/reader.py alice=/path/of/bucket bob=/path/of/bucket … [--run RUN_ID]

Prints one JSON object, or names the first thing that is wrong with its party and round. Nothing of fednode is imported.
The numbers are in exact.py beside it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import cbor2
import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from exact import Array, Json, Layout, canonical, combine, expect, initial_state, outer_step, sha256, state_digest


class Mismatch(Exception):
    """The first thing that does not hold."""

    def __init__(self, party: str, round_number: int, what: str) -> None:
        super().__init__(f"party {party}, round {round_number}: {what}")
        self.party, self.round, self.what = party, round_number, what


# section 1: agreement
def sections(agreement: Json) -> dict[str, bytes]:
    parts = {name: table for name, table in agreement.items() if name != "party"}
    parts |= {f"party.{party['name']}": party for party in agreement["party"]}
    return {name: hashlib.sha256(canonical(table)).digest()[:8] for name, table in parts.items()}


# section 4: signals
def blake2b(data: bytes, size: int) -> bytes:
    return hashlib.blake2b(data, digest_size=size).digest()


def address_bytes(bech32: str) -> bytes:
    """The payload of a Bech32 string (its checksum is not looked at: the agreement's hash covers the string)."""
    letters = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
    bits = "".join(f"{letters.index(letter):05b}" for letter in bech32.rpartition("1")[2][:-6])
    return bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits) - 7, 8))


@dataclass
class Signal:
    raw: bytes
    tx: bytes
    party: str
    content: Json
    inputs: list[tuple[bytes, int]]
    outputs: list[tuple[bytes, int]]


def split(raw: bytes) -> list[tuple[Any, bytes]]:
    """The CBOR items of a sequence, each with its own bytes."""
    stream, items = BytesIO(raw), []
    while (start := stream.tell()) < len(raw):
        value = cbor2.CBORDecoder(stream).decode()
        items.append((value, raw[start : stream.tell()]))
    return items


def read_signal(raw: bytes, agreement: Json, run: str) -> Signal | None:
    """A signal of this run, every rule of section 4 checked; None for a foreign run. Raises ValueError and others."""
    (body, body_raw), (witnesses, _), (valid, _), (auxiliary, auxiliary_raw) = split(raw[1:])
    expect(raw[0] == 0x84 and valid is True, "not a transaction of four parts")
    expect(set(body) == {0, 1, 2, 7} and set(witnesses) - {2} == {0}, "other fields than 0, 1, 2, 7 and witnesses")
    expect(type(body[2]) is int and body[2] == 0, "a fee")
    expect(blake2b(auxiliary_raw, 32) == body[7], "the hash of the auxiliary data is wrong")
    expect(list(auxiliary) == [1729], "not the single label 1729")
    # Anybody can add a witness and the transaction stays the same: its sender is who gets the change.
    change = body[1][-1][0] if body[1] else b""
    [(key, signature)] = [each for each in witnesses[0] if change[1:29] == blake2b(each[0], 28)]
    tx = blake2b(body_raw, 32)
    Ed25519PublicKey.from_public_bytes(key).verify(signature, tx)
    [sender] = [party for party in agreement["party"] if party["cardano_vkey"] == key.hex()]
    expect(address_bytes(sender["address"])[1:29] == blake2b(key, 28), "the key is not that of the funds address")
    content = auxiliary[1729]
    expect(type(content["run"]) is bytes and len(content["run"]) == 16, "run is not 16 bytes")
    if content["run"].hex() != run:
        return None
    check_content(content, agreement["run"]["rounds"] + 1)
    outputs = [tuple(out) if isinstance(out, list) else (out[0], out[1]) for out in body[1]]
    expect(all(len(out) == 2 for out in body[1]), "an output with more than address and sum")
    last = content["round"] == agreement["run"]["rounds"] + 1
    paid = [] if last else [party["address"] for party in agreement["party"] if party is not sender]
    expect(outputs[:-1] == [(address_bytes(address), 1_000_000) for address in paid], "the payments are wrong")
    expect(outputs[-1][0] == address_bytes(sender["address"]) and outputs[-1][1] >= 1_000_000, "the change is wrong")
    return Signal(raw, tx, sender["name"], content, [(tx, index) for tx, index in body[0]], outputs)


def check_content(content: Json, last: int) -> None:
    types: dict[str, type] = {"v": int, "run": bytes, "round": int, "base": bytes}
    if content["round"] != last:
        types |= {"object": bytes, "size": int}
    if content["round"] == 0:
        types |= {"sections": dict}
    expect({name: type(value) for name, value in content.items()} == types, "wrong fields or types in the metadata")
    expect(content["v"] == 1 and 0 <= content["round"] <= last, "wrong version or round")
    expect(
        all(len(content[name]) == 32 for name in ("base", "object") if name in content), "a digest of another length"
    )


# the run
class Run:
    """A run's folders, one per party, and what its agreement says. Raises Mismatch."""

    def __init__(self, buckets: dict[str, Path], run: str | None = None) -> None:
        found = sorted(path for root in buckets.values() for path in root.rglob(f"{run or '?' * 32}/000000/*.json"))
        if len({path.parent.parent.name for path in found}) != 1:
            raise SystemExit(f"expected one run, found {sorted({path.parent.parent.name for path in found})}")
        self.id = found[0].parent.parent.name
        self.raw = self.read(found[0], "of the agreement", 0)
        document = json.loads(self.raw)
        self.agreement, self.schema = document["agreement"], document["schema"]
        self.parties = [party["name"] for party in self.agreement["party"]]
        self.rounds: int = self.agreement["run"]["rounds"]
        self.folders = {
            party["name"]: Path(buckets[party["name"]], party["prefix"], self.id) for party in self.agreement["party"]
        }
        self.signals: dict[tuple[int, str], Signal] = {}

    def read(self, path: Path, party: str, round_number: int) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise Mismatch(party, round_number, f"{path.name} cannot be read: {error.strerror}") from None

    def path(self, party: str, round_number: int, name: str) -> Path:
        return self.folders[party] / f"{round_number:06d}" / name

    def check_agreement(self) -> None:
        agreement, schema, first = self.agreement, self.schema, self.parties[0]
        agreement_hash = sha256(canonical(agreement))
        for holds, what in (
            (canonical({"agreement": agreement, "schema": schema}) == self.raw, "the agreement is not canonical JSON"),
            (agreement_hash[:32] == self.id, f"the agreement hashes to {agreement_hash}, not to this run"),
            (self.parties == sorted(self.parties, key=str.encode), "the parties are not sorted by name"),
            (schema["tensors"] == sorted(schema["tensors"], key=lambda t: t[0].encode()), "tensors are not sorted"),
            (schema["codec"] == agreement["aggregation"]["codec"], "the schema's codec is not the agreement's"),
            ([schema["rank"], schema["alpha"]] == [agreement["model"][k] for k in ("rank", "alpha")], "rank or alpha"),
        ):
            if not holds:
                raise Mismatch(first, 0, what)
        for party in self.parties:
            if self.read(self.path(party, 0, f"{sha256(self.raw)}.json"), party, 0) != self.raw:
                raise Mismatch(party, 0, "the stored agreement differs")

    def parse(self, raw: bytes, party: str, round_number: int) -> Signal | None:
        try:
            return read_signal(raw, self.agreement, self.id)
        except InvalidSignature:
            raise Mismatch(party, round_number, "the witness of a signal is wrong") from None
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, cbor2.CBORError) as error:
            raise Mismatch(party, round_number, f"a signal breaks the rules: {error}") from None

    def check_signals(self) -> None:
        for number in range(self.rounds + 2):
            for party in self.parties:
                raw = self.read(self.path(party, number, "signal.cbor"), party, number)
                signal = self.parse(raw, party, number)
                if signal is None or signal.party != party or signal.content["round"] != number:
                    raise Mismatch(party, number, "signal.cbor is of another run, party or round")
                self.signals[number, party] = signal
        for party in self.parties:
            content = self.signals[0, party].content
            if content["sections"] != sections(self.agreement):
                raise Mismatch(party, 0, "the signalled sections are not those of the agreement")
            if (content["object"].hex(), content["size"]) != (sha256(self.raw), len(self.raw)):
                raise Mismatch(party, 0, "the signalled agreement is not the stored one")

    def check_transcript(self, owner: str) -> None:
        """Every signal stands in it, in an order that the rules allow, and money neither appears nor vanishes."""
        raw = self.read(self.folders[owner] / "transcript.cborseq", owner, self.rounds + 1)
        try:
            transactions = [one for _, one in split(raw)]
        except (ValueError, EOFError, cbor2.CBORError) as error:
            raise Mismatch(owner, self.rounds + 1, f"transcript.cborseq: {error}") from None
        seen: set[tuple[int, str]] = set()
        outputs: dict[tuple[bytes, int], tuple[bytes, int]] = {}
        own = {party["name"]: address_bytes(party["address"]) for party in self.agreement["party"]}
        for one in transactions:
            signal = self.parse(one, owner, len(seen) // len(self.parties))
            if signal is None:
                continue
            number, party = signal.content["round"], signal.party
            if signal.content != self.signals[number, party].content:
                raise Mismatch(party, number, f"{owner}'s transcript holds a second signal with other content")
            if len(seen) < number * len(self.parties):
                raise Mismatch(party, number, f"{owner}'s transcript has it before the round before was complete")
            known = [outputs.pop(entry) for entry in signal.inputs if entry in outputs]
            if any(address != own[party] for address, _ in known):
                raise Mismatch(party, number, "the signal spends a peer's output")
            gained = sum(value for _, value in signal.outputs) - sum(value for _, value in known)
            if gained < 0 or (gained > 0 and len(known) == len(signal.inputs)):
                raise Mismatch(party, number, "the signal's outputs are not worth its inputs")
            outputs |= {(signal.tx, index): output for index, output in enumerate(signal.outputs)}
            if signal.raw == self.signals[number, party].raw:
                seen.add((number, party))
        missing = sorted(set(self.signals) - seen)
        if missing:
            raise Mismatch(missing[0][1], missing[0][0], f"{owner}'s transcript lacks the signal")

    def update(self, party: str, number: int, layout: Layout, base: str) -> Array:
        """One party's object of one round, checked and decoded."""
        content = self.signals[number, party].content
        digest = content["object"].hex()
        data = self.read(self.path(party, number, f"{digest}.safetensors"), party, number)
        if (len(data), sha256(data)) != (content["size"], digest):
            raise Mismatch(
                party, number, f"the object has {len(data)} bytes of sha256 {sha256(data)}, not as signalled"
            )
        metadata = {"fmt": "fednode/1", "codec": layout.codec, "schema": layout.schema, "run": self.id, "base": base}
        try:
            return layout.decode(data, metadata | {"round": str(number), "party": party, "phase": layout.phase})
        except ValueError as error:
            raise Mismatch(party, number, f"the object breaks the rules: {error}") from None

    def check_base(self, number: int, digest: str) -> None:
        for party in self.parties:
            said = self.signals[number, party].content["base"].hex()
            if said != digest:
                raise Mismatch(party, number, f"the signal's base digest is {said}, recomputed {digest}")

    def recompute(self) -> list[str]:
        """The digests of S_0 … S_R."""
        rules, weights = self.agreement["aggregation"], [party["weight"] for party in self.agreement["party"]]
        state = initial_state(self.schema, self.agreement["run"]["seed"])
        momentum = {name: np.zeros_like(tensor) for name, tensor in state.items()}
        digests = [state_digest(state)]
        self.check_base(0, digests[0])
        for number in range(1, self.rounds + 1):
            self.check_base(number, digests[-1])
            phase = "AB" if self.agreement["training"]["phase"] == "both" else "AB"[number % 2]
            layout = Layout(self.schema, phase)
            updates = [self.update(party, number, layout, digests[-1]) for party in self.parties]
            gradient = combine(updates, weights, rules["rule"], rules["clip"])
            outer_step(state, momentum, gradient, layout, rules)
            digests.append(state_digest(state))
        self.check_base(self.rounds + 1, digests[-1])
        return digests


def read_run(buckets: dict[str, Path], run_id: str | None = None) -> Json:
    """Check and recompute the whole run. Raises Mismatch."""
    run = Run(buckets, run_id)
    run.check_agreement()
    run.check_signals()
    for party in run.parties:
        run.check_transcript(party)
    digests = run.recompute()
    return {"ok": True, "run_id": run.id, "rounds": run.rounds, "parties": run.parties, "digests": digests}


def main(arguments: list[str]) -> int:
    run_id = arguments.pop(arguments.index("--run") + 1) if "--run" in arguments else None
    pairs = (argument.partition("=") for argument in arguments if argument != "--run")
    try:
        result = read_run({name: Path(folder) for name, _, folder in pairs}, run_id)
    except Mismatch as error:
        result = {"ok": False, "party": error.party, "round": error.round, "what": error.what}
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
