"""fednode.toml and reading settings files: paths, defaults, and every wrong value named with its line."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from fednode.errors import ConfigError
from fednode.node import config
from fednode.node.config import SettingsTables, load_settings, parse_settings
from fednode.node.places import Peer
from fednode.node.tomlfile import MAX_FILE, TomlFile
from fednode.node.tomlwrite import settings_text
from fednode.types import PartyName

SECTIONS: dict[str, type[BaseModel]] = {
    "party": config.PartyTable,
    "keys": config.Keys,
    "head": config.HeadPrivate,
    "storage": config.Storage,
    "data": config.Data,
    "train": config.Train,
    "log": config.Log,
}


def tables(**sections: dict[str, Any]) -> dict[str, Any]:
    return {"party": {"name": "alice"} | sections.pop("party", {}), **sections}


def refusal(raw: dict[str, Any]) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_settings(raw)
    assert "\n" not in caught.value.message
    return caught.value


def test_defaults(tmp_path: Path) -> None:
    settings = parse_settings(tables())
    assert settings.name == "alice"
    assert settings.head_url == "http://127.0.0.1:4001"
    assert (settings.funding, settings.allow_plain, settings.device, settings.threads) == ("", False, "auto", 0)
    assert settings.log_level == "info"
    assert settings.bucket_name == "alice"
    assert settings.funds_key(tmp_path) == tmp_path / "keys" / "funds.sk"
    assert settings.hydra_key(tmp_path) == tmp_path / "keys" / "hydra.sk"
    assert settings.fuel_key(tmp_path) == tmp_path / "keys" / "fuel.sk"
    assert settings.own_bucket(tmp_path).bucket == str(tmp_path / "bucket")
    assert settings.data_table(tmp_path) == {"field": "text", "checkpointing": False}


def test_paths_count_from_the_home_and_may_be_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    raw = tables(
        keys={"funds": "/secure/funds.sk", "fuel": "~/fuel.sk"},
        storage={"bucket": "../shared", "name": "b"},
        data={"path": "texts.jsonl", "held_out": "held.txt", "micro_batch": 2, "parties": 3, "checkpointing": True},
        peers={"bob": {"bucket": "../bob/bucket"}},
    )
    settings = parse_settings(raw)
    assert settings.funds_key(tmp_path) == Path("/secure/funds.sk")
    assert settings.fuel_key(tmp_path) == Path("/home/alice/fuel.sk")
    assert settings.own_bucket(tmp_path).bucket == str(tmp_path / "../shared")
    assert settings.bucket_name == "b"
    assert settings.peer_bucket(PartyName("bob"), "bob", tmp_path).bucket == str(tmp_path / "../bob/bucket")
    assert settings.data_table(tmp_path) == {
        "path": str(tmp_path / "texts.jsonl"),
        "format": "jsonl",
        "field": "text",
        "held_out": str(tmp_path / "held.txt"),
        "micro_batch": 2,
        "parties": 3,
        "checkpointing": True,
    }


@pytest.mark.parametrize(
    ("path", "kind", "expected"), [("a.txt", "auto", "text"), ("a.jsonl", "auto", "jsonl"), ("a.jsonl", "text", "text")]
)
def test_the_data_format(tmp_path: Path, path: str, kind: str, expected: str) -> None:
    assert parse_settings(tables(data={"path": path, "format": kind})).data_table(tmp_path)["format"] == expected


def test_a_peer_without_a_folder_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"peers\.bob\.bucket is missing") as caught:
        parse_settings(tables()).peer_bucket(PartyName("bob"), "bob", tmp_path)
    assert "[peers.bob]" in caught.value.hint


def test_the_own_party_is_no_peer() -> None:
    assert "peers.alice names the own party" in refusal(tables(peers={"alice": {"bucket": "x"}})).message


WRONG: list[tuple[str, str, Any]] = [
    *(("party", "name", value) for value in ("", "Alice", "x" * 33)),
    ("party", "host", "nowhere"),
    *(("keys", field, value) for field in ("funds", "hydra", "fuel") for value in ("", "a\nb")),
    *(("head", "url", f"{scheme}h:1") for scheme in ("", "ftp://", "file://")),
    *(("head", "url", value) for value in ("http://", "http://h:99999", "http://h/?x=1", "http://h/#x", "http://[")),
    *(("head", "funding", value) for value in ("x", "0" * 64, "0" * 64 + "#", "A" * 64 + "#0")),
    ("head", "network", "mainnet"),
    *(("storage", "bucket", value) for value in ("", "a\x00b")),
    ("storage", "name", "a/b"),
    ("storage", "prefix", "/a"),
    ("data", "path", "a\x7fb"),
    ("data", "format", "csv"),
    ("data", "field", ""),
    ("data", "held_out", "a\nb"),
    *(("data", "micro_batch", value) for value in (-1, 70_000)),
    *(("data", "parties", value) for value in (-1, 30)),
    *(("train", "device", value) for value in ("gpu", "cuda:0", "")),
    *(("train", "threads", value) for value in (-1, 5000)),
    ("log", "level", "loud"),
]


@pytest.mark.parametrize(("name", "field", "value"), WRONG)
def test_a_value_out_of_range_is_named_with_expectation(name: str, field: str, value: Any) -> None:
    raw = tables()
    raw.setdefault(name, {})[field] = value
    message = refusal(raw).message
    assert re.match(rf"fednode\.toml: {name}\.{field}\S* is .+, expected .+", message), message


@pytest.mark.parametrize(
    ("name", "field"), [(n, field) for n, model in SECTIONS.items() for field in model.model_fields]
)
def test_a_value_of_another_type_is_named(name: str, field: str) -> None:
    default = SECTIONS[name].model_fields[field].default
    for value in (3, 1.5, [1], {"x": 1}) if not isinstance(default, int) else ("text", 1.5, [1], {"x": 1}):
        raw = tables()
        raw.setdefault(name, {})[field] = value
        assert refusal(raw).message.startswith(f"fednode.toml: {name}.{field}")


@pytest.mark.parametrize("name", [*SECTIONS, "peers"])
def test_a_table_of_another_kind_is_refused(name: str) -> None:
    for value in (1, "text", [1]):
        assert refusal(tables() | {name: value}).message.startswith(f"fednode.toml: {name}")


@pytest.mark.parametrize("name", ["", *SECTIONS])
@pytest.mark.parametrize(("key", "near"), [("xyzzy", ""), ("bukcet", "bucket"), ("urls", "url"), ("nmae", "name")])
def test_an_unknown_key_is_refused_with_the_nearest_match(name: str, key: str, near: str) -> None:
    raw = tables()
    (raw.setdefault(name, {}) if name else raw)[key] = "x"
    error = refusal(raw)
    assert f"{key} is an unknown key, expected one of: " in error.message
    if near in ({"": SettingsTables} | SECTIONS)[name].model_fields:
        assert error.hint == f"did you mean {near}?"


def test_peers_are_checked_too() -> None:
    error = refusal(tables(peers={"bob": {"bukcet": "x"}}))
    assert error.message == "fednode.toml: peers.bob.bukcet is an unknown key, expected one of: " + ", ".join(
        Peer.model_fields
    )
    assert "peers.bob.bucket is missing" in refusal(tables(peers={"bob": {}})).message
    assert "peers.Bob" in refusal(tables(peers={"Bob": {"bucket": "x"}})).message


def test_a_missing_name_is_named() -> None:
    with pytest.raises(ConfigError, match=r"fednode\.toml: party\.name is missing, expected own name"):
        parse_settings({"party": {}})
    with pytest.raises(ConfigError, match=r"fednode\.toml: party is missing"):
        parse_settings({})


def test_a_password_in_an_address_is_refused_and_not_shown() -> None:
    error = refusal(tables(head={"url": "http://user:hunter2@host:4001"}))
    assert "without user and password" in error.message
    assert "hunter2" not in error.message + error.hint


# Files ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[party]\nname = alice\n", "not valid TOML: .*line 2"),
        (b'[party]\nname = "a"\nname = "b"\n', "not valid TOML: .*line 3"),
        (b'[party]\n[party]\nname = "b"\n', "not valid TOML: .*line 2"),
        (b'[party]\nname = "\xff"\n', "line 2 is not UTF-8 text"),
        (b"a = " + b"[" * 100_000, "not valid TOML"),
        (b"a = " + b"9" * 5000, "not valid TOML"),
        (b"#" * (MAX_FILE + 1), f"more than {MAX_FILE} bytes"),
        (b'[party]\nname = "alice"\n\n[head]\n# why\nurl = "x"\n', r"head\.url \(line 6\) is 'x', expected http"),
        (b'party.name = "alice"\nhead.url = 7\n', r"head\.url \(line 2\) is 7, expected a valid string"),
        (b"[party]\n", r"party\.name \(line 1\) is missing"),
        (b'[party]\nname = "alice"\n[peers.bob]\nbucket = 3\n', r"peers\.bob\.bucket \(line 4\) is 3"),
        (b'head = {url = 3}\n[party]\nname = "alice"\n', r"head\.url is 3"),
    ],
)
def test_a_wrong_file_is_explained_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "fednode.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_settings(path)
    assert caught.value.message.startswith(str(path))


def test_a_missing_or_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist") as caught:
        load_settings(tmp_path / "fednode.toml")
    assert "fednode init" in caught.value.hint
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path)


def test_windows_line_ends_and_a_byte_order_mark_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "fednode.toml"
    path.write_bytes(b'\xef\xbb\xbf[party]\r\nname = "alice"\r\n')
    assert load_settings(path).name == "alice"


def test_the_line_of_a_key_in_an_array_of_tables() -> None:
    text = '[[party]]\nname = "a"\nweight = 1\n\n[[ party ]] # second\nweight = 2\n'
    file = TomlFile("peers.toml", text)
    assert "party[1].weight (line 6)" in str(file.wrong(("party", 1, "weight"), 2, "1"))
    assert "party[0].weight (line 3)" in str(file.wrong(("party", 0, "weight"), 2, "1"))
    assert "party[1].name (line 5)" in str(file.wrong(("party", 1, "name"), 2, "1"))


@given(st.binary(max_size=200))
def test_any_bytes_are_settings_or_one_sentence(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "fednode.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        load_settings(path)


def test_a_written_file_has_every_key_with_a_comment_and_reads_back() -> None:
    values = {"party": {"name": "alice"}, "data": {"path": 'a "quoted" \\ path'}}
    text = settings_text(values, {"bob": "../bob"})
    raw = tomllib.loads(text)
    settings = parse_settings(raw)
    assert settings.tables.data.path == values["data"]["path"]
    assert settings.tables.peers["bob"].bucket == "../bob"
    for name, model in SECTIONS.items():
        assert set(raw[name]) == set(model.model_fields)
    keys = [line for line in text.split("\n") if re.match(r"\w+ = ", line) and "../bob" not in line]
    assert all("  # " in line for line in keys)
    with pytest.raises(ValueError, match="nmae"):
        settings_text({"party": {"nmae": "alice"}})
