"""A federation of real processes for tests: started by the commands that `fednode demo --prepare --json` prints.

Nothing here sleeps to let something happen: `wait` looks at journals, logs and answers until a deadline, and what a
failure shows are the ends of all logs.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil

from fednode.node import app
from fednode.node.home import Home
from fednode.node.protocol.facts import Fact, SnapshotNoted
from fednode.node.protocol.state import State
from fednode.node.site import read_facts, replay
from fednode.types import TxKind

T = TypeVar("T")
Json = dict[str, Any]

PATIENCE_S = 90.0
"""How long anything may take before a test gives up; far more than it takes on a busy machine."""
LOOK_EVERY_S = 0.02
FEDNODE = (sys.executable, "-m", "fednode")
COMMANDS = "commands.json"
"""Where a prepared folder keeps the commands that were printed for it."""
READER = Path(__file__).parents[1] / "reader" / "reader.py"


class Trouble(AssertionError):
    """Something did not come about; the message ends with the logs' last lines."""


@dataclass(frozen=True)
class Answer:
    """What a command left: exit status (negative: signal), its JSON, its talk."""

    status: int
    json: Json
    talk: str

    @property
    def error(self) -> Mapping[str, str]:
        return self.json["error"]


@dataclass
class Running:
    """One process in a session of its own, its output in files."""

    name: str
    argv: Sequence[str]
    out: Path
    err: Path
    popen: subprocess.Popen[bytes]
    killed: bool = False
    """By `kill`, not by itself."""

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def over(self) -> bool:
        return self.popen.poll() is not None

    @property
    def talk(self) -> str:
        return self.err.read_text(errors="replace")

    def children(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).children(recursive=True)
        return []

    def trainer(self) -> psutil.Process | None:
        """Its trainer child, once there is one."""
        return next((c for c in self.children() if "fednode.training.worker" in _words(c)), None)

    def kill(self) -> None:
        """kill -9 of the process alone: what belongs to it must end by itself."""
        if not self.over:
            self.popen.kill()
            self.killed = True
        self.popen.wait()

    def answer(self) -> Answer:
        """Of an ended process."""
        assert self.popen.returncode is not None
        text = self.out.read_text(errors="replace")
        lines = [line for line in text.splitlines() if line.strip()]
        if self.popen.returncode >= 0 and len(lines) != 1:
            raise Trouble(f"{self.name}: expected one JSON object on stdout, found {text!r}\n{self.talk[-2000:]}")
        return Answer(self.popen.returncode, json.loads(lines[0]) if lines else {}, self.talk)


