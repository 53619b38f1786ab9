from __future__ import annotations

import hashlib
from typing import Any

import cbor2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pycardano import (
    Address,
    AuxiliaryData,
    Metadata,
    Network,
    PaymentSigningKey,
    Transaction,
    TransactionBody,
    TransactionInput,
    TransactionOutput,
    TransactionWitnessSet,
    VerificationKeyWitness,
)

from fednode.errors import FundsError
from fednode.hydra.cbor import CborError, decode
from fednode.hydra.signals import build_signal, judge, select_inputs
from fednode.types import SignalContent, SignedTx, TxKind

from .party import ADA, KEYS, MAGIC, MEMBERS, RUN, content

OWNED = {"11" * 32 + "#1": 7_000_000, "11" * 32 + "#0": 2_000_000, "00" * 32 + "#300": 1_500_000}


def built(value: SignalContent | None = None, owned: dict[str, int] = OWNED) -> SignedTx:
    return build_signal(value or content(), owned, me=ADA.name, members=MEMBERS, key=KEYS["ada"])


def read(raw: bytes) -> Any:
    return judge(raw, MEMBERS, MAGIC)


def signed(
    name: str,
    *,
    body: dict[int, object] | None = None,
    aux: object = None,
    signers: tuple[str, ...] = (),
    witness: dict[int, object] | None = None,
) -> bytes:
    """A transaction with any body and auxiliary data, validly signed: what a dishonest party could send."""
    original = cbor2.loads(bytes.fromhex(built().cbor))
    auxiliary = cbor2.dumps(original[3] if aux is None else aux)
    fields = {**original[0], 7: hashlib.blake2b(auxiliary, digest_size=32).digest(), **(body or {})}
    body_bytes = cbor2.dumps({key: value for key, value in fields.items() if value is not None})
    digest = hashlib.blake2b(body_bytes, digest_size=32).digest()
    vkeys = [[bytes.fromhex(KEYS[s].vkey), KEYS[s].sign(digest)] for s in signers or (name,)]
    return b"\x84" + body_bytes + cbor2.dumps({0: vkeys, **(witness or {})}) + b"\xf5" + auxiliary


@pytest.mark.parametrize("value", [content(0), content(1), content(1499), content(1501, last=True)])
def test_round_trip(value: SignalContent) -> None:
    tx = built(value)
    verdict = read(bytes.fromhex(tx.cbor))
    assert (verdict.kind, verdict.sender, verdict.content) == (TxKind.SIGNAL, ADA.name, value)
    assert (verdict.id, verdict.cbor, verdict.problem) == (tx.id, tx.cbor, None)
    foreign = SignalContent(**{**{f: getattr(value, f) for f in value.__slots__}, "run": "ff" * 16})
    assert read(bytes.fromhex(built(foreign).cbor)).kind == TxKind.SIGNAL
    assert tx == built(value), "a signal's bytes are a function of its content and inputs"


def test_pycardano_decodes_ours() -> None:
    tx = built()
    theirs = Transaction.from_cbor(tx.cbor)
    assert theirs.id.payload.hex() == tx.id
    assert theirs.transaction_body.fee == 0
    inputs = [(i.transaction_id.payload.hex(), i.index) for i in theirs.transaction_body.inputs]
    assert inputs == [("00" * 32, 300), ("11" * 32, 0), ("11" * 32, 1)]
    outputs = [(str(o.address), o.amount.coin) for o in theirs.transaction_body.outputs]
    assert outputs == [(m.address, 1_000_000) for m in MEMBERS[1:]] + [(ADA.address, 8_500_000)]
    metadata = theirs.auxiliary_data.data[1729]
    assert metadata == {
        "v": 1, "run": bytes.fromhex(RUN), "round": 1, "object": b"\xcd" * 32, "size": 12345, "base": b"\xab" * 32,
    }  # fmt: skip
    assert theirs.auxiliary_data.hash() == theirs.transaction_body.auxiliary_data_hash


