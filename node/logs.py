"""Log records of every part of the program, also of libraries, as lines of the one talk."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol


class Voice(Protocol):
    """Whoever writes the lines; called from any thread."""

    def log(self, level: str, text: str) -> None: ...


class _Lines(logging.Handler):
    """One line per record. A traceback is a mistake's story and would be many lines: its last words are enough here."""

    def __init__(self, voice: Voice) -> None:
        super().__init__()
        self._voice = voice

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
            error = record.exc_info[1] if record.exc_info else None
            if error is not None:
                text += f" ({type(error).__name__}: {error})"
            self._voice.log(record.levelname.lower(), text)
        except Exception:  # as every handler of the standard library does: a record must not end what it tells of
            self.handleError(record)


@contextmanager
def logged(voice: Voice, level: str) -> Generator[None, None, None]:
    """Inside the block, what is logged goes through `voice`: our own records from `level` (debug, info, warning or
    error) on, those of libraries and the interpreter's warnings from warning, or a higher `level`, on."""
    number = logging.getLevelNamesMapping()[level.upper()]
    root, own, handler = logging.getLogger(), logging.getLogger("fednode"), _Lines(voice)
    before = root.level, own.level
    root.setLevel(max(number, logging.WARNING))
    own.setLevel(number)
    root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        root.setLevel(before[0])
        own.setLevel(before[1])
