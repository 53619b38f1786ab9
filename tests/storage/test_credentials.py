"""The file that opens a bucket: private, bounded, understood or refused, replaceable, and never shown."""

from __future__ import annotations

import os
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fednode.durable import write_atomic
from fednode.errors import Denied, FednodeError, KeyFileError
from fednode.storage.credentials import Credentials, CredentialsFile, credentials_text, read_credentials

GRANT = "1CANARY" + "Zk9" * 60
KEYS = 'access_key_id = "AKIDCANARY"\nsecret_access_key = "SECRETCANARY"\n'


def put(path: Path, text: str | bytes, mode: int = 0o600) -> Path:
    write_atomic(path, text.encode() if isinstance(text, str) else text, mode=mode)
    return path


def test_a_bare_grant(tmp_path: Path) -> None:
    for text in (GRANT, f"{GRANT}\n", f"  {GRANT}\r\n"):
        found = read_credentials(put(tmp_path / "g", text))
        assert (found.grant, found.not_after) == (GRANT, None)


def test_a_table(tmp_path: Path) -> None:
    values = {"grant": GRANT, "owner": "alice", "reader": "bob", "bucket": "adapters", "prefix": "run/"}
    when = datetime(2099, 1, 31, 12, 0, 0, tzinfo=UTC).timestamp()
    found = read_credentials(put(tmp_path / "g", credentials_text(values, when)))
    assert found == Credentials(tmp_path / "g", when, "alice", "bob", "adapters", "run/", "", GRANT)
    found.check_time()


def test_a_time_without_zone_is_utc(tmp_path: Path) -> None:
    found = read_credentials(put(tmp_path / "g", KEYS + "not_after = 2027-01-31T00:00:00\n"))
    assert found.not_after == datetime(2027, 1, 31, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o601])
def test_open_to_others(tmp_path: Path, mode: int) -> None:
    path = put(tmp_path / "g", GRANT, mode)
    with pytest.raises(KeyFileError, match=f"{mode:04o}") as caught:
        CredentialsFile(path).read()
    assert caught.value.hint == f"chmod 600 {path}"


def test_absent(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="does not exist") as caught:
        CredentialsFile(tmp_path / "g").read()
    assert "fednode bucket share" in caught.value.hint
    with pytest.raises(KeyFileError, match="cannot be read"):
        CredentialsFile(tmp_path).read()


MALFORMED: list[tuple[str | bytes, str]] = [
    ("", "expected grant"),
    ("CANARY", "not TOML"),
    ('grant = "CANARY', "not TOML"),
    ("grant = 7 # CANARY", "grant: expected one word"),
    ('grant = "CANARY two"', "grant: expected one word"),
    ('grant = "CANARY\\"two"', "grant: expected one word"),
    ('grant = ["CANARY"]', "grant: expected one word"),
    ('access_key_id = "CANARY"', "access_key_id and secret_access_key"),
    ('secret_access_key = "CANARY"', "access_key_id and secret_access_key"),
    (KEYS + "not_after = 2027-01-31", "not_after"),
    (KEYS + 'not_after = "CANARY"', "not_after"),
    (KEYS + 'secret = "CANARY"', "unknown key 'secret'"),
    (KEYS + KEYS, "not TOML"),
    ("é".encode() + KEYS.encode(), "plain text"),
    (b"\xff\x00CANARY", "plain text"),
    (KEYS + "#" * 70_000, "at most 65536 bytes"),
    (GRANT * 400, "at most 65536 bytes"),
]


@pytest.mark.parametrize(("text", "why"), MALFORMED)
def test_not_understood_and_not_shown(tmp_path: Path, text: str | bytes, why: str) -> None:
    with pytest.raises(KeyFileError, match=why) as caught:
        read_credentials(put(tmp_path / "g", text))
    assert caught.value.hint
    assert not shows_canary(caught.value)


def shows_canary(error: FednodeError) -> bool:
    """Whether the error, its hint, or a traceback of it shows any of a secret."""
    texts = [str(error), repr(error), error.hint]
    cause: BaseException | None = error
    while cause is not None:
        texts.append(repr(cause))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "CANARY" in "".join(texts)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "g"
        path.touch(mode=0o600)
        path.write_bytes(data)
        try:
            found = read_credentials(path)
        except KeyFileError:
            return
        assert found.grant or (found.access_key_id and found.secret_access_key)


def test_nothing_shows_a_secret(tmp_path: Path) -> None:
    file = CredentialsFile(put(tmp_path / "g", KEYS + f'grant = "{GRANT}"\nsession_token = "TOKENCANARY"\n'))
    found = file.read()
    assert (found.grant, found.session_token) == (GRANT, "TOKENCANARY")
    assert "CANARY" not in f"{found!r} {found} {file!r} {file}"
    assert not shows_canary(found.refused("listing"))


def test_over_by_our_own_clock(tmp_path: Path) -> None:
    past = (datetime.now(UTC) - timedelta(seconds=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    file = CredentialsFile(put(tmp_path / "g", KEYS + f"not_after = {past}\n"))
    with pytest.raises(Denied, match="expired"):
        file.read()
    put(tmp_path / "g", KEYS)
    assert file.read().not_after is None
    assert "expired" not in str(file.read().refused("x"))
    assert "expired" in str(expired_since(Credentials(tmp_path / "g", time.time() - 1)))


def expired_since(credentials: Credentials) -> Denied:
    """A refusal of credentials that have run out since says so."""
    with pytest.raises(Denied) as caught:
        credentials.refused("x")
    return caught.value


def test_a_replaced_file_is_read_anew(tmp_path: Path) -> None:
    path = put(tmp_path / "g", GRANT)
    file = CredentialsFile(path)
    first = file.read()
    assert file.read() is first
    put(path, "9" + GRANT[1:])
    assert file.read().grant == "9" + GRANT[1:]
    status = os.stat(path)
    path.write_text("8" + GRANT[1:])  # in place, and with the times of before
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.read().grant == "8" + GRANT[1:]


def test_while_it_is_being_replaced_the_old_one_serves(tmp_path: Path) -> None:
    path = put(tmp_path / "g", GRANT)
    file = CredentialsFile(path)
    file.read()
    path.unlink()
    assert file.read().grant == GRANT
    put(path, KEYS, 0o644)
    assert file.read().grant == GRANT
    put(path, KEYS)
    assert file.read().access_key_id == "AKIDCANARY"
