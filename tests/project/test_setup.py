"""scripts/setup in a copy of the checkout, with a small program in the place of uv that writes down its calls.

The real set-up needs the package index and minutes; what is tested here is everything around it: when it is called,
with what, that a second call does nothing, that calls at the same time take turns, and that a torn set-up heals.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UV = """#!/bin/bash
case $1 in
  --version) echo "uv {version} (test)" ;;
  sync)
    echo "$*" >>"$CALLS"
    echo "bytecode: ${{PYTHONDONTWRITEBYTECODE-written}}" >>"$CALLS"
    echo "sudo: $(command -v sudo)" >>"$CALLS"
    mkdir -p "$3/.venv/bin"
    echo x >>"$3/.venv/half-done"
    if [ -n "${{TORN-}}" ]; then exit 1; fi
    sleep "${{SLOW-0}}"
    ln -sf "$(command -v python3)" "$3/.venv/bin/python"
    echo home = there >"$3/.venv/pyvenv.cfg" ;;
esac
"""
BASE = "bash sh env cat sed head sort cut sha256sum mkdir dirname readlink rm mv ln sleep chmod"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "a check out"
    (root / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "setup", root / "scripts")
    (root / "uv.lock").write_text("version = 1\n")
    (root / "pyproject.toml").write_text("[project]\n")
    return root


def tools(folder: Path, *, python: str | None = sys.executable, uv: str | None = "9.9.9") -> Path:
    """A PATH that holds the base system only, and what the test says."""
    folder.mkdir()
    for name in BASE.split():
        (folder / name).symlink_to(str(shutil.which(name)))
    if python is not None:
        (folder / "python3").write_text(f'#!/bin/sh\nexec "{python}" "$@"\n' if python.startswith("/") else python)
        (folder / "python3").chmod(0o755)
    if uv is not None:
        (folder / "uv").write_text(UV.format(version=uv))
        (folder / "uv").chmod(0o755)
    return folder


def command(checkout: Path, path: Path, **extra: str) -> tuple[list[str], dict[str, str]]:
    calls = str(checkout.parent / "calls")
    environment = {"PATH": str(path), "HOME": str(checkout.parent), "CALLS": calls, "PYTHONDONTWRITEBYTECODE": "1"}
    return [str(checkout / "scripts" / "setup")], environment | extra


def run(checkout: Path, path: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    arguments, environment = command(checkout, path, **extra)
    return subprocess.run(arguments, env=environment, cwd="/", capture_output=True, text=True, timeout=60, check=False)


def calls(checkout: Path) -> list[str]:
    file = checkout.parent / "calls"
    return [line for line in file.read_text().splitlines() if line.startswith("sync")] if file.exists() else []


def test_no_package_that_is_built_on_the_way_can_ask_for_more_rights(checkout: Path, tmp_path: Path) -> None:
    path = tools(tmp_path / "bin")
    (path / "sudo").write_text("#!/bin/sh\necho more rights >>$CALLS\n")
    (path / "sudo").chmod(0o755)
    assert run(checkout, path).returncode == 0
    assert f"sudo: {checkout}/.setup/no-sudo/sudo" in (checkout.parent / "calls").read_text().splitlines()


def test_first_call_syncs_from_the_lock_and_speaks_on_stderr_only(checkout: Path, tmp_path: Path) -> None:
    done = run(checkout, tools(tmp_path / "bin"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr
    [call] = calls(checkout)
    assert f"--project {checkout}" in call
    assert "--locked --compile-bytecode" in call
    assert "bytecode: written" in (tmp_path / "calls").read_text()


def test_second_call_does_nothing_and_says_nothing(checkout: Path, tmp_path: Path) -> None:
    path = tools(tmp_path / "bin")
    run(checkout, path)
    (path / "uv").unlink()  # not even looked for
    (path / "python3").unlink()
    link = checkout / ".venv" / "bin" / "python"
    link.unlink()
    link.symlink_to(sys.executable)
    again = run(checkout, path)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert len(calls(checkout)) == 1


@pytest.mark.parametrize("changed", ["uv.lock", "pyproject.toml", ".venv/pyvenv.cfg"])
def test_a_change_of_what_it_was_made_from_syncs_again(checkout: Path, tmp_path: Path, changed: str) -> None:
    path = tools(tmp_path / "bin")
    run(checkout, path)
    with (checkout / changed).open("a") as file:
        file.write("# changed\n")
    assert run(checkout, path).returncode == 0
    assert len(calls(checkout)) == 2


def test_calls_at_the_same_time_take_turns(checkout: Path, tmp_path: Path) -> None:
    arguments, environment = command(checkout, tools(tmp_path / "bin"), SLOW="0.5")
    both = [subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL) for _ in range(3)]
    assert [one.wait(timeout=60) for one in both] == [0, 0, 0]
    assert len(calls(checkout)) == 1


def test_a_torn_set_up_starts_anew(checkout: Path, tmp_path: Path) -> None:
    path = tools(tmp_path / "bin")
    torn = run(checkout, path, TORN="1")
    assert torn.returncode != 0
    assert "run the same command again" in torn.stderr
    assert (checkout / ".venv" / "half-done").exists()
    assert run(checkout, path).returncode == 0
    assert (checkout / ".venv" / "half-done").read_text() == "x\n"  # of the second call alone


def test_a_moved_checkout_gets_a_new_environment(checkout: Path, tmp_path: Path) -> None:
    path = tools(tmp_path / "bin")
    run(checkout, path)
    moved = checkout.rename(tmp_path / "elsewhere")
    assert run(moved, path).returncode == 0
    assert (moved / ".venv" / "half-done").read_text() == "x\n"
    assert len(calls(moved)) == 2


def test_an_environment_whose_python_went_away_is_made_anew(checkout: Path, tmp_path: Path) -> None:
    path = tools(tmp_path / "bin")
    run(checkout, path)
    (checkout / ".venv" / "bin" / "python").unlink()
    assert run(checkout, path).returncode == 0
    assert (checkout / ".venv" / "bin" / "python").exists()


def test_what_set_up_leaves_is_ignored_by_git(checkout: Path, tmp_path: Path) -> None:
    shutil.copy(ROOT / ".gitignore", checkout)
    subprocess.run(["git", "init", "-q", str(checkout)], check=True)
    run(checkout, tools(tmp_path / "bin"))
    listed = subprocess.run(
        ["git", "-C", str(checkout), "status", "--short", "--untracked-files=all"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not [line for line in listed.stdout.splitlines() if ".venv" in line or ".setup" in line]


OLD = '#!/bin/sh\ncase "$1" in --version) echo Python 3.9.2 ;; *) exit 1 ;; esac\n'
NO_VENV = f'#!/bin/sh\ncase "$*" in *ensurepip*) exit 1 ;; esac\nexec "{sys.executable}" "$@"\n'


@pytest.mark.parametrize(
    ("python", "uv", "message"),
    [
        (None, "9.9.9", "apt-get install python3.11 python3.11-venv"),
        (OLD, "9.9.9", "found: Python 3.9.2"),
        (NO_VENV, None, f"apt-get install python3.{sys.version_info.minor}-venv"),
        (NO_VENV, "0.1.0", f"apt-get install python3.{sys.version_info.minor}-venv"),
    ],
    ids=["no python", "old python", "no venv, no uv", "no venv, old uv"],
)
def test_what_is_missing_is_named(
    checkout: Path, tmp_path: Path, python: str | None, uv: str | None, message: str
) -> None:
    done = run(checkout, tools(tmp_path / "bin", python=python, uv=uv))
    assert done.returncode == 1
    assert message in done.stderr
    assert not calls(checkout)


@pytest.mark.parametrize("script", ["scripts/setup", "scripts/demo", "scripts/test", ".ci/run"])
def test_scripts_are_executable_bash(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)
