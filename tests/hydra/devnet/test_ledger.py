"""Every ledger rule: valid transactions of another library pass, and each rule broken in turn is named."""

from __future__ import annotations

import hashlib

import cbor2
import pycardano as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fednode.hydra.devnet.cborview import CborError, decode
from fednode.hydra.devnet.layer1 import make_output
from fednode.hydra.devnet.ledger import Rules, apply, check
from fednode.hydra.devnet.parameters import protocol_parameters
from fednode.hydra.devnet.txview import parse_output, parse_transaction
from fednode.hydra.keys import SigningKey

ADA = 1_000_000
SOURCE = "11" * 32 + "#0"
RULES = Rules(0)


@pytest.fixture
def utxo(wallet):
    return {SOURCE: make_output(wallet.address, 10 * ADA)}


def failure_of(cbor_hex: str, utxo, slot: int = 50, rules: Rules = RULES):
    failure = check(parse_transaction(bytes.fromhex(cbor_hex)), utxo, slot, rules)
    if failure is None:
        return None
    assert failure.name in failure.reason
    return failure.name


def test_a_plain_transaction_passes_and_moves_the_money(wallet, utxo):
    cbor, txid = wallet.transaction([SOURCE], [(wallet.raw, 4 * ADA), (wallet.raw, 6 * ADA)], metadata={"v": 1})
    tx = parse_transaction(bytes.fromhex(cbor))
    assert check(tx, utxo, 50, RULES) is None
    apply(tx, utxo)
    assert {txin: output.lovelace for txin, output in utxo.items()} == {f"{txid}#0": 4 * ADA, f"{txid}#1": 6 * ADA}


def test_each_broken_rule_has_its_name(wallet, utxo):
    pay = [(wallet.raw, 10 * ADA)]
    small = [(wallet.raw, 857_689), (wallet.raw, 10 * ADA - 857_689)]
    least = [(wallet.raw, 857_690), (wallet.raw, 10 * ADA - 857_690)]
    mainnet = bytes([0x61]) + wallet.raw[1:]
    stranger = b"\x77" * 28
    cases = {
        "InputSetEmptyUTxO": wallet.transaction([], pay),
        "BadInputsUTxO": wallet.transaction(["22" * 32 + "#0"], pay),
        "ValueNotConservedUTxO": wallet.transaction([SOURCE], [(wallet.raw, 9 * ADA)]),
        "MissingVKeyWitnessesUTXOW": wallet.transaction([SOURCE], pay, k14=[stranger]),
        "BabbageOutputTooSmallUTxO": wallet.transaction([SOURCE], small),
        "WrongNetwork": wallet.transaction([SOURCE], [(mainnet, 10 * ADA)]),
        "WrongNetworkInTxBody": wallet.transaction([SOURCE], pay, k15=1),
        "OutsideValidityIntervalUTxO": wallet.transaction([SOURCE], pay, k3=50),
        "InvalidMetadata": wallet.transaction([SOURCE], pay, metadata="x" * 65),
        "MissingTxMetadata": wallet.transaction([SOURCE], pay, k7=b"\0" * 32),
        "ConflictingMetadataHash": wallet.transaction([SOURCE], pay, metadata=1, k7=b"\0" * 32),
        "Unsupported": wallet.transaction([SOURCE], pay, k9={b"\1" * 28: {b"a": 1}}),
    }
    assert {name: failure_of(cbor, utxo) for name, (cbor, _) in cases.items()} == {name: name for name in cases}
    early, _ = wallet.transaction([SOURCE], pay, k8=51)
    assert failure_of(early, utxo) == "OutsideValidityIntervalUTxO"
    for inside in (wallet.transaction([SOURCE], pay, k8=50, k3=51), wallet.transaction([SOURCE], least)):
        assert failure_of(inside[0], utxo) is None


def test_witnesses_are_checked(wallet, utxo):
    cbor, _ = wallet.transaction([SOURCE], [(wallet.raw, 10 * ADA)])
    signature_end = len(cbor) - len("f5f6")
    forged = cbor[: signature_end - 2] + f"{int(cbor[signature_end - 2 : signature_end], 16) ^ 1:02x}" + cbor[-4:]
    assert failure_of(forged, utxo) == "InvalidWitnessesUTXOW"
    other = type(wallet)(SigningKey(b"\7" * 32))
    foreign, _ = other.transaction([SOURCE], [(wallet.raw, 10 * ADA)])
    assert failure_of(foreign, utxo) == "MissingVKeyWitnessesUTXOW"


def test_auxiliary_data_without_its_hash(wallet, utxo):
    cbor, _ = wallet.transaction([SOURCE], [(wallet.raw, 10 * ADA)])
    assert failure_of(cbor[:-2] + cbor2.dumps({1729: 1}).hex(), utxo) == "MissingTxBodyMetadataHash"


