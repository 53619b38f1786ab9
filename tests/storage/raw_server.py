"""A server of the tests on bare sockets, for what http.server would not do: answer early, lie, hang up."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Connection:
    """One connection to the server; `number` counts them from 1."""

    socket: socket.socket
    number: int
    left: bytes = b""

    def request(self) -> bytes:
        """Request line and headers of the next request; the beginning of its body stays in `left`. Empty: no more."""
        while b"\r\n\r\n" not in self.left:
            part = self.socket.recv(65536)
            if not part:
                return b""
            self.left += part
        head, _, self.left = self.left.partition(b"\r\n\r\n")
        return head

    def body(self, size: int) -> None:
        """Take the body of a request of `size` bytes."""
        while len(self.left) < size:
            size -= len(self.left)
            self.left = self.socket.recv(65536)
            if not self.left:
                return
        self.left = self.left[size:]

    def say(self, *parts: bytes) -> None:
        self.socket.sendall(b"".join(parts))


@dataclass
class Raw:
    url: str
    connections: int = 0
    ended: queue.SimpleQueue[int] = field(default_factory=queue.SimpleQueue[int])

    async def closed(self) -> None:
        """Wait until the server has closed one more connection."""
        await asyncio.to_thread(self.ended.get, timeout=30)


@contextlib.contextmanager
def raw(serve: Callable[[Connection], None], tls: tuple[Path, Path] | None = None) -> Generator[Raw]:
    """`serve` has each connection, in a thread of its own, and closes it by returning. `tls`: certificate and key."""
    listener = socket.create_server(("127.0.0.1", 0))
    context = None
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
    found = Raw(f"{'https' if tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}")
    threads: list[threading.Thread] = []
    open_now: set[socket.socket] = set()

    def one(accepted: socket.socket, number: int) -> None:
        try:
            if context is not None:
                accepted = context.wrap_socket(accepted, server_side=True)
            open_now.add(accepted)
            serve(Connection(accepted, number))
        except OSError:
            pass  # the other side is gone
        finally:
            open_now.discard(accepted)
            accepted.close()
            found.ended.put(number)

    def accept() -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return
            found.connections += 1
            threads.append(threading.Thread(target=one, args=(accepted, found.connections)))
            threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield found
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()
        listener.close()
        for still in list(open_now):
            with contextlib.suppress(OSError):
                still.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
