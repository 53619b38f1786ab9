"""`init-head` and `run` up to the point where they would speak to a hydra-node."""

from __future__ import annotations

from pathlib import Path

import pytest

from fednode.errors import HeadError, RunMismatch
from fednode.node import app
from fednode.node.agreement_tables import MAX_ROUNDS
from fednode.node.app import trainer_setup
from fednode.node.cli import head, invoke
from fednode.node.home import Home
from fednode.node.journal import SqliteJournal
from fednode.node.protocol.facts import RunBound
from fednode.node.protocol.records import to_record
from fednode.node.site import Site, replay


@pytest.fixture
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """Homes of alice and bob, and their agreement beside them."""
    monkeypatch.chdir(tmp_path)
    for name in ("alice", "bob"):
        assert invoke(["init", "--home", name, "--name", name]) == 0
        assert invoke(["peers", "card", "--home", name, "-o", f"{name}.toml"]) == 0
    assert invoke(["peers", "add", "--home", "nobody", "--peers", "shared/peers.toml", "alice.toml", "bob.toml"]) == 0
    capsys.readouterr()
    return tmp_path


@pytest.mark.parametrize(("epochs", "status"), [(0, 2), (1, 5), (MAX_ROUNDS, 5), (MAX_ROUNDS + 1, 2)])
def test_epochs_have_the_limits_of_the_agreement(homes: Path, epochs: int, status: int) -> None:
    """2: refused as an option; 5: there is no head yet, which is asked last."""
    assert invoke(["run", "--home", "alice", "--peers", "shared/peers.toml", "--epochs", str(epochs)]) == status


def test_a_run_that_another_process_bound_meanwhile_is_noticed(homes: Path) -> None:
    """`open_site` looks before the home is locked."""
    home = Home(homes / "alice")
    first, second = (app.open_site(home, peers=homes / "shared" / "peers.toml", epochs=epochs) for epochs in (3, 4))
    journal = SqliteJournal(home.journal)
    journal.append([to_record(RunBound(1.0, first.rules.run, first.rules.rounds))])
    journal.close()
    assert replay(first).run == first.rules.run
    with pytest.raises(RunMismatch, match=f"bound to run {first.rules.run}; .*4 rounds is run {second.rules.run}"):
        replay(second)


def test_init_head_keeps_the_bytes_that_were_checked(homes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the file changes between the check and the copy, and whatever its line ends are."""
    peers = homes / "shared" / "peers.toml"
    checked = b"\xef\xbb\xbf" + peers.read_bytes().replace(b"\n", b"\r\n").replace(b'path = ""', b'path = "base"')
    assert b'"base"' in checked
    peers.write_bytes(checked)
    sites: list[Site] = []
    opened = app.open_site

    def open_and_change(*args: object, **options: object) -> Site:
        sites.append(opened(*args, **options))  # type: ignore[arg-type]  # handed on as they came
        peers.write_bytes(b"changed")
        return sites[-1]

    async def no_node(*_: object) -> None:
        raise HeadError("as far as this test goes")

    monkeypatch.setattr(app, "open_site", open_and_change)
    monkeypatch.setattr(head, "_open", no_node)
    assert invoke(["init-head", "--home", "alice", "--peers", "shared/peers.toml"]) == 5
    assert (homes / "alice" / "peers.toml").read_bytes() == checked
    # Both files name one model: a relative path counts from the home.
    again = opened(sites[0].home, peers=None, epochs=None)
    for site in (sites[0], again):
        assert trainer_setup(site).model["path"] == str(homes / "alice" / "base")
