"""Everything that outlives the process: one SQLite file in WAL mode, where a commit is on disk before it is seen."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, cast

from fednode.errors import ConfigError
from fednode.hydra.devnet.txview import Output, TxView, parse_output, parse_transaction
from fednode.hydra.devnet.wire import Event

Ledger = Literal["layer1", "snapshot", "commit"]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS documents (name TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS utxo (
    ledger TEXT NOT NULL, position INTEGER PRIMARY KEY, txin TEXT NOT NULL, output BLOB NOT NULL, UNIQUE (ledger, txin)
);
CREATE TABLE IF NOT EXISTS pending (position INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, tx BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, time TEXT NOT NULL, body TEXT NOT NULL, utxo BLOB, parties INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS backlog (
    id INTEGER PRIMARY KEY AUTOINCREMENT, party INTEGER NOT NULL, body TEXT NOT NULL, utxo BLOB
);
"""
_EventRow = tuple[int, str, str, bytes | None, int]


class Store:
    """The state of one embedded head. Not for use from several threads; one process at a time."""

    def __init__(self, path: Path) -> None:
        """Open or create. ConfigError where another process holds it or the file is no such state."""
        self._db = sqlite3.connect(path, isolation_level=None, timeout=0.5)
        try:
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            self._db.close()
            raise ConfigError(
                f"{path} cannot be opened as the state of an embedded head: {error}",
                hint="stop the other `fednode devnet` of this folder",
            ) from None

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def unit(self) -> Generator[None]:
        """All that is written inside is on disk together when the block ends, or not at all."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

    def write(self, name: str, body: object) -> None:
        """Replace a document with the JSON of `body`."""
        self._db.execute("INSERT OR REPLACE INTO documents VALUES (?, ?)", (name, json.dumps(body)))

    def read(self, name: str) -> object | None:
        row = cast(
            "tuple[str] | None", self._db.execute("SELECT body FROM documents WHERE name = ?", (name,)).fetchone()
        )
        return None if row is None else cast("object", json.loads(row[0]))

    def change_utxo(self, ledger: Ledger, spent: Iterable[str], produced: Mapping[str, Output]) -> None:
        self._db.executemany("DELETE FROM utxo WHERE ledger = ? AND txin = ?", [(ledger, txin) for txin in spent])
        self._db.executemany(
            "INSERT INTO utxo (ledger, txin, output) VALUES (?, ?, ?)",
            [(ledger, txin, output.raw) for txin, output in produced.items()],
        )

    def clear_utxo(self, ledger: Ledger) -> None:
        self._db.execute("DELETE FROM utxo WHERE ledger = ?", (ledger,))

    def utxo(self, ledger: Ledger) -> dict[str, Output]:
        query = "SELECT txin, output FROM utxo WHERE ledger = ? ORDER BY position"
        rows = cast("Iterable[tuple[str, bytes]]", self._db.execute(query, (ledger,)))
        return {txin: parse_output(raw) for txin, raw in rows}

    def add_pending(self, txs: Iterable[TxView]) -> None:
        self._db.executemany("INSERT INTO pending (id, tx) VALUES (?, ?)", [(tx.id, tx.raw) for tx in txs])

    def drop_pending(self, txs: Iterable[TxView]) -> None:
        self._db.executemany("DELETE FROM pending WHERE id = ?", [(tx.id,) for tx in txs])

    def pending(self) -> list[TxView]:
        """Transactions that were said valid and are in no confirmed snapshot, in their order."""
        rows = cast("Iterable[tuple[bytes]]", self._db.execute("SELECT tx FROM pending ORDER BY position"))
        return [parse_transaction(raw) for (raw,) in rows]

    def add_event(self, time: str, body: str, utxo: str | None, parties: int) -> int:
        """Append to the history; its id."""
        cursor = self._db.execute(
            "INSERT INTO events (time, body, utxo, parties) VALUES (?, ?, ?, ?)", (time, body, _pack(utxo), parties)
        )
        return cast("int", cursor.lastrowid)

    def history(self, party: int, after: int, limit: int) -> list[Event]:
        """The next events of a party, oldest first; all have an id over `after`."""
        query = "SELECT id, time, body, utxo, parties FROM events WHERE id > ? AND parties & ? ORDER BY id LIMIT ?"
        rows = cast("Iterable[_EventRow]", self._db.execute(query, (after, 1 << party, limit)))
        return [_event(row) for row in rows]

    def event(self, event_id: int) -> Event:
        query = "SELECT id, time, body, utxo, parties FROM events WHERE id = ?"
        return _event(cast("_EventRow", self._db.execute(query, (event_id,)).fetchone()))

    def hold_back(self, party: int, body: str, utxo: str | None) -> None:
        """Keep a message for a party that is offline."""
        self._db.execute("INSERT INTO backlog (party, body, utxo) VALUES (?, ?, ?)", (party, body, _pack(utxo)))

    def drop_backlog(self) -> None:
        """Nobody who is offline will hear any more of what was held back."""
        self._db.execute("DELETE FROM backlog")

    def take_backlog(self, party: int) -> list[tuple[str, str | None]]:
        """(body, utxo) of what was held back, oldest first; removes it."""
        query = "SELECT body, utxo FROM backlog WHERE party = ? ORDER BY id"
        rows = cast("list[tuple[str, bytes | None]]", self._db.execute(query, (party,)).fetchall())
        self._db.execute("DELETE FROM backlog WHERE party = ?", (party,))
        return [(body, _unpack(utxo)) for body, utxo in rows]


def _pack(utxo: str | None) -> bytes | None:
    """A UTxO of every snapshot would be hundreds of megabytes in a long run; it repeats itself and packs well."""
    return None if utxo is None else zlib.compress(utxo.encode(), 1)


def _unpack(packed: bytes | None) -> str | None:
    return None if packed is None else zlib.decompress(packed).decode()


def _event(row: _EventRow) -> Event:
    event_id, time, body, utxo, parties = row
    return Event(event_id, time, body, _unpack(utxo), parties)
