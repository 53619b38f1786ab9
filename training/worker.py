"""The trainer child: `python -m fednode.training.worker`, one JSON request a line on stdin, replies on stdout.

It lives for a whole run, because importing torch and loading the base model take long, and ends with its parent: by the
kernel's parent-death signal, and when stdin ends. What libraries print goes to stderr.
"""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from typing import BinaryIO

from fednode.errors import TrainingError
from fednode.training.channel import Message, decode, encode, error_to_json, facts_to_json, record
from fednode.training.local_phase import LocalTrainer
from fednode.training.tasks import load
from fednode.types import TrainerSetup, TrainRequest

_PR_SET_PDEATHSIG = 1
_PROGRESS_INTERVAL = 0.2
"""Least seconds between two progress lines; the last step is always told."""


class Worker:
    """Answers requests one after the other."""

    def __init__(self, replies: BinaryIO) -> None:
        self._replies = replies
        self._trainer: LocalTrainer | None = None
        self._told = 0.0

    def answer(self, message: Message) -> None:
        """Handle one request and write its reply. Never raises for a request that fails."""
        handlers: dict[str, Callable[[Message], Message]] = {
            "setup": self._setup,
            "describe": self._describe,
            "train": self._train,
            "evaluate": self._evaluate,
            "alone": self._alone,
        }
        try:
            handler = handlers.get(str(message.get("op")))
            if handler is None:
                raise TrainingError(f"unknown request {message.get('op')!r}, expected one of {', '.join(handlers)}")
            reply = {"ok": True, **handler(message)}
        except Exception as error:
            traceback.print_exc()
            reply = {"ok": False, "error": error_to_json(error)}
        self._send(reply)

    def _setup(self, message: Message) -> Message:
        setup = record(TrainerSetup, message)
        self._trainer = LocalTrainer(setup, load(setup))
        return facts_to_json(self._trainer.facts)

    def _describe(self, message: Message) -> Message:
        return facts_to_json(self._ready().facts)

    def _train(self, message: Message) -> Message:
        return asdict(self._ready().train(record(TrainRequest, message), self._progress))

    def _evaluate(self, message: Message) -> Message:
        return asdict(self._ready().evaluate(message["state"], message["data"]))

    def _alone(self, message: Message) -> Message:
        best, rate = self._ready().alone(message["rounds"], message["rates"], message["data"], self._progress)
        return {**asdict(best), "rate": rate}

    def _ready(self) -> LocalTrainer:
        if self._trainer is None:
            raise TrainingError("the trainer got no setup: expected it as the first request")
        return self._trainer

    def _progress(self, step: int, steps: int, loss: float) -> None:
        now = time.monotonic()
        if step == steps or now - self._told >= _PROGRESS_INTERVAL:
            self._told = now
            self._send({"progress": [step, steps, loss]})

    def _send(self, message: Message) -> None:
        self._replies.write(encode(message))
        self._replies.flush()


def main() -> None:
    """Serve until stdin ends; then the process ends at once, also in the middle of a step."""
    parent = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    _end_with_parent(parent)
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, requests), daemon=True).start()
    worker = Worker(replies)
    while True:
        worker.answer(decode(requests.get()))


def _read(source: BinaryIO, requests: queue.SimpleQueue[bytes]) -> None:
    for line in source:
        requests.put(line)
    # Nobody can read a reply any more. Unfinished files have temporary names; whoever comes next removes them.
    os._exit(0)


def _end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies (Linux: prctl(2), PR_SET_PDEATHSIG)."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent and os.getppid() != parent:
        os._exit(0)  # it died before the line above


if __name__ == "__main__":
    main()
