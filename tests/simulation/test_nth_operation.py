"""The n-th operation of journal, bucket, keys and of a whole federation fails, for every n until all is well.

Each time: a clean error or a retry, never half a fact, and the same command works afterwards.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fednode.durable import make_folders, write_atomic
from fednode.errors import FednodeError, JournalError
from fednode.hydra.keys import load_signing_key, load_verification_key, write_pair
from fednode.node.journal import NothingWritten, SqliteJournal, open_reader
from fednode.storage.local import LocalBucket
from fednode.types import Digest

from .failing import Failing, failing, sweep
from .party import remove_folder
from .plan import FAULTS, Limits, plan_of
from .seams import Seams
from .setting import scratch
from .vfs import FailingVfs
from .world import World

GROUPS = [[("Fact", {"at": float(k), "round": k}), ("Other", {"text": "x" * 3000})] for k in range(3)]
WAYS = [(errno.EIO, False), (errno.EIO, True), (errno.ENOSPC, False), (errno.ENOSPC, True)]
WAY_NAMES = ["EIO once", "EIO from then on", "ENOSPC once", "ENOSPC from then on"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory: thousands of fsyncs cost nothing there."""
    made = scratch()
    yield made
    remove_folder(made)


# The journal ---------------------------------------------------------------------------------------------------------


def _read_groups(path: Path) -> int:
    """Whole groups in the journal; fails where there is half of one, or where it cannot be read."""
    try:
        with open_reader(path) as reader:
            kinds = [(kind, body) for _, kind, body in reader.read()]
    except NothingWritten:
        return 0
    except JournalError:
        assert not path.exists() or path.stat().st_size == 0
        return 0
    count, rest = divmod(len(kinds), 2)
    assert rest == 0
    assert kinds == [record for group in GROUPS[:count] for record in group]
    return count


def _write_groups(path: Path, acknowledged: list[int]) -> None:
    journal = SqliteJournal(path)
    try:
        for group in GROUPS:
            journal.append(group)
            acknowledged.append(1)
    finally:
        journal.close()


def _after_journal(path: Path, acknowledged: int) -> None:
    """What was acknowledged is there, and the journal takes what comes next."""
    found = _read_groups(path)
    assert acknowledged <= found <= acknowledged + 1
    with SqliteJournal(path) as journal:
        for group in GROUPS[found:]:
            journal.append(group)
    assert _read_groups(path) == len(GROUPS)


@pytest.mark.parametrize(("full", "lasting"), [(False, False), (False, True), (True, False), (True, True)])
def test_journal_on_a_failing_disk(folder: Path, full: bool, lasting: bool) -> None:
    try:
        vfs = FailingVfs()
    except (OSError, AttributeError) as error:
        pytest.skip(f"Python's SQLite is no library of its own: {error}")
    kinds, hints = Counter[str](), set[str]()
    with vfs:
        for n in range(1, 1000):
            path, acknowledged = folder / f"{n}.sqlite3", list[int]()
            vfs.arm(n, full=full, lasting=lasting)
            try:
                _write_groups(path, acknowledged)
            except JournalError as error:
                hints.add(error.hint)
            failed = vfs.failed
            vfs.arm(0, full=False, lasting=False)
            _after_journal(path, len(acknowledged))
            kinds[failed] += 1
            if not failed:
                break
    assert kinds[""] == 1
    assert "" not in hints
    assert kinds["write"] > 10
    assert full or (kinds["sync"] > 4 and kinds["read"] > 4 and kinds["open"] > 1)


def test_journal_that_fails_while_it_is_read(folder: Path) -> None:
    try:
        vfs = FailingVfs()
    except (OSError, AttributeError) as error:
        pytest.skip(f"Python's SQLite is no library of its own: {error}")
    path, count = folder / "journal.sqlite3", 0
    _write_groups(path, [])
    with vfs:
        for n in range(1, 1000):
            vfs.arm(n, full=False, lasting=False)
            try:
                with open_reader(path) as reader:
                    assert len(list(reader.read())) == 6
            except JournalError:
                count += 1
            failed = vfs.failed
            vfs.arm(0, full=False, lasting=False)
            assert _read_groups(path) == 3
            if not failed:
                break
    assert count >= 3


_LIMITED = """
import json, resource, signal, sys
sys.path.insert(0, sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from pathlib import Path
from simulation.test_nth_operation import _after_journal, _write_groups, JournalError
folder, told = Path(sys.argv[1]), []
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
for limit in range(0, 60_000, 700):
    path, acknowledged, refused = folder / f"{limit}.sqlite3", [], False
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        _write_groups(path, acknowledged)
    except JournalError:
        refused = True
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    _after_journal(path, len(acknowledged))
    told.append([limit, len(acknowledged), refused])
print(json.dumps(told))
"""


