"""What `status` and `rounds` keep of a journal: always the same answer as a journal read from its start."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from fednode.errors import JournalError
from fednode.node import checkpoint
from fednode.node.journal import SqliteJournal, open_reader
from fednode.node.protocol.records import from_record
from fednode.node.protocol.state import Rules, initial
from fednode.node.views import History, status

from .protocol.story import ANNA, Node, rules

ROUNDS = 20


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "EVERY", 20)


def played(given: Rules, journal: SqliteJournal, until: int, node: Node | None = None) -> Node:
    """A node that has come to the end of round `until`, with what is new of it in the journal."""
    if node is None:
        node = Node(given).begin().open()
        node.restart()
    written = journal.last()
    while node.state.round <= until:
        node.now += 1.5
        node.do_round()
    journal.append([tuple(json.loads(line)) for line in node.journal[written:]])
    return node


def plainly(path: Path, given: Rules) -> History:
    view = History(initial(given), "alternate")
    with open_reader(path) as reader:
        for _, kind, body in reader.read():
            view.add(from_record(kind, body))
    return view


def looked(path: Path, given: Rules) -> tuple[History, int]:
    """The history as the commands read it, and how many records they read for it."""
    count = 0
    with open_reader(path) as reader:
        read = reader.read

        def counting(after: int = 0):  # type: ignore[no-untyped-def]  # the generator of the reader itself
            nonlocal count
            for record in read(after):
                count += 1
                yield record

        reader.read = counting  # type: ignore[method-assign]  # watched, not replaced
        return checkpoint.read_on(cache(path), reader, History(initial(given), "alternate")), count


def cache(path: Path) -> Path:
    return path.parent / "cache" / "history.json"


def same(view: History, other: History) -> bool:
    return view == other and status(view, pid=None) == status(other, pid=None)


def test_it_follows_a_growing_journal(tmp_path: Path) -> None:
    path, given = tmp_path / "journal.sqlite3", rules(rounds=ROUNDS)
    node = None
    with SqliteJournal(path) as journal:
        for until in (*range(0, ROUNDS + 1, 3), ROUNDS, ROUNDS + 1):
            node = played(given, journal, until, node)
            view, _ = looked(path, given)
            assert same(view, plainly(path, given))
    assert len(view.rounds) == ROUNDS
    assert all(len(entry.signals) == 3 for entry in view.rounds)
    _, read = looked(path, given)
    assert read < 20
    cache(path).unlink()
    again, read = looked(path, given)
    assert (read, same(again, view)) == (len(node.journal if node else []), True)


def test_the_middle_of_a_round_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At any record: every field of the state comes back."""
    monkeypatch.setattr(checkpoint, "EVERY", 1)
    whole, path, given = tmp_path / "whole.sqlite3", tmp_path / "journal.sqlite3", rules(rounds=2)
    with SqliteJournal(whole) as journal:
        played(given, journal, 3)
        records = [(kind, body) for _, kind, body in journal.read()]
    with SqliteJournal(path) as journal:
        for count, record in enumerate(records, 1):
            journal.append([record])
            view, read = looked(path, given)
            assert read == 1
            assert same(view, plainly(path, given)), (count, record)


def _other_content(path: Path) -> None:
    """A file of ours for another journal's content, its own checksum right."""
    head, body = path.read_bytes().split(b"\n", 1)
    made = json.loads(head)
    body = body.replace(b'"last_at":', b'"last_at":1')
    path.write_bytes(json.dumps({**made, "sum": zlib.crc32(body), "crc": made["crc"] ^ 1}).encode() + b"\n" + body)


BROKEN = {
    "empty": lambda path: path.write_bytes(b""),
    "no JSON": lambda path: path.write_bytes(b"{\n{"),
    "a list": lambda path: path.write_bytes(b"[]\n[]"),
    "torn": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "flipped": lambda path: path.write_bytes(path.read_bytes().replace(b'"round":', b'"ruond":', 1)),
    "deep": lambda path: path.write_bytes(b"[" * 100_000),
    "of another journal": _other_content,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("how", BROKEN)
def test_whatever_is_wrong_with_it_the_journal_is_read(tmp_path: Path, how: str) -> None:
    path, given = tmp_path / "journal.sqlite3", rules(rounds=ROUNDS)
    with SqliteJournal(path) as journal:
        node = played(given, journal, ROUNDS)
    looked(path, given)
    assert looked(path, given)[1] < 20
    BROKEN[how](cache(path))
    view, read = looked(path, given)
    assert read == len(node.journal)
    assert same(view, plainly(path, given))
    assert [x.name for x in cache(path).parent.iterdir()] == ["history.json"]


def test_an_older_backup_and_other_rules_are_read_from_the_start(tmp_path: Path) -> None:
    path, given = tmp_path / "journal.sqlite3", rules(rounds=ROUNDS)
    with SqliteJournal(path) as journal:
        node = played(given, journal, ROUNDS)
    looked(path, given)
    for name in ("journal.sqlite3", "journal.sqlite3-wal", "journal.sqlite3-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    older = len(node.journal) // 2
    with SqliteJournal(path) as journal:
        journal.append([tuple(json.loads(line)) for line in node.journal[:older]])
    view, read = looked(path, given)
    assert read == older
    assert same(view, plainly(path, given))
    other = replace(given, on_fault="close")
    assert looked(path, other)[1] == older


def test_a_damaged_record_among_the_new_ones_is_named(tmp_path: Path) -> None:
    path, given = tmp_path / "journal.sqlite3", rules(rounds=ROUNDS)
    with SqliteJournal(path) as journal:
        node = played(given, journal, 10)
        looked(path, given)
        played(given, journal, ROUNDS, node)
        last = journal.last()
        journal._db.execute("UPDATE facts SET body = replace(body, '\"at\":', '\"at\": ') WHERE seq = ?", (last - 1,))
    with pytest.raises(JournalError, match=f"record {last - 1} is damaged"):
        looked(path, given)


def test_a_folder_that_cannot_be_written_keeps_nothing(tmp_path: Path) -> None:
    path, given = tmp_path / "journal.sqlite3", rules(rounds=ROUNDS)
    (tmp_path / "cache").write_text("in its place")
    with SqliteJournal(path) as journal:
        node = played(given, journal, ROUNDS)
    view, read = looked(path, given)
    assert (read, view.state.rules.me) == (len(node.journal), ANNA)
    assert same(view, plainly(path, given))
