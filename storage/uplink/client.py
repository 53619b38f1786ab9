"""The daemon's side of the uplink worker: started at first use, watched, replaced when it hangs, dies or gets old."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import sys
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from fednode.errors import ConfigError, Unavailable
from fednode.storage.uplink.failures import tamed
from fednode.storage.uplink.frames import BrokenFrameError, Message, pack, receive

_log = logging.getLogger("fednode.storage")
RECYCLE_AFTER: Final = 5000
"""Calls that one process serves: bounds whatever a native library may leak."""
_GRACE_S: Final = 1.0
"""How long a cancelled call may take to end before the process is killed."""
_START_S: Final = 60.0
_GO_MEMORY: Final = "44MiB"
"""From here on Go tidies up sooner: halves the peak of a large transfer and costs little. No hard limit."""
_TAIL: Final = 2000

Heard = Callable[[Message], None]
"""Told the messages of a call before its last."""


class WorkerProcess:
    """One worker."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise ValueError("the uplink worker needs three pipes")
        self._process = process
        self._requests, self._replies, self._said = process.stdin, process.stdout, process.stderr
        self._pending: dict[int, tuple[asyncio.Future[Message], Heard | None]] = {}
        self._tail = b""
        self._tasks: list[asyncio.Task[None]] = []
        self.calls = 0

    @classmethod
    async def start(cls, library: Path) -> WorkerProcess:
        """A process that has loaded the library. ConfigError where it cannot; Unavailable where it does not start."""
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # a folder `storage` in the working directory must not be imported
                "-m",
                "fednode.storage.uplink.worker",
                str(os.getpid()),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={"GOMEMLIMIT": _GO_MEMORY, **os.environ},
                start_new_session=True,
            )
        except OSError as error:
            raise Unavailable(f"the uplink worker does not start: {error.strerror}") from None
        worker = cls(process)
        try:
            async with asyncio.timeout(_START_S):
                await worker._greet(library)
        except BaseException as error:
            await asyncio.shield(worker.kill())
            if isinstance(error, TimeoutError):
                raise Unavailable(f"the uplink worker did not start within {_START_S:.0f} seconds") from None
            raise
        return worker

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.returncode is None and not self._replies.at_eof()

    @property
    def idle(self) -> bool:
        return not self._pending

    async def exchange(self, number: int, message: Mapping[str, object], heard: Heard | None) -> Message:
        """The last reply to a request. Unavailable where the process dies meanwhile. Cancelling ends the call."""
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._pending[number] = (future, heard)
        self.calls += 1
        try:
            self._requests.write(pack({"id": number, **message}))
            with suppress(ConnectionError):  # the reader of the replies tells it
                await self._requests.drain()
            reply = await future
        except asyncio.CancelledError:
            await asyncio.shield(asyncio.create_task(self._cancel(number)))
            raise
        except BaseException:
            self._pending.pop(number, None)
            raise
        self._pending.pop(number, None)
        return reply

    async def kill(self) -> None:
        """End it now, whatever it does; returns when it is gone."""
        self._signal()
        await self._process.wait()
        await asyncio.gather(*self._tasks)
        self._requests.close()

    def _signal(self) -> None:
        # Not by asyncio's own kill: that may reap the process before asyncio does, which loses its exit status.
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)

    async def _greet(self, library: Path) -> None:
        self._tasks.append(asyncio.create_task(self._keep_tail()))
        self._requests.write(pack({"library": str(library)}))
        try:
            answer = await receive(self._replies)
        except BrokenFrameError:
            answer = None
        if answer is None:
            await self.kill()
            raise self._death()
        if "error" in answer:
            raise ConfigError(str(answer["error"].get("text", "")), hint=str(answer["error"].get("hint", "")))
        self._tasks.append(asyncio.create_task(self._dispatch()))

    async def _cancel(self, number: int) -> None:
        """Ask for the end of a call; where it does not come soon, end the process with everything in it."""
        ended: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._pending[number] = (ended, None)
        try:
            if self.alive:
                self._requests.write(pack({"cancel": number}))
                await asyncio.wait([ended], timeout=_GRACE_S)
            if not ended.done():
                _log.warning("the uplink worker did not end a cancelled call: it is killed, and started again at need")
                await self.kill()
        finally:
            self._pending.pop(number, None)
            if ended.done() and not ended.cancelled():
                ended.exception()  # the process may have died meanwhile, which ends the call too

    async def _dispatch(self) -> None:
        try:
            while (message := await receive(self._replies)) is not None:
                future, heard = self._pending.get(message.get("id", 0), (None, None))
                if future is None or future.done():
                    continue
                if "ok" in message or "error" in message:
                    future.set_result(message)
                elif heard is not None:
                    _tell(heard, message)
        except BrokenFrameError:
            _log.warning("something else than a message came from the uplink worker: it is killed")
        self._signal()
        await self._process.wait()
        for future, _ in self._pending.values():
            if not future.done():
                future.set_exception(self._death())

    def _death(self) -> Unavailable:
        code = self._process.returncode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
        words = tamed(self._tail.decode(errors="replace"))
        if words:
            _log.warning("the uplink worker %s; its last words: %s", how, words)
        return Unavailable(f"the uplink worker {how}", hint="it is started again by itself")

    async def _keep_tail(self) -> None:
        while data := await self._said.read(1 << 14):
            self._tail = (self._tail + data)[-_TAIL:]


