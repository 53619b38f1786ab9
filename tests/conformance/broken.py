"""One rule broken at a time: what is done to a valid payment, and what each ledger is to call it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from .drafts import SLOT, Draft, Pay, digest, take, valid
from .edges import exact_fee, exact_minimum, fill, fill_value
from .encoding import array, head, integer, mapping, members, octets

UNREADABLE = "unreadable"
"""The bytes are no transaction: a head answers InvalidInput instead of TxInvalid."""


@dataclass(frozen=True)
class Case:
    """A transaction, the rule that it breaks ("" where none), and the rule's names at both ledgers."""

    name: str
    draft: Draft
    raw: bytes
    ours: str = ""
    theirs: str = ""


Change = Callable[[random.Random, Draft], None]
_BROKEN: list[tuple[str, str, str, Change]] = []


def _breaks(ours: str, theirs: str) -> Callable[[Change], Change]:
    def register(change: Change) -> Change:
        _BROKEN.append((change.__name__, ours, theirs, change))
        return change

    return register


def cases(rng: random.Random, each: int) -> list[Case]:
    """`each` transactions for every way to break a rule."""
    found = []
    for name, ours, theirs, change in _BROKEN:
        for _ in range(each):
            draft = valid(rng)
            change(rng, draft)
            found.append(Case(name, draft, draft.encode(), ours, theirs))
    return found


@_breaks("InputSetEmptyUTxO", "InputSetEmptyUtxo")
def no_inputs(rng: random.Random, draft: Draft) -> None:
    draft.inputs.clear()


@_breaks(UNREADABLE, "NoDuplicateInputs")
def an_input_twice(rng: random.Random, draft: Draft) -> None:
    draft.inputs.append(rng.choice(draft.inputs))


@_breaks("BadInputsUTxO", "BadInputsUtxo")
def an_unknown_input(rng: random.Random, draft: Draft) -> None:
    draft.inputs[rng.randrange(len(draft.inputs))] = (rng.randbytes(32), 0)


@_breaks("BadInputsUTxO", "BadInputsUtxo")
def an_index_that_the_transaction_has_not(rng: random.Random, draft: Draft) -> None:
    place = rng.randrange(len(draft.inputs))
    txid, index = draft.inputs[place]
    draft.inputs[place] = (txid, index ^ 1)


@_breaks("MissingVKeyWitnessesUTXOW", "RequiredVKeyWitnesses")
def a_required_signer_without_witness(rng: random.Random, draft: Draft) -> None:
    draft.signers.append(digest(rng.randbytes(8), 28))


@_breaks("MissingVKeyWitnessesUTXOW", "Signatures")
def an_input_without_witness(rng: random.Random, draft: Draft) -> None:
    needed = {draft.utxo[each].address[1:29] for each in draft.inputs}
    missing = rng.choice([key for key in draft.witnesses if digest(bytes.fromhex(key.vkey), 28) in needed])
    draft.signers.clear()
    draft.witnesses.remove(missing)


@_breaks("InvalidWitnessesUTXOW", "Signatures")
def a_spoilt_signature(rng: random.Random, draft: Draft) -> None:
    bit = 1 << rng.randrange(8)
    place = rng.randrange(64)
    draft.change_signature = lambda raw: raw[:place] + bytes([raw[place] ^ bit]) + raw[place + 1 :]


@_breaks("InvalidWitnessesUTXOW", "Signatures")
def a_signature_of_another_body(rng: random.Random, draft: Draft) -> None:
    owner = draft.witnesses[0]
    pair = array([octets(bytes.fromhex(owner.vkey)), octets(owner.sign(rng.randbytes(32)))], draft.style)
    draft.change_witnesses = lambda pairs: [pair, *pairs[1:]]


@_breaks("ValueNotConservedUTxO", "ValueNotConservedUtxo")
def a_lovelace_more(rng: random.Random, draft: Draft) -> None:
    take(draft, -rng.choice([1, 10**6, 10**12]))


@_breaks("ValueNotConservedUTxO", "ValueNotConservedUtxo")
def a_lovelace_less(rng: random.Random, draft: Draft) -> None:
    take(draft, rng.choice([1, 500_000]))


