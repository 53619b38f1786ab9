"""The process that owns a network: it starts the others, and when it ends, however it ends, so do they."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from .files import LOGS, NAME, Description, Process, save
from .processes import end, identify
from .programs import CannotRun, find
from .services import control, database, gateway, planet

RUNTIME: Final = "fednode-storj-"
READY: Final = "ready"
_PATIENCE: Final = 15


class _Told(Exception):
    """SIGTERM or SIGINT."""


def serve(folder: Path, *, with_gateway: bool, leashed: bool) -> int:
    """Run a network until SIGTERM, SIGINT or, where `leashed`, the end of standard input; the exit status.

    One line goes to standard output: "ready" once storj.json is there, else what went wrong.
    """
    _listen_to_signals()
    try:
        with ExitStack() as undo:
            described = _start(folder, undo, with_gateway=with_gateway)
            save(folder, described)
            undo.callback((folder / NAME).unlink, missing_ok=True)
            undo.callback(_deafen)
            _say(READY)
            while True:
                select.select([sys.stdin] if leashed else [], [], [])
                if not os.read(sys.stdin.fileno(), 4096):
                    return 0
    except _Told:
        return 0
    except CannotRun as reason:
        _say(str(reason))
        return 1


def _start(folder: Path, undo: ExitStack, *, with_gateway: bool) -> Description:
    """Each service undoes itself in reverse order; the runtime folder is the last to go."""
    programs, logs = find(), folder / LOGS
    logs.mkdir(mode=0o700, exist_ok=True)
    # A short path: a socket's may have 107 bytes. Others than its owner may pass, for the database's user; not look.
    runtime = Path(tempfile.mkdtemp(prefix=RUNTIME, dir="/tmp"))
    runtime.chmod(0o711)
    undo.callback(shutil.rmtree, runtime, ignore_errors=True)
    processes = {"supervisor": identify(os.getpid())}

    def own(name: str, process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        undo.callback(end, process, number, _PATIENCE)
        processes[name] = Process(process.pid, identify(process.pid).started)

    server, url = database(programs, runtime, logs / "database.log")
    own("database", server, signal.SIGQUIT)
    satellite, address, nodes, projects = planet(programs, runtime, logs / "planet.log", url)
    own("planet", satellite, signal.SIGTERM)
    keys = None
    if with_gateway:
        front, keys = gateway(programs, runtime / "gateway", logs / "gateway.log", projects[0].grant)
        own("gateway", front, signal.SIGTERM)
    return Description(address, nodes, projects, keys, processes, str(runtime), str(control(runtime)))


def _listen_to_signals() -> None:
    def tell(_number: int, _frame: object) -> None:
        _deafen()
        raise _Told

    signal.signal(signal.SIGTERM, tell)
    signal.signal(signal.SIGINT, tell)


def _deafen() -> None:
    """Nothing may cut the undoing short."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _say(line: str) -> None:
    """The starter may be gone already, or leave now."""
    try:
        os.write(1, line.encode() + b"\n")
    except BrokenPipeError:
        pass
    finally:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
