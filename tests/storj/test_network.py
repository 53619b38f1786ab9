"""The Storj network of the tests is real, is private, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import PermissionDeniedError
from obstore.store import S3Store

from .loopback import client, processes, programs
from .loopback.cached import cache
from .loopback.files import NAME, Description, Process, load
from .network import Gateway, Network, missing, storj_network

pytestmark = [pytest.mark.process, pytest.mark.skipif(missing() != "", reason=f"no real Storj network: {missing()}")]
SCRIPT = Path(__file__).parents[2] / "scripts" / "storj-devnet.py"
BODY = os.urandom(3_000_000)


def devnet(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True, timeout=120)


def described(folder: Path) -> Description:
    found = load(folder)
    assert found is not None
    return found


def gone(network: Description) -> bool:
    """Every process of it, and its data. (Waits: a killed process goes a moment later.)"""
    return all(processes.wait(each, 30) for each in network.processes.values()) and not Path(network.runtime).exists()


def bucket_of(gateway: Gateway, name: str, secret: str | None = None) -> S3Store:
    return S3Store(
        name, endpoint=gateway.endpoint, region=gateway.region, access_key_id=gateway.access_key,
        secret_access_key=gateway.secret_key if secret is None else secret, virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(BODY)
    return path


def test_up_status_down(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    try:
        up = devnet("up", "--dir", str(folder))
        assert up.returncode == 0, up.stderr
        network = described(folder)
        assert network.satellite in up.stdout
        assert "TEST network" in up.stdout
        status = devnet("status", "--dir", str(folder))
        assert status.returncode == 0
        assert status.stdout.count(" runs\n") == len(network.processes) == 4
        again = devnet("up", "--dir", str(folder))
        assert again.returncode == 1
        assert "runs already" in again.stderr
        assert devnet("kill", "--dir", str(folder)).returncode == 0
        assert processes.wait(network.processes["planet"], 30)
        status = devnet("status", "--dir", str(folder))
        assert status.returncode == 1
        assert "is gone" in status.stdout
    finally:
        down = devnet("down", "--dir", str(folder))
    assert down.returncode == 0, down.stderr
    assert gone(network)
    assert not (folder / NAME).exists()
    assert devnet("status", "--dir", str(folder)).returncode == 1


def test_every_secret_is_in_private_files_and_nowhere_else(storj: Network) -> None:
    secrets = [word for each in storj.projects for word in (each.api_key, each.passphrase, each.grant)]
    secrets += [storj.gateway.access_key, storj.gateway.secret_key]
    assert len(set(secrets)) == 11
    assert stat.S_IMODE((storj.folder / NAME).stat().st_mode) == 0o600
    argvs = [Path(f"/proc/{each.pid}/cmdline").read_bytes() for each in storj.described.processes.values()]
    logs = [path.read_bytes() for path in (storj.folder / "log").iterdir()]
    assert len(logs) == 4
    for secret in secrets:
        assert all(secret.encode() not in text for text in [*argvs, *logs, repr(storj).encode()])
    for path in [storj.folder, storj.folder / "log", Path(storj.described.control).parent]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_it_listens_on_this_machine_only(storj: Network) -> None:
    """Of all listening sockets, those that belong to the network are bound to 127.0.0.1."""
    inodes = set()
    for process in storj.described.processes.values():
        for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
            inodes.update(re.findall(r"socket:\[(\d+)\]", os.readlink(descriptor)))
    found = []
    for table, listening in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
        rows = [line.split() for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
        found += [row[1].partition(":")[0] for row in rows if row[3] == listening and row[9] in inodes]
    assert len(found) > 10
    assert set(found) == {"0100007F"}


def test_the_vendors_program_puts_and_gets(storj: Network, source: Path, tmp_path: Path) -> None:
    bucket = storj.make_bucket("native")
    put = storj.uplink("cp", str(source), f"sj://{bucket}/a/one")
    assert put.returncode == 0, put.stderr
    got = storj.uplink("cp", f"sj://{bucket}/a/one", str(tmp_path / "copy"))
    assert got.returncode == 0, got.stderr
    assert (tmp_path / "copy").read_bytes() == BODY
    stranger = storj.uplink("cp", f"sj://{bucket}/a/one", str(tmp_path / "stolen"), project=1)
    assert stranger.returncode != 0


def test_the_gateway_speaks_s3_and_shows_native_objects(storj: Network, source: Path, tmp_path: Path) -> None:
    store = bucket_of(storj.gateway, storj.make_bucket("gateway"))
    obstore.put(store, "b/two", BODY)
    assert bytes(obstore.get(store, "b/two").bytes()) == BODY
    native = storj.uplink("cp", "sj://gateway/b/two", str(tmp_path / "copy"))
    assert native.returncode == 0, native.stderr
    assert (tmp_path / "copy").read_bytes() == BODY
    with pytest.raises(PermissionDeniedError):
        obstore.head(bucket_of(storj.gateway, "gateway", secret="0" * 64), "b/two")


def test_a_gateway_before_a_read_only_grant_refuses_to_write(storj: Network, source: Path) -> None:
    bucket = storj.make_bucket("readonly")
    assert storj.uplink("cp", str(source), f"sj://{bucket}/p/x").returncode == 0
    made = storj.uplink("access", "restrict", "--access", storj.grant, "--readonly", "--prefix", f"sj://{bucket}/p/")
    with storj.gateway_before(made.stdout.split()[-1]) as gateway:
        store = bucket_of(gateway, bucket)
        assert bytes(obstore.get(store, "p/x").bytes()) == BODY
        for act in (lambda: obstore.put(store, "p/y", b"y"), lambda: obstore.get(store, "q/x")):
            with pytest.raises(PermissionDeniedError):
                act()


def test_a_revoked_grant_is_refused_at_once(storj: Network, source: Path) -> None:
    bucket = storj.make_bucket("revoked")
    assert storj.uplink("cp", str(source), f"sj://{bucket}/p/x").returncode == 0
    # This program takes grants in argv only; the one here is worth nothing.
    made = storj.uplink("access", "restrict", "--access", storj.grant, "--readonly", "--prefix", f"sj://{bucket}/p/")
    grant = made.stdout.split()[-1]
    assert storj.uplink("ls", f"sj://{bucket}/p/", grant=grant).returncode == 0
    revoked = storj.uplink("access", "revoke", "--access", storj.grant, grant)
    assert revoked.returncode == 0, revoked.stderr
    assert storj.uplink("ls", f"sj://{bucket}/p/", grant=grant).returncode != 0
    assert storj.uplink("ls", f"sj://{bucket}/p/").returncode == 0


def test_a_frozen_satellite_answers_nothing_until_it_is_thawed(storj: Network) -> None:
    bucket = storj.make_bucket("frozen")
    store = bucket_of(storj.gateway, bucket)
    obstore.put(store, "x", b"x")
    planet = storj.described.processes["planet"]
    with storj.frozen():
        assert processes.stopped(planet)
    assert not processes.stopped(planet)
    assert bytes(obstore.get(store, "x").bytes()) == b"x"


def test_reads_go_on_without_one_storage_node_and_fail_without_two(
    own_storj: Network, source: Path, tmp_path: Path
) -> None:
    bucket = own_storj.make_bucket("nodes")
    assert own_storj.uplink("cp", str(source), f"sj://{bucket}/x").returncode == 0
    own_storj.stop_node(3)
    got = own_storj.uplink("cp", f"sj://{bucket}/x", str(tmp_path / "copy"))
    assert got.returncode == 0, got.stderr
    assert (tmp_path / "copy").read_bytes() == BODY
    with pytest.raises(programs.CannotRun, match="storage nodes 0 to 3"):
        own_storj.stop_node(4)
    own_storj.stop_node(0)
    own_storj.stop_node(1)
    assert own_storj.uplink("cp", f"sj://{bucket}/x", str(tmp_path / "none")).returncode != 0


def test_a_killed_satellite_ends_with_its_network(tmp_path: Path) -> None:
    with storj_network(tmp_path / "net", gateway=False) as network:
        network.kill()
        assert processes.wait(network.described.processes["planet"], 30)
        with pytest.raises(programs.CannotRun, match="does not run"):
            network.thaw()
    assert gone(network.described)


def test_a_frozen_network_ends_too(tmp_path: Path) -> None:
    with storj_network(tmp_path / "net", gateway=False) as network:
        network.freeze()
    assert gone(network.described)


def test_a_killed_supervisor_takes_everything_along(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    with storj_network(folder) as network:
        processes.send(network.described.processes["supervisor"], signal.SIGKILL)
        assert all(processes.wait(each, 30) for each in network.described.processes.values())
    assert devnet("down", "--dir", str(folder)).returncode == 0
    assert gone(network.described)
    assert load(folder) is None


def test_a_network_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """The starter of a leashed network is killed without a chance to tidy up."""
    folder = tmp_path / "net"
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\nfrom loopback import client\n"
        f"kept = client.start(Path({str(folder)!r}), with_gateway=False, leashed=True)\n"
        "print('up', flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"up\n"
        network = described(folder)
        starter.kill()
    assert gone(network)
    assert load(folder) is None


def test_a_process_of_the_same_number_is_not_touched(tmp_path: Path) -> None:
    """A left-over file names a process that is another one by now."""
    now = processes.identify(os.getpid())
    other = Process(now.pid, now.started - 1)
    assert not processes.runs(other)
    assert not processes.send(other, signal.SIGKILL)
    assert processes.wait(other, 30)


@pytest.mark.parametrize(("lacking", "says"), [("go", "Go is not on PATH"), ("initdb", "apt-get install postgresql")])
def test_what_is_missing_is_named(lacking: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    which = shutil.which

    def without(name: str, *rest: Any, **more: Any) -> str | None:
        return None if name == lacking else which(name, *rest, **more)

    monkeypatch.setattr(shutil, "which", without)
    if lacking == "initdb":
        monkeypatch.setattr(programs, "DEBIAN", Path("/nonexistent"))
    assert says in missing()


def test_programs_that_are_not_built_are_not_built_by_a_test(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEDNODE_TEST_CACHE", str(tmp_path / "cache"))
    assert cache() == tmp_path / "cache"
    assert "scripts/storj-devnet build" in missing()
    with pytest.raises(programs.CannotRun, match="storj-devnet build"):
        client.start(tmp_path / "net")
    assert not list((tmp_path / "cache").iterdir())


def test_the_description_survives_a_round_trip(storj: Network) -> None:
    assert load(storj.folder) == storj.described
    assert json.loads((storj.folder / NAME).read_text())["notice"].startswith("a test network")
