"""Writes a tiny finished run into buckets, in plain Python scalars: integers, float64 and struct's float32 rounding.

It shares no code with the reader that is tested against it (nor with fednode), and no numpy either.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

RANK = 2
SHAPES = {
    "m.0.x.lora_A.weight": [RANK, 70],
    "m.0.x.lora_B.weight": [5, RANK],
    "m.10.x.lora_A.weight": [RANK, 32],
    "m.10.x.lora_B.weight": [40, RANK],
}
Floats = dict[str, list[float]]
Spoil = Callable[[dict[str, bytes]], None]


def f32(value: float) -> float:
    """Rounded to float32. Sums and products of two float32 are rounded once only: float64 is wide enough."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def dump(value: object) -> bytes:
    """Canonical for what stands here: ASCII names, no floats that JSON and Python write differently."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def bit_string(values: list[int], width: int) -> bytes:
    """Least significant bit first."""
    number = sum(value << (width * at) for at, value in enumerate(values))
    return number.to_bytes(len(values) * width // 8, "little")


def scale(byte: int) -> int:
    return (8 + byte % 8) * 2 ** (byte // 8) if byte else 0


@dataclass
class Party:
    name: str
    weight: int
    key: Ed25519PrivateKey = field(init=False)
    address: bytes = field(init=False)
    owned: dict[tuple[bytes, int], int] = field(init=False)

    def __post_init__(self) -> None:
        self.key = Ed25519PrivateKey.from_private_bytes(sha256(self.name.encode()))
        self.address = b"\x60" + hashlib.blake2b(self.vkey, digest_size=28).digest()
        self.owned = {(sha256(b"deposit" + self.name.encode()), 0): 30_000_000}

    @property
    def vkey(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    def table(self) -> dict[str, object]:
        letters = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
        bits = "".join(f"{byte:08b}" for byte in self.address) + "000"
        data = "".join(letters[int(bits[at : at + 5], 2)] for at in range(0, 235, 5))
        return {
            "name": self.name,
            "weight": self.weight,
            "cardano_vkey": self.vkey.hex(),
            "hydra_vkey": "00" * 32,
            "fuel_vkey": "11" * 32,
            "address": f"addr_test1{data}qqqqqq",
            "prefix": f"fed/{self.name}",
        }


@dataclass
class Synthetic:
    """The settings of a run, and by `write` the run itself."""

    names: tuple[str, ...] = ("alice", "bob")
    rounds: int = 2
    codec: str = "i8"
    rule: str = "mean"
    clip: bool = True
    outer: str = "nesterov"
    phase: str = "alternate"
    weights: tuple[int, ...] = (1, 1)
    seed: int = 7
    spoil: dict[tuple[int, str], Spoil] = field(default_factory=dict)
    lies: dict[tuple[int, str], dict[str, Any]] = field(default_factory=dict)
    """Changes to the content of a signal."""

    def write(self, folder: Path) -> tuple[dict[str, Path], list[str]]:
        """The buckets by party, and the digests of S_0 … S_R."""
        self.random = random.Random(self.seed)
        self.parties = [Party(name, weight) for name, weight in zip(self.names, self.weights, strict=True)]
        agreement, schema = self.agreement(), self.schema()
        document = dump({"agreement": agreement, "schema": schema})
        self.run, self.schema_hash = sha256(dump(agreement))[:16], sha256(dump(schema)).hex()
        self.transcript: list[bytes] = []
        self.folders = {name: folder / name / "fed" / name / self.run.hex() for name in self.names}
        sections = {k: sha256(dump(v))[:8] for k, v in agreement.items() if k != "party"}
        sections |= {f"party.{table['name']}": sha256(dump(table))[:8] for table in agreement["party"]}
        self.state = self.initial()
        self.momentum = {name: [0.0] * len(values) for name, values in self.state.items()}
        digests = [self.digest()]
        objects = dict.fromkeys(self.names, document)
        self.signal(0, objects, digests[0], {"sections": sections})
        for number in range(1, self.rounds + 1):
            moving = [n for n in SHAPES if self.phase == "both" or f"lora_{'AB'[number % 2]}" in n]
            updates = self.publish(number, moving, digests[-1])
            self.aggregate(moving, updates)
            digests.append(self.digest())
        self.signal(self.rounds + 1, {}, digests[-1], {})
        for name in self.names:
            (self.folders[name] / "transcript.cborseq").write_bytes(b"".join(self.transcript))
        return {name: folder / name for name in self.names}, [one.hex() for one in digests]

    def agreement(self) -> dict[str, Any]:
        return {
            "run": {"name": "tiny", "rounds": self.rounds, "seed": self.seed},
            "model": {"rank": RANK, "alpha": 4},
            "training": {"phase": self.phase, "task": "linear"},
            "aggregation": {
                "codec": self.codec,
                "rule": self.rule,
                "clip": self.clip,
                "outer": self.outer,
                "outer_lr": 0.7,
                "outer_momentum": 0.5,
            },
            "head": {"network": "devnet"},
            "party": [party.table() for party in self.parties],
        }

    def schema(self) -> dict[str, Any]:
        tensors = [[name, shape] for name, shape in sorted(SHAPES.items())]
        base = {"model.safetensors": "22" * 32}
        return {"alpha": 4, "base": base, "codec": self.codec, "quantisation": "none", "rank": RANK, "tensors": tensors}

    def initial(self) -> Floats:
        state = {}
        for name, (rows, columns) in sorted(SHAPES.items()):
            stream = hashlib.shake_256(b"fednode/1/S0\x00" + struct.pack("<Q", self.seed) + name.encode())
            drawn = struct.unpack(f"<{rows * columns}I", stream.digest(4 * rows * columns))
            a = [f32((2 * (u >> 8) + 1 - 2**24) * 2.0**-24 / math.sqrt(columns)) for u in drawn]
            state[name] = a if "lora_A" in name else [0.0] * len(a)
        return state

    def digest(self) -> bytes:
        return sha256(b"".join(struct.pack(f"<{len(v)}f", *v) for _, v in sorted(self.state.items())))

    def publish(self, number: int, moving: list[str], base: bytes) -> dict[str, list[int]]:
        """Objects and signals of a round; the updates as integers, padding included."""
        real: list[bool] = []
        for name in sorted(moving):
            count = math.prod(SHAPES[name])
            real += [True] * count + [False] * (-count % 64)
        updates, objects = {}, {}
        for party in self.names:
            parts, kinds, updates[party] = self.encode(real)
            if (number, party) in self.spoil:
                self.spoil[number, party](parts)
            metadata = {"fmt": "fednode/1", "codec": self.codec, "schema": self.schema_hash, "run": self.run.hex()}
            phase = "AB" if self.phase == "both" else "AB"[number % 2]
            metadata |= {"base": base.hex(), "round": str(number), "party": party, "phase": phase}
            objects[party] = self.object(parts, kinds, metadata)
        self.signal(number, objects, base, {})
        return updates

    def object(self, parts: dict[str, bytes], kinds: dict[str, str], metadata: dict[str, str]) -> bytes:
        header: dict[str, Any] = {"__metadata__": metadata}
        at = 0
        for name, data in parts.items():
            shape = [len(data) // 4] if kinds[name] == "F32" else [len(data)]
            header[name] = {"dtype": kinds[name], "shape": shape, "data_offsets": [at, at + len(data)]}
            at += len(data)
        text = dump(header)
        while (8 + len(text)) % 64:
            text += b" "
        return struct.pack("<Q", len(text)) + text + b"".join(parts.values())

    def encode(self, real: list[bool]) -> tuple[dict[str, bytes], dict[str, str], list[int]]:
        """Random codes: parts in data order, their types, the elements."""
        draw = self.random
        if self.codec == "f32":
            values = [f32(draw.uniform(-1, 1)) if yes else 0.0 for yes in real]
            packed = struct.pack(f"<{len(values)}f", *values)
            return {"x": packed}, {"x": "F32"}, [round(value * 2.0**38) for value in values]
        if self.codec == "tk64":
            return self.encode_tk64(real + [False] * (-len(real) % 4096))
        top = 127 if self.codec == "i8" else 7
        scales = [draw.choice([0, 1, draw.randrange(100, 180)]) for _ in range(0, len(real), 64)]
        codes = [draw.randint(-top, top) if yes and scales[at // 64] else 0 for at, yes in enumerate(real)]
        elements = [code * scale(scales[at // 64]) for at, code in enumerate(codes)]
        if self.codec == "i8":
            return {"q": bytes(code % 256 for code in codes), "s": bytes(scales)}, {"q": "I8", "s": "U8"}, elements
        packed = bit_string([code % 16 for code in codes], 4)
        return {"q": packed, "s": bytes(scales)}, {"q": "U8", "s": "U8"}, elements

    def encode_tk64(self, real: list[bool]) -> tuple[dict[str, bytes], dict[str, str], list[int]]:
        elements, indices, codes, scales = [0] * len(real), [], [], []
        for start in range(0, len(real), 4096):
            byte = self.random.randrange(100, 180)
            scales.append(byte)
            chosen = sorted(self.random.sample(range(300), 64))
            indices += chosen
            for index in chosen:
                code = self.random.randrange(4) if real[start + index] else 0
                codes.append(code)
                elements[start + index] = (2 * code - 3) * scale(byte) if real[start + index] else 0
        parts = {"i": bit_string(indices, 12), "v": bit_string(codes, 2), "s": bytes(scales)}
        return parts, dict.fromkeys(parts, "U8"), elements

    def aggregate(self, moving: list[str], updates: dict[str, list[int]]) -> None:
        """One element after the other."""
        count = len(self.names)
        norms = [sum(x * x for x in updates[name]) for name in self.names]
        present = sorted(norm for norm in norms if norm)
        factors = [1024] * count
        if self.clip and present:
            middle = present[(len(present) - 1) // 2]
            factors = [min(1024, math.isqrt(2**20 * middle // norm)) if norm else 1024 for norm in norms]
        at = 0
        for name in sorted(moving):
            size = math.prod(SHAPES[name])
            for place in range(size):
                column = [factors[p] * updates[party][at + place] for p, party in enumerate(self.names)]
                total, divisor = self.combine(column)
                self.step(name, place, f32(float(total) * (2.0**-38 / float(divisor))))
            at += size + -size % 64

    def combine(self, column: list[int]) -> tuple[int, int]:
        count = len(column)
        if self.rule == "mean":
            total = sum(weight * value for weight, value in zip(self.weights, column, strict=True))
            return total, 1024 * sum(self.weights)
        column = sorted(column)
        if self.rule == "trimmed_mean":
            drop = (count - 1) // 3
            return sum(column[drop : count - drop]), 1024 * (count - 2 * drop)
        if count % 2:
            return column[count // 2], 1024
        return column[count // 2 - 1] + column[count // 2], 2048

    def step(self, name: str, place: int, g: float) -> None:
        lr, mu = f32(0.7), f32(0.5)
        if self.outer == "nesterov":
            t = f32(mu * self.momentum[name][place])
            self.momentum[name][place] = f32(t + g)
            t = f32(mu * self.momentum[name][place])
            t = f32(g + t)
            g = f32(lr * t)
        self.state[name][place] = f32(self.state[name][place] + g)

    def signal(self, number: int, objects: dict[str, bytes], base: bytes, more: dict[str, Any]) -> None:
        """Every party's object and signal of a round, in an order that changes from round to round."""
        received: dict[str, dict[tuple[bytes, int], int]] = {name: {} for name in self.names}
        turn = number % len(self.parties)
        for party in self.parties[turn:] + self.parties[:turn]:
            content: dict[str, Any] = {"v": 1, "run": self.run, "round": number}
            folder = self.folders[party.name] / f"{number:06d}"
            folder.mkdir(parents=True)
            if objects:
                data = objects[party.name]
                content |= {"object": sha256(data), "size": len(data)}
                kind = "safetensors" if number else "json"
                (folder / f"{sha256(data).hex()}.{kind}").write_bytes(data)
            content |= {"base": base} | more | self.lies.get((number, party.name), {})
            raw, tx, outputs = self.sign(party, content, bool(objects))
            (folder / "signal.cbor").write_bytes(raw)
            self.transcript.append(raw)
            for index, (owner, value) in enumerate(outputs):
                received[owner][tx, index] = value
            party.owned = {}
        for party in self.parties:
            party.owned |= received[party.name]

    def sign(self, party: Party, content: dict[str, Any], pays: bool) -> tuple[bytes, bytes, list[tuple[str, int]]]:
        peers = [peer.name for peer in self.parties if peer is not party] if pays else []
        outputs = [(name, 1_000_000) for name in peers]
        outputs.append((party.name, sum(party.owned.values()) - 1_000_000 * len(peers)))
        auxiliary = cbor2.dumps({1729: content})
        addresses = {peer.name: peer.address for peer in self.parties}
        body = cbor2.dumps(
            {
                0: cbor2.CBORTag(258, [list(entry) for entry in sorted(party.owned)]),
                1: [{0: addresses[name], 1: value} for name, value in outputs],
                2: 0,
                7: hashlib.blake2b(auxiliary, digest_size=32).digest(),
            }
        )
        tx = hashlib.blake2b(body, digest_size=32).digest()
        witness = cbor2.dumps({0: [[party.vkey, party.key.sign(tx)]]})
        return b"\x84" + body + witness + b"\xf5" + auxiliary, tx, outputs
