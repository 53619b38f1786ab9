"""`fednode demo` as other programs use it: its JSON, its files, what `status` and `rounds` say during and after it."""

from __future__ import annotations

import hashlib
import json
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from federation import FEDNODE, Answer, Federation, Json, Running, fednode
from safetensors.numpy import load_file

from fednode.node.protocol import facts as f

pytestmark = pytest.mark.process

PHASES = {"train", "publish", "signal", "wait", "fetch", "aggregate"}
HEX = set("0123456789abcdef")


@dataclass
class Watched:
    """A finished demo, and what was seen while it ran."""

    whole: Federation
    answer: Answer
    statuses: list[Json] = field(default_factory=list)
    words: set[str] = field(default_factory=set)
    """Command lines of all its processes."""

    @property
    def json(self) -> Json:
        return self.answer.json


def start_demo(folder: Path, *options: str) -> tuple[Federation, Running]:
    whole = Federation(folder, {})
    folder.mkdir(parents=True, exist_ok=True)
    return whole, whole.start("demo", [*FEDNODE, "demo", "--dir", str(folder / "d"), "--json", *options])


def demo_of(whole: Federation) -> Federation:
    """The federation in the demo's folder, to look at."""
    names = sorted(path.parent.name for path in (whole.root / "d").glob("*/fednode.toml"))
    return Federation(whole.root / "d", {"parties": dict.fromkeys(names)})


def watch(folder: Path, *options: str, every: float = 0.5, timeout: float = 90) -> Watched:
    """Run a demo to its end, and ask for the first party's status every so many seconds."""
    whole, process = start_demo(folder, *options)
    seen = Watched(whole, Answer(-1, {}, ""))
    ask_at = 0.0

    def look() -> bool:
        nonlocal ask_at
        for child in process.children():
            seen.words.update(_command_line(child))
        home = whole.root / "d" / "alice"
        if (home / "peers.toml").exists() and time.monotonic() > ask_at:
            status = fednode("status", "--home", str(home), "--json", cwd=whole.root)
            assert status.status == 0, status
            seen.statuses.append(status.json)
            ask_at = time.monotonic() + every
        return process.over

    try:
        whole.wait(look, "the demo ends", timeout=timeout)
    finally:
        whole.end()
    seen.answer = process.answer()
    assert seen.answer.status == 0, f"{seen.json}{whole.tails()}"
    seen.whole = demo_of(whole)
    return seen


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return watch(tmp_path_factory.mktemp("demo") / "f", "--task=linear", "--epochs=3", "--seed=7")


def is_digest(text: object) -> bool:
    return isinstance(text, str) and len(text) == 64 and set(text) <= HEX


def check_contract(data: Json, task: str, rounds: int, names: list[str]) -> None:
    assert data["ok"] is True
    assert (data["task"], data["parties"], data["rounds"], data["seed"]) == (task, len(names), rounds, 7)
    assert len(data["run_id"]) == 32
    assert set(data["run_id"]) <= HEX
    assert data["digests"] == dict.fromkeys(names, data["digest"])
    assert len(set(data["round_digests"])) == rounds
    assert all(map(is_digest, data["round_digests"]))
    assert data["round_digests"][-1] == data["digest"]
    assert set(data["loss"]) == {"base", "alone", "federated"}
    assert set(data["loss"]["alone"]) == set(names)
    assert data["loss"]["federated"] < min([data["loss"]["base"], *data["loss"]["alone"].values()])
    assert set(data["bytes_up"]) == set(names)
    assert all(len(sizes) == rounds and min(sizes) > 0 for sizes in data["bytes_up"].values())
    assert set(data["seconds"]) == {"setup", "alone", "open", "rounds", "close", "total"}
    assert sum(data["seconds"].values()) <= 2 * data["seconds"]["total"]
    assert set(data["phase_seconds"]) == PHASES
    assert data["head"]["status"] == "Finalized"
    assert data["head"]["snapshots"] > rounds
    for money in data["lovelace"].values():
        assert money["deposited"] == money["paid_out"] == 30_000_000
    assert set(data["lovelace"]) == set(names)