def test_we_read_pycardanos() -> None:
    """The same signal, built, encoded and signed by an independent implementation."""
    key = PaymentSigningKey.from_primitive(b"ada/funds".ljust(32, b"."))
    address = Address(key.to_verification_key().hash(), network=Network.TESTNET)
    assert str(address) == ADA.address
    auxiliary = AuxiliaryData(Metadata({1729: {"v": 1, "run": bytes(16), "round": 3, "object": bytes(32), "size": 9,
                                               "base": b"\x01" * 32}}))  # fmt: skip
    body = TransactionBody(
        inputs=[TransactionInput.from_primitive(["22" * 32, 5])],
        outputs=[TransactionOutput(Address.decode(m.address), 1_000_000) for m in MEMBERS[1:]]
        + [TransactionOutput(address, 3_000_000)],
        fee=0,
        auxiliary_data_hash=auxiliary.hash(),
    )
    witness = VerificationKeyWitness(key.to_verification_key(), key.sign(body.hash()))
    tx = Transaction(body, TransactionWitnessSet(vkey_witnesses=[witness]), auxiliary_data=auxiliary)
    verdict = read(tx.to_cbor())
    assert (verdict.kind, verdict.sender, verdict.problem) == (TxKind.SIGNAL, "ada", None)
    assert (verdict.content.round, verdict.content.size, verdict.id) == (3, 9, tx.id.payload.hex())


def out(name: int, amount: int) -> dict[int, object]:
    from fednode.hydra.addresses import address_bytes

    return {0: address_bytes(MEMBERS[name].address), 1: amount}


def meta(**changes: object) -> dict[int, object]:
    fields = {"v": 1, "run": bytes(16), "round": 1, "object": bytes(32), "size": 9, "base": bytes(32)} | changes
    return {1729: {key: value for key, value in fields.items() if value is not None}}


