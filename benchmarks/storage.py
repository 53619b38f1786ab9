"""Speed, CPU time and memory of one put and one get, for every store that can be had on this machine.

    python benchmarks/storage.py [--json] [--sizes MB ...] [--turns N] [--repeats N] [--stores NAME ...]

Rows: our backends, and beside them the vendor's own tools on the same Storj network (`uplink cp`, `rclone copyto`).
Goals: within 10 % of the vendor's tool, at most 64 MB above the file's mapping. A put of ours also looks before and
after; a get also hashes and syncs. Everything is on loopback: the numbers compare programs, not networks. The stores
take turns, because the network is at times a third faster than at others. `MB/s` is the best repeat, `CPU s` the mean
of one (with child processes), `memory` the most that a repeat added to anonymous memory, all processes together.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from fednode.errors import ConfigError
from fednode.storage.credentials import credentials_text
from fednode.storage.local import LocalBucket
from fednode.storage.opening import open_bucket
from fednode.storage.rclone_process import find_program
from fednode.storage.remote import RemoteBucket
from fednode.storage.settings import LocalSettings, RcloneSettings, S3Settings, UplinkSettings
from fednode.storage.uplink.library import find_library
from fednode.types import Digest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

from tests.storj.network import Network, missing, storj_network  # noqa: E402  # the folder was made known just above

Row = dict[str, object]
Step = Callable[[int], Awaitable[object]]
"""One repeat."""


@dataclass(frozen=True)
class Job:
    """What one measuring process is told, as JSON: no secret but in files and its environment."""

    store: str
    operation: str
    size: int
    turn: int
    repeats: int
    settings: dict[str, str]
    source: str
    digest: str


def anonymous_kib() -> int:
    """Of this process and all below it."""
    seen, waiting = 0, [os.getpid()]
    while waiting:
        number = waiting.pop()
        with contextlib.suppress(OSError):  # gone meanwhile
            lines = Path(f"/proc/{number}/status").read_text().splitlines()
            seen += sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
            # Of the first thread alone: no other one starts processes here, and looking must not cost what is measured.
            waiting += map(int, Path(f"/proc/{number}/task/{number}/children").read_text().split())
    return seen


@contextlib.contextmanager
def watched() -> Generator[list[int]]:
    """Peak of `anonymous_kib` above its start, in one item."""
    start, peak, over = anonymous_kib(), [0], threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            peak[0] = max(peak[0], anonymous_kib() - start)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def cpu_s() -> float:
    return sum(os.times()[:4])  # with children that have ended


async def program(*words: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    _, said = await process.communicate()
    if process.returncode:
        raise SystemExit(f"{Path(words[0]).name} ended with {process.returncode}: {said.decode()[-300:]}")


def key_of(job: Job, number: int) -> str:
    """Every store has keys of its own: some share a bucket, and what stands there already is only compared."""
    return f"bench/{job.store.replace(' ', '-')}/{job.size}/{number}"


def vendor(job: Job, folder: Path) -> Step:
    """The vendor's own tool; grant and options are in the environment."""
    tool, root = job.settings["program"], job.settings["root"]
    verb, flags = ("cp", ["--progress=false"]) if job.store == "uplink cp" else ("copyto", ["--retries=1"])

    async def step(number: int) -> None:
        ends = [job.source, f"{root}/{key_of(job, number)}"]
        if job.operation == "get":
            ends = [ends[1], str(folder / f"got-{number}")]
        await program(tool, verb, *flags, *ends)

    return step


def ours(job: Job, bucket: LocalBucket | RemoteBucket, folder: Path) -> Step:
    """One of our backends."""

    async def step(number: int) -> None:
        key = key_of(job, number)
        if job.operation == "put":
            await bucket.put(key, Path(job.source))
        else:
            await bucket.get(key, folder / f"got-{number}", size=job.size, sha256=Digest(job.digest))

    return step


async def measure(job: Job) -> Row:
    """In a process of its own."""
    with tempfile.TemporaryDirectory(dir=Path(job.source).parent) as place:
        folder, times = Path(place), list[float]()
        bucket = None if "program" in job.settings else open_bucket(settings_of(job.settings))
        step = vendor(job, folder) if bucket is None else ours(job, bucket, folder)
        before = cpu_s()
        with watched() as peak:
            for number in range(job.turn * job.repeats, (job.turn + 1) * job.repeats):
                began = time.perf_counter()
                await step(number)
                times.append(time.perf_counter() - began)
            if bucket is not None:
                await bucket.aclose()
        return {
            "store": job.store, "operation": job.operation, "mb": job.size / 1e6,
            "mb_per_s": round(job.size / 1e6 / min(times), 1), "cpu_s": round((cpu_s() - before) / job.repeats, 2),
            "memory_mb": round(peak[0] * 1024 / 1e6, 1),
        }  # fmt: skip


def settings_of(values: dict[str, str]) -> LocalSettings | S3Settings | RcloneSettings | UplinkSettings:
    match values["backend"]:
        case "local":
            return LocalSettings(Path(values["bucket"]))
        case "s3":
            return S3Settings(values["bucket"], Path(values["credentials"]), values["endpoint"])
        case "rclone":
            return RcloneSettings(values["bucket"], Path(values["credentials"]))
        case _:
            return UplinkSettings(values["bucket"], Path(values["credentials"]))


