"""How the daemon behaves among people and other programs: one home one daemon, signals, waiting, refusals in words."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from federation import Answer, Federation, fednode

from fednode.node.home import daemon_pid
from fednode.node.protocol import facts as f

pytestmark = pytest.mark.process

Make = Callable[..., Federation]


def refused(answer: Answer, status: int, code: str, *words: str) -> None:
    """One error object, no traceback, and all that the message and the hint have to say."""
    assert (answer.status, answer.json["ok"], answer.error["code"]) == (status, False, code), answer
    assert "Traceback" not in answer.talk
    text = answer.error["message"] + " " + answer.error["hint"]
    for word in words:
        assert word in text, f"{word!r} is not in {text!r}"


def test_one_home_serves_one_daemon(copy: Make) -> None:
    whole = copy()
    first = whole.party("alice", "run")
    whole.wait(lambda: daemon_pid(whole.home("alice")) == first.pid, "the daemon holds its home")
    for what in ("run", "init_head", "close_head"):
        refused(whole.command("alice", what), 75, "already-running", str(first.pid), str(whole.root / "alice"))
    assert not first.over
    first.kill()
    assert daemon_pid(whole.home("alice")) is None


def test_sigterm_and_ctrl_c_stop_at_once_with_the_trainer_and_a_later_start_goes_on(copy: Make, reference: str) -> None:
    whole = copy()
    whole.serve()
    for name, number in {"alice": signal.SIGTERM, "bob": signal.SIGINT}.items():
        daemon = whole.party(name, "run")
        whole.wait(lambda n=name: whole.has(n, f.SignalStored, round=0), f"{name} has its model loaded")
        trainer = whole.wait(daemon.trainer, f"{name} has a trainer")
        daemon.popen.send_signal(number)
        refused(whole.over(daemon, timeout=5), 130, "stopped", number.name)
        psutil.wait_procs([trainer], timeout=5)
        assert not trainer.is_running(), "the trainer child outlives its daemon"
    whole.finish()
    whole.check_complete(reference)


def test_a_killed_daemon_leaves_no_trainer_behind(copy: Make) -> None:
    whole = copy()
    whole.serve()
    daemon = whole.party("carol", "run")
    whole.wait(lambda: whole.has("carol", f.Prepared), "carol has its model loaded")
    assert daemon.trainer() is not None
    whole.kill_all()


def test_devnet_stops_on_sigterm_and_goes_on(copy: Make) -> None:
    whole = copy()
    for number in (signal.SIGTERM, signal.SIGINT):
        server = whole.serve()
        ready = json.loads(server.out.read_text())
        assert ready["ok"] is True
        assert set(ready["parties"]) == set(whole.names)
        assert all(party["url"].startswith("http://127.0.0.1:") for party in ready["parties"].values())
        server.popen.send_signal(number)
        assert whole.over(server, timeout=10).status == 0


def test_run_and_close_before_init_head(federation: Make) -> None:
    whole = federation(parties=2)
    peers = str(whole.root / "peers.toml")
    for what in ("run", "close_head"):
        refused(whole.command("alice", what, "--peers", peers), 5, "head", "init-head")
    refused(whole.command("alice", "run"), 3, "config", "peers.toml", "--peers")
    status = whole.command("alice", "status", "--peers", peers)
    assert (status.status, status.json["head"]["status"]) == (0, "Unknown")
    found = fednode("rounds", "--home", str(whole.root / "alice"), "--peers", peers, "--json", cwd=whole.root)
    assert (found.status, found.json["rounds"]) == (0, [])


def test_a_port_in_use(copy: Make) -> None:
    whole = copy()
    port = json.loads((whole.root / "devnet" / "settings.json").read_text())["parties"][1]["port"]
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        refused(whole.over(whole.start("devnet", whole.commands["devnet"])), 3, "config", str(port), "bob")
    whole.serve()
    second = whole.over(whole.start("second", whole.commands["devnet"]))
    refused(second, 3, "config", "stop")


def test_run_waits_for_its_hydra_node(copy: Make, reference: str) -> None:
    whole = copy()
    daemons = {name: whole.party(name, "run") for name in whole.names}
    for name, daemon in daemons.items():
        whole.wait(lambda d=daemon: "cannot be reached" in d.talk, f"{name} says that it waits")
    status = whole.command("bob", "status").json
    assert (status["state"], status["pid"]) == ("waiting for the hydra-node", daemons["bob"].pid)
    assert not any(daemon.over for daemon in daemons.values())
    whole.serve()
    whole.succeed(list(daemons.values()))
    whole.check_complete(reference)


def test_init_head_waits_for_its_hydra_node_and_its_peers(federation: Make) -> None:
    whole = federation(parties=2)
    alice = whole.party("alice", "init_head")
    whole.wait(lambda: "cannot be reached" in alice.talk, "alice says that it waits")
    whole.serve()
    whole.wait(lambda: whole.has("alice", f.DepositChanged, party="alice"), "alice has deposited")
    status = whole.command("alice", "status").json
    assert (status["waiting_for"], status["head"]["status"]) == (["bob"], "Open")
    assert not alice.over
    answers = whole.succeed([alice, whole.party("bob", "init_head")])
    for answer in answers:
        assert answer["lovelace"] == {"alice": 30_000_000, "bob": 30_000_000}
        assert answer["head"]["status"] == "Open"
    again = whole.command("alice", "init_head")
    assert (again.status, again.json["head"]) == (0, answers[0]["head"])


def test_a_key_that_others_can_read(copy: Make) -> None:
    whole = copy()
    key = whole.root / "alice" / "keys" / "funds.sk"
    key.chmod(0o644)
    for what in ("run", "close_head"):
        refused(whole.command("alice", what), 4, "keys", str(key), f"chmod 600 {key}")
    assert key.stat().st_mode & 0o777 == 0o644, "modes are checked, never changed"
    key.chmod(0o600)
    key.unlink()
    refused(whole.command("alice", "run"), 4, "keys", str(key))


def test_an_unfunded_party(federation: Make) -> None:
    whole = federation(parties=2)
    whole.serve()
    settings = whole.root / "alice" / "fednode.toml"
    address = next(line for line in (whole.root / "peers.toml").read_text().splitlines() if "address" in line).split()[
        2
    ]
    for funding, status, code in (("", 3, "config"), ("00" * 32 + "#0", 4, "funds")):
        whole.edit(settings, "funding", funding)
        answer = whole.command("alice", "init_head")
        refused(answer, status, code, "30000000", address.strip('"'), funding[:64], "funding", "fednode.toml")


def test_other_epochs_at_one_party(copy: Make) -> None:
    whole = copy()
    whole.serve()
    own = {name: whole.party(name, "run") for name in ("alice", "bob")}
    other = whole.party("carol", "run", "--epochs", "4")
    told = whole.root / "carol"
    for name, daemon in own.items():
        whole.wait(lambda n=name: whole.has(n, f.ForeignRunSeen, party="carol"), f"{name} sees another run")
        whole.wait(lambda d=daemon: "carol runs another agreement" in d.talk, f"{name} says who differs")
        [found] = [fact for fact in whole.facts(name) if isinstance(fact, f.ForeignRunSeen)]
        assert found.sections == ("run",)
        assert "(other: run)" in daemon.talk
        status = whole.command(name, "status").json
        assert list(status["foreign_runs"]) == ["carol"]
        assert status["round"] == 0
        assert "carol" in status["waiting_for"]
        assert not daemon.over
    whole.wait(lambda: "alice runs another agreement" in other.talk, "carol is told as well")
    assert fednode("status", "--home", str(told), "--json", cwd=told).json["rounds"] == 4
    other.kill()
    answer = whole.over(whole.party("carol", "run"))
    refused(answer, 3, "run-mismatch", str(told), "--epochs", "4 rounds", "3 rounds")


def test_another_agreement_on_a_bound_home(copy: Make) -> None:
    whole = copy()
    for party in ("alice", "bob"):
        whole.edit(whole.root / party / "peers.toml", "learning_rate", 0.5)
    refused(whole.command("alice", "run"), 3, "run-mismatch", str(whole.root / "alice"), "peers hash")
    refused(whole.command("bob", "close_head"), 3, "run-mismatch", "bound")


@pytest.mark.parametrize(
    ("file", "line", "words"),
    [
        ("peers.toml", "rounds = many", ["line 6"]),
        ("peers.toml", 'rounds = "many"', ["run.rounds", "many"]),
        ("peers.toml", "rounds = 0", ["run.rounds", "0"]),
        ("fednode.toml", "threads = -1", ["train.threads", "-1"]),
        ("fednode.toml", 'url = "nowhere"', ["head.url", "nowhere"]),
        ("fednode.toml", 'funding = "somewhere"', ["head.funding", "somewhere", "txid#ix"]),
        ("fednode.toml", 'surprise = "!"', ["surprise"]),
    ],
)
def test_a_wrong_field(copy: Make, file: str, line: str, words: list[str]) -> None:
    whole = copy()
    path = whole.root / "alice" / file
    key = line.split()[0]
    text = path.read_text()
    lines = [line if old.startswith(f"{key} =") else old for old in text.splitlines()]
    if key == "surprise":
        lines.insert(lines.index("[train]") + 1, line)
    path.write_text("\n".join(lines))
    for what in ("run", "status"):
        answer = fednode(what, "--home", str(path.parent), "--json", cwd=whole.root)
        refused(answer, 3, "config", file, *words)


def test_a_missing_home_and_a_missing_agreement(copy: Make, tmp_path: Path) -> None:
    refused(fednode("run", "--home", str(tmp_path / "no"), "--json", cwd=tmp_path), 3, "config", str(tmp_path / "no"))
    whole = copy()
    (whole.root / "alice" / "peers.toml").unlink()
    refused(whole.command("alice", "run"), 3, "config", str(whole.root / "alice" / "peers.toml"))
    refused(whole.command("bob", "run", "--peers", "/no/where.toml"), 3, "config", "/no/where.toml")
    (whole.root / "carol" / "fednode.toml").unlink()
    refused(whole.command("carol", "run"), 3, "config", "fednode.toml", "init")
