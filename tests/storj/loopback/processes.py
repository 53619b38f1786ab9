"""Processes that cannot outlive who started them, and signals that cannot reach another process of the same number."""

from __future__ import annotations

import ctypes
import os
import pwd
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from .files import Process

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def started(pid: int) -> int | None:
    """Clock ticks since boot at which `pid` was started; None where it is gone or only waits to be collected."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def identify(pid: int) -> Process:
    """A process that runs now. Raises ProcessLookupError."""
    ticks = started(pid)
    if ticks is None:
        raise ProcessLookupError(pid)
    return Process(pid, ticks)


def runs(process: Process) -> bool:
    """Whether this very process is still there."""
    return started(process.pid) == process.started


def send(process: Process, number: signal.Signals) -> bool:
    """Send a signal to this very process; False where it is gone."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        if not runs(process):
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def stopped(process: Process) -> bool:
    """Whether SIGSTOP has reached every thread of it. Raises ProcessLookupError where it is gone."""
    if not runs(process):
        raise ProcessLookupError(process.pid)
    threads = Path(f"/proc/{process.pid}/task").glob("*/stat")
    return all(thread.read_text().rpartition(")")[2].split()[0] == "T" for thread in threads)


def wait(process: Process, seconds: float) -> bool:
    """Wait until the process is gone; whether it is."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        if runs(process):
            select.select([handle], [], [], seconds)
    finally:
        os.close(handle)
    return not runs(process)


def child(
    command: list[str], folder: Path, log: Path, environment: Mapping[str, str], user: pwd.struct_passwd | None = None
) -> subprocess.Popen[bytes]:
    """A process that is killed when this thread ends. Its standard input is a pipe, its words go to `log` (0600)."""
    parent = os.getpid()

    def tie() -> None:
        # After the change of user, which would undo it.
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as words:
        return subprocess.Popen(
            command, cwd=folder, env=dict(environment), stdin=subprocess.PIPE, stdout=words, stderr=words,
            preexec_fn=tie, start_new_session=True, umask=0o077,
            user=user and user.pw_uid, group=user and user.pw_gid, extra_groups=[] if user else None,
        )  # fmt: skip


def until(ready: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Ask until it is so, the process ends, or time is up; whether it is so."""
    end = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def end(process: subprocess.Popen[bytes], number: signal.Signals, seconds: float) -> None:
    """Ask a child to end, then kill it; it is gone and collected afterwards. A stopped one is woken first."""
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
