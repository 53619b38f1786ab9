"""The journal: order, all or none, readers beside the writer, damage named, kill -9 survived."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fednode.errors import JournalError
from fednode.node.journal import SCHEMA, SqliteJournal, open_reader
from fednode.node.protocol.facts import Aggregated
from fednode.node.protocol.records import from_record

FACTS: list[tuple[str, Mapping[str, object]]] = [
    ("Bound", {"at": 1.5, "binding": "ab", "nested": {"list": [1, None, "ä\u2028\U0001f600"]}}),
    ("RoundBegan", {"round": 1, "at": 2}),
    ("Empty", {}),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite3"


def write(path: Path, count: int = 3) -> None:
    journal = SqliteJournal(path)
    for number in range(count):
        journal.append([("Fact", {"round": number, "at": float(number), "text": "x" * 50})])
    journal.close()


def test_what_is_appended_comes_back_in_order(path: Path) -> None:
    journal = SqliteJournal(path)
    journal.append(FACTS[:2])
    journal.append([])
    journal.append(FACTS[2:])
    expected = [(seq, kind, dict(body)) for seq, (kind, body) in enumerate(FACTS, 1)]
    assert list(journal.read()) == expected
    assert list(journal.read(after=2)) == expected[2:]
    assert list(journal.read(after=3)) == []
    journal.close()
    again = SqliteJournal(path)
    again.append(FACTS[:1])
    assert list(again.read(after=3)) == [(4, FACTS[0][0], dict(FACTS[0][1]))]
    assert again.last() == 4
    again.close()


def test_round_and_time_are_columns(path: Path) -> None:
    SqliteJournal(path).append(FACTS)
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT round, at FROM facts ORDER BY seq").fetchall() == [
            (None, 1.5),
            (1, 2.0),
            (None, None),
        ]
    db.close()
    assert path.stat().st_mode & 0o777 == 0o600


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text(), max_size=3), max_size=5)
)
def test_any_json_body_comes_back(tmp_path_factory: pytest.TempPathFactory, bodies: list[dict[str, object]]) -> None:
    path = tmp_path_factory.mktemp("any") / "j"
    bodies = [{key: value for key, value in body.items() if key not in ("round", "at")} for body in bodies]
    with SqliteJournal(path) as journal:
        journal.append([("F", body) for body in bodies])
        assert [body for _, _, body in journal.read()] == bodies


@pytest.mark.parametrize("body", [{"x": float("nan")}, {"x": b"bytes"}, {"x": {1, 2}}])
def test_a_body_that_is_no_json_writes_nothing(path: Path, body: dict[str, object]) -> None:
    with SqliteJournal(path) as journal:
        with pytest.raises((TypeError, ValueError)):
            journal.append([("Good", {}), ("Bad", body)])
        assert list(journal.read()) == []
        journal.append([("Good", {})])
        assert journal.last() == 1


def test_readers_see_facts_beside_the_writer_and_after_it(path: Path) -> None:
    journal = SqliteJournal(path)
    journal.append(FACTS[:1])
    with open_reader(path) as reader:
        assert reader.last() == 1
        journal.append(FACTS[1:2])
        assert [kind for _, kind, _ in reader.read()] == ["Bound", "RoundBegan"]
        halfway = reader.read()
        next(halfway)
        journal.append(FACTS[2:])
        assert len(list(halfway)) == 1, "a reader's view stays one view"
        assert len(list(reader.read())) == 3
    journal.close()
    with open_reader(path) as reader:
        assert len(list(reader.read())) == 3
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader._db.execute("DELETE FROM facts")


def test_reading_on_from_a_record_that_is_not_there(path: Path) -> None:
    write(path)
    with open_reader(path) as reader, pytest.raises(JournalError, match=r"no record 9 .* newest is 3"):
        list(reader.read(after=9))


def test_a_missing_or_empty_file_cannot_be_read(path: Path) -> None:
    with pytest.raises(JournalError, match="does not exist"):
        open_reader(path)
    path.touch()
    with pytest.raises(JournalError, match="is empty"):
        open_reader(path)
    SqliteJournal(path).close()
    with open_reader(path) as reader:
        assert list(reader.read()) == []


def test_a_newer_format_is_refused(path: Path) -> None:
    write(path)
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version={SCHEMA + 1}")
    db.close()
    for opening in (SqliteJournal, open_reader):
        with pytest.raises(JournalError, match=f"format {SCHEMA + 1}, this fednode reads up to {SCHEMA}"):
            opening(path)


def test_an_older_format_is_read_and_raised_by_its_writer(path: Path) -> None:
    old = {"at": 1.0, "round": 1, "digest": "d" * 64, "outliers": [], "seconds": 0.5}
    write(path)
    with SqliteJournal(path) as journal:
        journal.append([("Aggregated", old)])
        journal._db.execute("PRAGMA user_version=1")
    with open_reader(path) as reader:
        (_, kind, body) = list(reader.read())[-1]
        assert reader._db.execute("PRAGMA user_version").fetchone() == (1,)
    fact = from_record(kind, body)
    assert isinstance(fact, Aggregated)
    assert (fact.digest, fact.momentum) == ("d" * 64, None)
    with SqliteJournal(path) as journal:
        assert journal._db.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
        assert list(journal.read())[-1][1:] == ("Aggregated", old)
    with pytest.raises(JournalError, match="Trained"):
        from_record("Trained", old)
    with pytest.raises(JournalError, match="Aggregated"):
        from_record("Aggregated", {**old, "momenta": None})


def test_another_programs_database_is_refused_and_untouched(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE cookies (x)")
    db.close()
    before = path.read_bytes()
    for opening in (SqliteJournal, open_reader):
        with pytest.raises(JournalError, match="another program"):
            opening(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"not a database at all, but long enough to have a header" * 4, b"SQLite format 3\0x"]
)
def test_rubbish_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for opening in (SqliteJournal, open_reader):
        with pytest.raises(JournalError, match=r"journal\.sqlite3"):
            opening(path)


@pytest.mark.parametrize(
    ("statement", "record"),
    [
        ("UPDATE facts SET body = replace(body, 'xx', 'xy') WHERE seq = 2", 2),
        ("UPDATE facts SET kind = 'Fake' WHERE seq = 3", 3),
        ("UPDATE facts SET round = 7 WHERE seq = 2", 2),
        ("UPDATE facts SET at = 7.0 WHERE seq = 1", 1),
        ("UPDATE facts SET crc = crc + 1 WHERE seq = 1", 1),
        ("UPDATE facts SET body = 7 WHERE seq = 1", 1),
        ("DELETE FROM facts WHERE seq = 2", 2),
        ("UPDATE facts SET seq = 9 WHERE seq = 3", 3),
        ("DELETE FROM facts WHERE seq = 1", 1),
    ],
)
def test_a_changed_record_is_named(path: Path, statement: str, record: int) -> None:
    write(path)
    with sqlite3.connect(path) as db:
        db.execute(statement)
    db.close()
    with open_reader(path) as reader:
        seen = []
        with pytest.raises(JournalError, match=f"record {record} is damaged") as caught:
            seen.extend(seq for seq, _, _ in reader.read())
        assert "backup" in caught.value.hint
    with SqliteJournal(path) as journal, pytest.raises(JournalError, match=f"record {record} is damaged"):
        list(journal.read())


def test_every_flipped_byte_of_the_file_is_noticed_or_harmless(path: Path) -> None:
    write(path, 2)
    data = path.read_bytes()
    with open_reader(path) as reader:
        expected = list(reader.read())
    caught = 0
    for index in range(0, len(data), 11):
        path.write_bytes(data[:index] + bytes([data[index] ^ 0x10]) + data[index + 1 :])
        try:
            with open_reader(path) as reader:
                found = list(reader.read())
        except JournalError:
            caught += 1
        else:
            assert found in (expected, []) or found == expected[: len(found)], f"byte {index}"
    assert caught >= 20, "the records' own bytes are among these"


def test_a_failed_write_is_explained_and_nothing_follows_it(path: Path) -> None:
    with SqliteJournal(path) as journal:
        journal.append(FACTS[:1])
        journal._db.execute("PRAGMA max_page_count=4")
        with pytest.raises(JournalError, match="full") as caught:
            journal.append([("Big", {"text": "x" * 100_000})])
        assert "disk space" in caught.value.hint
        journal._db.execute("PRAGMA max_page_count=100000")
        with pytest.raises(JournalError, match="earlier write failed"):
            journal.append(FACTS[1:])
    with SqliteJournal(path) as journal:
        assert [kind for _, kind, _ in journal.read()] == ["Bound"]
        journal.append(FACTS[1:])


def test_two_writers_cannot_interleave(path: Path) -> None:
    with SqliteJournal(path) as first, SqliteJournal(path) as second:
        first.append(FACTS[:1])
        with pytest.raises(JournalError) as caught:
            second.append(FACTS[1:])
        assert "another process" in caught.value.hint
        assert [kind for _, kind, _ in first.read()] == ["Bound"]


def test_a_missing_folder_is_explained(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="No such file"):
        SqliteJournal(tmp_path / "none" / "j")


WRITER = """
import sys
from pathlib import Path
from fednode.node.journal import SqliteJournal
journal = SqliteJournal(Path(sys.argv[1]))
for number in range(journal.last() // 3, 10**9):
    journal.append([("Part", {"batch": number, "part": part, "text": "x" * 300}) for part in range(3)])
    print(number, flush=True)
"""


@pytest.mark.process
def test_kill_9_loses_nothing_that_was_acknowledged(path: Path, tmp_path: Path) -> None:
    acknowledged = -1
    for attempt in range(4):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(5 + attempt * 7):
                acknowledged = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            rest = writer.stdout.read().split()
            acknowledged = int(rest[-1]) if rest else acknowledged
        copy = tmp_path / f"copy-{attempt}"
        copy.mkdir()
        for file in tmp_path.glob("journal.sqlite3*"):
            shutil.copy(file, copy)
        with open_reader(copy / path.name) as reader:
            bodies = [body for _, _, body in reader.read()]
        assert len(bodies) % 3 == 0, "all or none"
        assert len(bodies) // 3 - 1 in (acknowledged, acknowledged + 1)
        assert [body["batch"] for body in bodies] == [index // 3 for index in range(len(bodies))]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_can_be_read(path: Path) -> None:
    write(path)
    path.parent.chmod(0o500)
    try:
        with open_reader(path) as reader:
            assert reader.last() == 3
    finally:
        path.parent.chmod(0o700)