@_breaks("ValueNotConservedUTxO", "ValueNotConservedUtxo")
def a_fee_that_nobody_pays(rng: random.Random, draft: Draft) -> None:
    draft.fee += rng.choice([1, 200_000])


@_breaks("ValueNotConservedUTxO", "ValueNotConservedUtxo")
def a_token_from_nowhere(rng: random.Random, draft: Draft) -> None:
    rng.choice(draft.outputs).assets[digest(b"forged", 28), b"x"] = rng.choice([1, 2**63])


@_breaks("ValueNotConservedUTxO", "ValueNotConservedUtxo")
def a_token_that_vanishes(rng: random.Random, draft: Draft) -> None:
    draft.utxo[draft.inputs[0]].assets[digest(b"burned", 28), b"x"] = 1


@_breaks("FeeTooSmallUTxO", "FeeTooSmallUtxo")
def a_fee_too_small(rng: random.Random, draft: Draft) -> None:
    exact_fee(draft)
    draft.fee -= 1
    take(draft, -1)


@_breaks("MissingTxBodyMetadataHash", "Metadata")
def metadata_without_hash(rng: random.Random, draft: Draft) -> None:
    draft.metadata, draft.hash = {1729: "x"}, "none"


@_breaks("MissingTxMetadata", "Metadata")
def a_hash_without_metadata(rng: random.Random, draft: Draft) -> None:
    draft.metadata, draft.hash = None, "wrong"


@_breaks("ConflictingMetadataHash", "Metadata")
def a_hash_of_other_metadata(rng: random.Random, draft: Draft) -> None:
    draft.metadata, draft.hash = {1729: "x"}, "wrong"


@_breaks("InvalidMetadata", "Metadata")
def a_metadata_string_too_long(rng: random.Random, draft: Draft) -> None:
    long = rng.choice([b"\0" * 65, "x" * 65, "é" * 33, b"\1" * 1000])
    draft.metadata = {1729: rng.choice([long, [1, long], {"k": long}, [{1: [long]}]])}


@_breaks("BabbageOutputTooSmallUTxO", "OutputTooSmallUtxo")
def a_lovelace_under_the_minimum(rng: random.Random, draft: Draft) -> None:
    exact_minimum(rng, draft)
    draft.outputs[-1].coin -= 1
    draft.utxo[draft.inputs[0]].coin -= 1


@_breaks("OutputTooBigUTxO", "OutputTooBigUtxo")
def a_value_too_large(rng: random.Random, draft: Draft) -> None:
    fill_value(draft, draft.rules.max_value_size + 1)


@_breaks("WrongNetwork", "WrongNetwork")
def an_address_of_another_network(rng: random.Random, draft: Draft) -> None:
    pay = rng.choice(draft.outputs)
    pay.address = bytes([pay.address[0] ^ 1]) + pay.address[1:]


@_breaks("WrongNetworkInTxBody", "TransactionNetworkId")
def a_body_for_another_network(rng: random.Random, draft: Draft) -> None:
    draft.network = 1 - draft.rules.network


@_breaks("OutsideValidityIntervalUTxO", "OutsideValidityIntervalUtxo")
def not_valid_yet(rng: random.Random, draft: Draft) -> None:
    draft.start, draft.ttl = SLOT + rng.choice([1, 100]), None


@_breaks("OutsideValidityIntervalUTxO", "OutsideValidityIntervalUtxo")
def not_valid_any_more(rng: random.Random, draft: Draft) -> None:
    draft.start, draft.ttl = None, SLOT - rng.choice([0, 1, 100])


@_breaks("MaxTxSizeUTxO", "MaxTxSizeUtxo")
def a_byte_too_large(rng: random.Random, draft: Draft) -> None:
    fill(draft, draft.rules.max_tx_size + 2)


@_breaks(UNREADABLE, "")
def cut_short(rng: random.Random, draft: Draft) -> None:
    kept = rng.random()
    draft.change_whole = lambda whole: whole[: 1 + int(kept * (len(whole) - 1))]


@_breaks(UNREADABLE, "")
def bytes_behind_the_end(rng: random.Random, draft: Draft) -> None:
    more = rng.choice([b"\0", b"\xf6\xf6", rng.randbytes(40)])
    draft.change_whole = lambda whole: whole + more