def test_the_json_contract(demo: Watched, reference: str) -> None:
    check_contract(demo.json, "linear", 3, ["alice", "bob", "carol"])
    assert demo.json["dir"] == str(demo.whole.root)
    assert demo.json["digest"] == reference, (
        "a prepared federation with the same seed, other keys, came to another adapter"
    )


def test_the_buckets_tell_the_whole_run(demo: Watched) -> None:
    found = demo.whole.read_independently()
    assert found["digests"][1:] == demo.json["round_digests"]
    assert found["run_id"] == demo.json["run_id"]


def test_the_final_adapter_lies_beside(demo: Watched) -> None:
    for name in demo.whole.names:
        tensors = load_file(demo.whole.root / name / "S_3.safetensors")
        data = b"".join(tensors[key].astype("<f4").tobytes() for key in sorted(tensors))
        assert hashlib.sha256(data).hexdigest() == demo.json["digest"]


def ask(demo: Watched, party: str, *words: str) -> Json:
    found = fednode(*words, "--home", str(demo.whole.root / party), "--json", cwd=demo.whole.root)
    assert found.status == 0, found
    return found.json


def test_rounds_afterwards(demo: Watched) -> None:
    views = {name: ask(demo, name, "rounds") for name in demo.whole.names}
    for view in views.values():
        assert view["run_id"] == demo.json["run_id"]
        assert [entry["round"] for entry in view["rounds"]] == [1, 2, 3]
        assert [entry["digest"] for entry in view["rounds"]] == demo.json["round_digests"]
        assert [entry["base"] for entry in view["rounds"]][1:] == demo.json["round_digests"][:-1]
        assert [entry["phase"] for entry in view["rounds"]] == ["B", "A", "B"]
        for entry in view["rounds"]:
            assert set(entry["seconds"]) == PHASES
            assert set(entry["signals"]) == set(demo.whole.names)
            assert all(is_digest(s["tx"]) and is_digest(s["object"]) for s in entry["signals"].values())
            assert entry["outliers"] == []
            assert 0 < entry["loss"] < 2
    signals = [[entry["signals"] for entry in view["rounds"]] for view in views.values()]
    assert signals[0] == signals[1] == signals[2]
    sizes = {name: [entry[name]["size"] for entry in signals[0]] for name in demo.whole.names}
    assert sizes == demo.json["bytes_up"]


def test_status_during_and_after(demo: Watched) -> None:
    running = [status for status in demo.statuses if status["pid"] is not None]
    assert running, "status never saw the daemon"
    for status in demo.statuses:
        assert status["party"] == "alice"
        assert status["rounds"] == 3
        assert 0 <= status["round"] <= 3
        assert set(status["waiting_for"]) <= {"bob", "carol"}
        assert not status["state"].startswith("stopped") or status["pid"] is None
    after = ask(demo, "bob", "status")
    assert (after["state"], after["round"], after["waiting_for"], after["pid"]) == ("finished", 3, [], None)
    assert after["head"]["status"] == "Finalized"
    assert after["paid"] == dict.fromkeys(demo.whole.names, 30_000_000)


def test_close_head_on_a_finished_run_verifies_the_payout_and_run_says_that_it_is_finished(demo: Watched) -> None:
    for _ in range(2):
        closed = ask(demo, "carol", "close-head", "--yes")
        assert closed["verified"] is True
        assert closed["paid"] == closed["expected"] == dict.fromkeys(demo.whole.names, 30_000_000)
        assert closed["head"]["status"] == "Finalized"
    again = ask(demo, "carol", "run", "--epochs", "3")
    assert again["digest"] == demo.json["digest"]


def test_no_secret_leaves_the_keys_folder(demo: Watched) -> None:
    secrets: list[bytes] = []
    for path in demo.whole.root.glob("*/keys/*.sk"):
        assert path.stat().st_mode & 0o077 == 0
        key = bytes.fromhex(json.loads(path.read_text())["cborHex"])[-32:]
        secrets += [key, key.hex().encode(), key.hex().upper().encode()]
    assert len(secrets) == 3 * 9
    files = [p for p in demo.whole.root.parent.rglob("*") if p.is_file() and p.parent.name != "keys"]
    assert len(files) > 50
    for path in files:
        data = path.read_bytes()
        assert not any(secret in data for secret in secrets), path
    seen = "\n".join([*demo.words, json.dumps(demo.json), demo.answer.talk, json.dumps(demo.statuses)]).encode()
    assert b"fednode.training.worker" in seen
    assert not any(secret in seen for secret in secrets)


