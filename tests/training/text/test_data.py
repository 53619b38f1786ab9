"""Reading, packing and ordering of texts; settings; weight files. No torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fednode.errors import ConfigError, TrainingError
from fednode.training.trainers import data
from fednode.training.trainers.builtin import TINY_BYTE_LLAMA, builtin_folder, builtin_sha256
from fednode.training.trainers.recipe import data_of, lora_of, quantisation_of, recipe_of, round_random
from fednode.training.trainers.weight_files import checked_digests, weight_files
from fednode.types import PartyName, RunId, TrainerSetup


def setup(**tables: dict[str, object]) -> TrainerSetup:
    model: dict[str, object] = {"rank": 8}
    training: dict[str, object] = {"steps": 2, "batch": 2, "sequence": 8, "learning_rate": 1e-3}
    return TrainerSetup(
        "lm",
        model | tables.get("model", {}),
        training | tables.get("training", {}),
        "i8",
        3,
        PartyName("a"),
        1,
        RunId("00" * 16),
        {"path": "x.txt"} | tables.get("data", {}),
        "cpu",
        1,
    )


@given(count=st.integers(2, 400), length=st.integers(1, 40), batch=st.integers(1, 7))
def test_evaluation_windows_predict_every_token_once(count: int, length: int, batch: int) -> None:
    tokens = np.arange(count, dtype=np.int64)
    targets = [window[1:] for windows in data.all_windows(tokens, length, batch) for window in windows]
    inputs = [window[:-1] for windows in data.all_windows(tokens, length, batch) for window in windows]
    assert np.array_equal(np.concatenate(targets), tokens[1:])
    assert np.array_equal(np.concatenate(inputs), tokens[:-1])
    assert max(map(len, targets)) <= length


@given(extra=st.integers(0, 200), length=st.integers(1, 30), wanted=st.integers(1, 50), seed=st.integers(0, 99))
def test_training_windows(extra: int, length: int, wanted: int, seed: int) -> None:
    """Right shape, consecutive tokens, and no token predicted twice within one pass."""
    tokens = np.arange(length + 1 + extra, dtype=np.int64)
    windows = data.round_windows(tokens, length, wanted, np.random.Generator(np.random.PCG64(seed)))
    assert windows.shape == (wanted, length + 1)
    assert np.all(np.diff(windows, axis=1) == 1)
    one_pass = windows[: max(1, (len(tokens) - 1 - min(length, extra + 1)) // length)]
    assert len(np.unique(one_pass[:, 1:])) == one_pass.shape[0] * length


def test_rounds_and_parties_have_orders_of_their_own() -> None:
    tokens = np.arange(1000, dtype=np.int64)

    def order(round_number: int) -> bytes:
        return data.round_windows(tokens, 10, 20, round_random(setup(), round_number)).tobytes()

    assert order(1) == order(1)
    assert order(1) != order(2)


@given(st.text(max_size=300), st.integers(1, 50))
def test_pieces_are_the_text(text: str, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "PIECE", size)
        pieces = list(data.pieces(text))
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= size for piece in pieces)


def test_folders_files_and_jsonl(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("bé")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.md").write_text("c")
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "skipped.bin").write_bytes(b"\xff")
    assert bytes(data.read_tokens(tmp_path, "text", "", data.BYTES).tolist()) == "a\nbé\nc".encode()
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"t": "one"}\n\n{"t": "two", "u": 1}\n')
    assert bytes(data.read_tokens(tmp_path, "jsonl", "t", data.BYTES).tolist()) == b"one\ntwo"
    for line, problem in (
        ("{", "is not JSON"),
        ('{"u": "x"}', "no text under 't'"),
        ("[]", "no text"),
        ('{"t":1}', "no"),
    ):
        rows.write_text('{"t": "one"}\n' + line)
        with pytest.raises(TrainingError, match=rf"rows\.jsonl line 2 .*{problem}"):
            data.read_tokens(rows, "jsonl", "t", data.BYTES)


def test_data_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="does not exist"):
        data.read_tokens(tmp_path / "no", "text", "", data.BYTES)
    with pytest.raises(TrainingError, match=r"no \.txt or \.md file"):
        data.read_tokens(tmp_path, "text", "", data.BYTES)
    (tmp_path / "empty.txt").touch()
    with pytest.raises(TrainingError, match="holds no text"):
        data.read_tokens(tmp_path, "text", "", data.BYTES)
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(TrainingError, match="not UTF-8 text: byte 0"):
        data.read_tokens(tmp_path, "text", "", data.BYTES)
    with pytest.raises(TrainingError, match="at least 2"):
        list(data.all_windows(np.zeros(1, np.int64), 4, 1))


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("training", "steps", 0),
        ("training", "batch", True),
        ("training", "learning_rate", "fast"),
        ("training", "learning_rate", float("nan")),
        ("training", "clip_norm", -1),
        ("training", "optimiser", "sgd"),
        ("model", "rank", None),
        ("model", "quantisation", "fp4"),
        ("model", "target_modules", []),
        ("data", "path", ""),
        ("data", "format", "csv"),
        ("data", "micro_batch", -1),
    ],
)
def test_a_wrong_setting_names_itself(table: str, key: str, value: object) -> None:
    wrong = setup(**{table: {key: value}})
    with pytest.raises(ConfigError, match=rf"{table}\.{key} is"):
        [read(wrong) for read in (recipe_of, lora_of, quantisation_of, data_of)]


def test_settings_and_their_defaults() -> None:
    good = setup(model={"target_modules": ["q_proj", "v_proj"], "alpha": 32}, data={"path": "rows.jsonl"})
    assert (lora_of(good).target_modules, lora_of(good).alpha) == (("q_proj", "v_proj"), 32.0)
    assert (quantisation_of(good), lora_of(setup()).alpha) == ("nf4", 16.0)
    assert (data_of(good).format, data_of(good).field, data_of(good).micro_batch) == ("jsonl", "text", None)
    assert recipe_of(good).clip_norm == 0.0


def test_shards_and_their_digests(tmp_path: Path) -> None:
    for name in ("one.safetensors", "two.safetensors", "stranger.safetensors"):
        (tmp_path / name).write_bytes(name.encode())
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(
        json.dumps({"weight_map": {"x": "two.safetensors", "y": "one.safetensors", "z": "two.safetensors"}})
    )
    assert [path.name for path in weight_files(tmp_path)] == ["one.safetensors", "two.safetensors"]
    found = checked_digests(tmp_path, {})
    assert checked_digests(tmp_path, found) == found
    with pytest.raises(ConfigError, match=r"two\.safetensors"):
        checked_digests(tmp_path, {"one.safetensors": found["one.safetensors"]})
    for bad in ('{"weight_map": {"x": "../x"}}', '{"weight_map": {"x": "gone.safetensors"}}', "{}", "[]", "{"):
        index.write_text(bad)
        with pytest.raises(TrainingError):
            weight_files(tmp_path)


def test_the_bases_that_come_along() -> None:
    assert set(builtin_sha256(TINY_BYTE_LLAMA)) == {"model.safetensors"}
    assert sum(path.stat().st_size for path in builtin_folder(TINY_BYTE_LLAMA).iterdir()) < 3_000_000
    with pytest.raises(ConfigError, match="builtin:tiny-byte-llama"):
        builtin_folder("builtin:huge")


def test_long_texts_have_separators_between_them_only(tmp_path: Path) -> None:
    """A text that is tokenised in pieces gets no separator inside."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps({"t": text}) for text in ("a" * 25, "", "b" * 7)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "PIECE", 10)
        tokens = data.read_tokens(rows, "jsonl", "t", data.Encoder(str.encode, (0,)))
    assert bytes(tokens.tolist()) == b"a" * 25 + b"\0" + b"b" * 7
