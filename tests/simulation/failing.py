"""The n-th operation on the file system fails: the functions of `os` and `io` that the program uses, counted."""

from __future__ import annotations

import errno
import io
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

READS = frozenset({"open-read", "read", "stat"})
NO_SPACE = frozenset({"create", "write", "flush", "fsync", "mkdir", "link", "rename"})
"""Operations that a full disk can refuse."""


class Failing:
    """Counts operations; the n-th fails (0: none), and with `lasting` every later one that a full disk refuses."""

    def __init__(self, n: int, code: int, *, lasting: bool = False) -> None:
        self.n, self.code, self.lasting = n, code, lasting
        self.count = 0
        self.kinds: Counter[str] = Counter()
        self.failed: str | None = None
        self.paused = False

    def step(self, kind: str) -> None:
        if self.paused:
            return
        if self.code == errno.ENOSPC and kind not in NO_SPACE:
            return
        self.count += 1
        self.kinds[kind] += 1
        if self.count == self.n or (self.failed is not None and self.lasting):
            self.failed = self.failed or kind
            raise OSError(self.code, os.strerror(self.code))

    @contextmanager
    def pause(self) -> Iterator[None]:
        before, self.paused = self.paused, True
        try:
            yield
        finally:
            self.paused = before


class _File:
    """An open file whose reads and writes are counted."""

    def __init__(self, handle: Any, failing: Failing) -> None:
        self._handle, self._failing = handle, failing

    def read(self, *size: int) -> Any:
        self._failing.step("read")
        return self._handle.read(*size)

    def readinto(self, buffer: Any) -> Any:
        self._failing.step("read")
        return self._handle.readinto(buffer)

    def write(self, data: Any) -> Any:
        self._failing.step("write")
        return self._handle.write(data)

    def flush(self) -> None:
        self._failing.step("flush")
        self._handle.flush()

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._handle)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)


@contextmanager
def failing(state: Failing) -> Iterator[Failing]:
    """The functions are replaced as long as the block lasts."""
    real: dict[tuple[Any, str], Any] = {}

    def put(owner: Any, name: str, kind: Callable[..., str] | str, wrap: bool = False) -> None:
        real[owner, name] = original = getattr(owner, name)

        def counted(*args: Any, **options: Any) -> Any:
            state.step(kind if isinstance(kind, str) else kind(*args, **options))
            result = original(*args, **options)
            return _File(result, state) if wrap and not state.paused else result

        setattr(owner, name, counted)

    put(os, "open", _open_kind)
    put(os, "fsync", "fsync")
    put(os, "fdatasync", "fsync")
    put(os, "replace", "rename")
    put(os, "rename", "rename")
    put(os, "link", "link")
    put(os, "mkdir", "mkdir")
    put(os, "write", "write")
    put(os, "pwrite", "write")
    put(os, "read", "read")
    put(os, "pread", "read")
    put(os, "fstat", "stat")
    put(os, "fdopen", "open-read", wrap=True)
    put(io, "open", _io_kind, wrap=True)
    try:
        yield state
    finally:
        for (owner, name), value in real.items():
            setattr(owner, name, value)


def _open_kind(path: Any, flags: int, *_: Any, **__: Any) -> str:
    return "create" if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR) else "open-read"


def _io_kind(path: Any, mode: str = "r", *_: Any, **__: Any) -> str:
    return "create" if set(mode) & set("wax+") else "open-read"


def sweep(
    folder: Path,
    run: Callable[[Path], None],
    check: Callable[[Path, Failing, BaseException | None], None],
    code: int,
    lasting: bool,
) -> Counter[str]:
    """`run` in a new folder with its 1st, 2nd, ... operation failing, until it needs no more; `check` after each.

    Returns which kinds of operations failed, and how often.
    """
    failed: Counter[str] = Counter()
    for n in range(1, 10_000):
        here = folder / str(n)
        here.mkdir()
        error: BaseException | None = None
        with failing(Failing(n, code, lasting=lasting)) as state:
            try:
                run(here)
            except Exception as found:
                error = found
        check(here, state, error)
        if state.failed is None:
            break
        failed[state.failed] += 1
    return failed