ONE = 1_000_000
SECTIONS = {"run": bytes(8)}
LAST: dict[str, Any] = {"object": None, "size": None}
BROKEN = {
    "fee": {"body": {2: 1}},
    "validity": {"body": {3: 100}},
    "mint": {"body": {9: {bytes(28): {b"x": 1}}}},
    "no inputs": {"body": {0: []}},
    "recipients": {"body": {1: [out(1, ONE), out(1, ONE), out(0, ONE)]}},
    "order": {"body": {1: [out(2, ONE), out(1, ONE), out(0, ONE)]}},
    "amount": {"body": {1: [out(1, ONE - 1), out(2, ONE), out(0, ONE)]}},
    "more": {"body": {1: [out(1, ONE + 1), out(2, ONE), out(0, ONE)]}},
    "change first": {"body": {1: [out(0, ONE), out(1, ONE), out(2, ONE)]}},
    "small change": {"body": {1: [out(1, ONE), out(2, ONE), out(0, ONE - 1)]}},
    "no change": {"body": {1: [out(1, ONE), out(2, ONE)]}},
    "extra output": {"body": {1: [out(1, ONE), out(2, ONE), out(0, ONE), out(0, ONE)]}},
    "datum": {"body": {1: [out(1, ONE), out(2, ONE), {**out(0, ONE), 2: [0, bytes(32)]}]}},
    "assets": {"body": {1: [out(1, ONE), out(2, ONE), {**out(0, ONE), 1: [ONE, {bytes(28): {b"x": 1}}]}]}},
    "script witness": {"witness": {1: [[0, bytes(28)]]}},
    "last pays": {"aux": meta(**LAST)},
    "object without size": {"aux": meta(size=None)},
    "size without object": {"aux": meta(object=None)},
    "version": {"aux": meta(v=2)},
    "true is not 1": {"aux": meta(v=True)},
    "float": {"aux": meta(round=1.0)},
    "negative": {"aux": meta(round=-1)},
    "bignum": {"aux": meta(round=1 << 70)},
    "zero size": {"aux": meta(size=0)},
    "hex text": {"aux": meta(object="00" * 32)},
    "short": {"aux": meta(base=bytes(31))},
    "extra key": {"aux": meta(extra=1)},
    "missing": {"aux": meta(base=None)},
    "sections in round 1": {"aux": meta(sections=SECTIONS)},
    "no sections in round 0": {"aux": meta(round=0)},
    "round 0 without object": {"aux": meta(round=0, sections=SECTIONS, **LAST)},
    "section type": {"aux": meta(round=0, sections={"run": bytes(7)})},
    "section map": {"aux": meta(round=0, sections=[])},
    "other label": {"aux": meta() | {5: 1}},
    "no map": {"aux": {1729: 5}},
    "shelley-ma form": {"aux": [meta(), []]},
    "alonzo form": {"aux": cbor2.CBORTag(259, {0: meta()})},
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_signals_are_faults(name: str) -> None:
    verdict = read(signed("ada", **BROKEN[name]))  # type: ignore[arg-type]  # a table of keyword arguments
    assert (verdict.kind, verdict.sender) == (TxKind.BROKEN_SIGNAL, "ada")
    assert verdict.problem


def test_the_untouched_base_of_these_is_a_signal() -> None:
    assert read(signed("ada")).kind == TxKind.SIGNAL
    assert read(signed("ada", aux=meta(round=0, sections=SECTIONS))).kind == TxKind.SIGNAL
    last = read(signed("ada", aux=meta(**LAST), body={1: [out(0, 5 * ONE)]}))
    assert (last.kind, last.content.object) == (TxKind.SIGNAL, None)
    legacy = [[out(1, ONE)[0], ONE], out(2, ONE), out(0, ONE)]
    assert read(signed("ada", body={1: legacy, 0: [[bytes(32), 0]]})).kind == TxKind.SIGNAL


def test_an_added_witness_changes_nothing() -> None:
    """Nothing that a sender has not signed is held against it: anybody can add a witness."""
    for added in (
        {"signers": ("ada", "bo")},
        {"signers": ("bo", "ada")},
        {"witness": {2: [[bytes(32), bytes(64), b"", b""]]}},
    ):
        verdict = read(signed("ada", **added))  # type: ignore[arg-type]  # a table of keyword arguments
        assert (verdict.kind, verdict.sender, verdict.id) == (TxKind.SIGNAL, "ada", read(signed("ada")).id)


def test_a_dangerous_signal_has_no_content_and_a_wrong_payment_has() -> None:
    """So that a signal by another agreement's rules is a foreign run, unless it endangers the head."""
    assert read(signed("ada", body={2: 1})).content is None
    assert read(signed("ada", body={1: [out(2, ONE), out(1, ONE), out(0, ONE)]})).content is not None


def test_not_attributable_is_other() -> None:
    raw = signed("ada")
    parts = cbor2.loads(raw)
    cases = (
        (b"", "unreadable"),
        (raw + b"\x00", "unreadable"),
        (raw[:-1], "unreadable"),
        (bytes(20_000), "at most 16384"),
        (cbor2.dumps([*parts[:2], False, parts[3]]), "phase two"),
        (cbor2.dumps([parts[0], {0: [[bytes.fromhex(KEYS["ada"].vkey), bytes(64)]]}, True, parts[3]]), "witness"),
        (cbor2.dumps([parts[0], {}, True, parts[3]]), "no vkey witness"),
        (signed("ada", body={7: bytes(32)}), "auxiliary data hash"),
        (signed("ada", body={7: None}), "auxiliary data hash"),
    )
    for bytes_, words in cases:
        verdict = read(bytes_)
        assert (verdict.kind, verdict.sender, verdict.content) == (TxKind.OTHER, None, None), words
        assert words in verdict.problem
    assert read(bytes(20_000)).cbor == ""


def without_aux(body: dict[int, object], **rest: Any) -> bytes:
    raw = cbor2.loads(bytes.fromhex(built().cbor))
    fields = {key: value for key, value in raw[0].items() if key != 7} | body
    body_bytes = cbor2.dumps(fields)
    digest = hashlib.blake2b(body_bytes, digest_size=32).digest()
    vkey = [[bytes.fromhex(KEYS["ada"].vkey), KEYS["ada"].sign(digest)]]
    return b"\x84" + body_bytes + cbor2.dumps({0: vkey, **rest.get("witness", {})}) + b"\xf5\xf6"


def test_without_the_label() -> None:
    assert read(without_aux({})).kind == TxKind.OTHER
    assert read(without_aux({})).sender == "ada"
    assert read(without_aux({3: 9, 8: 1, 14: [bytes(28)], 15: 0})).kind == TxKind.OTHER
    for danger in ({2: 1}, {9: {bytes(28): {b"x": 1}}}, {4: []}, {5: {}}, {22: 5}, {13: [[bytes(32), 0]]}):
        verdict = read(without_aux(danger))
        assert (verdict.kind, verdict.sender) == (TxKind.DANGEROUS, "ada")
        assert verdict.problem
    assert read(without_aux({}, witness={6: [b"script"]})).kind == TxKind.DANGEROUS
    script = {**out(0, ONE), 3: cbor2.CBORTag(24, b"\x00")}
    assert read(without_aux({1: [script]})).kind == TxKind.DANGEROUS
    other_label = signed("ada", aux={1730: {"v": 1}})
    assert (read(other_label).kind, read(other_label).sender) == (TxKind.OTHER, "ada")


def test_unknown_sender_with_the_label_is_other() -> None:
    verdict = judge(signed("ada"), MEMBERS[1:], MAGIC)
    assert (verdict.kind, verdict.sender, verdict.content) == (TxKind.OTHER, None, None)


SIGNED = bytes.fromhex(built().cbor)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SIGNED) - 1), st.integers(0, 255)), min_size=1, max_size=3))
def test_mutations_never_pass_for_another_signal(changes: list[tuple[int, int]]) -> None:
    raw = bytearray(SIGNED)
    for position, value in changes:
        raw[position] = value
    verdict = read(bytes(raw))
    if verdict.kind in (TxKind.SIGNAL, TxKind.BROKEN_SIGNAL):
        assert (verdict.sender, verdict.content, verdict.id) == ("ada", content(), built().id)