def _tell(heard: Heard, message: Message) -> None:
    try:
        heard(message)
    except Exception:
        # It is information only, and other calls wait for their replies behind it.
        _log.exception("what was told about a transfer's progress failed")


class UplinkClient:
    """Calls into a worker process that is always there. From one event loop."""

    def __init__(self, library: Path, *, recycle_after: int = RECYCLE_AFTER) -> None:
        self._library = library
        self._recycle_after = recycle_after
        self._numbers = itertools.count(1)
        self._starting = asyncio.Lock()
        self._worker: WorkerProcess | None = None
        self._retired: set[WorkerProcess] = set()

    @property
    def pid(self) -> int | None:
        """Process id of the living worker."""
        return self._worker.pid if self._worker is not None and self._worker.alive else None

    async def call(self, message: Mapping[str, object], heard: Heard | None = None) -> Message:
        """The last reply: `ok` or `error`. Unavailable where the worker dies; ConfigError where it cannot start."""
        worker = await self._ready()
        try:
            return await worker.exchange(next(self._numbers), message, heard)
        finally:
            if worker in self._retired and worker.idle:
                self._retired.discard(worker)
                await asyncio.shield(worker.kill())

    async def aclose(self) -> None:
        """End every process at once, whatever it does."""
        workers = [*self._retired, *([self._worker] if self._worker is not None else [])]
        self._worker = None
        self._retired.clear()
        for worker in workers:
            await worker.kill()

    async def _ready(self) -> WorkerProcess:
        async with self._starting:
            worker = self._worker
            if worker is not None and worker.alive and worker.calls < self._recycle_after:
                return worker
            self._worker = None
            if worker is not None:
                if worker.alive and not worker.idle:
                    self._retired.add(worker)
                else:
                    await worker.kill()
            self._worker = await WorkerProcess.start(self._library)
            return self._worker


_clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Path, tuple[UplinkClient, set[int]]]]
_clients = weakref.WeakKeyDictionary()


class Shared:
    """One client for all buckets of an event loop that use one library: a worker takes tens of megabytes."""

    def __init__(self, library: Path) -> None:
        self._library = library

    def client(self) -> UplinkClient:
        """For the running loop. Nothing is started yet."""
        clients = _clients.setdefault(asyncio.get_running_loop(), {})
        client, users = clients.setdefault(self._library, (UplinkClient(self._library), set()))
        users.add(id(self))
        return client

    async def release(self) -> None:
        """The last user's release ends the worker."""
        clients = _clients.get(asyncio.get_running_loop(), {})
        if self._library not in clients:
            return
        client, users = clients[self._library]
        users.discard(id(self))
        if not users:
            del clients[self._library]
            await client.aclose()