def _alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _words(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def environment(temporary: Path) -> dict[str, str]:
    """What the processes inherit: nothing of fednode, and a place for crash reports that tests can look at."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FEDNODE_")}
    return {**kept, "TMPDIR": str(temporary), "FEDNODE_PROGRESS": "json", "OMP_NUM_THREADS": "1"}


def fednode(*words: str, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = PATIENCE_S) -> Answer:
    """Run one command to its end; `--json` must be among the words."""
    done = subprocess.run(
        [*FEDNODE, *words],
        cwd=cwd,
        env={**environment(cwd), **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    text = done.stdout.decode()
    if len(text.splitlines()) != 1:
        raise Trouble(f"{words}: expected one JSON object on stdout, found {text!r}\n{done.stderr.decode()[-3000:]}")
    return Answer(done.returncode, json.loads(text), done.stderr.decode())


@dataclass
class Federation:
    """A prepared demo folder and the processes that work in it."""

    root: Path
    commands: Json
    processes: list[Running] = field(default_factory=list)
    server: Running | None = None

    # Making -----------------------------------------------------------------------------------------------------

    @classmethod
    def prepare(
        cls, folder: Path, *, task: str = "linear", rounds: int = 3, parties: int = 3, seed: int = 7, **changes: object
    ) -> Federation:
        """`fednode demo --prepare`; `changes` are other values of the agreement's keys."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        options = [f"--task={task}", f"--epochs={rounds}", f"--parties={parties}", f"--seed={seed}"]
        found = fednode("demo", "--prepare", "--json", "--dir", str(folder), *options, cwd=folder.parent)
        assert found.status == 0, found
        whole = cls(folder, found.json)
        for key, value in changes.items():
            whole.edit(folder / "peers.toml", key, value)
        (folder / COMMANDS).write_text(json.dumps(found.json))
        return whole

    @classmethod
    def copy(cls, source: Path, folder: Path) -> Federation:
        """A copy of a stopped federation, with its paths and its own ports put right: a machine of its own."""
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("logs"))
        settings = folder / "devnet" / "settings.json"
        nodes = json.loads(settings.read_text())["parties"]
        ports = dict(zip([node["port"] for node in nodes], free_ports(len(nodes)), strict=True))
        changed = {str(source): str(folder)}
        changed |= {f"127.0.0.1:{old}": f"127.0.0.1:{new}" for old, new in ports.items()}
        changed |= {f'"port": {old}': f'"port": {new}' for old, new in ports.items()}
        for path in [settings, *folder.glob("*.toml"), *folder.glob("*/*.toml")]:
            text = path.read_text()
            for old, new in changed.items():
                text = text.replace(old, new)
            path.write_text(text)
        text = (folder / COMMANDS).read_text()
        return cls(folder, json.loads(text.replace(str(source), str(folder))))

    @staticmethod
    def edit(path: Path, key: str, value: object) -> None:
        """Put another value for a key that stands once in a TOML file."""
        text, count = re.subn(rf"^{key} = [^#\n]*", f"{key} = {json.dumps(value)} ", path.read_text(), flags=re.M)
        assert count == 1, f"{path}: {key} stands there {count} times"
        path.write_text(text)

    @property
    def names(self) -> list[str]:
        return list(self.commands["parties"])

    def home(self, party: str) -> Home:
        return Home(self.root / party)

    # Starting and ending ----------------------------------------------------------------------------------------

    def start(
        self, name: str, argv: Sequence[str], *, env: Mapping[str, str] | None = None, logs: str = "logs"
    ) -> Running:
        folder = self.root / logs
        folder.mkdir(parents=True, exist_ok=True)
        number = sum(1 for each in self.processes if each.name == name)
        out, err = folder / f"{name}.{number}.out", folder / f"{name}.{number}.err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            popen = subprocess.Popen(
                argv,
                cwd=self.root,
                env={**environment(folder), **self.commands.get("env", {}), **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        self.processes.append(Running(name, argv, out, err, popen))
        return self.processes[-1]

    def party(
        self, party: str, what: str, *more: str, crash_at: str = "", env: Mapping[str, str] | None = None
    ) -> Running:
        """One of a party's commands: `init_head`, `run`, `close_head`, `status`."""
        argv = [*self.commands["parties"][party][what], *more]
        crash = {"FEDNODE_CRASH_AT": crash_at} if crash_at else {}
        return self.start(f"{party}-{what}", argv, env={**crash, **(env or {})})

    def serve(self) -> Running:
        """Start the embedded head, and wait until it says that it is ready."""
        self.server = server = self.start("devnet", self.commands["devnet"])
        self.wait(lambda: server.over or server.out.read_text().endswith("\n"), "the embedded head is ready")
        if server.over:
            raise Trouble(f"the embedded head ended: {server.out.read_text()}" + self.tails())
        return server

    def open(self) -> None:
        """Embedded head, and init-head at all parties."""
        self.serve()
        self.succeed([self.party(name, "init_head") for name in self.names])

    def finish(self, *, timeout: float = PATIENCE_S) -> dict[str, Json]:
        """`run` at all parties, to the end; the answers by party."""
        answers = self.succeed([self.party(name, "run") for name in self.names], timeout=timeout)
        return dict(zip(self.names, answers, strict=True))

    def end(self) -> None:
        """No process of this federation is left."""
        left: list[psutil.Process] = []
        for each in self.processes:
            left += each.children()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(each.pid, signal.SIGKILL)
            each.popen.wait()
        for child in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(left, timeout=10)

    # Waiting ----------------------------------------------------------------------------------------------------

    def kill_all(self) -> None:
        """A power cut: every process at once, without a word."""
        running = [each for each in self.processes if not each.over]
        trainers = [child for each in running for child in each.children()]
        for each in running:
            each.popen.kill()
        for each in running:
            each.kill()
        self.wait(lambda: not any(map(_alive, trainers)), "the children of killed daemons are gone")

    def wait(self, condition: Callable[[], T | None], what: str, *, timeout: float = PATIENCE_S) -> T:
        """The first true value of `condition`. Trouble with the logs' ends when it never comes."""
        deadline = time.monotonic() + timeout
        while not (found := condition()):
            if time.monotonic() > deadline:
                raise Trouble(f"not within {timeout:.0f} s: {what}" + self.tails())
            time.sleep(LOOK_EVERY_S)
        return found

    def over(self, process: Running, *, timeout: float = PATIENCE_S) -> Answer:
        """Wait until a process has ended."""
        self.wait(lambda: process.over, f"{process.name} ends", timeout=timeout)
        return process.answer()

    def succeed(self, processes: Sequence[Running], *, timeout: float = PATIENCE_S) -> list[Json]:
        """Wait until all have ended well; the first failure ends the wait."""

        def settled() -> bool:
            for each in processes:
                if each.over and each.popen.returncode != 0:
                    raise Trouble(f"{each.name} ended with {each.popen.returncode}: {each.answer()}" + self.tails())
            return all(each.over for each in processes)

        self.wait(settled, f"{', '.join(each.name for each in processes)} succeed", timeout=timeout)
        return [each.answer().json for each in processes]

    def command(self, party: str, what: str, *more: str) -> Answer:
        """One of a party's commands, to its end."""
        return self.over(self.party(party, what, *more))

    def tails(self, lines: int = 12) -> str:
        """The last lines of every process that still runs or was the last of its name."""
        last = {each.name: each for each in self.processes}
        parts = [""]
        for each in last.values():
            state = "runs" if not each.over else f"status {each.popen.returncode}"
            text = each.err.read_text(errors="replace").splitlines()[-lines:] + each.out.read_text().splitlines()[-3:]
            parts.append(f"--- {each.name} ({state})\n" + "\n".join(line[:400] for line in text))
        crashes = sorted(self.root.glob("logs*/fednode-crash-*.txt"))
        parts += [f"--- {path.name}\n{path.read_text()[-3000:]}" for path in crashes]
        return "\n".join(parts)

    # Looking ----------------------------------------------------------------------------------------------------

    def facts(self, party: str) -> list[Fact]:
        """The party's journal, also while its daemon writes; empty before there is one."""
        return list(read_facts(self.home(party)))

    def has(self, name: str, kind: type[Fact], **fields: object) -> bool:
        """The journal holds a fact of this kind with these fields."""
        return any(
            isinstance(fact, kind) and all(getattr(fact, key) == value for key, value in fields.items())
            for fact in self.facts(name)
        )

    def state(self, party: str) -> State:
        return replay(app.open_site(self.home(party), peers=self.root / "peers.toml", epochs=None))

    def signals(self, party: str) -> list[tuple[str, int]]:
        """(sender, round) of every confirmed signal in the party's journal, repeats included."""
        found: list[tuple[str, int]] = []
        for fact in self.facts(party):
            for tx in fact.transactions if isinstance(fact, SnapshotNoted) else ():
                assert tx.kind is TxKind.SIGNAL, tx
                assert tx.sender is not None
                assert tx.content is not None
                found.append((tx.sender, tx.content.round))
        return found

    def bucket(self, party: str) -> Path:
        return self.root / party / "bucket"

    def read_independently(self) -> Json:
        """Recompute the run from the buckets by tests/reader/reader.py, as a program of its own."""
        words = [f"{name}={self.bucket(name)}" for name in self.names]
        done = subprocess.run([sys.executable, str(READER), *words], capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()
        return json.loads(done.stdout)

    def check_complete(self, digest: str) -> None:
        """The run ended as if nothing had happened: one adapter, one signal for each party and round, exact payout."""
        states = {name: self.state(name) for name in self.names}
        rounds = next(iter(states.values())).rules.rounds
        each_once = sorted((name, number) for name in self.names for number in range(rounds + 2))
        for name, state in states.items():
            assert state.digests[-1] == digest, f"{name}: {state.digests[-1]} instead of {digest}" + self.tails()
            assert sorted(self.signals(name)) == each_once, f"{name}: signals {sorted(self.signals(name))}"
            assert state.paid is not None
            assert state.paid.verified
            assert dict(state.paid.paid) == dict.fromkeys(self.names, state.rules.deposit)
            assert not state.faults
            assert state.divergence is None
        found = self.read_independently()
        assert found["digests"][-1] == digest
        crashes = list(self.root.glob("logs*/fednode-crash-*"))
        assert not crashes, self.tails()


def undisturbed(opened: Path, folder: Path, *, timeout: float = PATIENCE_S) -> str:
    """Digest of a whole run of a copy of an opened federation; the copy stays in `folder`."""
    whole = Federation.copy(opened, folder)
    try:
        whole.serve()
        digest = str(whole.finish(timeout=timeout)["alice"]["digest"])
        whole.check_complete(digest)
        return digest
    finally:
        whole.end()


def free_ports(count: int) -> list[int]:
    """Free ports that no outgoing connection is ever given (they lie below the range for those)."""
    found: list[int] = []
    while len(found) < count:
        port = random.randint(12_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in found:
                found.append(port)
    return found
