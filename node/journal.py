"""The journal: an append-only SQLite log of facts. What `append` returned from survives power loss.

One writer (the home's lock sees to that), any number of readers beside it. Every record carries a checksum over its own
text and the previous record's checksum, so that a flipped byte, a lost or a moved record is found and named.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn, Self, cast

from fednode.durable import fsync_dir
from fednode.errors import JournalError

SCHEMA: Final = 2
"""Format of the file. A newer one is refused, an older one is read, and becomes this one when it is written to.

2: facts tell the digest of the momentum; ObjectLost."""
_APPLICATION: Final = 0x6665646E
_CREATE: Final = (
    "CREATE TABLE facts (seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, round INTEGER, at REAL,"
    " body TEXT NOT NULL, crc INTEGER NOT NULL)"
)
_INSERT: Final = "INSERT INTO facts (seq, kind, round, at, body, crc) VALUES (?, ?, ?, ?, ?, ?)"
_SELECT: Final = "SELECT seq, kind, round, at, body, crc FROM facts WHERE seq > ? ORDER BY seq"

_DECODE: Final = json.JSONDecoder().decode

Record = tuple[int, str, dict[str, object]]
"""(seq, kind, body)."""
_Row = tuple[int, bytes, int | None, float | None, bytes, int]


class NothingWritten(JournalError):
    """There is a file, but no table: its writer was killed before the first record, or is just creating it."""


class JournalReader:
    """Reads facts. Works beside a live writer and when none runs; see `open_reader`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._db = connection
        self._db.text_factory = bytes

    def read(self, after: int = 0) -> Iterator[Record]:
        """Facts with a number > `after`, in order, as (seq, kind, body). JournalError names a damaged record."""
        seq, crc = after, self.checksum(after)
        try:
            for row in self._db.execute(_SELECT, (after,)):
                record, crc = self._checked(cast(_Row, row), seq + 1, crc)
                seq += 1
                yield record
        except sqlite3.Error as error:
            self._damaged(seq + 1, str(error), error)

    def last(self) -> int:
        """Number of the newest fact, 0 where there is none."""
        return self._tail()[0]

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tail(self) -> tuple[int, int]:
        """(seq, crc) of the newest fact."""
        try:
            row = self._db.execute("SELECT seq, crc FROM facts ORDER BY seq DESC LIMIT 1").fetchone()
        except sqlite3.Error as error:
            raise _explained(self.path, error) from error
        return cast(tuple[int, int], row) if row is not None else (0, 0)

    def checksum(self, seq: int) -> int:
        """Checksum of a record, chained through all before it; that of record 0 is 0. JournalError where it is missing.

        As it stands in the file: `read` verifies it, and so does reading on from there.
        """
        if seq == 0:
            return 0
        try:
            row = self._db.execute("SELECT crc FROM facts WHERE seq = ?", (seq,)).fetchone()
        except sqlite3.Error as error:
            raise _explained(self.path, error) from error
        if row is None:
            raise JournalError(f"{self.path}: there is no record {seq} to read on from, the newest is {self.last()}")
        return cast(int, row[0])

    def _checked(self, row: _Row, expected: int, previous: int) -> tuple[Record, int]:
        """The record of a row and its checksum; JournalError unless every column is as it was written."""
        seq, kind, round_number, at, text, crc = row
        if seq != expected:
            self._damaged(expected, f"record {seq} stands in its place")
        try:
            intact = zlib.crc32(b"%d\n%b\n%b" % (seq, kind, text), previous) == crc
            body = cast("dict[str, object]", _DECODE(text.decode())) if intact else {}
        except (TypeError, ValueError) as error:
            self._damaged(expected, "its columns have other types", error)
        if not intact or (round_number, at) != _lifted(body):
            self._damaged(expected, "its checksum does not match")
        return (seq, kind.decode(), body), crc

    def _damaged(self, seq: int, why: str, cause: Exception | None = None) -> NoReturn:
        raise JournalError(
            f"{self.path}: record {seq} is damaged: {why}",
            hint="restore the home's latest backup; own signals are read again from the head and the own bucket",
        ) from cause