def test_journal_whose_files_may_not_grow(folder: Path) -> None:
    """The kernel refuses to make any file longer than so many bytes: in a process of its own."""
    here = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run(
        [sys.executable, "-P", "-c", _LIMITED, str(folder), here], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert {0, 2, 3} <= {acknowledged for _, acknowledged, _ in told}
    assert all(refused == (acknowledged < 3) for _, acknowledged, refused in told)


# The bucket ----------------------------------------------------------------------------------------------------------

KEY, SIGNAL = "run/000001/object.safetensors", "run/000001/signal.cbor"
DATA = bytes(range(256)) * 10
DIGEST = Digest(hashlib.sha256(DATA).hexdigest())


def _bucket_session(folder: Path) -> None:
    """What a party does with buckets in a round: the blocking half of each operation."""
    bucket = LocalBucket(folder)
    bucket._put(KEY, folder.parent / "source")
    assert bucket._head(KEY) == len(DATA)
    bucket._put(SIGNAL, folder.parent / "source")
    bucket._get(KEY, folder / "cache/object", len(DATA), DIGEST, None)
    assert bucket._read(SIGNAL, len(DATA)) == DATA


@pytest.mark.parametrize(("code", "lasting"), WAYS, ids=WAY_NAMES)
def test_bucket(folder: Path, code: int, lasting: bool) -> None:
    """What stands under a name is whole, and the session can be done again."""
    (folder / "source").write_bytes(DATA)

    def check(here: Path, state: Failing, error: BaseException | None) -> None:
        assert error is None or isinstance(error, FednodeError), repr(error)
        for path in here.rglob("*"):
            if path.is_file() and not path.name.startswith(".") and not path.name.endswith(".kept"):
                assert path.read_bytes() == DATA, path
        _bucket_session(here)

    failed = sweep(folder, _bucket_session, check, code, lasting)
    assert failed["fsync"] >= 4
    assert failed["write"] >= 3
    assert failed.total() >= (40 if code == errno.EIO else 20)


# Keys and files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "lasting"), WAYS, ids=WAY_NAMES)
def test_keys(folder: Path, code: int, lasting: bool) -> None:
    """A key pair is whole, or lacks the public half, which the next call makes; a secret is never open to others."""

    def run(here: Path) -> None:
        made = write_pair(here / "keys", "funds", "funds")
        assert load_signing_key(here / "keys" / "funds.sk").vkey == made.vkey

    def check(here: Path, state: Failing, error: BaseException | None) -> None:
        assert error is None or isinstance(error, FednodeError | OSError), repr(error)
        secret, public = here / "keys" / "funds.sk", here / "keys" / "funds.vk"
        before = load_signing_key(secret).vkey if secret.exists() else None
        if not public.exists():
            write_pair(here / "keys", "funds", "funds")
        assert secret.stat().st_mode & 0o777 == 0o600
        assert load_signing_key(secret).vkey == load_verification_key(public)
        assert before in (None, load_verification_key(public))

    failed = sweep(folder, run, check, code, lasting)
    assert failed["fsync"] >= 4
    assert failed["rename"] == 2


@pytest.mark.parametrize(("code", "lasting"), WAYS, ids=WAY_NAMES)
def test_atomic_files(folder: Path, code: int, lasting: bool) -> None:
    """The old content or the new one, and nothing beside it."""

    def run(here: Path) -> None:
        path = here / "a" / "file"
        make_folders(path.parent)
        write_atomic(path, b"old")
        write_atomic(path, b"new" * 1000)

    def check(here: Path, state: Failing, error: BaseException | None) -> None:
        path = here / "a" / "file"
        assert error is None or isinstance(error, OSError), repr(error)
        assert not path.exists() or path.read_bytes() in (b"old", b"new" * 1000)
        assert error is not None or path.read_bytes() == b"new" * 1000
        assert {p.name for p in path.parent.glob("*")} <= {"file"}

    failed = sweep(folder, run, check, code, lasting)
    assert failed["write"] >= 2
    assert failed["rename"] == 2


# A federation --------------------------------------------------------------------------------------------------------


def _federation(state: Failing, seed: int) -> World:
    """Two parties, one round, real files; what fails ends a process in a clean way, and it is started again."""
    limits = Limits(parties=2, rounds=1, without=frozenset({*FAULTS, "lie"}), files=True)
    plan = replace(plan_of(seed, limits), noisy=False, safety_s=10.0)
    with Seams():
        world = World(plan)
        world.pause = state.pause
        world.tolerates = lambda error: isinstance(error, FednodeError | OSError)
        with failing(state):
            world.run()
    return world


@pytest.mark.timeout(600)
def test_federation() -> None:
    """Every 23rd operation of a whole run (FEDNODE_NTH_STEP = 1: every one), and the run ends as undisturbed."""
    step = int(os.environ.get("FEDNODE_NTH_STEP", "23"))
    counted = Failing(0, errno.EIO)
    undisturbed = _federation(counted, 5).oracle.truth
    assert len(undisturbed) == 2
    assert counted.count > 300
    kinds, ended = Counter[str](), 0
    for n in range(1, counted.count + 1, step):
        state = Failing(n, errno.EIO if n % 2 else errno.ENOSPC)
        world = _federation(state, 5)
        assert world.oracle.truth == undisturbed
        kinds[state.failed or "none"] += 1
        ended += world.faults["ended by error"]
    assert sum(kinds.values()) - kinds["none"] >= counted.count // step // 2
    assert ended > 0
