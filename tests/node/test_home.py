"""The home: where it is found, and one daemon at a time, with real processes."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fednode.errors import AlreadyRunning, ConfigError
from fednode.node.home import ENVIRONMENT, LOCK_WITHIN_S, Home, daemon_pid, find_home
from fednode.types import RunId

HOLDER = """
import sys
from pathlib import Path
from fednode.node.home import Home
with Home(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(root: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.process
def test_a_second_process_is_refused_by_id_until_the_first_is_killed(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with hold(tmp_path) as holder:
        with pytest.raises(AlreadyRunning, match=f"process {holder.pid} "), home.lock():
            raise AssertionError("held twice")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with home.lock():
            assert home.lock_file.read_text() == f"{os.getpid()}\n"
            with pytest.raises(AlreadyRunning, match=f"process {os.getpid()} "), home.lock():
                raise AssertionError("held twice")


def test_a_look_at_the_lock_refuses_nobody(tmp_path: Path) -> None:
    """`fednode status` looks just while a daemon starts."""
    home = Home(tmp_path)
    home.lock_file.touch()
    looking = os.open(home.lock_file, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    gone = threading.Timer(LOCK_WITHIN_S / 5, os.close, [looking])
    gone.start()
    with home.lock():
        assert daemon_pid(home) == os.getpid()
    gone.join()
    assert daemon_pid(home) is None


@pytest.mark.parametrize("stale", [b"", b"999999\n", b"rubbish", b"\xff" * 100])
def test_a_stale_file_means_nothing(tmp_path: Path, stale: bytes) -> None:
    home = Home(tmp_path)
    home.lock_file.write_bytes(stale)
    with home.lock():
        assert home.lock_file.read_text() == f"{os.getpid()}\n"
    with home.lock():
        pass


def test_a_lock_of_rubbish_content_is_still_held(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with home.lock():
        home.lock_file.write_bytes(b"rubbish")
        with pytest.raises(AlreadyRunning, match="another process"), home.lock():
            raise AssertionError("held twice")


def test_a_missing_home_and_a_linked_lock_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be opened"), Home(tmp_path / "none").lock():
        raise AssertionError
    (tmp_path / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(ConfigError, match="cannot be opened"), Home(tmp_path).lock():
        raise AssertionError
    assert not (tmp_path / "victim").exists()


def test_the_home_is_the_option_then_the_variable_then_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("option", "variable", "here"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "fednode.toml").touch()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    assert find_home(None).root == tmp_path / "here"
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "variable"))
    assert find_home(None).root == tmp_path / "variable"
    assert find_home(Path("../option")).root == tmp_path / "option"


def test_no_home_names_the_place_and_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
    with pytest.raises(ConfigError, match=r"\$FEDNODE_HOME") as caught:
        find_home(None)
    assert "fednode init" in caught.value.hint
    with pytest.raises(ConfigError, match=r"nowhere \(--home\)"):
        find_home(tmp_path / "nowhere")
    assert find_home(tmp_path / "nowhere", must_exist=False).root == tmp_path / "nowhere"


def test_paths(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert home.key("funds", "sk") == tmp_path / "keys" / "funds.sk"
    assert home.run(RunId("ab")).state(3) == tmp_path / "runs" / "ab" / "state" / "000003.safetensors"
