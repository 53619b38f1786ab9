"""What `status` and `rounds` made of the journal, kept so that the next look reads only what is new.

A cache and nothing more: it may be deleted at any time, nobody but the two commands reads it, and it counts only where
it was made by this version, for these rules, of a journal whose record `seq` has the same chained checksum. Whatever is
wrong with it, the journal is read from the start. A daemon always reads its whole journal.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
import zlib
from pathlib import Path
from typing import Any, Final

import fednode
from fednode.durable import make_folders
from fednode.errors import JournalError
from fednode.node.journal import JournalReader
from fednode.node.protocol.records import decoded, from_record, plain
from fednode.node.protocol.state import State
from fednode.node.protocol.transcript import Signal
from fednode.node.views import History, RoundView, signals_shown
from fednode.types import PartyName

EVERY: Final = 2_000
"""Records beyond the kept ones that make it worth while to write the file again."""
_FORMAT: Final = 1
"""To be raised when the fold of a journal, or this file, changes its meaning."""


def read_on(path: Path, reader: JournalReader, empty: History) -> History:
    """The history of the whole journal: what is kept of it at `path`, and what is new. `empty` has no facts yet.

    JournalError names a damaged record among those that are read.
    """
    view, before = _kept(path, reader, empty)
    last = before
    for seq, kind, body in reader.read(before):
        view.add(from_record(kind, body))
        last = seq
    if last - before >= EVERY:
        _keep(path, view, last, reader.checksum(last))
    return view


def _kept(path: Path, reader: JournalReader, empty: History) -> tuple[History, int]:
    """(history, number of its last record) as kept at `path`; `empty` and 0 where that is of no use."""
    try:
        head, body = path.read_bytes().split(b"\n", 1)
        found = json.loads(head)
        ours = found["made"] == _made(empty) and found["sum"] == zlib.crc32(body)
        if ours and reader.checksum(found["seq"]) == found["crc"]:
            return _history(json.loads(body), empty), found["seq"]
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, JournalError):
        pass
    return empty, 0


def _keep(path: Path, view: History, seq: int, crc: int) -> None:
    """Write the history of the records up to `seq`, of chained checksum `crc`. Where that fails, nothing is kept."""
    body = json.dumps(_content(view), separators=(",", ":")).encode()
    head = json.dumps({"made": _made(view), "seq": seq, "crc": crc, "sum": zlib.crc32(body)}).encode()
    temporary = ""
    try:
        make_folders(path.parent)
        fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=".history-")
        with os.fdopen(fd, "wb") as handle:
            handle.write(head + b"\n" + body)
        os.replace(temporary, path)  # not synced: a torn file fails its checksum
    except OSError:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _made(view: History) -> str:
    """Whatever else decides what a fold of a journal is."""
    what = (_FORMAT, fednode.__version__, view.state.rules, view.phase, _fields(State), _fields(RoundView))
    return hashlib.sha256(repr(what).encode()).hexdigest()


def _fields(cls: type[Any]) -> list[tuple[str, str]]:
    return [(field.name, str(field.type)) for field in dataclasses.fields(cls)]


def _content(view: History) -> dict[str, object]:
    state = view.state
    bare = dataclasses.replace(state, transcript=dataclasses.replace(state.transcript, done=()))
    return {
        "state": {name: value for name, value in _plain_fields(bare).items() if name != "rules"},
        "done": [
            {p: [s.tx, s.base, s.object, s.size] for p, s in signals.items()} for signals in state.transcript.done
        ],
        "rounds": [[x.round, x.digest, x.base, x.phase, x.loss, x.outliers, x.seconds] for x in view.rounds],
        "open": view.open,
        "last_at": view.last_at,
    }


def _plain_fields(state: State) -> dict[str, object]:
    return {field.name: plain(getattr(state, field.name)) for field in dataclasses.fields(state)}


def _history(body: dict[str, Any], empty: History) -> History:
    state = decoded(State, {**body["state"], "rules": plain(empty.state.rules)})
    done: tuple[dict[PartyName, Signal], ...] = tuple(
        [{p: Signal(*row) for p, row in signals.items()} for signals in body["done"]]
    )
    transcript = dataclasses.replace(state.transcript, done=done)
    rounds = [
        RoundView(number, digest, base, phase, loss, signals_shown(done[int(number)]), outliers, seconds)
        for number, digest, base, phase, loss, outliers, seconds in body["rounds"]
    ]
    whole = dataclasses.replace(state, rules=empty.state.rules, transcript=transcript)
    return History(whole, empty.phase, rounds, body["last_at"], body["open"])