def test_a_fee_is_accepted_and_only_layer_1_asks_for_one(wallet, utxo):
    burned, _ = wallet.transaction([SOURCE], [(wallet.raw, 9 * ADA)], fee=ADA)
    assert failure_of(burned, utxo) is None
    free, _ = wallet.transaction([SOURCE], [(wallet.raw, 10 * ADA)])
    assert failure_of(free, utxo, rules=Rules(0, fee_fixed=155_381, fee_per_byte=44)) == "FeeTooSmallUTxO"


def test_values_are_limited(wallet, utxo):
    cbor, _ = wallet.transaction([SOURCE], [(wallet.raw, 10 * ADA)])
    assert failure_of(cbor, utxo, rules=Rules(0, max_value_size=4)) == "OutputTooBigUTxO"


def test_the_size_limit_leaves_the_validity_byte_out(wallet, utxo):
    def sized(filler: int) -> str:
        metadata = [b"\1" * 64] * 150 + [b"\1" * filler]
        return wallet.transaction([SOURCE], [(wallet.raw, 10 * ADA)], metadata=metadata)[0]

    limit = len(sized(5)) // 2 - 1
    assert failure_of(sized(5), utxo, rules=Rules(0, max_tx_size=limit)) is None
    assert failure_of(sized(6), utxo, rules=Rules(0, max_tx_size=limit)) == "MaxTxSizeUTxO"


@pytest.mark.parametrize("form", ["plain", "shelley-ma", "alonzo"])
@pytest.mark.parametrize("legacy", [True, False])
def test_transactions_of_pycardano_pass(form, legacy, utxo):
    secret = pc.PaymentSigningKey(bytes(range(32)))
    public = pc.PaymentVerificationKey.from_signing_key(secret)
    address = pc.Address(public.hash(), network=pc.Network.TESTNET)
    metadata = pc.Metadata({1729: {"v": 1, "run": b"r" * 16, "text": "t" * 64, "list": [1, -5, b""]}})
    forms = {
        "plain": metadata,
        "shelley-ma": pc.ShelleyMarryMetadata(metadata),
        "alonzo": pc.AlonzoMetadata(metadata=metadata),
    }
    auxiliary = pc.AuxiliaryData(forms[form])
    body = pc.TransactionBody(
        inputs=[pc.TransactionInput(pc.TransactionId(b"\x11" * 32), 0)],
        outputs=[pc.TransactionOutput(address, 4 * ADA, post_alonzo=not legacy) for _ in range(2)]
        + [pc.TransactionOutput(address, 2 * ADA)],
        fee=0,
        auxiliary_data_hash=auxiliary.hash(),
        network_id=pc.Network.TESTNET,
        required_signers=[public.hash()],
    )
    witness = pc.VerificationKeyWitness(public, secret.sign(body.hash()))
    transaction = pc.Transaction(body, pc.TransactionWitnessSet(vkey_witnesses=[witness]), auxiliary_data=auxiliary)
    tx = parse_transaction(transaction.to_cbor())
    assert check(tx, utxo, 50, RULES) is None
    assert tx.id == str(transaction.id)


def test_indefinite_arrays_and_plain_sets_pass(wallet, utxo):
    inputs = b"\x9f\x82\x58\x20" + b"\x11" * 32 + b"\x00\xff"
    output = cbor2.dumps([wallet.raw, 10 * ADA])
    body = b"\xbf\x00" + inputs + b"\x01\x9f" + output + b"\xff\x02\x00\xff"
    digest = hashlib.blake2b(body, digest_size=32).digest()
    pair = cbor2.dumps([bytes.fromhex(wallet.key.vkey), wallet.key.sign(digest)])
    raw = b"\x84" + body + b"\xa1\x00\xd9\x01\x02\x9f" + pair + b"\xff\xf5\xf6"
    tx = parse_transaction(raw)
    assert (tx.id, tx.inputs) == (digest.hex(), (SOURCE,))
    assert check(tx, utxo, 50, RULES) is None


def test_least_outputs_of_both_forms(wallet):
    legacy = parse_output(cbor2.dumps([wallet.raw, ADA]))
    base = parse_output(cbor2.dumps({0: b"\x00" + b"\1" * 56, 1: ADA}))
    assert [RULES.minimum(each) for each in (legacy, make_output(wallet.address, ADA), base)] == [
        849_070,
        857_690,
        978_370,
    ]


