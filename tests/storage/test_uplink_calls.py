"""Our calls of the native library: nothing is left unfreed, no error is lost, exactly the right bytes move."""

from __future__ import annotations

import asyncio
import ctypes
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fednode.errors import (
    ConfigError,
    Conflict,
    Denied,
    FednodeError,
    KeyFileError,
    NotFound,
    QuotaExceeded,
    StorageError,
    Throttled,
    Unavailable,
)
from fednode.storage.credentials import Credentials
from fednode.storage.uplink import frames
from fednode.storage.uplink.abi import SIGNATURES, Code, load
from fednode.storage.uplink.access import GrantError, Permission, Uplink
from fednode.storage.uplink.calls import CHUNK, Project, SourceChangedError, StoreError
from fednode.storage.uplink.failures import error_from_json, error_to_json

from .uplink_support import GRANT, ROOT, build_stub

DATA = os.urandom(CHUNK * 2 + 12_345)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_stub(tmp_path_factory.mktemp("stub"))


@pytest.fixture
def uplink(library: Path) -> Uplink:
    return Uplink(library)


@pytest.fixture
def project(uplink: Uplink) -> Iterator[Project]:
    opened = uplink.open_project(GRANT)
    yield opened
    opened.free()


def live(library: Path) -> int:
    """What the stand-in gave out and did not get back."""
    count = ctypes.CDLL(str(library)).stub_live
    count.restype = ctypes.c_long
    return int(count())


def put(project: Project, key: str, data: bytes, folder: Path, size: int | None = None) -> list[int]:
    path, told = folder / "source", list[int]()
    path.write_bytes(data)
    with path.open("rb") as source:
        project.upload("bucket", key, source.fileno(), len(data) if size is None else size, told.append)
    return told


def get(project: Project, key: str, folder: Path, limit: int) -> bytes:
    path = folder / "target"
    with path.open("wb") as target:
        moved = project.download("bucket", key, target.fileno(), limit, lambda _: None)
    data = path.read_bytes()
    assert len(data) == moved <= limit
    return data


@pytest.mark.parametrize("size", [0, 1, 1000, 70_000, CHUNK, CHUNK + 1, len(DATA)])
def test_bytes_come_back_and_everything_is_freed(library: Path, uplink: Uplink, tmp_path: Path, size: int) -> None:
    before = live(library)
    project = uplink.open_project(GRANT)
    told = put(project, f"round/{size}", DATA[:size], tmp_path)
    assert told[-1] == size
    assert told == sorted(told)
    assert project.stat("bucket", f"round/{size}") == size
    assert get(project, f"round/{size}", tmp_path, size + 1) == DATA[:size]
    assert (f"round/{size}", size) in list(project.list("bucket", "round/"))
    project.delete("bucket", f"round/{size}")
    project.ensure_bucket("bucket")
    project.free()
    assert live(library) == before


@pytest.mark.parametrize("limit", [1, 69_999, 70_000, 70_001, CHUNK, CHUNK + 1, len(DATA) - 1, len(DATA)])
def test_never_more_than_the_limit(project: Project, tmp_path: Path, limit: int) -> None:
    put(project, "long", DATA, tmp_path)
    assert get(project, "long", tmp_path, limit) == DATA[:limit]


@pytest.mark.parametrize(("written", "said"), [(100, 101), (100, 99), (0, 1), (1, 0), (CHUNK, CHUNK - 1)])
def test_a_file_of_another_size_is_not_published(project: Project, tmp_path: Path, written: int, said: int) -> None:
    with pytest.raises(SourceChangedError):
        put(project, f"changed/{written}", DATA[:written], tmp_path, said)
    assert list(project.list("bucket", "changed/")) == []


@pytest.mark.parametrize("op", ["begin", "write", "commit"])
def test_an_upload_that_fails_is_not_there(library: Path, project: Project, tmp_path: Path, op: str) -> None:
    before = live(library)
    with pytest.raises(StoreError) as caught:
        put(project, f"failing/{op}-06", DATA, tmp_path)
    assert caught.value.code == Code.BANDWIDTH_LIMIT
    assert list(project.list("bucket", "failing/")) == []
    assert live(library) == before


def test_an_upload_that_is_not_wanted_any_more_is_not_there(project: Project, tmp_path: Path) -> None:
    class Unwanted(Exception):
        pass

    def stop(done: int) -> None:
        if done == len(DATA):
            raise Unwanted

    path = tmp_path / "source"
    path.write_bytes(DATA)
    with path.open("rb") as source, pytest.raises(Unwanted):
        project.upload("bucket", "unwanted/x", source.fileno(), len(DATA), stop)
    assert list(project.list("bucket", "unwanted/")) == []


