"""The trainer child as a real process."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path

import pytest

from fednode.errors import ConfigError, TrainingError
from fednode.training.child import LOG_LIMIT, ChildLog, environment
from fednode.training.client import TrainerProcess
from fednode.training.exact.initial import write_initial
from fednode.training.exact.schema import Schema
from fednode.types import PartyName, RunId, TrainerSetup, TrainRequest

pytestmark = pytest.mark.process


def setup(**changes: object) -> TrainerSetup:
    training = {"steps": 5, "batch": 16, "learning_rate": 0.01, "phase": "alternate"}
    fields = {
        "task": "linear",
        "model": {"rank": 4, "alpha": 8, "quantisation": "none"},
        "training": training,
        "codec": "i8",
        "seed": 5,
        "party": PartyName("alice"),
        "party_index": 0,
        "run": RunId("0" * 32),
        "data": {},
        "device": "cpu",
        "threads": 1,
        **changes,
    }
    return TrainerSetup(**fields)  # type: ignore[arg-type]  # a test's shorthand


LONG = {"steps": 10_000_000, "batch": 16, "learning_rate": 0.01, "phase": "alternate"}


@pytest.fixture
async def trainer(tmp_path: Path) -> AsyncIterator[TrainerProcess]:
    process = TrainerProcess(setup(), tmp_path / "log")
    yield process
    await process.aclose()


async def request(trainer: TrainerProcess, folder: Path) -> TrainRequest:
    schema = Schema.of(await trainer.describe(), rank=4, alpha=8, quantisation="none", codec="i8")
    base = write_initial(folder / "s0", schema, 5)
    return TrainRequest(1, "B", base, str(folder / "s0"), None, str(folder), str(folder), schema.digest)


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def wait_for_end(pidfd: int) -> bool:
    """Whether the process of a pidfd ends within half a minute."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(30_000))


async def test_train_twice_gives_the_same_files(trainer: TrainerProcess, tmp_path: Path) -> None:
    seen: list[tuple[int, int, float]] = []
    task = await request(trainer, tmp_path)
    first = await trainer.train(task, lambda *told: seen.append(told))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    pid = trainer.pid
    again = await trainer.train(task)
    assert trainer.pid == pid
    assert (again.object, again.size, again.bundle, again.loss) == (first.object, first.size, first.bundle, first.loss)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert {"000001.safetensors", f"{first.object}.safetensors"} <= set(before)
    assert seen[-1][:2] == (5, 5)


async def test_evaluate_and_alone(trainer: TrainerProcess, tmp_path: Path) -> None:
    base = await trainer.evaluate(None, tmp_path)
    alone = await trainer.alone(6, [0.003, 0.03], tmp_path)
    assert set(base) == {"loss", "accuracy", "count"}
    assert alone["loss"] < base["loss"]
    assert alone["rate"] in (0.003, 0.03)
    task = await request(trainer, tmp_path)
    assert await trainer.evaluate(Path(task.state), tmp_path) == base


async def test_errors_of_the_child_keep_their_kind(trainer: TrainerProcess, tmp_path: Path) -> None:
    task = await request(trainer, tmp_path)
    os.unlink(task.state)
    with pytest.raises(TrainingError, match="s0 is missing"):
        await trainer.train(task)
    assert trainer.pid is not None
    bad = TrainerProcess(setup(training={"steps": -1}), tmp_path / "log")
    with pytest.raises(ConfigError, match=r"training\.steps"):
        await bad.describe()
    assert bad.pid is None


async def test_killed_child_is_an_error_and_the_next_call_works(tmp_path: Path) -> None:
    trainer = TrainerProcess(setup(training=LONG), tmp_path / "log")
    task = await request(trainer, tmp_path)
    pid = trainer.pid
    assert pid is not None

    def kill(step: int, steps: int, loss: float) -> None:
        os.kill(pid, signal.SIGKILL)

    with pytest.raises(TrainingError, match="killed by SIGKILL"):
        await trainer.train(task, kill)
    assert (await trainer.describe()).tensors
    assert trainer.pid not in (None, pid)
    await trainer.aclose()


