"""The embedded head's ledger and an independent one judge the same transactions; every difference has a name here."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from fednode.hydra.devnet.cborview import CborError
from fednode.hydra.devnet.ledger import check
from fednode.hydra.devnet.txview import parse_output, parse_transaction

from . import judge
from .beyond import beyond
from .broken import UNREADABLE, Case, cases
from .drafts import SLOT, Draft, valid
from .edges import exact_fee, exact_minimum, fill, fill_value
from .judge import Verdict
from .written import by_pycardano, deposits, signals

pytestmark = pytest.mark.process
SEED = 20_261_121
"""Of everything that is generated: the same transactions in every run."""


def verdict(case: Case) -> str:
    """The name of the first rule that the embedded head finds broken; "" where it accepts."""
    draft = case.draft
    utxo = {f"{txid.hex()}#{index}": parse_output(pay.encode(draft.style)) for (txid, index), pay in draft.utxo.items()}
    try:
        tx = parse_transaction(case.raw)
    except CborError:
        return UNREADABLE
    failure = check(tx, utxo, SLOT, draft.rules)
    return "" if failure is None else failure.name


def everything() -> list[Case]:
    """Every transaction that both ledgers judge."""
    rng = random.Random(SEED)
    found = [Case("valid", draft, draft.encode()) for draft in (valid(rng) for _ in range(900))]
    for edge in EDGES:
        for _ in range(15):
            draft = valid(rng)
            EDGES[edge](rng, draft)
            found.append(Case(edge, draft, draft.encode()))
    found += [by_pycardano(rng) for _ in range(120)]
    found += signals(rng) + deposits(rng, 10)
    return found + cases(rng, 24) + beyond(rng, 5)


EDGES: dict[str, Callable[[random.Random, Draft], None]] = {
    "the least fee": lambda _, draft: exact_fee(draft),
    "the least output": exact_minimum,
    "the largest transaction": lambda _, draft: fill(draft, draft.rules.max_tx_size + 1),
    "the largest value": lambda _, draft: fill_value(draft, draft.rules.max_value_size),
}


def _laxer(*names: str) -> Callable[[Case, Verdict], bool]:
    """They accept what these cases break."""
    return lambda case, theirs: theirs.accepted and case.name in names


DIFFERENCES: dict[str, Callable[[Case, Verdict], bool]] = {
    # The two known gaps: the ledger's interval is half-open, and the size that it limits is without isValid.
    "the upper validity bound is not looked at": _laxer("not_valid_any_more"),
    "isValid counts for the limit of size": lambda case, theirs: (
        len(case.raw) == case.draft.rules.max_tx_size + 1 and theirs.failures == ("MaxTxSizeUtxo",)
    ),
    # Where it measures what it has written anew, or does not look at the form of a list.
    "outputs are measured in their shortest form": lambda case, theirs: (
        _laxer("a_lovelace_under_the_minimum")(case, theirs) and (case.draft.style.indefinite or case.draft.style.wide)
    ),
    "isValid costs a fee in a list of indefinite length": lambda case, theirs: (
        case.draft.style.indefinite and case.name == "the least fee" and theirs.failures == ("FeeTooSmallUtxo",)
    ),
    # What the decoder of the ledger refuses from Conway on (conway.cddl) and this one reads.
    "the body may lack a field": _laxer("a_body_without_a_field"),
    "a witness may stand twice": _laxer("a_witness_twice"),
    "required signers may be an empty set": _laxer("an_empty_set_of_signers"),
    "a token may have the quantity 0": _laxer("a_token_quantity_of_zero"),
    "a policy may have no token": _laxer("a_policy_without_tokens"),
    "metadata may have any label": _laxer("a_metadata_label_that_is_none"),
    # Such outputs stand in the early blocks of the main network, and so its decoder reads them there.
    "a main-network address may have bytes behind its end": lambda case, theirs: (
        _laxer("an_address_of_a_wrong_length")(case, theirs) and case.draft.rules.network == 1
    ),
    # What the embedded head says that it does not simulate.
    "not simulated here": lambda case, theirs: theirs.accepted and case.ours == "Unsupported",
}
"""Every difference between the two ledgers: its name, and where it may be."""


@pytest.fixture(scope="module")
def transactions() -> list[Case]:
    return everything()


@pytest.fixture(scope="module")
def judged(transactions: list[Case]) -> list[tuple[Case, Verdict]]:
    return list(zip(transactions, judge.ask(judge.build(), transactions), strict=True))


def test_there_are_enough_of_every_kind(judged: list[tuple[Case, Verdict]]) -> None:
    accepted = [case for case, theirs in judged if theirs.accepted]
    assert len(judged) >= 2_000
    assert len(accepted) >= 1_000
    assert min(Counter(case.name for case, _ in judged).values()) >= 5
    styles = Counter(case.draft.style for case in accepted)
    assert len(styles) == 16, "every combination of indefinite, wide, tagged and legacy"
    assert {case.draft.form for case in accepted if case.draft.metadata is not None} == {"map", "pair", "tag"}


def test_ours_names_the_broken_rule(transactions: list[Case]) -> None:
    wrong = [
        f"{case.name}: {found!r} {case.raw.hex()}" for case in transactions if (found := verdict(case)) != case.ours
    ]
    assert wrong == []


def test_both_agree_but_for_the_named_differences(judged: list[tuple[Case, Verdict]]) -> None:
    unexplained, seen = [], Counter[str]()
    for case, theirs in judged:
        if theirs.accepted == (case.ours == ""):
            continue
        names = [name for name, allows in DIFFERENCES.items() if allows(case, theirs)]
        seen.update(names)
        if len(names) != 1:
            unexplained.append(f"{case.name}: {names} {theirs} {case.raw.hex()}")
    assert unexplained == []
    assert set(seen) == set(DIFFERENCES), "a difference that is gone is no difference"


def test_both_mean_the_same_rule_and_the_same_transaction(judged: list[tuple[Case, Verdict]]) -> None:
    wrong = []
    for case, theirs in judged:
        if not theirs.decoded:
            continue
        if case.theirs and not theirs.accepted and case.theirs not in theirs.failures:
            wrong.append(f"{case.name}: {theirs.failures}")
        if case.ours != UNREADABLE and parse_transaction(case.raw).id != theirs.id:
            wrong.append(f"{case.name}: {theirs.id}")
    assert wrong == []


def test_nothing_is_refused_for_a_second_reason(judged: list[tuple[Case, Verdict]]) -> None:
    """A transaction breaks the one rule that it is meant to break, as far as the other ledger sees."""
    wrong = [
        f"{case.name}: {theirs.failures}"
        for case, theirs in judged
        if case.theirs and case.name not in WITH_MORE and set(theirs.failures) - {case.theirs}
    ]
    assert wrong == []


WITH_MORE = {
    "no_inputs": "nothing is spent, so no value is conserved",
    "an_unknown_input": "its value is not known either",
    "an_index_that_the_transaction_has_not": "likewise",
    "an_input_twice": "its value counts twice",
}
"""Where breaking one rule breaks another."""
