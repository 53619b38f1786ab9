"""The worked examples of docs/protocol.md section 8: `python tests/reader/examples.py` prints them."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator

import cbor2
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from exact import Layout, canonical, combine, initial_state, outer_step, sha256, state_digest
from reader import blake2b

SCHEMA = {
    "alpha": 4,
    "base": {"model.safetensors": "ab" * 32},
    "codec": "i8",
    "quantisation": "none",
    "rank": 2,
    "tensors": [["m.lora_A.weight", [2, 4]], ["m.lora_B.weight", [3, 2]]],
}
RUN = "00112233445566778899aabbccddeeff"
RULES = {"outer": "nesterov", "outer_lr": 0.7, "outer_momentum": 0.5}


def lines(name: str, text: str) -> Iterator[str]:
    """`name` and a long text broken at 100 characters."""
    yield name
    yield from (f"  {line}" for line in textwrap.wrap(text, 100))


def state_example() -> Iterator[str]:
    yield from lines("schema", canonical(SCHEMA).decode())
    yield f"schema hash  {sha256(canonical(SCHEMA))}"
    state = initial_state(SCHEMA, 7)
    yield from lines("S_0 of seed 7, m.lora_A.weight as float32 LE", state["m.lora_A.weight"].tobytes().hex(" ", 4))
    yield f"first element  {float(state['m.lora_A.weight'][0])!r}"
    yield f"digest of S_0  {state_digest(state)}"


def object_bytes(party: str, codes: list[int], scale: int) -> bytes:
    """An i8 object of round 1 (phase B: six elements in one block)."""
    metadata = {"base": state_digest(initial_state(SCHEMA, 7)), "codec": "i8", "fmt": "fednode/1", "party": party}
    metadata |= {"phase": "B", "round": "1", "run": RUN, "schema": sha256(canonical(SCHEMA))}
    header = {
        "__metadata__": metadata,
        "q": {"dtype": "I8", "shape": [64], "data_offsets": [0, 64]},
        "s": {"dtype": "U8", "shape": [1], "data_offsets": [64, 65]},
    }
    text = canonical(header)
    text += b" " * (-(8 + len(text)) % 64)
    data = np.array(codes + [0] * (64 - len(codes)), np.int8).tobytes() + bytes([scale])
    Layout(SCHEMA, "B").decode(len(text).to_bytes(8, "little") + text + data, metadata)
    return len(text).to_bytes(8, "little") + text + data


def object_example() -> Iterator[str]:
    data = object_bytes("alice", [1, -2, 127, 0, 5, -127], 0xE3)
    length = int.from_bytes(data[:8], "little")
    yield from lines(f"header of {length} bytes (spaces at the end left out)", data[8 : 8 + length].decode().rstrip())
    yield f"data of {len(data) - 8 - length} bytes: codes {data[8 + length :][:6].hex(' ')}, 58 zeros, scale e3"
    yield f"scale e3 = 28 * 8 + 3: (8 + 3) * 2^(28 - 38) = {11 * 2.0**-10}"
    yield f"elements in units of 2^-38  {[code * (11 << 28) for code in (1, -2, 127, 0, 5, -127)]}"
    yield f"object of {len(data)} bytes, sha256 {sha256(data)}"


def aggregate_example() -> Iterator[str]:
    unit = 11 << 28
    updates = [np.array([unit * code for code in codes], np.int64) for codes in ((1, -2, 3), (2, 2, -2), (90, 0, 50))]
    for x in updates:
        yield f"x = {x.tolist()}, norm {sum(v * v for v in x.tolist())}"
    for rule in ("mean", "trimmed_mean", "median"):
        g = combine(updates, [1, 1, 1], rule, clip=True)
        yield f"{rule}: g = {[float(value) for value in g]} = {g.tobytes().hex(' ', 4)}"
    layout = Layout({**SCHEMA, "tensors": [["m.lora_B.weight", [3, 1]]]}, "B")
    state, momentum = ({"m.lora_B.weight": np.zeros(3, np.float32)} for _ in range(2))
    for step in (1, 2):
        outer_step(state, momentum, combine(updates, [1, 1, 1], "mean", clip=True), layout, RULES)
        yield f"S after {step} outer steps with the mean's g  {state['m.lora_B.weight'].tobytes().hex(' ', 4)}"


def signal_example() -> Iterator[str]:
    alice, bob = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))
    keys = [key.public_key().public_bytes_raw() for key in (alice, bob)]
    mine, theirs = (b"\x60" + blake2b(key, 28) for key in keys)
    data = object_bytes("alice", [1, -2, 127, 0, 5, -127], 0xE3)
    base = state_digest(initial_state(SCHEMA, 7))
    content = {"v": 1, "run": bytes.fromhex(RUN), "round": 1, "object": bytes.fromhex(sha256(data)), "size": len(data)}
    auxiliary = cbor2.dumps({1729: content | {"base": bytes.fromhex(base)}})
    inputs = cbor2.CBORTag(258, [[bytes(32), 0]])
    body = {0: inputs, 1: [{0: theirs, 1: 1_000_000}, {0: mine, 1: 9_000_000}], 2: 0, 7: blake2b(auxiliary, 32)}
    tx = blake2b(cbor2.dumps(body), 32)
    witness = cbor2.dumps({0: cbor2.CBORTag(258, [[keys[0], alice.sign(tx)]])})
    yield f"verification key of 01 01 …  {keys[0].hex()}"
    yield f"its enterprise address on a test network  {mine.hex()}"
    yield from lines("auxiliary data", auxiliary.hex())
    yield from lines("body", cbor2.dumps(body).hex())
    yield f"transaction id  {tx.hex()}"
    yield from lines("transaction", (b"\x84" + cbor2.dumps(body) + witness + b"\xf5" + auxiliary).hex())


def main() -> str:
    parts = (state_example(), object_example(), signal_example(), aggregate_example())
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


if __name__ == "__main__":
    sys.stdout.write(main())
