from __future__ import annotations

import hashlib

import cbor2
import pytest
from pycardano import Transaction

from fednode.errors import FundsError, HeadError
from fednode.hydra.cbor import array_items
from fednode.hydra.delivery import Action, Delivery, Observation
from fednode.hydra.deposit import add_witness, funding_coin, sign_draft
from fednode.hydra.transactions import parse

from .party import ADA, KEYS, secret

FUNDING = "f0" * 32 + "#1"
FUEL = secret("ada", "fuel")


def draft(*, tagged: bool, signed: bool = True, extra: bool = False) -> bytes:
    """A deposit draft as a node makes it: odd but valid encodings, and the fuel key's witness."""
    address = b"\x70" + bytes(28)
    body = (
        b"\xa3\x00"
        + cbor2.dumps(cbor2.CBORTag(258, [[b"\xf0" * 32, 1], [b"\x01" * 32, 0]]))
        + b"\x01\x9f\xa2\x00\x58\x1d" + address + b"\x01\x1b" + (10_000_000).to_bytes(8, "big") + b"\xff"
        + b"\x02\x19\x00\x05"
    )  # fmt: skip
    digest = hashlib.blake2b(body, digest_size=32).digest()
    vkeys = [[bytes.fromhex(FUEL.vkey), FUEL.sign(digest)]]
    entries: dict[int, object] = {5: {(0, 0): [0, [1, 2]]}} if extra else {}
    if signed:
        entries[0] = cbor2.CBORTag(258, vkeys) if tagged else vkeys
    return b"\x84" + body + cbor2.dumps(entries) + b"\xf5\xa1\x19\xd9\x03\x61x"


@pytest.mark.parametrize("tagged", [True, False])
@pytest.mark.parametrize("extra", [True, False])
@pytest.mark.parametrize("signed", [True, False])
def test_splice_keeps_every_other_byte(tagged: bool, extra: bool, signed: bool) -> None:
    raw = draft(tagged=tagged, extra=extra, signed=signed)
    deposit = sign_draft(raw, FUNDING, KEYS["ada"])
    spliced = bytes.fromhex(deposit.cbor)
    before, after = array_items(raw), array_items(spliced)
    assert before[0] == after[0]
    assert before[2:] == after[2:]
    assert deposit.id == hashlib.blake2b(before[0], digest_size=32).hexdigest()
    witnesses = parse(spliced).witnesses
    assert [vkey.hex() for vkey, _ in witnesses] == [FUEL.vkey] * signed + [KEYS["ada"].vkey]
    assert witnesses[-1][1] == KEYS["ada"].sign(bytes.fromhex(deposit.id))
    old, new = cbor2.loads(before[1]), cbor2.loads(after[1])
    assert {key: value for key, value in old.items() if key} == {key: value for key, value in new.items() if key}
    assert isinstance(new[0], list) == (signed and not tagged), "a set stays a set, an array an array"
    assert add_witness(spliced, parse(spliced), KEYS["ada"]) == spliced, "signing twice changes nothing"


def test_pycardano_reads_the_signed_deposit() -> None:
    deposit = sign_draft(draft(tagged=True), FUNDING, KEYS["ada"])
    witnesses = Transaction.from_cbor(deposit.cbor).transaction_witness_set.vkey_witnesses
    assert {witness.vkey.payload.hex() for witness in witnesses} == {FUEL.vkey, KEYS["ada"].vkey}


def test_drafts_that_are_not_ours() -> None:
    with pytest.raises(HeadError, match="does not spend"):
        sign_draft(draft(tagged=True), "00" * 32 + "#1", KEYS["ada"])
    with pytest.raises(HeadError, match="not a transaction"):
        sign_draft(b"\x80", FUNDING, KEYS["ada"])


def test_funding_coin() -> None:
    reference, coin = funding_coin("f0" * 32 + "#01", ADA.address, 7)
    assert (reference, coin.address, coin.lovelace) == (FUNDING, ADA.address, 7)
    for bad in ("", "#", "F0" * 32 + "#1", "f0" * 31 + "#1", "f0" * 32 + "#-1"):
        with pytest.raises(FundsError):
            funding_coin(bad, ADA.address, 7)


def test_delivery_policy() -> None:
    absent, waiting = Observation(False, ""), Observation(True, "RequestedSnapshot 4 5")
    policy = Delivery(0.0, embedded=False)
    assert policy.patience == 30.0
    assert policy.next(30.0, absent) is Action.SEND
    assert policy.next(60.0, waiting) is Action.NOTHING, "a new request is progress"
    assert policy.next(89.0, waiting) is Action.NOTHING
    assert policy.next(90.0, waiting) is Action.SEND_ALL
    assert policy.next(120.0, waiting) is Action.NOTHING, "all only every 60 s"
    assert policy.next(150.0, waiting) is Action.SEND_ALL
    assert policy.next(240.0, Observation(True, "SeenSnapshot 5 signed by ab")) is Action.NOTHING
    assert policy.next(245.0, absent) is Action.SEND
    assert not policy.offer_side_load(599.0)
    assert policy.offer_side_load(600.0)
    assert not policy.offer_side_load(601.0)
    assert policy.offer_side_load(1200.0)
    assert Delivery(0.0, embedded=True).patience == 5.0
