"""What is fuzzed: each target makes an input from a seed and tries it. Only two outcomes exist: a value, or the
documented error of fednode; anything else is a finding."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cbor2
import numpy as np

from fednode.errors import ConfigError, HeadError, ObjectRefused
from fednode.hydra.metadata import encode_content
from fednode.hydra.session import Session
from fednode.hydra.signals import Judge, build_signal
from fednode.node.agreement import load_agreement
from fednode.node.config import load_settings
from fednode.node.printable import one_line
from fednode.node.protocol.decide import decide
from fednode.node.protocol.evolve import evolve
from fednode.node.protocol.records import from_record, to_record
from fednode.node.protocol.state import Rules, State, initial
from fednode.node.setup import check_address
from fednode.node.tomlwrite import agreement_text, settings_text
from fednode.node.watch import describe
from fednode.training.exact.objects import ObjectId, check_object, object_prefix
from fednode.training.exact.schema import Schema
from fednode.training.exact.writer import encode_object
from fednode.types import Codec, Digest, Lovelace, ModelFacts, TxKind
from tests.hydra.node import FUNDING, HEAD, Node, funded, settings
from tests.hydra.party import KEYS, MAGIC, MEMBERS, RUN, content

from . import mutate

Outcome = str
"""`value`, or `refused`."""


@dataclass(frozen=True)
class Target:
    make: Callable[[random.Random], Any]
    """The input of a seed."""
    judge: Callable[[Any], Outcome]
    """Raises whatever is neither of the two outcomes."""


def refused(well: bool, message: str) -> Outcome:
    """The documented error, if it is fit to be shown."""
    if not well:
        raise AssertionError(f"unfit message: {message!a}")
    return "refused"


@functools.cache
def scratch() -> Path:
    """A file in memory, one for this process."""
    folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="fednode-fuzz-", dir=folder))


# Objects --------------------------------------------------------------------------------------------------------------

SHAPES = (("m.0.lora_A.weight", (4, 100)), ("m.0.lora_B.weight", (70, 4)))
WHO = ObjectId(RUN, 3, MEMBERS[0].name, "AB", Digest("ab" * 32))
CODECS: tuple[Codec, ...] = ("i8", "i4", "tk64", "f32")


@functools.cache
def good_object(codec: Codec) -> tuple[Schema, bytes]:
    schema = Schema.of(ModelFacts(SHAPES, {"w": "0" * 64}), rank=4, alpha=8.0, quantisation="none", codec=codec)
    rng = np.random.default_rng(1)
    update = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES}
    sent = encode_object(scratch(), schema, WHO, update)
    return schema, (scratch() / f"{sent.digest}.safetensors").read_bytes()


def make_object(rng: random.Random) -> tuple[Codec, bytes]:
    codec = rng.choice(CODECS)
    schema, good = good_object(codec)
    start = len(object_prefix(schema, WHO))
    kind = rng.randrange(4)
    if kind == 0:
        return codec, mutate.some_bytes(rng, good)
    if kind == 1:
        text = mutate.json_text(rng, good[8:start].decode())
        raw = text.encode() if isinstance(text, str) else text
        return codec, good[:8] + raw[: start - 8].ljust(start - 8) + good[start:]
    data = mutate.some_bytes(rng, good[start:])
    return codec, good[:start] + data[: len(good) - start].ljust(len(good) - start, b"\0")


def judge_object(made: tuple[Codec, bytes]) -> Outcome:
    codec, data = made
    schema, good = good_object(codec)
    path = scratch() / "object"
    path.write_bytes(data)
    try:
        check_object(path, schema, WHO)
    except ObjectRefused as error:
        return refused(error.rule != "" and error.message.isprintable(), error.message)
    start = len(object_prefix(schema, WHO))
    assert (len(data), data[:start]) == (len(good), good[:start])
    return "value"


# Signals --------------------------------------------------------------------------------------------------------------

JUDGE = Judge(MEMBERS, MAGIC)
OWNED = {"11" * 32 + "#0": 9_000_000}


@functools.cache
def good_signals() -> list[tuple[Any, Any]]:
    """(body, metadata) of good signals."""
    contents = [content(0), content(1), content(9, last=True)]
    made = [build_signal(c, OWNED, me=MEMBERS[0].name, members=MEMBERS, key=KEYS["ada"]) for c in contents]
    found = [cbor2.loads(bytes.fromhex(tx.cbor)) for tx in made]
    return [(body, metadata) for body, _, _, metadata in found]


def make_signal(rng: random.Random) -> bytes:
    body, metadata = rng.choice(good_signals())
    body = body | {0: [list(reference) for reference in body[0]]}
    kind = rng.randrange(4)
    if kind == 1:
        metadata = mutate.cbor_value(rng, metadata)
    elif kind == 2:
        body = mutate.cbor_value(rng, body)
    auxiliary = cbor2.dumps(metadata)
    if kind == 3 and rng.random() < 0.5:
        auxiliary = mutate.some_bytes(rng, auxiliary)
    if isinstance(body, dict) and body.get(7) is not None and rng.random() < 0.95:
        body = body | {7: hashlib.blake2b(auxiliary, digest_size=32).digest()}
    raw = cbor2.dumps(body)
    names = rng.choice((("ada",), ("ada",), ("ada",), ("bo",), ("ada", "bo"), ()))
    digest = hashlib.blake2b(raw, digest_size=32).digest()
    witnesses: Any = {0: [[bytes.fromhex(KEYS[name].vkey), KEYS[name].sign(digest)] for name in names]}
    if rng.random() < 0.05:
        witnesses = mutate.cbor_value(rng, witnesses)
    whole = b"\x84" + raw + cbor2.dumps(witnesses) + b"\xf5" + auxiliary
    return mutate.some_bytes(rng, whole) if kind == 0 else whole


def judge_signal(raw: bytes) -> Outcome:
    verdict = JUDGE.judge(raw)
    assert verdict.sender in (None, "ada", "bo")
    assert (verdict.problem or "").isprintable(), ascii(verdict.problem)
    if verdict.kind is TxKind.SIGNAL:
        assert verdict.content is not None
        assert hashlib.blake2b(encode_content(verdict.content), digest_size=32).digest()
        return "value"
    assert verdict.kind is TxKind.OTHER or verdict.problem
    return "refused"


# Settings files -------------------------------------------------------------------------------------------------------


@functools.cache
def good_peers() -> str:
    cards: list[dict[str, object]] = [
        {
            "name": member.name,
            "hydra_vkey": member.hydra_vkey,
            "cardano_vkey": member.cardano_vkey,
            "fuel_vkey": member.fuel_vkey,
            "address": member.address,
            "host": f"{member.name}.example:5001",
            "bucket": member.name,
        }
        for member in MEMBERS
    ]
    return agreement_text({"model": {"name": "builtin:linear", "sha256": {"w.safetensors": "0" * 64}}}, cards)


@functools.cache
def good_settings() -> str:
    return settings_text(
        {"party": {"name": "ada"}, "head": {"funding": FUNDING}, "data": {"path": "x.txt"}},
        {"bo": "../bo", "cy": "/cy"},
    )


def judge_peers(data: bytes) -> Outcome:
    path = scratch() / "peers.toml"
    path.write_bytes(data)
    try:
        assert len(load_agreement(path, check_address=check_address).run_id) == 32
    except ConfigError as error:
        return one_sentence(error, path)
    return "value"


def judge_settings(data: bytes) -> Outcome:
    path = scratch() / "fednode.toml"
    path.write_bytes(data)
    try:
        found = load_settings(path)
        found.data_table(path.parent)
        found.own_bucket(path.parent)
    except ConfigError as error:
        return one_sentence(error, path)
    return "value"


def one_sentence(error: ConfigError, path: Path) -> Outcome:
    assert error.message.startswith(str(path)), error.message
    assert "\n" not in error.message, error.message
    assert len(error.message) < 3000, len(error.message)
    return "refused"


# hydra-node's messages ------------------------------------------------------------------------------------------------


def _node() -> Node:
    node = funded()
    node.round(0)
    return node


@functools.cache
def good_messages() -> list[str]:
    node = _node()
    deposit, time = "ab" * 32, "2030-01-01T00:00:00Z"
    coins = {"0" * 64 + "#0": {"address": MEMBERS[0].address, "value": {"lovelace": 5, "ab" * 28: {"00": 1}}}}
    tx = {"type": "Tx ConwayEra", "cborHex": node.snapshots[-1]["confirmed"][0]["cborHex"]}
    others: list[dict[str, Any]] = [
        {"tag": "TxValid", "transactionId": deposit},
        {"tag": "TxInvalid", "transaction": tx, "validationError": {"reason": "BadInputsUTxO"}},
        {"tag": "SnapshotSideLoaded", "snapshotNumber": 4},
        {"tag": "DepositActivated", "depositTxId": deposit, "chainTime": time},
        {"tag": "DepositExpired", "depositTxId": deposit, "chainTime": time},
        {"tag": "CommitApproved", "utxoToCommit": coins},
        {"tag": "CommitRecovered", "recoveredTxId": deposit, "recoveredUTxO": coins},
        {"tag": "HeadIsClosed", "snapshotNumber": 4, "contestationDeadline": time},
        {"tag": "HeadIsContested", "snapshotNumber": 5, "contestationDeadline": time},
        {"tag": "ReadyToFanout"},
        {"tag": "HeadIsFinalized", "finalizedUTxO": coins},
        {"tag": "IgnoredHeadInitializing", "parties": []},
        {"tag": "NodeUnsynced"},
        {"tag": "NodeSynced"},
        {"tag": "CommandFailed", "clientInput": {"tag": "Close"}, "state": {"tag": "Idle"}},
        {"tag": "RejectedInputBecauseUnsynced", "clientInput": {"tag": "Close"}, "drift": 5},
        {"tag": "PostTxOnChainFailed", "postChainTx": {"tag": "CloseTx"}, "postTxError": {"tag": "NoSeedInput"}},
        {"tag": "NetworkVersionMismatch", "ourVersion": 1, "theirVersion": 2},
        {"tag": "NetworkClusterIDMismatch", "clusterPeers": "a", "misconfiguredPeers": "b"},
    ]
    frames = [json.dumps({"headId": HEAD, "seq": 5000 + n, "timestamp": time, **m}) for n, m in enumerate(others)]
    return [*node.history(), node.greetings(), *frames, json.dumps({"reason": "not JSON", "input": "x"})]


@functools.cache
def beginning() -> tuple[str, State]:
    rules = Rules(
        me=MEMBERS[0].name, parties=tuple(m.name for m in MEMBERS), rounds=5, run=RUN, binding="b",
        sections={"run": "11" * 8}, deposit=Lovelace(30_000_000), deadline_s=60.0, on_deadline="wait",
        on_fault="halt", settle_s=0.0, takeover_s=1.0,
    )  # fmt: skip
    return _node().greetings(), initial(rules)


def make_message(rng: random.Random) -> tuple[bool, str | bytes]:
    return rng.random() < 0.7, mutate.json_text(rng, rng.choice(good_messages()))


def judge_message(made: tuple[bool, str | bytes]) -> Outcome:
    """Through session, core, journal record and talk."""
    greeted, frame = made
    greetings, state = beginning()
    session = Session(settings(), after=3)
    if greeted:
        session.receive(greetings, 1.0)
    try:
        reports = session.receive(frame, 2.0)
    except HeadError as error:
        return refused(len(error.message) < 3000, error.message)
    for report in reports:
        for fact in decide(state, report):
            state = evolve(state, fact)
            kind, body = to_record(fact)
            text = json.dumps(body, allow_nan=False)
            assert from_record(kind, json.loads(text)) == fact
            assert one_line(describe(state, fact)).isprintable()
    return "value"


TARGETS: dict[str, Target] = {
    "object": Target(make_object, judge_object),
    "signal": Target(make_signal, judge_signal),
    "peers": Target(lambda rng: mutate.toml_text(rng, good_peers()), judge_peers),
    "settings": Target(lambda rng: mutate.toml_text(rng, good_settings()), judge_settings),
    "hydra": Target(make_message, judge_message),
}
