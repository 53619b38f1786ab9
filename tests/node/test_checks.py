"""`init-head --dry-run` and the checks before money moves: each mistake is found, named, and costs nothing."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fednode.errors import ConfigError, HeadError
from fednode.hydra.probe import Finding, NodeFacts, parameters_hash
from fednode.node import checks
from fednode.node.agreement import Agreement, parse_agreement
from fednode.node.agreement_tables import least_deposit_period
from fednode.node.checks import Check, Own
from fednode.node.cli import invoke
from fednode.node.demo.prepare import Federation, prepare
from fednode.types import HeadStatus, PartyName

NAMES = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy")
FUNDING = "ab" * 32 + "#1"
PARAMETERS: dict[str, Any] = {"txFeeFixed": 0, "txFeePerByte": 0, "utxoCostPerByte": 4310}


def agreement(count: int = 3, *, hosts: bool = False, **head: Any) -> Agreement:
    def party(index: int, name: str) -> dict[str, Any]:
        keys = ("hydra_vkey", "fuel_vkey", "cardano_vkey")
        card: dict[str, Any] = {key: f"{16 * index + number:064x}" for number, key in enumerate(keys)}
        card |= {"name": name, "bucket": name}
        card["address"] = "addr_test1v" + "q" * 50 + "qpzry9x8"[index % 8] * 2 + "023456789a"[index]
        return card | ({"host": f"{name}.example:5001"} if hosts else {})

    tables = {"model": {"name": "m"}, "head": head, "party": [party(i, name) for i, name in enumerate(NAMES[:count])]}
    return parse_agreement(tables)


def own(**changes: Any) -> Own:
    return replace(Own(PartyName("alice"), FUNDING, deposited=False), **changes)


def node(found: Agreement, **changes: Any) -> NodeFacts:
    """A node with which nothing is wrong."""
    facts = NodeFacts(
        version="2.3.0-ab",
        status=HeadStatus.IDLE,
        head_id=None,
        in_sync=True,
        findings=tuple(Finding(name) for name in ("version", "own key", "parties", "participants", "periods", "head")),
        peers=tuple(f"{party.name}.example:5001" for party in found.party),
        unconnected=(),
        parameters=PARAMETERS,
        parameters_hash=parameters_hash(PARAMETERS),
    )
    return replace(facts, **changes)


def verdicts(found: tuple[Check, ...]) -> dict[str, str]:
    return {each.name: each.verdict for each in found}


def test_nothing_is_wrong() -> None:
    right = agreement(hosts=True, ledger_parameters=parameters_hash(PARAMETERS))
    found = checks.check(right, own(), node(right))
    assert {name: verdict for name, verdict in verdicts(found).items() if verdict != "ok"} == {
        "fuel": "unknown", "peers' releases": "unknown",
    }  # fmt: skip
    assert checks.error_of(found) is None


MISTAKES: dict[str, tuple[dict[str, Any], str, int, str]] = {
    "release": ({"findings": (Finding("version", "hydra-node has version 2.2", "update"),)}, "version", 5, "2.2"),
    "key": ({"findings": (Finding("own key", "another's key", "url?"),)}, "own key", 5, "another's key"),
    "sync": ({"in_sync": False}, "in sync", 5, "not in sync"),
    "closed": ({"status": HeadStatus.CLOSED}, "status", 5, "Closed"),
    "a peer less": ({"peers": ("alice.example:5001",)}, "configured peers", 5, "expected 3 nodes, found 1"),
    "spelling": (
        {"peers": ("alice.example:5001", "bob:5001", "carol.example:5001")},
        "configured peers",
        5,
        "expected bob.example:5001 (bob)",
    ),
    "parameters": ({"parameters_hash": "cc" * 32}, "ledger parameters", 5, "found " + "cc" * 32),
    "fixed fee": ({"parameters": PARAMETERS | {"txFeeFixed": 155381}}, "fees in the head", 5, "155381"),
    "fee by size": ({"parameters": PARAMETERS | {"txFeePerByte": 44}}, "fees in the head", 5, "44"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_at_the_node(name: str) -> None:
    changes, check, status, words = MISTAKES[name]
    right = agreement(hosts=True, ledger_parameters=parameters_hash(PARAMETERS))
    found = checks.check(right, own(), node(right, **changes))
    assert [each.name for each in found if each.verdict == "failed"] == [check]
    error = checks.error_of(found)
    assert isinstance(error, HeadError)
    assert error.exit_status == status
    assert error.message.startswith(f"{check}: ")
    assert words in error.message
    assert error.hint


def test_a_funding_output_must_be_named_until_the_deposit_is_made() -> None:
    right = agreement()
    found = checks.check(right, own(funding=""), node(right))
    error = checks.error_of(found)
    assert isinstance(error, ConfigError)
    assert error.exit_status == 3
    assert str(right.head.deposit) in error.message
    assert right.party[0].address in error.hint
    assert checks.error_of(checks.check(right, own(funding="", deposited=True), node(right))) is None


def test_several_mistakes_are_counted_in_one_error() -> None:
    right = agreement()
    found = checks.check(right, own(funding=""), node(right, in_sync=False))
    error = checks.error_of(found)
    assert isinstance(error, ConfigError)
    assert "and 1 more: in sync" in error.message
    assert not checks.only_waits(found)
    assert checks.only_waits(checks.check(right, own(), node(right, in_sync=False)))


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"unconnected": ("bob.example:5001",)}, "configured peers"),
        ({"parameters": PARAMETERS | {"utxoCostPerByte": 0}}, "fees in the head"),
    ],
)
def test_warnings_stop_nothing(changes: dict[str, Any], check: str) -> None:
    right = agreement(hosts=True)
    found = checks.check(right, own(), node(right, **changes))
    assert verdicts(found)[check] == "warning"
    assert checks.error_of(found) is None


def test_what_cannot_be_compared_is_said_to_be_unknown() -> None:
    right = agreement()
    found = verdicts(checks.check(right, own(), node(right, peers=None)))
    assert found["configured peers"] == found["ledger parameters"] == found["fuel"] == "unknown"
    named = agreement()
    assert verdicts(checks.check(named, own(), node(named)))["configured peers"] == "unknown", "no hosts to compare"


@pytest.mark.parametrize("network", ["embedded", "devnet", "preprod", "preview"])
@pytest.mark.parametrize("count", range(2, 11))
def test_the_automatic_periods_are_long_enough(network: str, count: int) -> None:
    found = verdicts(checks.check(agreement(count, network=network), own(), node(agreement(count))))
    assert found["deposit period"] == found["contestation period"] == "ok"


@pytest.mark.parametrize(
    ("network", "count", "period", "verdict"),
    [
        ("preprod", 10, 2000, "ok"),
        ("preprod", 10, 1999, "warning"),
        ("preprod", 10, 300, "warning"),
        ("preprod", 10, 299, "failed"),
        ("preprod", 3, 159, "failed"),
        ("devnet", 10, 100, "ok"),
        ("devnet", 10, 99, "warning"),
        ("devnet", 3, 29, "warning"),
    ],
)
def test_the_deposit_window_by_parties_and_network(network: str, count: int, period: int, verdict: str) -> None:
    """From activation to expiry a period less the validity of a draft (100 s on a public net) remains."""
    right = agreement(count, network=network, deposit_period_s=period)
    (found,) = (each for each in checks.check(right, own(), node(right)) if each.name == "deposit period")
    assert found.verdict == verdict
    if verdict != "ok":
        assert str(least_deposit_period(network, count)) in found.hint


def test_a_short_contestation_period_on_a_public_network_is_a_risk() -> None:
    right = agreement(network="preprod", contestation_period_s=60)
    assert verdicts(checks.check(right, own(), node(right)))["contestation period"] == "warning"
    assert verdicts(checks.check(agreement(network="devnet"), own(), node(right)))["contestation period"] == "ok"


def test_steps_and_costs() -> None:
    right = agreement()
    first = checks.steps(right, own(), HeadStatus.IDLE)
    assert "post Init" in first[0]
    assert "0.5 to 0.8 ADA" in first[0]
    assert "deposit 10 ADA from " + FUNDING in first[1]
    assert "wait until alice" in checks.steps(right, own(party=PartyName("bob")), HeadStatus.IDLE)[0]
    assert "deposit 10 ADA" in checks.steps(right, own(), HeadStatus.OPEN)[0]
    assert checks.steps(right, own(deposited=True), HeadStatus.OPEN) == (first[-1],)


def test_the_hash_of_parameters_is_of_their_canonical_json() -> None:
    """RFC 8785: order and white space do not count, numbers are doubles."""
    assert parameters_hash({"b": 1, "a": [1.0, 2]}) == parameters_hash(json.loads('{ "a" : [1, 2.0], "b": 1 }'))
    assert parameters_hash({"a": 1}) != parameters_hash({"a": 2})
    assert parameters_hash({"a": 2**63 - 1}) == parameters_hash({"a": float(2**63)})
    expected = "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"  # printf '{"a":1}' | sha256sum
    assert parameters_hash({"a": 1}) == expected


# The command, against the embedded head ------------------------------------------------------------------------------


@dataclass
class Running:
    federation: Federation
    capture: pytest.CaptureFixture[str]

    def __call__(self, party: str, *more: str, peers: Path | None = None) -> tuple[int, Any]:
        words = ["init-head", "--home", str(self.federation.parties[party].home), *more, "--json"]
        status = invoke([*words, "--peers", str(peers or self.federation.dir / "peers.toml")])
        return status, json.loads(self.capture.readouterr().out)

    def changed(self, name: str, old: str, new: str) -> Path:
        """Another peers.toml."""
        text = (self.federation.dir / "peers.toml").read_text()
        assert text.count(old) == 1
        path = self.federation.dir / name
        path.write_text(text.replace(old, new))
        return path


@pytest.fixture
def running(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    federation = prepare(tmp_path, 3, "linear", 2, 0)
    child = subprocess.Popen(federation.devnet, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ})
    try:
        assert child.stdout is not None
        assert child.stdout.readline().startswith(b'{"ok": true')
        run = Running(federation, capsys)
        while run("alice", "--dry-run")[1]["checks"][-1]["verdict"] != "ok":
            pass  # it comes up out of sync, as every node
        yield run
    finally:
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=20)


@pytest.mark.process
def test_a_dry_run_changes_nothing(running: Running) -> None:
    home = running.federation.parties["alice"].home
    before = {path.relative_to(home): path.stat().st_mtime_ns for path in home.rglob("*") if path.name != "lock"}
    status, data = running("alice", "--dry-run")
    assert (status, data["ok"], data["dry_run"], data["head"]) == (0, True, True, {"status": "Idle"})
    assert "error" not in data
    found = {each["name"]: each for each in data["checks"]}
    assert {each["verdict"] for each in found.values()} == {"ok", "unknown"}
    assert data["lovelace"]["deposit"] == 30_000_000
    assert data["lovelace"]["fee_from"] < data["lovelace"]["fee_to"]
    after = {path.relative_to(home): path.stat().st_mtime_ns for path in home.rglob("*") if path.name != "lock"}
    assert after == before
    assert running("alice", "--dry-run")[1]["head"] == {"status": "Idle"}, "no head was opened"
    digest = found["ledger parameters"]["text"].split()[1].rstrip(",")
    agreed = running.changed("agreed.toml", 'ledger_parameters = ""', f'ledger_parameters = "{digest}"')
    status, data = running("alice", "--dry-run", peers=agreed)
    assert (status, {each["name"]: each["verdict"] for each in data["checks"]}["ledger parameters"]) == (0, "ok")


@pytest.mark.process
@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize(
    ("old", "new", "check", "status"),
    [
        ('ledger_parameters = ""', f'ledger_parameters = "{"cc" * 32}"', "ledger parameters", 5),
        ("contestation_period_s = 2 ", "contestation_period_s = 3 ", "periods", 5),
        ('hydra_node = "2.3.0"', 'hydra_node = "2.3.1"', "version", 5),
    ],
    ids=["ledger parameters", "period", "release"],
)
def test_a_mistake_is_refused_before_anything_happens(
    running: Running, dry: bool, old: str, new: str, check: str, status: int
) -> None:
    wrong = running.changed("wrong.toml", old, new)
    found, data = running("alice", *(["--dry-run"] if dry else []), peers=wrong)
    assert (found, data["ok"], data["error"]["code"]) == (status, False, "head")
    assert data["error"]["message"].startswith(f"{check}: ")
    assert running("alice", "--dry-run")[1]["head"] == {"status": "Idle"}, "no head was opened"


@pytest.mark.process
def test_without_a_funding_output_no_head_is_opened(running: Running) -> None:
    settings = running.federation.parties["alice"].home / "fednode.toml"
    lines = settings.read_text().splitlines()
    settings.write_text("\n".join('funding = ""' if line.startswith("funding =") else line for line in lines))
    for words in (["--dry-run"], []):
        status, data = running("alice", *words)
        assert (status, data["error"]["code"]) == (3, "config")
        assert "funding output: not named" in data["error"]["message"]
    assert running("bob", "--dry-run")[1]["head"] == {"status": "Idle"}


@pytest.mark.process
def test_the_commands_for_deposits(running: Running) -> None:
    where = [
        "--home",
        str(running.federation.parties["bob"].home),
        "--peers",
        str(running.federation.dir / "peers.toml"),
    ]
    assert invoke(["deposit", "list", *where, "--json"]) == 0
    assert json.loads(running.capture.readouterr().out) == {"ok": True, "deposits": []}
    assert invoke(["deposit", "list", *where]) == 0
    assert running.capture.readouterr().out == "no deposit is pending\n"
    assert invoke(["deposit", "recover", "ab" * 32, *where, "--json"]) == 5
    assert "is not pending" in json.loads(running.capture.readouterr().out)["error"]["message"]
    assert invoke(["deposit", "recover", "xyz", *where]) == 2
    assert "expected the 64 hex characters" in running.capture.readouterr().err


@pytest.mark.parametrize("words", [["init-head"], ["close-head"], ["deposit", "list"], ["deposit", "recover"]])
def test_help_has_an_example_and_the_exit_statuses(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke([*words, "--help"]) == 0
    shown = capsys.readouterr().out
    for part in ("Example:", f"fednode {' '.join(words)}", "Exit status:", "--json", "--peers"):
        assert part in shown


def test_a_node_that_does_not_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    run = Running(prepare(tmp_path, 2, "linear", 2, 0), capsys)
    status, data = run("alice", "--dry-run")
    assert (status, data["ok"], data["head"]["status"]) == (5, False, None)
    assert [(each["name"], each["verdict"]) for each in data["checks"]] == [("hydra-node", "failed")]
    assert len(data["steps"]) > 2, "what would happen is said all the same"
    home, peers = run.federation.parties["alice"].home, run.federation.dir / "peers.toml"
    assert invoke(["init-head", "--dry-run", "--home", str(home), "--peers", str(peers)]) == 5
    shown = capsys.readouterr().out
    assert "failed  hydra-node" in shown
    assert "nothing was changed" in shown
