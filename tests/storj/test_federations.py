"""Whole federations with their buckets in a real Storj network, and the commands that manage such buckets."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fednode.errors import ConfigError
from fednode.storage.uplink.library import find_library

from .network import Network

pytestmark = pytest.mark.process


def _library() -> str:
    """Why there is no native library; empty when there is one."""
    try:
        find_library(None)
    except ConfigError as error:
        return error.message
    return ""


needs_library = pytest.mark.skipif(_library() != "", reason=f"grants cannot be made: {_library()}")
Json = dict[str, Any]
SECRETS = re.compile(rb"grant = \"([^\"]{60,})\"|secret_access_key = \"([^\"]+)\"")


def fednode(*words: str | Path, cwd: Path, status: int = 0) -> Json:
    """One command to its end, with --json; the answer."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FEDNODE_")}
    done = subprocess.run(
        [sys.executable, "-m", "fednode", *map(str, words), "--json"], cwd=cwd, env={**kept, "TMPDIR": str(cwd)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder_digest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The adapter of the same demo with folders for buckets."""
    folder = tmp_path_factory.mktemp("local")
    return str(fednode("demo", "--task=linear", "--epochs=3", "--dir", folder / "d", cwd=folder)["digest"])


@dataclass(frozen=True)
class Finished:
    store: str
    folder: Path
    summary: Json


def demo(storj: Network, folder: Path, *words: str) -> Json:
    return fednode("demo", "--storj", storj.folder, "--dir", folder / "d", *words, cwd=folder)


@pytest.fixture(scope="module", params=["rclone", "s3", "uplink"])
def finished(storj: Network, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Finished:
    """A demo that ran to its end, for each store."""
    folder = tmp_path_factory.mktemp(request.param)
    found = demo(storj, folder, "--task=linear", "--epochs=3", f"--store={request.param}")
    return Finished(request.param, folder / "d", found)


@needs_library
def test_the_main_job_in_storj(storj: Network, finished: Finished, folder_digest: str) -> None:
    found = finished.summary
    assert found["digest"] == folder_digest
    assert set(found["digests"]) == {"alice", "bob", "carol"}
    assert found["head"]["status"] == "Finalized"
    assert all(money["paid_out"] == money["deposited"] for money in found["lovelace"].values())
    assert not list(finished.folder.glob("*/bucket")), "an object lies in a folder"
    listed = storj.uplink("ls", "--recursive", "sj://fednode-alice").stdout
    assert listed.count(".safetensors") >= 3
    shows_no_secret(finished.folder)


@needs_library
def test_a_finished_run_is_pruned_by_the_janitor_alone(finished: Finished) -> None:
    run, homes = finished.summary["run_id"], finished.folder
    name = "owner/janitor.grant" if finished.store != "s3" else "keys/bucket.grant"
    janitor = ["--credentials", homes / "alice" / name]
    counted = bucket(homes, "alice", "prune", run, *janitor)
    assert counted["objects"] > 3
    assert not counted["deleted"]
    if finished.store != "s3":
        writer = ["--credentials", homes / "alice" / "keys" / "bucket.grant", "--yes"]
        assert bucket(homes, "alice", "prune", run, *writer, status=6)["error"]["code"] == "storage-denied"
    assert bucket(homes, "alice", "prune", run, *janitor, "--yes")["deleted"]
    assert bucket(homes, "alice", "prune", run, *janitor)["objects"] == 0


def shows_no_secret(folder: Path) -> None:
    """What stands in the credentials files stands in no log, journal, evidence or setting."""
    secrets: set[bytes] = set()
    for path in folder.rglob("*.grant"):
        assert path.stat().st_mode & 0o77 == 0, path
        secrets |= {one or other for one, other in SECRETS.findall(path.read_bytes())}
    assert len(secrets) >= 1
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".grant":
            data = path.read_bytes()
            assert not any(secret in data for secret in secrets), path


@needs_library
@pytest.mark.long
@pytest.mark.torch
@pytest.mark.timeout(900)
@pytest.mark.parametrize("store", ["uplink", "rclone", "s3"])
def test_the_language_model_in_storj(storj: Network, tmp_path: Path, store: str) -> None:
    found = demo(storj, tmp_path, "--task=lm", f"--store={store}")
    assert found["head"]["status"] == "Finalized"
    assert found["loss"]["federated"] < 0.97 * min(found["loss"]["alone"].values())


@pytest.fixture
def homes(storj: Network, tmp_path: Path) -> Iterator[Path]:
    """A prepared demo in Storj: homes, agreement, buckets and grants, nothing running."""
    demo(storj, tmp_path, "--task=linear", "--epochs=3", "--store=uplink", "--prepare")
    yield tmp_path / "d"
    shows_no_secret(tmp_path / "d")


def check(homes: Path, party: str, status: int = 0) -> dict[tuple[str, str], Json]:
    """`bucket check`: (whose bucket, what was tried) to the finding."""
    answer = bucket(homes, party, "check", status=status)
    return {(each["party"], each["what"]): each for each in answer["findings"]}


def bucket(homes: Path, party: str, *words: str | Path, status: int = 0) -> Json:
    at = ["--home", homes / party]
    if words[0] != "revoke":
        at += ["--peers", homes / "peers.toml"]
    return fednode("bucket", *words, *at, cwd=homes, status=status)


@needs_library
def test_buckets_are_looked_at_from_both_sides(homes: Path) -> None:
    first = check(homes, "alice")
    assert first["bob", "read"]["verdict"] == "warning"
    check(homes, "bob")
    check(homes, "carol")
    found = check(homes, "alice")
    assert {each["verdict"] for each in found.values()} == {"ok"}
    assert {what for party, what in found if party == "alice"} == {"expiry", "create", "list", "delete"}
    assert {what for party, what in found if party == "bob"} == {"expiry", "list", "read", "write"}


@needs_library
def test_a_grant_that_may_write_is_found_out(storj: Network, homes: Path) -> None:
    """bob was careless: alice got his own grant."""
    shutil.copy(homes / "bob" / "keys" / "bucket.grant", homes / "alice" / "grants" / "bob.grant")
    found = check(homes, "alice", status=6)
    assert found["bob", "write"]["verdict"] == "failed"
    assert {each["verdict"] for (party, _), each in found.items() if party != "bob"} <= {"ok", "warning"}
    assert "must-not-write" in found["bob", "write"]["hint"]
    shutil.copy(homes / "bob" / "owner" / "owner.grant", homes / "alice" / "grants" / "bob.grant")
    assert "also delete" in check(homes, "alice", status=6)["bob", "write"]["text"]
    (homes / "alice" / "grants" / "bob.grant").unlink()
    reader = homes / "alice" / "grants" / "bob.grant"
    bucket(homes, "bob", "share", "alice", "-o", reader)
    assert check(homes, "alice")["bob", "write"]["verdict"] == "ok", "what was left is no proof against a new grant"


@needs_library
def test_a_grant_is_revoked_and_a_new_one_given(homes: Path) -> None:
    handed, theirs = homes / "bob" / "grants" / "alice.grant", homes / "alice" / "owner" / "shared" / "bob.grant"
    check(homes, "bob")
    bucket(homes, "alice", "revoke", handed)
    found = check(homes, "bob", status=6)
    assert found["alice", "list"]["verdict"] == found["alice", "read"]["verdict"] == "failed"
    assert "refused" in found["alice", "list"]["text"]
    answer = bucket(homes, "alice", "share", "bob", "--days", "1")
    assert answer["file"] == str(theirs)
    os.replace(theirs, handed)
    assert check(homes, "bob")["alice", "list"]["verdict"] == "ok"
    keys = homes / "s3.keys"
    keys.touch(mode=0o600)
    keys.write_text('access_key_id = "a"\nsecret_access_key = "b"\n')
    refused = bucket(homes, "alice", "revoke", keys, status=4)
    assert str(keys) in refused["error"]["message"]
    status = fednode("status", "--home", homes / "bob", "--peers", homes / "peers.toml", cwd=homes)
    assert status["grants"][0]["party"] == "alice"


@needs_library
def test_a_bucket_made_from_key_and_passphrase(storj: Network, tmp_path: Path) -> None:
    home, project = tmp_path / "dora", storj.projects[0]
    fednode("init", "--name", "dora", "--home", home, cwd=tmp_path)
    settings = home / "fednode.toml"
    text = settings.read_text().replace('backend = "local"', 'backend = "rclone"', 1)
    settings.write_text(text.replace('bucket = "bucket"', 'bucket = "doras-bucket"', 1))
    for name, word in {"key": project.api_key, "passphrase": project.passphrase}.items():
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text(word + "\n")
    asked = ["--satellite", storj.satellite, "--api-key", tmp_path / "key", "--passphrase", tmp_path / "passphrase"]
    made = fednode("bucket", "create", *asked, "--home", home, cwd=tmp_path)
    assert made["bucket"] == "doras-bucket"
    kept = {name: Path(made[name]).read_bytes() for name in ("writer", "owner", "janitor")}
    assert fednode("bucket", "create", *asked, "--home", home, cwd=tmp_path) == made
    assert {name: Path(made[name]).read_bytes() for name in kept} == kept
    card = fednode("peers", "card", "--home", home, cwd=tmp_path)["card"]
    assert (card["store"], card["bucket"]) == ("storj", "doras-bucket")
    shows_no_secret(home)
    (tmp_path / "key").chmod(0o644)
    refused = fednode("bucket", "create", *asked, "--home", home, cwd=tmp_path, status=4)
    assert f"chmod 600 {tmp_path / 'key'}" in refused["error"]["hint"]


@needs_library
def test_an_unfinished_run_is_not_pruned(homes: Path) -> None:
    status = fednode("status", "--home", homes / "alice", "--peers", homes / "peers.toml", cwd=homes)
    run = status["run_id"] or fednode("peers", "show", "--peers", homes / "peers.toml", cwd=homes)["run"]
    refused = bucket(homes, "alice", "prune", run, "--yes", status=3)
    assert "is not finished" in refused["error"]["message"]