@given(st.binary(max_size=300))
@example(b"\x84" * 300)
@example(b"\x9f" * 300)
@example(b"\xdb" + b"\xff" * 8 + b"\x00")
@example(b"\x9b" + b"\xff" * 8)
def test_any_bytes_are_judged(raw: bytes) -> None:
    assert read(raw).kind in (TxKind.OTHER, TxKind.DANGEROUS)


plain = st.recursive(
    st.integers(-(2**64), 2**64 - 1) | st.binary(max_size=20) | st.text(max_size=20) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.integers(0, 9) | st.text(max_size=3), inner),
    max_leaves=20,
)


@given(plain, st.booleans())
def test_reader_agrees_with_cbor2(value: object, indefinite: bool) -> None:
    def back(item: object) -> object:
        if isinstance(item, tuple):
            return [back(part) for part in item]
        if hasattr(item, "pairs"):
            return {back(key): back(part) for key, part in item.pairs}
        if hasattr(item, "bits"):
            return {20: False, 21: True, 22: None}[item.info]
        return item

    encoded = cbor2.dumps(value)
    if indefinite and isinstance(value, list):
        encoded = b"\x9f" + b"".join(cbor2.dumps(item) for item in value) + b"\xff"
    assert back(decode(encoded)) == value
    with pytest.raises(CborError):
        decode(encoded + b"\x00")
    for end in range(len(encoded)):
        with pytest.raises(CborError):
            decode(encoded[:end])


def test_largest_inputs_and_sizes() -> None:
    owned = {f"{index:064x}#{index % 3}": 1_000_000 + index % 7 for index in range(500)}
    chosen = select_inputs(owned)
    assert len(chosen) == 200
    assert min(owned[ref] for ref in chosen) >= max(owned[ref] for ref in owned if ref not in chosen)
    assert chosen == sorted(chosen)
    tie = {f"{index:064x}#10": 5 for index in range(3)} | {f"{0:064x}#9": 5}
    assert select_inputs(tie, 2) == [f"{0:064x}#9", f"{0:064x}#10"]
    tx = built(content(0), owned)
    assert len(tx.cbor) // 2 <= 10_250
    assert read(bytes.fromhex(tx.cbor)).kind == TxKind.SIGNAL
    names = {f"party.{'x' * 50}{index:04}": "00" * 8 for index in range(60)}
    big = SignalContent(**{**{f: getattr(content(0), f) for f in content(0).__slots__}, "sections": names})
    tx = built(big, owned)
    assert 9_900 < len(tx.cbor) // 2 <= 10_250


def test_too_poor() -> None:
    with pytest.raises(FundsError, match="a signal to 2 peers needs 3 ADA"):
        built(owned={"11" * 32 + "#0": 2_999_999})
    with pytest.raises(FundsError):
        built(owned={})
    built(owned={"11" * 32 + "#0": 3_000_000})
    built(content(9, last=True), owned={"11" * 32 + "#0": 1_000_000})


def test_invalid_content_is_not_built() -> None:
    for changes in ({"round": -1}, {"size": 0}, {"base": "AB" * 32}, {"run": "00"}, {"object": "00" * 31}):
        fields = {f: getattr(content(), f) for f in content().__slots__} | changes
        with pytest.raises(ValueError, match="cannot be a signal"):
            built(SignalContent(**fields))