def test_undecodable_transactions(wallet):
    good = bytes.fromhex(wallet.transaction([SOURCE], [(wallet.raw, 10 * ADA)])[0])
    twice = cbor2.CBORTag(258, [[b"\x11" * 32, 0], [b"\x11" * 32, 0]])
    output = {0: wallet.raw, 1: ADA}
    bodies = [
        {0: twice, 1: [output], 2: 0},
        {0: [], 1: [output]},
        {0: [], 1: [output], 2: 0, 99: 1},
        {0: [], 1: [{**output, 9: 1}], 2: 0},
        {0: [], 1: [{0: b"\x82" + b"\1" * 28, 1: ADA}], 2: 0},
        {0: [], 1: [{0: wallet.raw, 1: -1}], 2: 0},
        {0: [], 1: [output], 2: 1.5},
        {0: [[b"\x11" * 31, 0]], 1: [output], 2: 0},
    ]
    bad = [b"\x84" + cbor2.dumps(body) + b"\xa0\xf5\xf6" for body in bodies]
    bad += [good + b"\0", good[:-1], good[:-2] + b"\xf4\xf6", b"\x83" + good[1:], b"", b"\x9f" * 70]
    for raw in bad:
        with pytest.raises(CborError):
            parse_transaction(raw)


def test_protocol_parameters_say_what_the_ledger_does():
    shown = protocol_parameters(RULES)
    expected = {
        "txFeeFixed": 0,
        "txFeePerByte": 0,
        "utxoCostPerByte": 4310,
        "maxTxSize": 10250,
        "maxValueSize": 5000,
    }
    assert {key: shown[key] for key in expected} == expected


_items = st.recursive(
    st.one_of(st.integers(-(2**70), 2**70), st.binary(max_size=80), st.text(max_size=20), st.booleans(), st.none()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.integers(), inner, max_size=4),
    max_leaves=20,
)


def _plain(item):
    if isinstance(item, tuple):
        return [_plain(each) for each in item]
    return {key: _plain(value) for key, value in item.pairs} if hasattr(item, "pairs") else item


@given(_items)
def test_the_reader_reads_what_cbor2_writes(item):
    assert _plain(decode(cbor2.dumps(item))) == item


@given(st.binary(max_size=200))
def test_hostile_bytes_never_raise_anything_else(raw):
    for reader in (decode, parse_output, parse_transaction):
        try:
            reader(raw)
        except CborError:
            continue


@given(st.data())
@settings(max_examples=60)
def test_mutated_transactions_never_raise_anything_else(data):
    key = SigningKey(bytes(range(32)))
    body = {0: [[b"\x11" * 32, 0]], 1: [{0: b"\x60" + b"\1" * 28, 1: ADA}], 2: 0, 7: b"\0" * 32, 14: [b"\2" * 28]}
    witness = {0: [[bytes.fromhex(key.vkey), key.sign(b"")]]}
    raw = bytearray(b"\x84" + cbor2.dumps(body) + cbor2.dumps(witness) + b"\xf5" + cbor2.dumps({1: [b"a", "b"]}))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    held = {SOURCE: parse_output(cbor2.dumps({0: b"\x60" + b"\1" * 28, 1: ADA}))}
    try:
        tx = parse_transaction(bytes(raw))
    except CborError:
        return
    failure = check(tx, held, 5, RULES)
    assert failure is not None
    assert failure.reason


@given(st.lists(st.tuples(st.integers(0, 5), st.lists(st.integers(ADA, 9 * ADA), max_size=3)), max_size=12))
@settings(max_examples=60, deadline=None)
def test_no_sequence_of_accepted_transactions_makes_or_burns_money(steps):
    from pycardano import PaymentSigningKey, PaymentVerificationKey

    key = SigningKey(bytes(range(32)))
    secret = PaymentSigningKey(bytes(range(32)))
    own = b"\x60" + bytes(PaymentVerificationKey.from_signing_key(secret).hash())
    utxo = {f"{index:064x}#0": parse_output(cbor2.dumps({0: own, 1: 20 * ADA})) for index in range(3)}
    total = 60 * ADA
    for pick, amounts in steps:
        source = sorted(utxo)[pick % len(utxo)]
        rest = utxo[source].lovelace - sum(amounts)
        # Where the rest is too small or below nothing the rule must refuse what we build anyway.
        outputs = [*amounts, *([rest] if rest >= ADA else [])]
        body = cbor2.dumps(
            {0: [[bytes.fromhex(source[:64]), int(source[65:])]], 1: [{0: own, 1: coin} for coin in outputs], 2: 0}
        )
        digest = hashlib.blake2b(body, digest_size=32).digest()
        witness = cbor2.dumps({0: [[bytes.fromhex(key.vkey), key.sign(digest)]]})
        tx = parse_transaction(b"\x84" + body + witness + b"\xf5\xf6")
        failure = check(tx, utxo, 0, RULES)
        assert (failure is None) == (sum(outputs) == utxo[source].lovelace)
        if failure is None:
            apply(tx, utxo)
        assert sum(output.lovelace for output in utxo.values()) == total