def test_an_interrupted_demo_leaves_no_process_and_goes_on(tmp_path: Path, reference: str) -> None:
    whole, process = start_demo(tmp_path / "f", "--task=linear", "--epochs=3", "--seed=7")
    inner = Federation(tmp_path / "f" / "d", {})
    try:
        whole.wait(lambda: inner.has("bob", f.Prepared), "bob's daemon runs")
        children = process.children()
        assert len(children) > 4
        process.popen.send_signal(signal.SIGINT)
        answer = whole.over(process, timeout=20)
        assert (answer.status, answer.error["code"]) == (130, "stopped")
        psutil.wait_procs(children, timeout=5)
        assert not [child for child in children if child.is_running()]
        _, second = start_demo(tmp_path / "f", "--task=linear", "--epochs=3", "--seed=7")
        whole.processes.append(second)
        answer = whole.over(second)
        assert answer.status == 0, answer.json
        assert answer.json["digest"] == reference
    finally:
        whole.end()
    demo_of(whole).check_complete(reference)


def test_another_demo_needs_another_folder(demo: Watched) -> None:
    found = fednode("demo", "--dir", str(demo.whole.root), "--epochs=4", "--task=linear", "--json", cwd=demo.whole.root)
    assert (found.status, found.error["code"]) == (3, "config")
    assert "peers.toml" in found.error["message"]
    assert "--dir" in found.error["hint"]


def test_prepare_starts_nothing(tmp_path: Path) -> None:
    found = fednode("demo", "--prepare", "--parties=2", "--dir", str(tmp_path / "p"), "--json", cwd=tmp_path)
    assert found.status == 0
    assert set(found.json) == {"ok", "dir", "env", "devnet", "parties"}
    assert list(found.json["parties"]) == ["alice", "bob"]
    for party in found.json["parties"].values():
        assert set(party) == {"home", "init_head", "run", "close_head", "status"}
        assert not (Path(party["home"]) / "journal.sqlite3").exists()
    again = fednode("demo", "--prepare", "--parties=2", "--dir", str(tmp_path / "p"), "--json", cwd=tmp_path)
    assert again.json == found.json


@pytest.mark.torch
@pytest.mark.timeout(400)
def test_digits(tmp_path: Path) -> None:
    demo = watch(tmp_path / "f", "--task=digits", "--epochs=6", "--parties=2", "--seed=7", every=5, timeout=300)
    check_contract(demo.json, "digits", 6, ["alice", "bob"])
    accuracy: dict[str, Any] = demo.json["accuracy"]
    assert set(accuracy) == {"base", "alone", "federated"}
    assert accuracy["federated"] > max([accuracy["base"], *accuracy["alone"].values()])
    assert demo.whole.read_independently()["digests"][-1] == demo.json["digest"]


@pytest.mark.long
@pytest.mark.torch
@pytest.mark.timeout(500)
def test_lm_and_its_export(tmp_path: Path) -> None:
    demo = watch(tmp_path / "f", "--task=lm", "--epochs=2", "--seed=7", every=5, timeout=400)
    check_contract(demo.json, "lm", 2, ["alice", "bob", "carol"])
    assert demo.whole.read_independently()["digests"][-1] == demo.json["digest"]
    exported = ask(demo, "alice", "export", str(tmp_path / "peft"))
    assert exported["digest"] == demo.json["digest"]

    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    settings = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    base = AutoModelForCausalLM.from_pretrained(settings["base_model_name_or_path"])
    model = PeftModel.from_pretrained(base, str(tmp_path / "peft"))
    state = load_file(demo.whole.root / "alice" / "S_2.safetensors")
    loaded = {name.replace(".default", ""): value for name, value in model.state_dict().items() if ".lora_" in name}
    assert sorted(loaded) == sorted(state)
    assert all((loaded[name].numpy() == value).all() for name, value in state.items())