class SqliteJournal(JournalReader):
    """The one writer. Opens or creates the journal at `path` (mode 0600)."""

    def __init__(self, path: Path) -> None:
        """JournalError where the file is no journal, of a newer format, or cannot be opened."""
        self._broken = False
        self._lock = threading.Lock()
        connection: sqlite3.Connection | None = None
        try:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600))
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
            _prepare(path, connection)
            super().__init__(path, connection)
            self._seq, self._crc = self._tail()
            fsync_dir(path.parent)
        except (OSError, sqlite3.Error) as error:
            _close_quietly(connection)
            raise _explained(path, error) from error
        except JournalError:
            _close_quietly(connection)
            raise

    def append(self, records: Sequence[tuple[str, Mapping[str, object]]]) -> None:
        """Write (kind, JSON body) records, all or none; on disk (fsync) when this returns.

        The body's `round` (int) and `at` (Unix seconds) are also kept as columns. After a failed write nothing more is
        written: what the disk holds is read at the next start. TypeError or ValueError for a body that is not JSON.
        """
        with self._lock:
            rows, seq, crc = self._rows(records)
            if self._broken:
                raise JournalError(f"{self.path}: an earlier write failed", hint="start the command again")
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany(_INSERT, rows)
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                self._broken = True
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise _explained(self.path, error) from error
            self._seq, self._crc = seq, crc

    def _rows(self, records: Sequence[tuple[str, Mapping[str, object]]]) -> tuple[list[tuple[object, ...]], int, int]:
        rows: list[tuple[object, ...]] = []
        seq, crc = self._seq, self._crc
        for kind, body in records:
            seq += 1
            text = json.dumps(dict(body), separators=(",", ":"), allow_nan=False)
            crc = zlib.crc32(f"{seq}\n{kind}\n{text}".encode(), crc)
            rows.append((seq, kind, *_lifted(body), text, crc))
        return rows, seq, crc


def open_reader(path: Path) -> JournalReader:
    """Open an existing journal to read, also while a daemon writes it. Changes nothing in it.

    JournalError where it is missing, no journal, or of a newer format; NothingWritten where it holds nothing yet.
    """
    if not path.is_file():
        raise JournalError(f"{path} does not exist", hint="nothing has run in this home yet: see `fednode init-head`")
    try:
        try:
            connection = _reading(path, "mode=ro")
        except sqlite3.OperationalError:
            # A folder that cannot be written has no place for the shared memory of a write-ahead log. Without a log
            # nobody writes, so the file may be read as it is.
            if path.with_name(path.name + "-wal").exists():
                raise
            connection = _reading(path, "immutable=1")
    except sqlite3.Error as error:
        raise _explained(path, error) from error
    return JournalReader(path, connection)


def _reading(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{mode}", uri=True, isolation_level=None, check_same_thread=False, timeout=5.0
    )
    try:
        if _format(path, connection) == 0:
            raise NothingWritten(f"{path} is empty", hint="nothing has run in this home yet: see `fednode init-head`")
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(path: Path, connection: sqlite3.Connection) -> None:
    """Set durability; create the table in a new file, in one transaction with the format's number."""
    found = _format(path, connection)
    connection.execute("PRAGMA journal_mode=WAL").fetchall()
    connection.execute("PRAGMA synchronous=FULL")
    if found == 0:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(_CREATE)
        connection.execute(f"PRAGMA application_id={_APPLICATION}")
        connection.execute(f"PRAGMA user_version={SCHEMA}")
        connection.execute("COMMIT")
    elif found < SCHEMA:
        connection.execute(f"PRAGMA user_version={SCHEMA}")


def _format(path: Path, connection: sqlite3.Connection) -> int:
    """Format number of the file, 0 for a new one. JournalError for a newer format and for other databases."""
    number = cast(int, connection.execute("PRAGMA user_version").fetchone()[0])
    application = cast(int, connection.execute("PRAGMA application_id").fetchone()[0])
    empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if empty and application == 0:
        return 0
    if application != _APPLICATION:
        raise JournalError(f"{path} is a database of another program, expected a fednode journal")
    if number > SCHEMA:
        raise JournalError(
            f"{path} has journal format {number}, this fednode reads up to {SCHEMA}",
            hint="use the fednode version that wrote it, or a newer one",
        )
    return number


def _lifted(body: Mapping[str, object]) -> tuple[int | None, float | None]:
    """The columns `round` and `at`."""
    round_number, at = body.get("round"), body.get("at")
    return (
        round_number if isinstance(round_number, int) else None,
        float(at) if isinstance(at, int | float) else None,
    )


def _close_quietly(connection: sqlite3.Connection | None) -> None:
    if connection is not None:
        with contextlib.suppress(sqlite3.Error):
            connection.close()


def _explained(path: Path, error: Exception) -> JournalError:
    """What failed and what to do, from an error of SQLite or of the system."""
    name = getattr(error, "sqlite_errorname", "")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    hints = {
        "SQLITE_FULL": "free some disk space, then start the command again",
        "SQLITE_IOERR": "look at the disk's health and free space, then start the command again",
        "SQLITE_READONLY": "give yourself write permission on the file and its folder",
        "SQLITE_CANTOPEN": "look at the permissions of the file and its folder",
        "SQLITE_CORRUPT": "restore the home's latest backup",
        "SQLITE_NOTADB": "restore the home's latest backup",
        "SQLITE_BUSY": "another program holds the journal; end it first",
        "SQLITE_CONSTRAINT": "another process writes this journal; one home serves one daemon",
    }
    hint = next((text for prefix, text in hints.items() if str(name).startswith(prefix)), "look at the disk")
    return JournalError(f"{path}: the journal failed: {reason}", hint=hint)
