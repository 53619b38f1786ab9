"""Facts survive the journal, and nothing else is taken for a fact."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fednode.errors import JournalError
from fednode.node.protocol import facts as f
from fednode.node.protocol.records import from_record, to_record
from fednode.types import SignedTx, TxId

text = st.text(max_size=12)
numbers = st.integers(min_value=-(2**63), max_value=2**63)
KINDS = get_args(f.Fact)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_fact_is_the_same_after_the_journal(kind: type) -> None:
    @settings(max_examples=25, deadline=None)
    @given(st.from_type(kind))
    def same(fact: Any) -> None:
        assume("nan" not in repr(fact))  # a NaN is never equal to itself, and no clock gives one
        name, body = to_record(fact)
        assert from_record(name, json.loads(json.dumps(body))) == fact

    same()


def signed() -> dict[str, Any]:
    body: Any = to_record(f.SignalSigned(1.0, 2, SignedTx(TxId("ab"), "84")))[1]
    return body


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("Unheard", {}),
        ("SignalSigned", {**signed(), "round": "2"}),
        ("SignalSigned", {**signed(), "round": True}),
        ("SignalSigned", {**signed(), "round": 2.0}),
        ("SignalSigned", {**signed(), "at": None}),
        ("SignalSigned", {**signed(), "at": 10**400}),
        ("SignalSigned", {**signed(), "signal": None}),
        ("SignalSigned", {**signed(), "signal": ["ab", "84"]}),
        ("SignalSigned", {**signed(), "signal": {"id": "ab"}}),
        ("SignalSigned", {**signed(), "more": 1}),
        ("SignalSigned", {"at": 1.0, "round": 2, "signed": {}}),
        ("SnapshotNoted", {"at": 1.0, "number": 1, "transactions": "none"}),
        ("SnapshotNoted", {"at": 1.0, "number": 1, "transactions": {}}),
        ("SnapshotNoted", {"at": 1.0, "number": 1, "transactions": [1]}),
        ("DeadlinePassed", {"at": 1.0, "round": 1, "missing": "bert"}),
        ("DivergenceFound", {"at": 1.0, "round": 1, "digests": [["anna", "00"]]}),
        ("HeadChanged", {"at": 1.0, "status": "Ajar", "snapshot": None, "deadline": None}),
        ("HeadChanged", {"at": 1.0, "status": ["Open"], "snapshot": None, "deadline": None}),
        ("Begun", {"at": 1.0, "goal": "rest", "reason": ""}),
        ("PaidOut", {"at": 1.0, "paid": [["anna"]], "expected": [], "verified": True}),
        ("PaidOut", {"at": 1.0, "paid": [], "expected": [], "verified": 1}),
    ],
)
def test_another_shape_is_a_journal_error(kind: str, body: dict[str, Any]) -> None:
    with pytest.raises(JournalError, match=kind):
        from_record(kind, body)


json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.floats() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(KINDS), st.data())
def test_any_json_is_a_fact_or_a_journal_error(kind: type, data: st.DataObject) -> None:
    names = list(kind.__dataclass_fields__)  # type: ignore[attr-defined]  # every kind is a dataclass
    body = data.draw(st.fixed_dictionaries(dict.fromkeys(names, json_values)))
    try:
        fact = from_record(kind.__name__, body)
    except JournalError:
        return
    assert type(fact) is kind
