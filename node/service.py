"""Running the daemon as a process: SIGTERM and Ctrl-C end it at once and cleanly; a later start goes on."""

from __future__ import annotations

import asyncio
import resource
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from fednode.errors import Stopped

T = TypeVar("T")


def run_until_signal(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end. The first SIGTERM or SIGINT cancels it: Stopped, after its clean-up.

    From here on the process writes no core file: keys and grants are in its memory.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))

    async def supervise() -> T:
        received: list[str] = []
        task = asyncio.ensure_future(work)

        def stop(number: signal.Signals) -> None:
            received.append(number.name)
            task.cancel()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop, number)
        try:
            return await task
        except asyncio.CancelledError:
            if not received:
                raise
            raise Stopped(f"stopped by {received[0]}", hint="the same command goes on from here") from None

    return asyncio.run(supervise())
