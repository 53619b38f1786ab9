"""The process of a daemon or a command."""

from __future__ import annotations

import subprocess
import sys

CORE = """
import asyncio, resource
from fednode.node.service import run_until_signal
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
async def limit():
    return resource.getrlimit(resource.RLIMIT_CORE)[0]
print(run_until_signal(limit()))
"""


def test_no_core_file_holds_the_keys() -> None:
    done = subprocess.run([sys.executable, "-P", "-c", CORE], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "0"
