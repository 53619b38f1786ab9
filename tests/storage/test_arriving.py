"""A file that is hashed while it is written."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fednode.storage.arriving import Arriving


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=200_000), max_size=6), st.integers(1, 40))
def test_the_digest_is_that_of_all_that_was_written(tmp_path: Path, parts: list[bytes], times: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    expected = hashlib.sha256()
    with Arriving(path) as arriving, path.open("wb", buffering=0) as handle:
        for part in parts * times:
            handle.write(part)
            expected.update(part)
        assert arriving.digest() == expected.hexdigest()


def test_a_large_file_is_synced_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, part = tmp_path / "file", bytes(range(256)) * 4096
    path.touch()
    synced = threading.Event()

    def sync(_: int) -> None:
        synced.set()

    monkeypatch.setattr("os.fdatasync", sync)
    expected = hashlib.sha256()
    with Arriving(path) as arriving, path.open("wb", buffering=0) as handle:
        for _ in range(17):
            handle.write(part)
            expected.update(part)
        assert synced.wait(60)
        handle.write(part)
        expected.update(part)
        assert arriving.digest() == expected.hexdigest()


def following() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "arriving"]


def test_who_leaves_early_leaves_no_thread(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with Arriving(path):
        (thread,) = following()
    thread.join(60)
    assert not thread.is_alive()


def test_a_file_that_was_left_has_no_digest(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with Arriving(path) as arriving:
        pass
    with pytest.raises(RuntimeError):
        arriving.digest()


@pytest.mark.parametrize("failure", [OSError(5, "Input/output error"), MemoryError()], ids=["disk", "memory"])
def test_a_part_never_passes_for_the_whole(tmp_path: Path, failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 20_000_000)

    def fails(_: int) -> None:
        raise failure

    monkeypatch.setattr("os.fdatasync", fails)
    with Arriving(path) as arriving:
        while following():
            following()[0].join()
        with pytest.raises(type(failure)):
            arriving.digest()
