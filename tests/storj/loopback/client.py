"""Starting, finding, disturbing and stopping a network by the folder that describes it."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from .files import LOGS, NAME, Description, load
from .processes import runs, send, stopped, wait
from .programs import CannotRun
from .supervisor import READY, RUNTIME

_PROGRAM: Final = Path(__file__).parents[3] / "scripts" / "storj-devnet.py"
_PATIENCE: Final = 60


def start(folder: Path, *, with_gateway: bool = True, leashed: bool = False) -> subprocess.Popen[bytes]:
    """Start a network and wait until it is there; its supervisor. Raises CannotRun.

    A leashed one ends when the returned process's standard input is closed, so also when this process dies.
    """
    sweep(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / LOGS).mkdir(mode=0o700, exist_ok=True)
    words = [sys.executable, str(_PROGRAM), "serve", "--dir", str(folder)]
    words += ["--leashed"] * leashed + ["--no-gateway"] * (not with_gateway)
    with (folder / LOGS / "supervisor.log").open("ab") as log:
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE if leashed else subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    assert process.stdout is not None
    with process.stdout:
        said = process.stdout.readline().decode().strip()
    if said != READY:
        process.wait(_PATIENCE)
        raise CannotRun(said or f"the network did not start; the words of its processes are in {folder / LOGS}")
    return process


def sweep(folder: Path) -> None:
    """Clear away what a killed supervisor left in `folder`. Raises CannotRun where its network runs."""
    described = load(folder)
    if described is None:
        return
    if any(runs(process) for process in described.processes.values()):
        raise CannotRun(f"a network of {folder} runs already; end it: scripts/storj-devnet down --dir {folder}")
    runtime = Path(described.runtime)
    if runtime.name.startswith(RUNTIME):
        shutil.rmtree(runtime, ignore_errors=True)
    (folder / NAME).unlink(missing_ok=True)


def stop(folder: Path) -> bool:
    """End the network of a folder and wait until it is gone; False where there is none. Raises CannotRun."""
    described = load(folder)
    if described is None:
        return False
    supervisor = described.processes["supervisor"]
    if send(supervisor, signal.SIGTERM) and not wait(supervisor, _PATIENCE):
        raise CannotRun(f"the supervisor (process {supervisor.pid}) did not end in {_PATIENCE} s")
    for process in described.processes.values():
        wait(process, _PATIENCE)
    sweep(folder)
    return True


def running(described: Description) -> dict[str, bool]:
    """Which processes of a network are there."""
    return {name: runs(process) for name, process in described.processes.items()}


def signal_satellite(described: Description, number: signal.Signals) -> None:
    """SIGSTOP, SIGCONT or SIGKILL for satellite and storage nodes, which are one process. Raises CannotRun.

    SIGSTOP reaches one thread after the other: this returns when it has reached the last.
    """
    planet = described.processes["planet"]
    if not send(planet, number):
        raise CannotRun("the satellite does not run")
    end = time.monotonic() + _PATIENCE
    while number == signal.SIGSTOP and not stopped(planet):
        if time.monotonic() > end:
            raise CannotRun(f"the satellite (process {planet.pid}) did not stop in {_PATIENCE} s")
        time.sleep(0.005)


def stop_node(described: Description, index: int) -> None:
    """End one storage node for good; the satellite is not told. Raises CannotRun."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(_PATIENCE)
        try:
            line.connect(described.control)
            line.sendall(f"stop-node {index}\n".encode())
            answer = line.makefile().readline().strip()
        except OSError as problem:
            raise CannotRun(f"the network does not take commands: {problem}") from problem
    if answer != "ok":
        raise CannotRun(answer)
