"""peers.toml: its meaning, its hashes, and one clear sentence for everything that can be wrong with it."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from fednode.errors import ConfigError
from fednode.node.agreement import load_agreement, parse_agreement
from fednode.node.agreement_tables import Aggregation, HeadTable, Model, Party, Run, Tables, Training
from fednode.node.setup import check_address
from fednode.node.tomlwrite import agreement_text

ADDRESS = "addr_test1v" + "q" * 53
SECTIONS: dict[str, type[BaseModel]] = {
    "run": Run,
    "model": Model,
    "training": Training,
    "aggregation": Aggregation,
    "head": HeadTable,
}


def key(seed: str) -> str:
    return hashlib.sha256(seed.encode()).hexdigest()


def party(name: str, **changes: object) -> dict[str, Any]:
    unique = "".join("qpzry9x8gf2tvdw0"[int(digit, 16)] for digit in key(name)[:53])
    base: dict[str, Any] = {
        "name": name,
        "hydra_vkey": key(name + "h"),
        "cardano_vkey": key(name + "c"),
        "fuel_vkey": key(name + "f"),
        "address": "addr_test1v" + unique,
        "host": f"{name}.example.org:5001",
        "bucket": name,
    }
    return base | changes


def tables(*names: str, **sections: dict[str, Any]) -> dict[str, Any]:
    model = {"name": "builtin:tiny-byte-llama"} | sections.pop("model", {})
    return {"model": model, "party": [party(name) for name in names or ("alice", "bob")], **sections}


def refusal(raw: dict[str, Any]) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_agreement(raw)
    assert "\n" not in caught.value.message
    return caught.value


def outcome(raw: dict[str, Any]) -> ConfigError | None:
    try:
        parse_agreement(raw)
    except ConfigError as error:
        return error
    return None


# Meaning -------------------------------------------------------------------------------------------------------------


def test_defaults_are_filled_in_and_auto_is_resolved() -> None:
    agreement = parse_agreement(tables())
    assert agreement.aggregation.rule == "mean"
    assert (agreement.head.network, agreement.head.magic, agreement.head.settle_s) == ("embedded", 42, 0.0)
    assert agreement.head.deposit == 10_000_000
    assert agreement.model.alpha == 32.0
    assert agreement.training.learning_rate == 4e-4
    explicit = {name: dict.fromkeys(keys, "auto") for name, keys in AUTO.items()}
    assert parse_agreement(tables(**explicit)).content == agreement.content


AUTO = {
    "aggregation": ["rule"],
    "model": ["alpha"],
    "training": ["learning_rate"],
    "head": ["magic", "contestation_period_s", "deposit_period_s", "deposit", "settle_s", "takeover_s"],
}


@pytest.mark.parametrize(("count", "rule"), [(2, "mean"), (3, "mean"), (4, "trimmed_mean"), (29, "trimmed_mean")])
def test_the_automatic_rule_and_deposit_follow_the_number_of_parties(count: int, rule: str) -> None:
    agreement = parse_agreement(tables(*(f"p{number}" for number in range(count))))
    assert agreement.aggregation.rule == rule
    assert agreement.head.deposit == max(10, 3 * count) * 1_000_000


@pytest.mark.parametrize(
    ("network", "magic", "settle"), [("embedded", 42, 0), ("devnet", 42, 3), ("preprod", 1, 200), ("preview", 2, 200)]
)
def test_automatic_values_of_networks(network: str, magic: int, settle: float) -> None:
    head = parse_agreement(tables(head={"network": network})).head
    assert (head.magic, head.settle_s) == (magic, settle)


def test_other_automatic_values_follow_their_tables() -> None:
    agreement = parse_agreement(tables(model={"rank": 5}, training={"phase": "both"}))
    assert agreement.model.alpha == 10.0
    assert agreement.training.learning_rate == 2e-4


def test_parties_are_sorted_and_become_members() -> None:
    agreement = parse_agreement(tables("zoe", "bob", "a-1"))
    assert [member.name for member in agreement.members] == ["a-1", "bob", "zoe"]
    assert agreement.index("zoe") == 2
    assert agreement.find("bob").bucket == "bob"
    assert agreement.members[1].cardano_vkey == key("bobc")
    with pytest.raises(ConfigError, match=r"party\.name is 'carol', expected a party of the agreement: a-1, bob, zoe"):
        agreement.find("carol")


def test_tables_for_the_trainer(tmp_path: Path) -> None:
    path = tmp_path / "peers.toml"
    path.write_text(agreement_text({"model": {"name": "m", "path": "base"}}, [party("alice"), party("bob")]))
    model = load_agreement(path).model_table(tmp_path / "home")
    assert model["path"] == str(tmp_path / "home" / "base")  # wherever peers.toml lies
    absolute = parse_agreement(tables(model={"path": "/srv/base"})).model_table(tmp_path)
    assert absolute["path"] == "/srv/base"
    assert model["target_modules"] == "all-linear"
    assert "path" not in parse_agreement(tables()).model_table(tmp_path)
    listed = parse_agreement(tables(model={"target_modules": ["v", "q"]})).model_table(tmp_path)
    assert listed["target_modules"] == ["q", "v"]
    assert json.loads(json.dumps(load_agreement(path).training_table()))["optimiser"] == "adamw"


# Hashes --------------------------------------------------------------------------------------------------------------


def test_the_hashes_are_those_of_the_canonical_json() -> None:
    agreement = parse_agreement(tables("bob", "alice"))
    digest = hashlib.sha256(rfc8785.dumps(agreement.content)).hexdigest()
    assert agreement.agreement_hash == digest
    assert agreement.run_id == digest[:32]
    assert set(agreement.sections) == {*SECTIONS, "party.alice", "party.bob"}
    expected = hashlib.sha256(rfc8785.dumps(agreement.content["training"])).hexdigest()[:16]
    assert agreement.sections["training"] == expected
    assert json.loads(json.dumps(agreement.content)) == agreement.content, "plain JSON values"


def test_the_bytes_of_an_agreement_are_fixed() -> None:
    """A golden value: another fednode version must compute the same run id from the same file."""
    assert parse_agreement(tables()).agreement_hash == GOLDEN


GOLDEN = "75d62709e1a730284da462d995cffc4b293d04f29e30162120ce263dd5003aaa"


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw["party"].reverse(),
        lambda raw: raw["party"][0].update(host="elsewhere:1"),
        lambda raw: raw["party"][0].update(read="/mnt/x"),
        lambda raw: raw["model"].update(path="/models/x"),
        lambda raw: raw.update(run={"rounds": 10}),
        lambda raw: raw["party"][0].update(weight=1, prefix=""),
        lambda raw: raw.update(training={"clip_norm": 1}),
    ],
)
def test_what_does_not_count_for_the_hash(change: Callable[[dict[str, Any]], None]) -> None:
    raw = tables()
    before = parse_agreement(copy.deepcopy(raw)).agreement_hash
    change(raw)
    assert parse_agreement(raw).agreement_hash == before


CHANGES: dict[str, dict[str, Any]] = {
    "run": {
        "name": "x", "rounds": 3, "seed": 2, "deadline_s": 1.5, "on_deadline": "close", "on_fault": "close",
    },
    "model": {
        "name": "x", "revision": "x", "sha256": {"a/b.safetensors": "0" * 64}, "quantisation": "none", "rank": 3,
        "alpha": 1.5, "dropout": 0.5, "target_modules": ["q"],
    },
    "training": {
        "task": "linear", "steps": 1, "batch": 1, "sequence": 1, "learning_rate": 1e-5, "weight_decay": 0.5,
        "clip_norm": 0.0, "phase": "both",
    },
    "aggregation": {
        "rule": "median", "clip": False, "outer": "none", "outer_lr": 1.0, "outer_momentum": 0.0, "codec": "tk64",
    },
    "head": {
        "network": "devnet", "magic": 7, "contestation_period_s": 9, "deposit_period_s": 9, "deposit": 99_000_000,
        "hydra_node": "2.4.0", "ledger_parameters": "a" * 64, "settle_s": 9.0, "takeover_s": 9.0,
    },
    "party": {
        "store": "s3",
        "name": "alicia", "hydra_vkey": "1" * 64, "cardano_vkey": "1" * 64, "fuel_vkey": "1" * 64, "address": ADDRESS,
        "bucket": "xyz", "prefix": "a/b", "weight": 2,
    },
}  # fmt: skip
UNCOUNTED = {("party", "host"), ("party", "read"), ("model", "path")}
SINGLE_VALUED = {("training", "optimiser")}


def test_every_field_has_a_change_in_the_table_above() -> None:
    fields = {(name, field) for name, model in {**SECTIONS, "party": Party}.items() for field in model.model_fields}
    listed = {(name, field) for name, changes in CHANGES.items() for field in changes}
    assert fields - UNCOUNTED - SINGLE_VALUED == listed


@pytest.mark.parametrize(("name", "field"), [(name, field) for name in CHANGES for field in CHANGES[name]])
def test_every_field_counts_for_the_hash_and_for_its_section_only(name: str, field: str) -> None:
    raw = tables()
    # Automatic values that follow other fields are fixed, so that one change stays one change.
    fixed = parse_agreement(raw)
    for table in ("model", "training", "aggregation", "head"):
        raw[table] = (
            fixed.tables.model_dump()[table] | {"target_modules": "all-linear"}
            if table == "model"
            else (fixed.tables.model_dump()[table])
        )
    target = raw["party"][0] if name == "party" else raw.setdefault(name, {})
    target[field] = CHANGES[name][field]
    changed = parse_agreement(raw)
    assert changed.run_id != fixed.run_id
    differ = {s for s in fixed.sections if changed.sections.get(s) != fixed.sections[s]}
    assert differ == ({"party.alice"} if name == "party" else {name})
    assert (changed.binding_hash == fixed.binding_hash) == ((name, field) == ("run", "rounds"))


def test_epochs_replace_rounds_before_hashing() -> None:
    agreement = parse_agreement(tables())
    other = agreement.with_rounds(1500)
    assert other.run.rounds == 1500
    assert other.run_id == parse_agreement(tables(run={"rounds": 1500})).run_id != agreement.run_id
    assert other.binding_hash == agreement.binding_hash
    for wrong in (0, -1, 999_999):
        with pytest.raises(ConfigError, match=f"--epochs is {wrong}, expected 1 to 999998"):
            agreement.with_rounds(wrong)


def test_the_object_of_round_0_holds_agreement_and_schema_and_can_be_checked_again() -> None:
    agreement = parse_agreement(tables())
    data = agreement.object_json(b'{"rank":16,"alpha":32}')
    assert data == rfc8785.dumps(json.loads(data))
    found = json.loads(data)
    assert found["schema"] == {"rank": 16, "alpha": 32}
    assert parse_agreement(found["agreement"]).agreement_hash == agreement.agreement_hash


# What is wrong -------------------------------------------------------------------------------------------------------

WRONG: list[tuple[str, str, Any]] = [
    *(("run", "name", value) for value in ("", "x" * 65, "a\nb")),
    *(("run", "rounds", value) for value in (0, -1, 999_999, 2**70)),
    *(("run", "seed", value) for value in (-1, 2**53)),
    *(("run", "deadline_s", value) for value in (0, -1, float("inf"), float("nan"), 1e9)),
    ("run", "on_deadline", "stop"),
    ("run", "on_fault", "wait"),
    *(("model", "name", value) for value in ("", "x" * 201)),
    ("model", "revision", "a\x00b"),
    ("model", "path", "x" * 201),
    *(("model", "sha256", value) for value in ({"../x": "0" * 64}, {"/x": "0" * 64}, {"x": "0" * 63}, {"x": "A" * 64})),
    ("model", "quantisation", "int4"),
    *(("model", "rank", value) for value in (0, 1025)),
    *(("model", "alpha", value) for value in (0, -1, 1e7)),
    *(("model", "dropout", value) for value in (-0.1, 1)),
    *(("model", "target_modules", value) for value in ("some", [], [""], [1], ["a", "a"], {}, 3)),
    ("training", "task", "mnist"),
    *(("training", "steps", value) for value in (0, 1_000_001)),
    *(("training", "batch", value) for value in (0, 65_537)),
    *(("training", "sequence", value) for value in (0, 2**21)),
    *(("training", "learning_rate", value) for value in (0, -1, 101)),
    ("training", "optimiser", "sgd"),
    *(("training", "weight_decay", value) for value in (-0.1, 1.1)),
    ("training", "clip_norm", -1),
    ("training", "phase", "A"),
    ("aggregation", "rule", "krum"),
    ("aggregation", "outer", "adam"),
    *(("aggregation", "outer_lr", value) for value in (0, 11)),
    *(("aggregation", "outer_momentum", value) for value in (-0.1, 1)),
    ("aggregation", "codec", "i2"),
    ("head", "network", "mainnet"),
    *(("head", "magic", value) for value in (-1, 2**32)),
    *(("head", "contestation_period_s", value) for value in (0, 1.5)),
    ("head", "deposit_period_s", 0),
    *(("head", "deposit", value) for value in (0, 9_999_999, 2**53)),
    *(("head", "hydra_node", value) for value in ("2.3", "v2.3.0", "latest")),
    *(("head", "ledger_parameters", value) for value in ("x", "A" * 64)),
    ("head", "settle_s", -1),
    ("head", "takeover_s", -1),
    *(("party", "name", value) for value in ("", "Alice", "a_b", "x" * 33, "a b", "ä", "bob")),
    *(("party", field, value) for field in ("hydra_vkey", "cardano_vkey", "fuel_vkey") for value in ("", "0" * 63)),
    *(("party", field, "A" * 64) for field in ("hydra_vkey", "cardano_vkey", "fuel_vkey")),
    *(
        ("party", field, party("bob")[field])
        for field in ("hydra_vkey", "cardano_vkey", "fuel_vkey", "address", "host")
    ),
    ("party", "fuel_vkey", party("alice")["cardano_vkey"]),
    *(("party", "address", value) for value in ("", "addr1v" + "q" * 53, "addr_test1bio", "addr_test1" + "b" * 53)),
    *(("party", "host", value) for value in ("example.org", "a:0", "a:65536", "a b:1", ":1")),
    ("party", "store", "floppy"),
    *(("party", "bucket", value) for value in ("", "a/b", "../x", ".x", "x" * 64)),
    *(("party", "prefix", value) for value in ("/a", "a/", "a//b", "../a", "a/../b", "A", ".a")),
    ("party", "read", "a\nb"),
    *(("party", "weight", value) for value in (0, 1024, -1, 1.5)),
]
OTHER_TYPES: list[Any] = [True, 3, 1.5, "text", [1], {"x": 1}]


@pytest.mark.parametrize(("name", "field", "value"), WRONG)
def test_a_value_out_of_range_is_named_with_expectation(name: str, field: str, value: Any) -> None:
    raw = tables()
    target = raw["party"][0] if name == "party" else raw.setdefault(name, {})
    target[field] = value
    message = refusal(raw).message
    index = r"(\[[01]\])" if name == "party" else ""
    assert re.match(rf"peers\.toml: {name}{index}\.{field}\S* is .+, expected .+", message), message


@pytest.mark.parametrize(
    ("name", "field"),
    [(name, field) for name, model in {**SECTIONS, "party": Party}.items() for field in model.model_fields],
)
def test_values_of_other_types_are_refused_or_meant(name: str, field: str) -> None:
    refused = 0
    for value in OTHER_TYPES:
        raw = tables()
        target = raw["party"][0] if name == "party" else raw.setdefault(name, {})
        target[field] = value
        error = outcome(raw)
        refused += error is not None
        assert error is None or re.match(rf"peers\.toml: {name}(\[[01]\])?\.{field}", error.message), error
    assert refused >= 3


@pytest.mark.parametrize("field", [name for name, field in Party.model_fields.items() if field.is_required()])
def test_a_missing_key_of_a_party_is_named(field: str) -> None:
    raw = tables()
    del raw["party"][1][field]
    error = refusal(raw)
    assert re.match(rf"peers\.toml: party\[1\]\.{field} is missing, expected ", error.message)
    assert error.hint == f"add {field}"


def test_a_missing_table_is_named() -> None:
    raw = tables()
    del raw["model"]
    assert "model.name is missing" in refusal(raw).message
    del raw["party"]
    assert "is missing" in refusal(raw).message
    assert "model.name is missing" in refusal(tables(model={}) | {"model": {}}).message


@pytest.mark.parametrize("name", ["", *SECTIONS, "party"])
@pytest.mark.parametrize(("key", "near"), [("xyzzy", ""), ("weigth", "weight"), ("round", "rounds"), ("rul", "rule")])
def test_an_unknown_key_is_refused_with_the_nearest_match(name: str, key: str, near: str) -> None:
    raw = tables()
    target = raw if not name else raw["party"][0] if name == "party" else raw.setdefault(name, {})
    target[key] = 1
    error = refusal(raw)
    assert f"{key} is an unknown key" in error.message
    model: type[BaseModel] = {**SECTIONS, "party": Party, "": Tables}[name]
    if near in model.model_fields:
        assert error.hint == f"did you mean {near}?"


@pytest.mark.parametrize("name", [*SECTIONS, "party"])
@pytest.mark.parametrize("value", [1, "text", [], True])
def test_a_table_of_another_kind_is_refused(name: str, value: Any) -> None:
    assert f"peers.toml: {name}" in refusal(tables() | {name: value}).message


@pytest.mark.parametrize("count", [1, 30])
def test_the_number_of_parties_is_bounded(count: int) -> None:
    assert f"party: {count} parties, expected 2 to 29" in refusal(tables(*(f"p{n}" for n in range(count)))).message


def test_weights_are_bounded_and_only_for_the_mean() -> None:
    raw = tables()
    raw["party"][0]["weight"], raw["party"][1]["weight"] = 1023, 1
    assert parse_agreement(raw).members[0].weight == 1023
    raw["party"][1]["weight"] = 2
    assert "party[0].weight is 1023, expected a sum of all weights of at most 1024" in refusal(raw).message
    for rule in ("trimmed_mean", "median"):
        raw = tables(aggregation={"rule": rule})
        raw["party"][1]["weight"] = 2
        assert f"party[1].weight is 2, expected 1 with aggregation.rule '{rule}'" in refusal(raw).message


def test_the_deposit_must_carry_the_signals() -> None:
    message = refusal(tables("a", "b", "c", "d", head={"deposit": 11_999_999})).message
    assert "head.deposit is 11999999, expected at least 12000000 lovelace" in message
    assert parse_agreement(tables("a", "b", "c", "d", head={"deposit": 12_000_000})).head.deposit == 12_000_000


def test_the_magic_of_a_public_network_is_its_own() -> None:
    assert "head.magic is 42, expected 1" in refusal(tables(head={"network": "preprod", "magic": 42})).message
    assert parse_agreement(tables(head={"network": "devnet", "magic": 7})).head.magic == 7


def test_several_mistakes_are_one_message_about_the_first() -> None:
    raw = tables(run={"rounds": 0, "seed": -1}, training={"steps": 0})
    assert "(and 2 more wrong)" in refusal(raw).message
    raw = tables()
    raw["party"][1]["weigth"] = raw["party"][1].pop("bucket")
    assert "party[1].weigth is an unknown key" in refusal(raw).message, "the misspelling, not what it leaves missing"


def test_the_address_is_checked_by_the_given_function() -> None:
    def refuse_bob(address: str, vkey: str, magic: int) -> None:
        if vkey == key("bobc"):
            raise ConfigError("not his", hint="ask bob")

    with pytest.raises(ConfigError, match=r"party\[1\]\.address is 'addr_test1.*: not his") as caught:
        parse_agreement(tables(), check_address=refuse_bob)
    assert caught.value.hint == "ask bob"
    with pytest.raises(ConfigError, match=r"party\[0\]\.address"):
        parse_agreement(tables(), check_address=check_address)


def test_a_value_shown_is_bounded() -> None:
    assert len(refusal(tables(run={"on_fault": "x" * 10_000})).message) < 300


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=10,
    ),
    st.sampled_from([*SECTIONS, "party"]),
)
def test_rubbish_in_any_table_is_a_config_error_or_an_agreement(value: Any, name: str) -> None:
    error = outcome(tables() | {name: value})
    assert error is None or error.message.startswith("peers.toml: ")


def test_a_key_with_a_line_break_stays_in_one_line() -> None:
    """Keys of [model.sha256] are names of files, and a message names the key."""
    raw = tables()
    raw["model"]["sha256"] = {"w.safet\nsoors": "0" * 64}
    assert r"model.sha256.w.safet\nsoors" in refusal(raw).message


def test_a_rank_that_no_float_holds_is_refused() -> None:
    """The automatic alpha is twice the rank."""
    raw = tables()
    raw["model"]["rank"] = 10**400
    raw["model"].pop("alpha", None)
    assert "model.rank" in refusal(raw).message