@_breaks(UNREADABLE, "")
def three_elements(rng: random.Random, draft: Draft) -> None:
    draft.valid_flag = b""
    if not draft.style.indefinite:
        draft.change_whole = lambda whole: b"\x83" + whole[1:]


@_breaks(UNREADABLE, "")
def a_body_without_a_field(rng: random.Random, draft: Draft) -> None:
    keep = rng.choice([(0, 1), (0, 2), (1, 2)])
    parts = {
        0: members([array([octets(txid), integer(ix, draft.style)], draft.style) for txid, ix in draft.inputs],
                   draft.style),
        1: array([pay.encode(draft.style) for pay in draft.outputs], draft.style),
        2: b"\0",
    }  # fmt: skip
    draft.metadata, draft.hash = None, "right"
    draft.change_body = lambda body: mapping([(head(0, key), parts[key]) for key in keep], draft.style)


@_breaks(UNREADABLE, "")
def a_field_that_no_era_has(rng: random.Random, draft: Draft) -> None:
    draft.more.append((rng.choice([10, 12, 23, 99]), b"\0"))


@_breaks(UNREADABLE, "")
def a_field_twice(rng: random.Random, draft: Draft) -> None:
    draft.more.append((2, integer(draft.fee, draft.style)))


@_breaks(UNREADABLE, "IsValidFlag")
def marked_as_failed(rng: random.Random, draft: Draft) -> None:
    draft.valid_flag = b"\xf4"


@_breaks(UNREADABLE, "")
def a_witness_twice(rng: random.Random, draft: Draft) -> None:
    draft.change_witnesses = lambda pairs: [*pairs, pairs[0]]


@_breaks(UNREADABLE, "")
def an_empty_set_of_signers(rng: random.Random, draft: Draft) -> None:
    draft.signers.clear()
    draft.more.append((14, members([], draft.style)))


@_breaks(UNREADABLE, "")
def an_empty_set_of_witnesses(rng: random.Random, draft: Draft) -> None:
    draft.change_witnesses = lambda pairs: []


@_breaks(UNREADABLE, "")
def a_policy_without_tokens(rng: random.Random, draft: Draft) -> None:
    pay = draft.outputs[0]
    pay.assets.clear()
    style = draft.style
    value = array(
        [integer(pay.coin, style), mapping([(octets(digest(b"none", 28)), mapping([], style))], style)], style
    )
    plain = Pay(pay.address, pay.coin, {}, legacy=False)
    pay.legacy = False
    old, new = plain.encode(style), mapping([(b"\x00", octets(pay.address)), (b"\x01", value)], style)
    draft.change_body = lambda body: body.replace(old, new, 1)


@_breaks(UNREADABLE, "")
def a_token_quantity_of_zero(rng: random.Random, draft: Draft) -> None:
    rng.choice(draft.outputs).assets[digest(b"none", 28), b"x"] = 0


@_breaks(UNREADABLE, "")
def an_asset_name_too_long(rng: random.Random, draft: Draft) -> None:
    rng.choice(draft.outputs).assets[digest(b"long", 28), b"n" * 33] = 1


@_breaks(UNREADABLE, "")
def an_address_of_a_wrong_length(rng: random.Random, draft: Draft) -> None:
    pay = rng.choice(draft.outputs)
    pay.address = rng.choice([pay.address[:-1], pay.address + b"\0", b""])


@_breaks(UNREADABLE, "")
def a_negative_amount(rng: random.Random, draft: Draft) -> None:
    pay = rng.choice(draft.outputs)
    draft.outputs.append(Pay(pay.address, -5_000_000, {}, pay.legacy))
    take(draft, -5_000_000)


@_breaks("InvalidMetadata", "")
def a_metadata_number_too_large(rng: random.Random, draft: Draft) -> None:
    draft.metadata = {1729: rng.choice([2**64, -(2**64) - 1, [2**200]])}


@_breaks("InvalidMetadata", "")
def a_metadata_label_that_is_none(rng: random.Random, draft: Draft) -> None:
    draft.metadata = {rng.choice([-1, 2**64, "x", b"x"]): "y"}
