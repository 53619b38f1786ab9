"""Real S3 servers as processes on loopback: moto (knows If-None-Match, takes any key) and `rclone serve s3` (checks
keys, replaces whatever it is told to)."""

from __future__ import annotations

import contextlib
import queue
import re
import secrets
import subprocess
import sys
import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.request import Request, urlopen

from fednode.storage.rclone_process import find_program


@dataclass(frozen=True)
class Service:
    """Where an S3 server is, and with what it is opened. `folder` holds its buckets where it keeps them in one."""

    endpoint: str
    bucket: str
    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    folder: Path | None = None
    region: str = "us-east-1"

    def text(self, secret: str | None = None) -> str:
        """A credentials file."""
        return (
            f'access_key_id = "{self.access_key_id}"\n'
            f'secret_access_key = "{self.secret_access_key if secret is None else secret}"\n'
        )


@contextlib.contextmanager
def moto() -> Generator[Service]:
    """A moto server with a bucket in memory."""
    code = "from moto.server import main; main()"
    with _served(
        [sys.executable, "-c", code, "-H", "127.0.0.1", "-p", "0"], r"Running on (http://127\.[\d.:]+)"
    ) as url:
        with urlopen(Request(f"{url}/bucket", method="PUT"), timeout=30) as answer:
            assert answer.status == 200
        yield Service(url, "bucket", "AKID" + secrets.token_hex(8), secrets.token_hex(20))


@contextlib.contextmanager
def rclone_s3(folder: Path) -> Generator[Service]:
    """`rclone serve s3` over the folder of a bucket."""
    (folder / "bucket").mkdir(parents=True)
    service = Service("", "bucket", "AKID" + secrets.token_hex(8), secrets.token_hex(20), folder)
    command = [str(find_program()), "serve", "s3", "--addr", "127.0.0.1:0", "--vfs-cache-mode=off", str(folder)]
    environment = {
        "HOME": str(folder.parent), "RCLONE_CONFIG": "/dev/null",
        "RCLONE_AUTH_KEY": f'"{service.access_key_id},{service.secret_access_key}"',
    }  # fmt: skip
    with _served(command, r"server on \[(http://[\d.:]+)/\]", environment) as url:
        yield Service(url, "bucket", service.access_key_id, service.secret_access_key, folder)


@contextlib.contextmanager
def _served(command: list[str], address: str, environment: dict[str, str] | None = None) -> Generator[str]:
    """A process that says its address on stderr; killed at the end."""
    env = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"} if environment is None else environment
    process = subprocess.Popen(
        command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    addresses: queue.SimpleQueue[str] = queue.SimpleQueue()
    # It reads on to the end: a full pipe would stop the server.
    reader = threading.Thread(target=_addresses, args=(process.stderr, address, addresses))
    reader.start()
    try:
        found = addresses.get(timeout=60)
        assert found.startswith("http"), f"the server ended: {found}"
        yield found
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stderr.close()


def _addresses(said: IO[str], pattern: str, addresses: queue.SimpleQueue[str]) -> None:
    lines: list[str] = []
    for line in said:
        lines.append(line)
        if found := re.search(pattern, line):
            addresses.put(found[1])
    addresses.put("".join(lines))