Stores = dict[str, tuple[dict[str, str], dict[str, str]]]
"""By name: settings, and environment of the measuring process."""


def secret(path: Path, text: str) -> str:
    path.touch(mode=0o600)
    path.write_text(text)
    return str(path)


def storj_stores(network: Network, folder: Path) -> tuple[Stores, dict[str, str]]:
    """Stores on a Storj network, and why others are not there."""
    from tests.storj.loopback.programs import find

    bucket, grant, absent = network.make_bucket("bench"), network.grant, dict[str, str]()
    file = secret(folder / "grant.toml", credentials_text({"grant": grant}, None))
    gateway = network.gateway
    native = {"bucket": bucket, "credentials": file}
    keys = secret(
        folder / "gateway.toml",
        credentials_text({"access_key_id": gateway.access_key, "secret_access_key": gateway.secret_key}, None),
    )
    stores: Stores = {
        "s3-gateway": ({"backend": "s3", "bucket": bucket, "endpoint": gateway.endpoint, "credentials": keys}, {}),
        "rclone": ({"backend": "rclone", **native}, {}),
        "rclone copyto": (
            {"program": str(find_program()), "root": f"B:{bucket}"},
            {"RCLONE_CONFIG": "/dev/null", "RCLONE_CONFIG_B_TYPE": "storj", "RCLONE_CONFIG_B_ACCESS_GRANT": grant},
        ),
        "uplink": ({"backend": "uplink", **native}, {}),
        "uplink cp": (
            {"program": str(find().uplink), "root": f"sj://{bucket}"}, {"UPLINK_ACCESS": grant, "HOME": str(folder)}
        ),
    }  # fmt: skip
    try:
        find_library(None)
    except ConfigError as error:
        del stores["uplink"]
        absent["uplink"] = f"{error.message}; {error.hint}"
    return stores, absent


def prepared(stack: contextlib.ExitStack, folder: Path, wanted: set[str]) -> tuple[Stores, dict[str, str]]:
    """Servers run until `stack` ends; only those for what is wanted."""
    bucket = folder / "local"
    bucket.mkdir()
    stores: Stores = {"local": ({"backend": "local", "bucket": str(bucket)}, {})}
    absent: dict[str, str] = {}
    on_storj = wanted & set(STORJ)
    if on_storj and (reason := missing()):
        absent |= dict.fromkeys(on_storj, f"no Storj network: {reason}")
    elif on_storj:
        more, lacking = storj_stores(stack.enter_context(storj_network(folder / "storj")), folder)
        stores |= more
        absent |= lacking
    return {name: stores[name] for name in STORES if name in stores and name in wanted}, absent


STORJ = ("s3-gateway", "uplink", "uplink cp", "rclone", "rclone copyto")
STORES = ("local", *STORJ)


def rows(options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    with contextlib.ExitStack() as stack:
        stores, absent = prepared(stack, folder, set(options.stores))
        for name, reason in absent.items():
            yield {"store": name, "absent": reason}
        for megabytes in options.sizes:
            source = folder / f"source-{megabytes}"
            source.write_bytes(os.urandom(megabytes * 1_000_000))
            digest, size = hashlib.sha256(source.read_bytes()).hexdigest(), source.stat().st_size
            found: dict[tuple[str, str], list[Row]] = {}
            for turn in range(options.turns):
                for name, (settings, environment) in stores.items():
                    for operation in ("put", "get"):
                        job = Job(name, operation, size, turn, options.repeats, settings, str(source), digest)
                        found.setdefault((name, operation), []).append(measured(job, environment))
            yield from map(merged, found.values())
            source.unlink()


def merged(turns: list[Row]) -> Row:
    """What all turns of one store say together."""
    for row in turns:
        if "failed" in row:
            return row
    cpu = [float(str(row["cpu_s"])) for row in turns]
    most = {key: max(float(str(row[key])) for row in turns) for key in ("mb_per_s", "memory_mb")}
    return {**turns[0], **most, "cpu_s": round(sum(cpu) / len(cpu), 2)}


def measured(job: Job, environment: dict[str, str]) -> Row:
    command = [sys.executable, __file__, "--job", json.dumps(job.__dict__)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    if done.returncode:
        return {"store": job.store, "operation": job.operation, "mb": job.size / 1e6, "failed": done.stderr[-500:]}
    row: Row = json.loads(done.stdout)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 43, 168], metavar="MB")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2, help="of each turn")
    parser.add_argument("--stores", nargs="+", default=list(STORES), choices=STORES)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(asyncio.run(measure(Job(**json.loads(options.job))))))
        return
    with tempfile.TemporaryDirectory(prefix="fednode-bench-", dir=os.environ.get("FEDNODE_BENCH_DIR")) as place:
        found: list[Row] = []
        for row in rows(options, Path(place)):
            found.append(row)
            if not options.json:
                shown = row.get("absent") or row.get("failed") or (
                    f"{row['operation']} {row['mb']:6} MB  {row['mb_per_s']:8} MB/s  {row['cpu_s']:6} CPU s"
                    f"  {row['memory_mb']:7} MB memory"
                )  # fmt: skip
                print(f"{row['store']:14} {shown}", flush=True)
        if options.json:
            print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
