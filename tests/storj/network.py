"""A real Storj network for the tests that ask for one: satellite, storage nodes, S3 gateway, the vendor's program."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .loopback import client, services
from .loopback.files import Description, Gateway, Project, load
from .loopback.processes import end
from .loopback.programs import find, missing

__all__ = ["Gateway", "Network", "Project", "missing", "storj_network"]

_SECONDS = 60


@dataclass(frozen=True)
class Network:
    """A network that runs. Its projects are customers of their own; the gateway stands before the first one."""

    folder: Path
    described: Description

    @property
    def satellite(self) -> str:
        """NODEID@127.0.0.1:PORT"""
        return self.described.satellite

    @property
    def projects(self) -> list[Project]:
        """Three of them, each with api_key, passphrase and grant (everything allowed)."""
        return self.described.projects

    @property
    def api_key(self) -> str:
        """The first project's."""
        return self.projects[0].api_key

    @property
    def grant(self) -> str:
        """The first project's root grant: everything allowed, no expiry."""
        return self.projects[0].grant

    @property
    def gateway(self) -> Gateway:
        """endpoint, access_key, secret_key, region of the S3 gateway."""
        assert self.described.gateway is not None, "this network was started without a gateway"
        return self.described.gateway

    def freeze(self) -> None:
        """Satellite and storage nodes stop in mid-air: connections stay open and nothing answers."""
        client.signal_satellite(self.described, signal.SIGSTOP)

    def thaw(self) -> None:
        """They go on as if nothing had been."""
        client.signal_satellite(self.described, signal.SIGCONT)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Frozen inside the block, thawed after it whatever happens there."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def kill(self) -> None:
        """SIGKILL for satellite and storage nodes, for good. The gateway and the database stay."""
        client.signal_satellite(self.described, signal.SIGKILL)

    def stop_node(self, index: int) -> None:
        """End one storage node for good, unannounced. With three left of four, every segment can still be read."""
        client.stop_node(self.described, index)

    def uplink(self, *words: str, project: int = 0, grant: str | None = None) -> subprocess.CompletedProcess[str]:
        """Storj's own command-line program with a project's root grant, or `grant`; never fails by itself."""
        home = self.folder / "uplink"
        home.mkdir(mode=0o700, exist_ok=True)
        access = self.projects[project].grant if grant is None else grant
        return subprocess.run(
            [str(self.program), words[0], "--interactive=false", "--analytics=false", *words[1:]],
            env=services.environment(home, UPLINK_ACCESS=access), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=_SECONDS,
        )  # fmt: skip

    @property
    def program(self) -> Path:
        """Storj's own command-line program, for those who call it themselves."""
        return find().uplink

    @contextmanager
    def gateway_before(self, grant: str) -> Iterator[Gateway]:
        """Another S3 gateway, whose users may do what `grant` allows. Raises CannotRun where the grant has expired."""
        home = Path(tempfile.mkdtemp(prefix="gateway-", dir=self.folder))
        process, keys = services.gateway(find(), home / "data", home / "log", grant)
        try:
            yield keys
        finally:
            end(process, signal.SIGTERM, _SECONDS)

    def make_bucket(self, name: str, project: int = 0) -> str:
        """A new bucket of a project (100 at most); its name."""
        done = self.uplink("mb", f"sj://{name}", project=project)
        assert done.returncode == 0, done.stderr
        return name


@contextmanager
def storj_network(folder: Path, *, gateway: bool = True) -> Iterator[Network]:
    """A network of one's own in `folder`; gone after the block, or when this process dies. Raises CannotRun.

    About two seconds and 450 MB. Ask `missing()` before.
    """
    supervisor = client.start(folder, with_gateway=gateway, leashed=True)
    try:
        described = load(folder)
        assert described is not None
        yield Network(folder, described)
    finally:
        assert supervisor.stdin is not None
        supervisor.stdin.close()
        supervisor.wait(_SECONDS)
