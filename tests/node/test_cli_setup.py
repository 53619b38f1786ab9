"""The command line: one JSON object or clear words whatever happens, and the way from nothing to an agreement."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from fednode.errors import ConfigError, PeerFault
from fednode.node import cli
from fednode.node.agreement import load_agreement
from fednode.node.cli import COMMANDS, invoke
from fednode.node.cli.output import Result, Session, Table, plain, run_command
from fednode.node.config import load_settings
from fednode.node.home import Home
from fednode.node.setup import check_address, own_card
from fednode.node.tomlwrite import add_parties


@dataclass
class Outcome:
    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        assert self.out.count("\n") == 1
        return json.loads(self.out)


class Run:
    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *words: str | Path) -> Outcome:
        status = invoke([str(word) for word in words])
        captured = self._capture.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return Outcome(status, captured.out, captured.err)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDNODE_HOME", raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    return Run(capsys)


@pytest.fixture
def cards(run: Run) -> list[str]:
    """Homes of zoe and alice, and their cards."""
    for name in ("zoe", "alice"):
        assert run("init", "--home", name, "--name", name).status == 0
        assert run("peers", "card", "--home", name, "-o", f"{name}.toml").status == 0
    return ["zoe.toml", "alice.toml"]


# The base ------------------------------------------------------------------------------------------------------------


def test_help_lists_every_command_and_version_is_known(run: Run) -> None:
    shown = run()
    assert shown.status == 0
    assert all(f"  {name} " in shown.out for name in COMMANDS)
    assert "Exit status" in shown.out
    assert run("--help").out == shown.out
    assert run("--version").out.strip() == "0.1.0"


@pytest.mark.parametrize("words", [["init"], *(["peers", name] for name in ("card", "add", "show", "hash"))])
def test_every_setup_command_has_help_with_example_and_exit_statuses(run: Run, words: list[str]) -> None:
    shown = run(*words, "--help")
    assert shown.status == 0
    for part in ("Example:", f"fednode {' '.join(words)}", "Exit status:", "--json", "--home", "--quiet", "--verbose"):
        assert part in shown.out


def test_the_table_of_commands_is_true() -> None:
    for name in COMMANDS:
        built = typer.main.get_command(cli.build(name))
        assert name in built.commands  # type: ignore[attr-defined]  # a group, untyped in typer
        for path in (Path(cli.__file__).parent / f"{COMMANDS[name][0]}.py",):
            assert path.is_file()


@pytest.mark.process
def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from fednode.node.cli import invoke; invoke(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert not loaded & {"torch", "transformers", "numpy", "pycardano", "pydantic", "rich", "asyncio", "httpx"}
    assert "fednode.node.cli.setup" not in loaded


@pytest.mark.process
def test_as_a_module_it_ends_with_the_exit_status() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fednode", "peers", "hash", "--peers", "/nowhere"], capture_output=True
    )
    assert done.returncode == 3
    assert done.stdout == b""
    assert done.stderr.startswith(b"error[config]: /nowhere does not exist")


@pytest.mark.parametrize(
    "words",
    [["nothing"], ["init", "--nothing"], ["peers"], ["peers", "nothing"], ["peers", "add"], ["peers", "hash", "x"]],
)
def test_usage_errors_are_words_or_json_and_exit_2(run: Run, words: list[str]) -> None:
    shown = run(*words)
    assert (shown.status, shown.out) == (2, "")
    assert shown.err.startswith("error[usage]: ")
    assert "  hint: see `fednode" in shown.err
    shown = run(*words, "--json")
    assert (shown.status, shown.err) == (2, "")
    assert shown.json["ok"] is False
    assert shown.json["error"]["code"] == "usage"


def test_global_options_may_stand_first(run: Run, cards: list[str]) -> None:
    shown = run("--home", "alice", "--json", "peers", "card")
    assert shown.json["card"]["name"] == "alice"
    assert run("--home=alice", "-q", "peers", "card").status == 0
    assert run("--json").json["error"]["code"] == "usage"


@pytest.mark.parametrize("json_wanted", [False, True])
@pytest.mark.parametrize(
    ("error", "code", "status", "message"),
    [
        (ConfigError("what, where", hint="fix"), "config", 3, "what, where"),
        (PeerFault("bob lied"), "peer-fault", 8, "bob lied"),
        (KeyboardInterrupt(), "stopped", 130, "interrupted"),
        (OSError(28, "No space left on device", "/x"), "io", 1, "/x: No space left on device"),
        (ValueError("holds a secret"), "internal", 1, "internal error: ValueError"),
    ],
)
def test_every_error_has_code_words_and_status(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: str,
    status: int,
    message: str,
    json_wanted: bool,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def work() -> Result | None:
        raise error

    assert run_command(Session(json=json_wanted), work) == status
    shown = capsys.readouterr()
    if json_wanted:
        found = json.loads(shown.out)["error"]
        assert (found["code"], found["message"]) == (code, message)
        assert shown.err == ""
    else:
        assert shown.out == ""
        assert shown.err.startswith(f"error[{code}]: {message}\n")
    crashes = list(tmp_path.glob("fednode-crash-*"))
    assert len(crashes) == (code == "internal")
    for crash in crashes:
        assert stat.S_IMODE(crash.stat().st_mode) == 0o600
        assert "ValueError" in crash.read_text()
        assert "secret" not in shown.out + shown.err


def test_results_as_words_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    result = Result({"round": 3, "who": "bob"})
    assert run_command(Session(), lambda: result) == 0
    assert capsys.readouterr().out == "round: 3\nwho: bob\n"
    table = Result({"n": 1}, ["title", Table(("name", "n"), [("alice", 1), ("bob", 22)])], exit_status=8)
    assert run_command(Session(), lambda: table) == 8
    assert capsys.readouterr().out == "title\nname   n\nalice  1\nbob    22\n"
    assert run_command(Session(json=True), lambda: table) == 8
    assert json.loads(capsys.readouterr().out) == {"ok": False, "n": 1}
    assert run_command(Session(json=True), lambda: None) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True}


def test_plain_values() -> None:
    value = {"a": (1, Path("/x")), "b": {2, 1}, "c": float("nan"), 3: Session()}
    expected = {"home": None, "json": False, "quiet": False, "verbose": False}
    assert plain(value) == {"a": [1, "/x"], "b": [1, 2], "c": None, "3": expected}
    with pytest.raises(TypeError, match="bytes"):
        plain({"key": b"secret"})


def test_talk_is_on_standard_error_and_can_be_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    Session().note("a")
    Session(quiet=True).note("b")
    Session(verbose=True).detail("c")
    Session().detail("d")
    Session().say("e")
    Session(json=True).say("f")
    shown = capsys.readouterr()
    assert (shown.err, shown.out) == ("a\nc\n", "e\n")


@pytest.mark.process
def test_a_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fednode", "peers", "show", "--help"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert b"Traceback" not in done.stderr


# Setting up ----------------------------------------------------------------------------------------------------------


def test_init_makes_a_home_and_repeating_it_keeps_everything(run: Run, tmp_path: Path) -> None:
    shown = run("init", "--home", "h", "--name", "alice", "--head-url", "ws://127.0.0.1:4002", "--data", "x", "--json")
    assert shown.status == 0
    assert shown.json["name"] == "alice"
    assert shown.json["created"] == ["keys/hydra.sk", "keys/fuel.sk", "keys/funds.sk", "fednode.toml"]
    home = Home(tmp_path / "h")
    settings = load_settings(home.settings)
    assert settings.head_url == "ws://127.0.0.1:4002"
    assert settings.tables.data.path == str(tmp_path / "x")
    for kind in ("hydra", "fuel", "funds"):
        assert stat.S_IMODE((home.keys / f"{kind}.sk").stat().st_mode) == 0o600
    before = {path: path.read_bytes() for path in home.root.rglob("*") if path.is_file()}
    again = run("init", "--home", "h", "--name", "alice", "--data", "y")
    assert again.status == 0
    assert "kept     keys/funds.sk" in again.out
    assert "edit it" in again.err
    assert {path: path.read_bytes() for path in home.root.rglob("*") if path.is_file()} == before
    secrets = [json.loads(data)["cborHex"][4:] for path, data in before.items() if path.suffix == ".sk"]
    assert len(secrets) == 3
    assert not any(secret in text for secret in secrets for text in (shown.out, shown.err, again.out, again.err))


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ([], 2, "--name is missing"),
        (["--name", "Alice"], 3, "party.name is 'Alice'"),
        (["--name", "a", "--network", "mainnet"], 3, "head.network is 'mainnet'"),
        (["--name", "a", "--head-url", "ftp://x"], 3, "head.url is 'ftp://x'"),
    ],
)
def test_a_wrong_answer_makes_nothing(run: Run, tmp_path: Path, words: list[str], status: int, message: str) -> None:
    shown = run("init", "--home", "h", *words)
    assert shown.status == status
    assert message in shown.err
    assert not (tmp_path / "h").exists()


def test_a_home_belongs_to_one_party(run: Run, cards: list[str]) -> None:
    shown = run("init", "--home", "alice", "--name", "bob")
    assert shown.status == 3
    assert "party.name is 'alice', expected 'bob'" in shown.err


def test_half_a_key_pair_is_not_replaced(run: Run, cards: list[str]) -> None:
    """A secret alone is what a killed `init` leaves: its public half is made from it. A public key alone is refused."""
    secret, public = Path("alice/keys/funds.sk"), Path("alice/keys/funds.vk")
    before = secret.read_bytes(), public.read_bytes()
    public.unlink()
    again = run("init", "--home", "alice", "--name", "alice", "--json")
    assert again.json["created"] == ["keys/funds.vk"]
    assert "keys/funds.sk" in again.json["kept"]
    assert (secret.read_bytes(), public.read_bytes()) == before
    secret.unlink()
    assert run("init", "--home", "alice", "--name", "alice").status == 4
    assert not secret.exists()
    assert public.read_bytes() == before[1]


def test_a_folder_of_keys_that_others_may_enter_is_refused(run: Run, tmp_path: Path) -> None:
    keys = tmp_path / "new" / "keys"
    keys.mkdir(parents=True, mode=0o755)
    refused = run("init", "--home", "new", "--name", "new", "--json")
    assert refused.status == 4
    assert refused.json["error"]["hint"] == f"chmod 700 {keys}"
    assert list(keys.iterdir()) == []
    keys.chmod(0o700)
    assert run("init", "--home", "new", "--name", "new").status == 0


def test_from_cards_to_the_same_agreement_at_both(run: Run, cards: list[str]) -> None:
    hashes = []
    for home, order in (("alice", cards), ("zoe", cards[::-1])):
        added = run("peers", "add", "--home", home, *order, "--json")
        assert added.status == 0
        assert sorted(added.json["added"]) == ["alice", "zoe"]
        assert added.json["buckets"] == [{"alice": "zoe", "zoe": "alice"}[home]]
        hashes.append(run("peers", "hash", "--home", home, "--json").json)
    assert hashes[0]["agreement_hash"] == hashes[1]["agreement_hash"]
    assert hashes[0]["sections"]["party.zoe"] == hashes[1]["sections"]["party.zoe"]
    assert hashes[0]["run"] == hashes[0]["agreement_hash"][:32]
    other = run("peers", "hash", "--home", "zoe", "--epochs", "3", "--json").json
    assert other["run"] != hashes[1]["run"]
    assert other["binding_hash"] == hashes[1]["binding_hash"]
    agreement = load_agreement(Path("alice/peers.toml"), check_address=check_address)
    assert [member.name for member in agreement.members] == ["alice", "zoe"]
    assert agreement.model.sha256
    shown = run("peers", "show", "--peers", "alice/peers.toml")
    assert "rounds = 10" in shown.out
    assert agreement.members[1].address in shown.out
    assert load_settings(Path("alice/fednode.toml")).tables.peers["zoe"].bucket == str(Path("zoe/bucket").absolute())


def test_adding_keeps_comments_sorts_and_repeats_harmlessly(run: Run, cards: list[str]) -> None:
    run("peers", "add", "--home", "zoe", "zoe.toml")
    path = Path("zoe/peers.toml")
    text = path.read_text().replace("rounds = 10  #", "rounds = 12  # agreed on Monday;")
    path.write_text(text.replace("[[party]]", "# our best customer\n[[party]] # really") + "# the end of zoe\n")
    assert run("peers", "add", "--home", "zoe", "alice.toml").status == 0
    text = path.read_text()
    for comment in ("# agreed on Monday;", "# our best customer\n[[party]] # really", "# the end of zoe"):
        assert comment in text
    assert text.index('name = "alice"') < text.index("# our best customer") < text.index('name = "zoe"')
    assert [party["name"] for party in tomllib.loads(text)["party"]] == ["alice", "zoe"]
    again = run("peers", "add", "--home", "zoe", *cards)
    assert "nothing to add" in again.out
    assert path.read_text() == text


def test_tables_after_the_parties_stay_whole(run: Run, cards: list[str], tmp_path: Path) -> None:
    path = tmp_path / "peers.toml"
    card = {key: value for key, value in own_card(Home(tmp_path / "zoe")).items() if value}
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in card.items())
    path.write_text(f'[[party]]\n{lines}\n\n# about the run\n[run]\nrounds = 3\n[model]\nname = "m" # why\n')
    assert add_parties(path, [own_card(Home(tmp_path / "alice"))]) == ["alice"]
    agreement = load_agreement(path)
    assert (agreement.run.rounds, agreement.model.name) == (3, "m")
    assert "# about the run\n[run]" in path.read_text()
    assert '"m" # why' in path.read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("hydra_vkey", "0" * 64), "another party zoe; the card differs in hydra_vkey"),
        (("name", "eve"), "a value that no other party has"),
        (("weight", 5000), "party.weight"),
        (("nmae", "x"), "party.nmae (line"),
        (("address", "addr_test1v" + "q" * 53), "differs in address"),
    ],
)
def test_a_wrong_card_changes_nothing(run: Run, cards: list[str], change: tuple[str, Any], message: str) -> None:
    run("peers", "add", "--home", "alice", *cards)
    before = Path("alice/peers.toml").read_bytes()
    card = own_card(Home(Path("zoe").absolute())) | dict([change])
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in card.items())
    Path("evil.toml").write_text(f"[party]\n{lines}\n")
    shown = run("peers", "add", "--home", "alice", "evil.toml")
    assert shown.status == 3
    assert message in shown.err
    assert Path("alice/peers.toml").read_bytes() == before


def test_an_address_of_another_key_is_refused_and_no_file_is_left(run: Run, cards: list[str]) -> None:
    zoe, alice = (own_card(Home(Path(name).absolute())) for name in ("zoe", "alice"))
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in (zoe | {"address": alice["address"]}).items())
    Path("evil.toml").write_text(f"[party]\n{lines}\n")
    shown = run("peers", "add", "--home", "alice", "evil.toml")
    assert shown.status == 3
    assert "payment credential" in shown.err
    assert not Path("alice/peers.toml").exists()


@pytest.mark.parametrize("content", ["", "party = 3\n", "[party]\n[other]\n", '[[party]]\nname = "x"\n', "x"])
def test_a_file_that_is_no_card(run: Run, cards: list[str], content: str) -> None:
    Path("card.toml").write_text(content)
    shown = run("peers", "add", "--home", "alice", "card.toml", "--json")
    assert shown.status == 3
    assert shown.json["error"]["code"] == "config"
    assert "card.toml" in shown.json["error"]["message"]


def test_a_home_without_settings_is_explained(run: Run, tmp_path: Path) -> None:
    shown = run("peers", "card")
    assert shown.status == 3
    assert f"{tmp_path} (the current folder) is no home" in shown.err
    assert "fednode init" in shown.err