def test_errors_of_every_call_are_told_and_freed(library: Path, project: Project, tmp_path: Path) -> None:
    put(project, "good/read-05", DATA, tmp_path)
    before = live(library)
    calls: list[Callable[[], Any]] = [
        lambda: project.stat("bucket", "stat-05"),
        lambda: project.delete("bucket", "delete-05"),
        lambda: project.ensure_bucket("ensure-05"),
        lambda: list(project.list("bucket", "list-05/")),
        lambda: get(project, "open-05", tmp_path, 10),
        lambda: get(project, "good/read-05", tmp_path, 10),
    ]
    for call in calls:
        with pytest.raises(StoreError) as caught:
            call()
        assert caught.value.code == Code.TOO_MANY_REQUESTS
    assert live(library) == before


def test_a_listing_that_breaks_off_is_no_short_listing(project: Project, tmp_path: Path) -> None:
    put(project, "list-02/one", b"1", tmp_path)
    seen: list[tuple[str, int]] = []
    with pytest.raises(StoreError):
        seen.extend(project.list("bucket", "list-02/"))
    assert ("list-02/one", 1) in list(project.list("bucket", ""))


def permission(**changed: Any) -> Permission:
    return Permission(**{
        "bucket": "bucket", "prefix": "a/", "read": True, "write": False, "list": True, "delete": False,
        "not_before": 5, "not_after": 7, "max_object_ttl_s": 0, **changed,
    })  # fmt: skip


def test_sharing_passes_what_is_allowed(library: Path, uplink: Uplink) -> None:
    before = live(library)
    assert uplink.share(GRANT, permission()) == f"{GRANT}|1010|5|7|1|bucket|a/"
    assert uplink.share(GRANT, permission(write=True, delete=True, not_after=0)) == f"{GRANT}|1111|5|0|1|bucket|a/"
    assert live(library) == before


def test_grants_that_are_none(uplink: Uplink) -> None:
    for call in (lambda: uplink.open_project("1NfEF"), lambda: uplink.share("1NfEF", permission())):
        with pytest.raises(GrantError) as caught:
            call()
        assert "1NfEF" not in repr(caught.value)


def test_codes_that_uplink_python_does_not_know(uplink: Uplink) -> None:
    with pytest.raises(StoreError) as caught:
        uplink.request_access("denied", "key", "pass")
    assert caught.value.code == Code.PERMISSION_DENIED


def test_an_official_library_cannot_limit_the_life_of_objects(uplink: Uplink) -> None:
    with pytest.raises(ConfigError, match="limit the life"):
        uplink.share(GRANT, permission(max_object_ttl_s=60))


def test_something_else_than_the_library(tmp_path: Path) -> None:
    (tmp_path / "x.so").write_bytes(b"\x7fELF and nothing")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load(tmp_path / "x.so")
    with pytest.raises(ConfigError, match="lacks uplink_"):
        load(Path("libc.so.6"))


def test_the_signatures_are_those_of_uplink_python() -> None:
    """By uplink-python's own structs: sizes and offsets are the same where both declare one."""
    definitions = pytest.importorskip("uplink_python.module_def")
    from fednode.storage.uplink import abi

    pairs = [
        (abi.ErrorStruct, "_Error"), (abi.Result, "_ProjectResult"), (abi.Count, "_WriteResult"),
        (abi.Count, "_ReadResult"), (abi.ObjectStruct, "_ObjectStruct"), (abi.PrefixStruct, "_SharePrefixStruct"),
        (abi.ListOptions, "_ListObjectsOptionsStruct"), (abi.PermissionStruct, "_PermissionStruct"),
    ]  # fmt: skip
    for ours, name in pairs:
        theirs = getattr(definitions, name)
        assert ctypes.sizeof(ours) == ctypes.sizeof(theirs), name
        assert {field[0] for field in ours._fields_} >= {"key", "is_prefix"} or name != "_ObjectStruct"
    assert abi.ObjectStruct.content_length.offset == (  # type: ignore[attr-defined]  # a field's descriptor
        definitions._ObjectStruct.system.offset + definitions._SystemMetadataStruct.content_length.offset
    )


def test_our_library_has_every_function_that_is_called() -> None:
    """In the Go sources: what is declared here, and what uplink-python calls."""
    go = "".join(path.read_text() for path in (ROOT / "storage" / "libuplink").glob("*.go"))
    exported = set(re.findall(r"^//export (\w+)$", go, re.M))
    assert set(SIGNATURES) <= exported
    package = pytest.importorskip("uplink_python")
    called = "".join(path.read_text() for path in Path(package.__file__).parent.glob("*.py"))
    assert set(re.findall(r"m_libuplink\.\\?\s*(uplink_\w+)", called)) <= exported


# Errors.

