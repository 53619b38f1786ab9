"""The three processes of a network: PostgreSQL, the planet (satellite and storage nodes), the S3 gateway."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
from functools import partial
from pathlib import Path
from typing import Final

from .files import Gateway, Project
from .processes import child, until
from .programs import CannotRun, Programs, database_user

_SECONDS: Final = 60
_TRIES: Final = 5
_DATABASE: Final = {
    "listen_addresses": "", "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off",
    "max_connections": "200", "shared_buffers": "32MB", "unix_socket_permissions": "0700", "logging_collector": "off",
}  # fmt: skip


def environment(home: Path, **more: str) -> dict[str, str]:
    """Nothing of the caller's environment but PATH: no grant, key or proxy of his reaches a test network."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(home), "TMPDIR": str(home), "LC_ALL": "C", **more}


def database(programs: Programs, runtime: Path, log: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A throwaway PostgreSQL that listens on a socket in a private folder only; its URL. It keeps nothing safe."""
    home, user = runtime / "database", database_user()
    home.mkdir(mode=0o700)
    if user is not None:
        os.chown(home, user.pw_uid, user.pw_gid)
    data = home / "data"
    making = [
        str(programs.postgres / "initdb"), "-D", str(data), "-U", "storj", "-A", "trust", "-E", "UTF8",
        "--locale=C", "--no-sync",
    ]  # fmt: skip
    made = child(making, home, log, environment(home), user)
    made.communicate(timeout=_SECONDS)
    if made.returncode:
        raise CannotRun(f"initdb ended with status {made.returncode}; its words are in {log}")
    settings = [word for name, value in _DATABASE.items() for word in ("-c", f"{name}={value}")]
    command = [str(programs.postgres / "postgres"), "-D", str(data), "-k", str(home), *settings]
    server = child(command, home, log, environment(home), user)
    asking = [str(programs.postgres / "pg_isready"), "-q", "-h", str(home), "-U", "storj", "-d", "postgres"]
    if not until(lambda: subprocess.run(asking, stdin=subprocess.DEVNULL).returncode == 0, server, _SECONDS):
        raise CannotRun(f"PostgreSQL did not start; its words are in {log}")
    return server, f"postgres://storj@/postgres?host={home}&sslmode=disable"


def planet(
    programs: Programs, runtime: Path, log: Path, url: str
) -> tuple[subprocess.Popen[bytes], str, list[str], list[Project]]:
    """The satellite and its storage nodes; the satellite's address, the nodes', the projects."""
    home = runtime / "planet"
    home.mkdir(mode=0o700)
    out = home / "planet.json"
    command = [str(programs.devnet), "-test.run", "^TestDevnet$", "-test.timeout", "0", "-test.v"]
    process = child(command, home, log, environment(
        home, DEVNET_OUT=str(out), DEVNET_CONTROL=str(control(runtime)), STORJ_TEST_LOG_LEVEL="error",
        STORJ_TEST_POSTGRES=url, STORJ_TEST_COCKROACH="omit", STORJ_TEST_TIDB="omit",
    ))  # fmt: skip
    if not until(out.exists, process, _SECONDS):
        raise CannotRun(f"the satellite did not start; its words are in {log}")
    said = json.loads(out.read_bytes())
    out.unlink()
    return process, said["satellite"], said["nodes"], [Project(**project) for project in said["projects"]]


def control(runtime: Path) -> Path:
    """The planet's socket for commands."""
    return runtime / "planet" / "control"


def gateway(programs: Programs, home: Path, log: Path, grant: str) -> tuple[subprocess.Popen[bytes], Gateway]:
    """The S3 gateway before a grant, on a spare port of 127.0.0.1. Another try where someone else took the port."""
    home.mkdir(mode=0o700)
    for _ in range(_TRIES):
        port = _spare_port()
        keys = Gateway(f"http://127.0.0.1:{port}", secrets.token_hex(16), secrets.token_hex(32))
        # Keys and grant by the environment: argv can be read by every user of the machine. INFO would log the keys.
        command = [
            str(programs.gateway), "run", "--config-dir", str(home), "--log.level", "error", "--metrics.addr=",
            "--metrics.event-addr=", "--tracing.enabled=false", "--server.address", f"127.0.0.1:{port}",
        ]  # fmt: skip
        process = child(command, home, log, environment(
            home, STORJ_ACCESS=grant,
            STORJ_MINIO_ACCESS_KEY=keys.access_key, STORJ_MINIO_SECRET_KEY=keys.secret_key,
        ))  # fmt: skip
        if until(partial(_answers, port), process, _SECONDS):
            return process, keys
        process.kill()
        process.wait()
    raise CannotRun(f"the S3 gateway did not start; its words are in {log}")


def _spare_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _answers(port: int) -> bool:
    with socket.socket() as asker:
        return asker.connect_ex(("127.0.0.1", port)) == 0
