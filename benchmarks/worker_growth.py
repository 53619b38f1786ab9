"""Memory of the process that holds Storj's native library, over a thousand calls on a Storj network of this machine.

    python benchmarks/worker_growth.py [--operations N] [--json]

Puts of 1 MB, gets, looks and deletes in turn; the resident megabytes after a tenth of them and at the end. Goal: 10 MB
more at the end. (uplink-python's own calls free nothing.)
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path

import psutil

sys.path.append(str(Path(__file__).resolve().parent.parent))

from fednode.storage.credentials import CredentialsFile, credentials_text
from fednode.storage.remote import RemoteBucket
from fednode.storage.settings import UplinkSettings
from fednode.storage.uplink.wire import UplinkWire
from fednode.types import Digest
from tests.storj.network import missing, storj_network

SIZE = 1_000_000


def worker_mb() -> float:
    """Of the one child of this process that is such a worker."""
    [worker] = [p for p in psutil.Process().children() if "fednode.storage.uplink.worker" in " ".join(p.cmdline())]
    return round(worker.memory_info().rss / 1e6, 1)


async def grow(folder: Path, operations: int) -> dict[str, float]:
    with storj_network(folder / "storj", gateway=False) as network:
        grant = folder / "grant.toml"
        grant.touch(mode=0o600)
        grant.write_text(credentials_text({"grant": network.grant}, None))
        settings = UplinkSettings(network.make_bucket("growth"), grant)
        bucket = RemoteBucket(UplinkWire(settings, CredentialsFile(grant)))
        source, target, early = folder / "source", folder / "target", 0.0
        for number in range(0, operations, 4):  # a put, a get, a look and a delete
            data = os.urandom(SIZE)
            source.write_bytes(data)
            await bucket.put(f"growth/{number}", source)
            digest = Digest(hashlib.sha256(data).hexdigest())
            await bucket.get(f"growth/{number}", target, size=SIZE, sha256=digest)
            await bucket.head(f"growth/{number}")
            await bucket.delete(f"growth/{number}")
            if not early and number >= operations // 10:
                early = worker_mb()
        late = worker_mb()
        await bucket.aclose()
    return {"operations": operations, "early_mb": early, "late_mb": late, "growth_mb": round(late - early, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--operations", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if reason := missing():
        raise SystemExit(f"no Storj network: {reason}")
    with tempfile.TemporaryDirectory(prefix="fednode-bench-") as folder:
        found = asyncio.run(grow(Path(folder), options.operations))
    print(json.dumps(found) if options.json else "\n".join(f"{name:12} {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