async def test_cancelled_call_ends_the_child(tmp_path: Path) -> None:
    trainer = TrainerProcess(setup(training=LONG), tmp_path / "log")
    task = await request(trainer, tmp_path)
    pid = trainer.pid
    assert pid is not None
    running = asyncio.Event()
    call = asyncio.create_task(trainer.train(task, lambda *_: running.set()))
    await running.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert gone(pid)
    assert trainer.pid is None


async def test_close_during_a_call_fails_the_call(tmp_path: Path) -> None:
    trainer = TrainerProcess(setup(training=LONG), tmp_path / "log")
    task = await request(trainer, tmp_path)
    running = asyncio.Event()
    call = asyncio.create_task(trainer.train(task, lambda *_: running.set()))
    await running.wait()
    await trainer.aclose()
    with pytest.raises(TrainingError, match="killed by SIGKILL"):
        await call


PARENT = """
import asyncio, dataclasses, json, sys
from pathlib import Path
from fednode.training.client import TrainerProcess
from fednode.types import TrainerSetup, TrainRequest

async def main():
    given = json.loads(sys.argv[1])
    trainer = TrainerProcess(TrainerSetup(**given["setup"]), Path(given["log"]))
    await trainer.describe()
    def told(*_):
        print(trainer.pid, flush=True)
    await trainer.train(TrainRequest(**given["request"]), told)

asyncio.run(main())
"""


def test_child_ends_with_a_killed_parent(tmp_path: Path) -> None:
    async def prepare() -> TrainRequest:
        trainer = TrainerProcess(setup(), tmp_path / "log")
        try:
            return await request(trainer, tmp_path)
        finally:
            await trainer.aclose()

    task = asyncio.run(prepare())
    given = {"setup": asdict(setup(training=LONG)), "request": asdict(task), "log": str(tmp_path / "log2")}
    with subprocess.Popen([sys.executable, "-c", PARENT, json.dumps(given)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        pidfd = os.pidfd_open(child)
        assert not gone(child)
        parent.kill()
        assert wait_for_end(pidfd)
        os.close(pidfd)


def test_worker_by_hand(tmp_path: Path) -> None:
    """Bad requests get a reply, a request without setup too, and the end of stdin ends a training step."""
    with subprocess.Popen(
        [sys.executable, "-m", "fednode.training.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None

        def ask(message: dict[str, object]) -> dict[str, object]:
            worker.stdin.write(json.dumps(message).encode() + b"\n")
            worker.stdin.flush()
            return json.loads(worker.stdout.readline())

        assert ask({"op": "describe"})["error"]["code"] == "training"
        assert "dance" in ask({"op": "dance"})["error"]["message"]
        assert "lacks" in ask({"op": "setup", "task": "linear"})["error"]["message"]
        facts = ask({"op": "setup", **asdict(setup(training=LONG))})
        assert facts["ok"]
        assert ask({"op": "describe"})["base"] == facts["base"]
        assert "progress" in ask({"op": "alone", "rounds": 1, "rates": [], "data": ""})
        worker.stdin.close()
        assert worker.wait(30) == 0


def test_environment_is_offline_without_a_hub_name() -> None:
    assert environment(setup(), {"PATH": "x"})["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in environment(setup(model={"name": "org/model"}), {})
    assert environment(setup(model={"name": "org/model", "path": "/m"}), {})["HF_HUB_OFFLINE"] == "1"
    assert environment(setup(threads=3), {"OMP_NUM_THREADS": "9"})["OMP_NUM_THREADS"] == "3"


async def test_log_is_bounded(tmp_path: Path) -> None:
    log, source = ChildLog(tmp_path / "log"), asyncio.StreamReader()
    copying = asyncio.create_task(log.copy(source))
    for _ in range(3 * LOG_LIMIT // 4096):
        source.feed_data(b"x" * 4095 + b"\n")
    source.feed_data(b"the end\n")
    source.feed_eof()
    await copying
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2 * LOG_LIMIT
    assert log.last_lines().endswith("the end")