KNOWN = Credentials(Path("alice.toml"), None, grant=GRANT)
MAPPED: list[tuple[int, str, type[FednodeError]]] = [
    (Code.INTERNAL, "", Unavailable),
    (Code.CANCELED, "context canceled", Unavailable),
    (Code.INVALID_HANDLE, "", Unavailable),
    (Code.TOO_MANY_REQUESTS, "", Throttled),
    (Code.BANDWIDTH_LIMIT, "", QuotaExceeded),
    (Code.STORAGE_LIMIT, "", QuotaExceeded),
    (Code.SEGMENTS_LIMIT, "", QuotaExceeded),
    (Code.PERMISSION_DENIED, "", Denied),
    (Code.PERMISSION_DENIED, "uplink: no permissions to delete existing object", Conflict),
    (Code.BUCKET_NAME_INVALID, "", StorageError),
    (Code.BUCKET_NOT_FOUND, "", Unavailable),
    (Code.KEY_INVALID, "", StorageError),
    (Code.OBJECT_NOT_FOUND, "", NotFound),
    (Code.INTERNAL, "uplink: api key format: x", KeyFileError),
    (Code.INTERNAL, "uplink: node URL: x", ConfigError),
    (0x7777, "later", StorageError),
]


@pytest.mark.parametrize(("code", "text", "kind"), MAPPED)
def test_codes_become_errors(code: int, text: str, kind: type[FednodeError]) -> None:
    error = error_from_json(error_to_json(StoreError(code, text)), "sj://b: head of x", KNOWN, None)
    assert type(error) is kind
    assert error.message.startswith("sj://b: head of x")


def test_a_grant_that_is_over_by_our_clock_says_so() -> None:
    over = Credentials(Path("alice.toml"), 1000.0, grant=GRANT)
    error = error_from_json(error_to_json(StoreError(Code.PERMISSION_DENIED, "")), "x", over, None)
    assert isinstance(error, Denied)
    assert "expired" in error.message


def test_no_secret_in_errors() -> None:
    for error in (StoreError(2, f"cannot {GRANT} x"), ValueError(GRANT), KeyError(GRANT), GrantError()):
        told = error_to_json(error)
        shown = error_from_json(told, "x", KNOWN, None)
        assert "1NfEFS" not in repr((told, shown, shown.hint, KNOWN))


@pytest.mark.parametrize(
    ("number", "kind"), [(13, Denied), (28, QuotaExceeded), (5, Unavailable), (2, StorageError), (0, StorageError)]
)
def test_errors_of_files(number: int, kind: type[FednodeError]) -> None:
    error = error_from_json(error_to_json(OSError(number, "why")), "x", KNOWN, Path("/f/source"))
    assert type(error) is kind
    assert "/f/source" in error.message


# Frames.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


async def received(data: bytes) -> list[frames.Message]:
    stream = asyncio.StreamReader()
    stream.feed_data(data)
    stream.feed_eof()
    found: list[frames.Message] = []
    while (message := await frames.receive(stream)) is not None:
        found.append(message)
    return found


@settings(max_examples=60)
@given(st.lists(st.dictionaries(st.text(max_size=8), JSON, max_size=3), max_size=3), st.integers(0, 60))
def test_messages_come_through_and_a_cut_one_is_none(messages: list[dict[str, Any]], cut: int) -> None:
    packed = [frames.pack(message) for message in messages]
    data = b"".join(packed)
    data = data[: max(len(data) - cut, 0)]
    whole, size = 0, 0
    for one in packed:
        size += len(one)
        whole += size <= len(data)
    stream, found = io.BytesIO(data), list[frames.Message]()
    while (message := frames.read(stream)) is not None:
        found.append(message)
    assert found == messages[:whole]
    assert asyncio.run(received(data)) == messages[:whole]


@given(st.binary(max_size=64))
def test_anything_else_is_broken_or_the_end(data: bytes) -> None:
    try:
        while (message := frames.read(io.BytesIO(data))) is not None:
            assert isinstance(message, dict)
            return
    except frames.BrokenFrameError:
        pass


def test_long_frames_are_neither_sent_nor_read() -> None:
    with pytest.raises(frames.BrokenFrameError):
        frames.pack({"x": "y" * frames.LIMIT})
    with pytest.raises(frames.BrokenFrameError):
        frames.read(io.BytesIO((frames.LIMIT + 1).to_bytes(4, "big") + b"{"))


def test_the_worker_loads_neither_daemon_nor_torch() -> None:
    code = "import sys, fednode.storage.uplink.worker; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "fednode.storage.uplink.worker" in done.stdout
    assert not loaded & {"torch", "numpy", "transformers", "httpx", "obstore", "pydantic", "uplink_python"}
    assert not [name for name in done.stdout.split() if name.startswith(("fednode.node", "fednode.training"))]
