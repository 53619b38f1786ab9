"""The independent reader against small runs written by separate code, and against every kind of damage."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import exact
import numpy as np
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from reader import Mismatch, read_run
from synthetic import Synthetic

HERE = Path(__file__).parent
FOUR = ("alice", "bob", "carol", "dave")
ONES = (1, 1, 1, 1)
ALLOWED = {"__future__", "cbor2", "cryptography", "exact", "hashlib", "json", "numpy", "sys"}
ALLOWED |= {"dataclasses", "decimal", "io", "math", "pathlib", "typing"}


@pytest.mark.parametrize("name", ["reader.py", "exact.py"])
def test_nothing_of_fednode_is_imported(name: str) -> None:
    tree = ast.walk(ast.parse((HERE / name).read_text()))
    modules = {alias.name for node in tree if isinstance(node, ast.Import) for alias in node.names}
    tree = ast.walk(ast.parse((HERE / name).read_text()))
    modules |= {str(node.module) for node in tree if isinstance(node, ast.ImportFrom)}
    assert {module.partition(".")[0] for module in modules} <= ALLOWED


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"codec": "i4", "rounds": 3},
        {"codec": "tk64", "rounds": 4, "phase": "both"},
        {"codec": "f32", "outer": "none"},
        {"codec": "i8", "phase": "both", "clip": False, "weights": (3, 1020)},
        {"names": FOUR, "weights": ONES, "rule": "trimmed_mean", "rounds": 4},
        {"names": FOUR, "weights": ONES, "rule": "median", "codec": "tk64"},
        {"names": FOUR[:3], "weights": ONES[:3], "rule": "median", "phase": "both", "rounds": 3},
    ],
    ids=lambda settings: ",".join(f"{name}={value}" for name, value in settings.items()) or "defaults",
)
def test_a_good_run_is_recomputed(tmp_path: Path, settings: dict[str, Any]) -> None:
    run = Synthetic(**settings)
    buckets, digests = run.write(tmp_path)
    result = read_run(buckets)
    assert result["digests"] == digests
    assert len(set(digests)) == run.rounds + 1
    assert result["run_id"] == run.run.hex()


def refused(buckets: dict[str, Path]) -> tuple[str, int, str]:
    with pytest.raises(Mismatch) as caught:
        read_run(buckets)
    return caught.value.party, caught.value.round, caught.value.what


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("at", [0, 9, 100, -1, -70])
@pytest.mark.parametrize(("party", "number"), [("alice", 1), ("bob", 2)])
def test_one_flipped_bit_in_an_object_names_party_and_round(tmp_path: Path, party: str, number: int, at: int) -> None:
    run = Synthetic()
    buckets, _ = run.write(tmp_path)
    [path] = (run.folders[party] / f"{number:06d}").glob("*.safetensors")
    flip(path, at)
    assert refused(buckets)[:2] == (party, number)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_one_flipped_bit_in_a_signal_names_party_and_round(tmp_path: Path, number: int) -> None:
    run = Synthetic()
    buckets, _ = run.write(tmp_path)
    path = run.folders["bob"] / f"{number:06d}" / "signal.cbor"
    for at in range(number, path.stat().st_size, 3):
        flip(path, at)
        assert refused(buckets)[:2] == ("bob", number)
        flip(path, at)
    read_run(buckets)


def test_one_flipped_bit_in_an_agreement_names_the_party(tmp_path: Path) -> None:
    run = Synthetic()
    buckets, _ = run.write(tmp_path)
    [path] = (run.folders["bob"] / "000000").glob("*.json")
    flip(path, 40)
    assert refused(buckets)[:2] == ("bob", 0)


def test_one_flipped_bit_in_a_transcript_names_its_owner(tmp_path: Path) -> None:
    run = Synthetic()
    buckets, _ = run.write(tmp_path)
    flip(run.folders["bob"] / "transcript.cborseq", -5)
    assert refused(buckets)[0] == "bob"


def test_a_missing_object_is_named(tmp_path: Path) -> None:
    run = Synthetic()
    buckets, _ = run.write(tmp_path)
    next((run.folders["bob"] / "000002").glob("*.safetensors")).unlink()
    assert refused(buckets)[:2] == ("bob", 2)


def set_byte(part: str, at: int, value: int) -> Callable[[dict[str, bytes]], None]:
    def change(parts: dict[str, bytes]) -> None:
        data = bytearray(parts[part])
        data[at] = value
        parts[part] = bytes(data)

    return change


@pytest.mark.parametrize(
    ("codec", "spoil", "what"),
    [
        ("i8", set_byte("q", 0, 128), "code -128"),
        ("i8", set_byte("q", 63, 1), "padding|zero block"),
        ("i8", lambda parts: parts.update(q=b"\1" * len(parts["q"]), s=bytes(len(parts["s"]))), "zero block"),
        ("i8", lambda parts: parts.update(s=parts["s"] + b"\0"), "bytes, expected"),
        ("i4", set_byte("q", 0, 0x80), "code -8"),
        ("tk64", set_byte("i", 0, 255), "ascend"),
        ("tk64", set_byte("s", 0, 0), "zero chunk"),
        ("tk64", lambda parts: parts.update(v=b"\xff" * len(parts["v"])), "padding"),
        ("f32", set_byte("x", 3, 0x7F), "finite"),
        ("f32", set_byte("x", 62 * 4 + 3, 0x3F), "padding"),
    ],
)
def test_an_object_that_breaks_the_rules_is_refused(
    tmp_path: Path, codec: str, spoil: Callable[[dict[str, bytes]], None], what: str
) -> None:
    """Well signed and of the right digest, so only its content tells. Round 1 moves B: 10 of 64 elements are real."""
    buckets, _ = Synthetic(codec=codec, spoil={(1, "bob"): spoil}).write(tmp_path)
    party, number, found = refused(buckets)
    assert (party, number) == ("bob", 1)
    assert any(word in found for word in what.split("|")), found


@pytest.mark.parametrize(
    ("lies", "expected"),
    [
        ({(1, "bob"): {"base": bytes(32)}}, ("bob", 1)),
        ({(3, "alice"): {"base": bytes(32)}}, ("alice", 3)),
        ({(2, "bob"): {"round": 1}}, ("bob", 2)),
        ({(2, "bob"): {"v": True}}, ("bob", 2)),
        ({(2, "bob"): {"more": 1}}, ("bob", 2)),
        ({(2, "bob"): {"size": 1}}, ("bob", 2)),
        ({(2, "bob"): {"run": bytes(16)}}, ("bob", 2)),
        ({(0, "bob"): {"sections": {"run": bytes(8)}}}, ("bob", 0)),
        ({(0, "bob"): {"object": bytes(32)}}, ("bob", 0)),
    ],
)
def test_a_signal_that_says_something_else_is_named(
    tmp_path: Path, lies: dict[tuple[int, str], dict[str, Any]], expected: tuple[str, int]
) -> None:
    buckets, _ = Synthetic(lies=lies).write(tmp_path)
    assert refused(buckets)[:2] == expected


def test_the_order_of_the_transcript_matters(tmp_path: Path) -> None:
    run = Synthetic()
    buckets, _ = run.write(tmp_path)
    one = run.transcript
    (run.folders["alice"] / "transcript.cborseq").write_bytes(b"".join([*one[:3], one[4], one[3], *one[5:]]))
    party, number, what = refused(buckets)
    assert (number, "before was complete" in what) == (2, True), (party, what)


def test_a_transcript_that_lacks_a_signal_is_refused(tmp_path: Path) -> None:
    run = Synthetic()
    buckets, _ = run.write(tmp_path)
    (run.folders["alice"] / "transcript.cborseq").write_bytes(b"".join(run.transcript[:-1]))
    assert refused(buckets)[1] == 3


def test_a_second_signal_with_other_content_is_refused(tmp_path: Path) -> None:
    other = Synthetic(lies={(2, "bob"): {"size": 1}})
    other.write(tmp_path / "other")
    run = Synthetic()
    buckets, _ = run.write(tmp_path / "good")
    [second] = [raw for raw in other.transcript[4:6] if raw not in run.transcript]
    (run.folders["alice"] / "transcript.cborseq").write_bytes(b"".join([*run.transcript, second]))
    assert refused(buckets)[:2] == ("bob", 2)


def test_the_program(tmp_path: Path) -> None:
    run = Synthetic()
    buckets, digests = run.write(tmp_path)
    command = [sys.executable, str(HERE / "reader.py"), *(f"{name}={path}" for name, path in buckets.items())]
    good = subprocess.run([*command, "--run", run.run.hex()], capture_output=True, text=True, check=True)
    assert json.loads(good.stdout)["digests"] == digests
    [path] = (run.folders["bob"] / "000001").glob("*.safetensors")
    flip(path, -1)
    bad = subprocess.run(command, capture_output=True, text=True, check=False)
    found = json.loads(bad.stdout)
    assert (bad.returncode, found["ok"], found["party"], found["round"]) == (1, False, "bob", 1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text() | st.floats(-1e300, 1e300),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_canonical_json_is_rfc_8785(value: Any) -> None:
    assert exact.canonical(value) == rfc8785.dumps(value)


@given(st.data(), st.sampled_from(["mean", "trimmed_mean", "median"]), st.booleans(), st.integers(2, 7))
def test_combine_is_the_exact_value_rounded_once_per_step(data: st.DataObject, rule: str, clip: bool, n: int) -> None:
    """Against rational numbers: float64 of the exact sum, times float64 k, to float32."""
    top = 127 * 15 * 2**31
    elements = st.lists(st.integers(-top, top) | st.integers(-3, 3), min_size=3, max_size=3)
    updates = data.draw(st.lists(elements, min_size=n, max_size=n))
    weights = data.draw(st.lists(st.integers(1, 1024 // n), min_size=n, max_size=n)) if rule == "mean" else [1] * n
    found = exact.combine([np.array(one, np.int64) for one in updates], weights, rule, clip)
    reference = Synthetic(names=tuple("abcdefg"[:n]), rule=rule, weights=tuple(weights))
    norms = [sum(x * x for x in one) for one in updates]
    present = sorted(filter(None, norms))
    for place in range(3):
        column = []
        for one, norm in zip(updates, norms, strict=True):
            ratio = Fraction(present[(len(present) - 1) // 2], norm) if norm and clip else Fraction(1)
            factor = next(c for c in range(1024, -1, -1) if c * c <= ratio * 2**20)
            column.append(factor * one[place])
        total, divisor = reference.combine(column)
        assert abs(total) < 2**62
        assert found[place] == np.float32(float(total) * (2.0**-38 / divisor))
