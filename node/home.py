"""The home folder of a party: where everything lies, and the lock that lets one daemon work in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fednode.errors import AlreadyRunning, ConfigError
from fednode.node.runfolder import RunFolder
from fednode.types import RunId

ENVIRONMENT = "FEDNODE_HOME"
LOCK_WITHIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Home:
    """Paths under `root` (absolute)."""

    root: Path

    @property
    def settings(self) -> Path:
        """Private settings."""
        return self.root / "fednode.toml"

    @property
    def agreement(self) -> Path:
        return self.root / "peers.toml"

    @property
    def keys(self) -> Path:
        """Folder of the key files, 0700."""
        return self.root / "keys"

    @property
    def journal(self) -> Path:
        return self.root / "journal.sqlite3"

    @property
    def history(self) -> Path:
        """What `status` and `rounds` keep between two looks at the journal; may be deleted at any time."""
        return self.root / "cache" / "history.json"

    @property
    def lock_file(self) -> Path:
        return self.root / "lock"

    @property
    def bucket(self) -> Path:
        """Default local bucket of the party."""
        return self.root / "bucket"

    @property
    def evidence(self) -> Path:
        return self.root / "evidence"

    def key(self, kind: Literal["hydra", "fuel", "funds"], part: Literal["sk", "vk"]) -> Path:
        return self.keys / f"{kind}.{part}"

    def run(self, run_id: RunId) -> RunFolder:
        return RunFolder(self.root / "runs" / run_id)

    @contextlib.contextmanager
    def lock(self) -> Generator[None, None, None]:
        """Hold the home for this process. AlreadyRunning with the holder's process id where another keeps it: whoever
        only looks (`daemon_pid`) is gone after a moment.

        The system drops the lock when the process ends, however it ends: a left-over file means nothing. The file is
        never deleted, because a second process could then lock a file that has no name any more.
        """
        fd = self._open_lock()
        try:
            if not _locked(fd):
                raise self._held(fd)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(fd)

    def _open_lock(self) -> int:
        try:
            return os.open(self.lock_file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ConfigError(f"{self.lock_file} cannot be opened: {error.strerror}") from error

    def _held(self, fd: int) -> AlreadyRunning:
        words = os.pread(fd, 32, 0).split()
        who = f"process {int(words[0])}" if words and words[0].isdigit() else "another process"
        return AlreadyRunning(
            f"{who} works in {self.root}; one home serves one daemon",
            hint="wait for it or end it; `fednode status` works beside it",
        )


def _locked(fd: int) -> bool:
    """Lock the file for this process alone; False where that fails for `LOCK_WITHIN_S` seconds."""
    until = time.monotonic() + LOCK_WITHIN_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(LOCK_WITHIN_S / 50)
        else:
            return True


def daemon_pid(home: Home) -> int | None:
    """Process id of whoever holds the home's lock, None where nobody does. Looking holds a shared lock for a moment."""
    try:
        with home.lock_file.open("rb") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(handle.read(32).split()[0])
    except (OSError, ValueError, IndexError):
        pass
    return None


def find_home(chosen: Path | None, *, must_exist: bool = True) -> Home:
    """The home: `chosen` (--home), else $FEDNODE_HOME, else the current folder.

    With `must_exist` ConfigError unless it holds fednode.toml.
    """
    variable = os.environ.get(ENVIRONMENT, "")
    root = chosen or (Path(variable) if variable else Path.cwd())
    home = Home(Path(os.path.abspath(root.expanduser())))
    if must_exist and not home.settings.is_file():
        where = ("--home", f"${ENVIRONMENT}", "the current folder")[0 if chosen else 1 if variable else 2]
        raise ConfigError(
            f"{home.root} ({where}) is no home of a party: it has no fednode.toml",
            hint=f"name the home with --home DIR or ${ENVIRONMENT}, or make one: fednode init --home DIR --name NAME",
        )
    return home
