"""The process in which Storj's library lives: `python -m fednode.storage.uplink.worker PARENT_PID`.

Go cannot be in a process that forks, a hung call can be ended for sure only with its process, and a crash in C must
not take the daemon with it. Several calls at a time, each on a thread with an open project of its own, so that
closing the project ends exactly that call. Grants arrive on the pipe and stay in memory.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from fednode.errors import ConfigError
from fednode.storage.uplink.access import Permission, Uplink
from fednode.storage.uplink.calls import Project, StoreError
from fednode.storage.uplink.failures import CancelledError, error_to_json
from fednode.storage.uplink.frames import Message, pack, read
from fednode.storage.wire import Entry, Listed

THREADS: Final = 32
"""Most calls at a time; further ones wait for a thread."""
_IDLE_PROJECTS: Final = 8
"""Kept open for the next call with the same grant: it saves a handshake with the satellite."""
_PAGE: Final = 64
"""Entries of a listing in one message: keys of the longest kind still fit."""
_TELL_EVERY_S: Final = 0.1
_PR_SET_PDEATHSIG: Final = 1
_FAULTS: Final = (0x02, 0x03, 0x04)
"""After these codes a project's connection may be broken."""


class Call:
    """One request that is being worked on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._project: Project | None = None
        self._cancelled = False

    def cancel(self) -> None:
        """From any thread."""
        with self._lock:
            self._cancelled = True
            # Under the lock: the call's own thread may not free the project meanwhile.
            if self._project is not None:
                self._project.cancel()

    def check(self) -> None:
        if self._cancelled:
            raise CancelledError

    def use(self, project: Project | None) -> None:
        with self._lock:
            self._project = project
        self.check()

    def release(self) -> bool:
        """Whether the project is as good as before."""
        with self._lock:
            self._project = None
            return not self._cancelled


class Projects:
    """Open projects that nobody uses at the moment; the longest unused is closed first."""

    def __init__(self, uplink: Uplink) -> None:
        self._uplink = uplink
        self._lock = threading.Lock()
        self._idle: list[tuple[str, Project]] = []

    def take(self, grant: str) -> Project:
        with self._lock:
            for place in range(len(self._idle) - 1, -1, -1):
                if self._idle[place][0] == grant:
                    return self._idle.pop(place)[1]
        return self._uplink.open_project(grant)

    def give_back(self, grant: str, project: Project) -> None:
        with self._lock:
            self._idle.append((grant, project))
            over = [self._idle.pop(0)[1]] if len(self._idle) > _IDLE_PROJECTS else []
        for old in over:
            old.free()


class Worker:
    """Reads requests until the pipe ends."""

    def __init__(self, uplink: Uplink, send: Callable[[Mapping[str, object]], None]) -> None:
        self._uplink = uplink
        self._send = send
        self._projects = Projects(uplink)
        self._calls: dict[int, Call] = {}
        self._pool = ThreadPoolExecutor(THREADS)
        self._enders = ThreadPoolExecutor(THREADS)

    def serve(self, requests: BinaryIO) -> None:
        while (message := read(requests)) is not None:
            if "cancel" in message:
                if (call := self._calls.get(message["cancel"])) is not None:
                    # Closing a project may take a moment, in which other calls must be heard.
                    self._enders.submit(call.cancel)
                else:  # its reply was on the way, and whoever asks may have missed it
                    self._send({"id": message["cancel"], "error": error_to_json(CancelledError())})
                continue
            call = self._calls[message["id"]] = Call()
            self._pool.submit(self._answer, message, call)

    def _answer(self, message: Message, call: Call) -> None:
        number = message["id"]
        try:
            reply: dict[str, object] = {"ok": self._work(message, call)}
        except BaseException as error:
            reply = {"error": error_to_json(error)}
        del self._calls[number]
        self._send({"id": number, **reply})

    def _work(self, message: Message, call: Call) -> Message:
        call.check()
        grant = message.get("grant", "")
        match message["op"]:
            case "request_access":
                asked = (message["satellite"], message["api_key"], message["passphrase"])
                return {"grant": self._uplink.request_access(*asked)}
            case "share":
                return {"grant": self._uplink.share(grant, Permission(**message["permission"]))}
            case _:
                project = self._projects.take(grant)
        good = True
        try:
            call.use(project)
            return self._on_project(project, message, call)
        except StoreError as error:
            good = error.code not in _FAULTS
            call.check()
            raise
        except BaseException:
            good = False
            raise
        finally:
            if call.release() and good:
                self._projects.give_back(grant, project)
            else:
                project.free()

    def _on_project(self, project: Project, message: Message, call: Call) -> Message:
        bucket, key = message.get("bucket", ""), message.get("key", "")
        match message["op"]:
            case "stat":
                return {"size": project.stat(bucket, key)}
            case "delete":
                project.delete(bucket, key)
            case "list":
                self._list(project, message, call)
            case "upload":
                with _opened(message["source"], os.O_RDONLY) as source:
                    project.upload(bucket, key, source, message["size"], self._moved(message, call))
            case "download":
                with _opened(message["target"], os.O_WRONLY | os.O_TRUNC) as target:
                    moved = project.download(bucket, key, target, message["limit"], self._moved(message, call))
                return {"size": moved}
            case "ensure_bucket":
                project.ensure_bucket(bucket)
            case "revoke":
                self._uplink.revoke(project, message["revoked"])
            case other:
                raise ValueError(f"unknown request {other!r}")
        return {}

    def _list(self, project: Project, message: Message, call: Call) -> None:
        listed = Listed()
        for key, size in project.list(message["bucket"], message["prefix"]):
            call.check()
            listed.add(Entry(key, size))
            if len(listed.entries) == _PAGE:
                self._send({"id": message["id"], "entries": listed.entries})
                listed.entries.clear()
        self._send({"id": message["id"], "entries": listed.entries})

    def _moved(self, message: Message, call: Call) -> Callable[[int], None]:
        told = time.monotonic()

        def moved(done: int) -> None:
            nonlocal told
            # Before the commit of an upload too: what nobody wants must not appear.
            call.check()
            if time.monotonic() - told >= _TELL_EVERY_S:
                told = time.monotonic()
                self._send({"id": message["id"], "moved": done})

        return moved


@contextmanager
def _opened(path: str, flags: int) -> Generator[int, None, None]:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _die_with(parent: int) -> None:
    # A crash in C must not write the grants to disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def main() -> None:
    """The worker's whole life."""
    _die_with(int(sys.argv[1]))
    # Whatever a library prints must not reach the pipe of the messages.
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    lock = threading.Lock()

    def send(message: Mapping[str, object]) -> None:
        data = memoryview(pack(message))
        with lock, suppress(BrokenPipeError):
            while data:
                data = data[replies.write(data) or 0 :]

    first = read(requests)
    if first is None:
        return
    try:
        worker = Worker(Uplink(Path(first["library"])), send)
    except ConfigError as error:
        send({"error": error_to_json(error)})
        return
    send({"ready": True})
    try:
        worker.serve(requests)
    finally:
        # The pipe has ended. Threads that hang in the library must not keep the process alive.
        os._exit(0)


if __name__ == "__main__":
    main()
