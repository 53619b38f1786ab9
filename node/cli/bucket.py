"""`bucket`: the own bucket, who may read it, and whether the peers' can be read."""

from __future__ import annotations

import re
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fednode.errors import ConfigError, StorageError, UsageError
from fednode.node import app, bucket_check, sharing
from fednode.node import site as site_of
from fednode.node.cli.output import Result, Session, Table, command
from fednode.node.config import load_settings
from fednode.node.home import find_home
from fednode.node.service import run_until_signal
from fednode.types import PartyName

bucket = typer.Typer(help="The own bucket, who may read it, and whether the peers' can be read.", no_args_is_help=True)
Peers = Annotated[
    Path | None, typer.Option("--peers", metavar="FILE", help="The agreement. [default: peers.toml in the home]")
]
Owner = Annotated[
    Path | None, typer.Option("--owner", metavar="FILE", help="The owner's grant. [default: owner/owner.grant]")
]


@bucket.command("create")
@command
def create(
    session: Session,
    satellite: Annotated[str, typer.Option(metavar="ADDRESS", help="NODEID@HOST:PORT of the Storj satellite.")] = "",
    api_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File (0600) with the project's API key.")
    ] = None,
    passphrase: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File (0600) with the encryption passphrase.")
    ] = None,
    grant: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File (0600) with a grant that may all of it, instead.")
    ] = None,
    days: Annotated[float | None, typer.Option(min=0.01, max=36_500, help="Let the home's grants end then.")] = None,
) -> Result:
    """Make the own bucket at Storj, and the grants of this home from a project's access. Files that exist are kept.

    The daemon's own grant (storage.credentials) reads, lists and creates; it cannot replace or delete.
    owner/owner.grant shares and revokes, owner/janitor.grant lists and deletes: move both to a safe place.

    \b
    Example:
      fednode bucket create --satellite us1.storj.io:7777 --api-key api-key --passphrase passphrase

    \b
    Exit status: 0 done, 2 usage, 3 configuration, 4 a secret file is open to others, 6 Storj refuses or is not reached.
    """
    home = find_home(session.home)
    settings = load_settings(home.settings)
    source: sharing.Request | Path
    if grant is not None and not (satellite or api_key or passphrase):
        source = grant
    elif grant is None and satellite and api_key is not None and passphrase is not None:
        source = sharing.Request(satellite, api_key, passphrase)
    else:
        raise UsageError(
            "expected either --grant, or --satellite with --api-key and --passphrase",
            hint="the Storj console makes API keys; a passphrase is yours to choose and to keep",
        )
    files = run_until_signal(sharing.create(home, settings, source, days))
    text = [f"bucket {settings.bucket_name} is there", *(f"{name}: {path}" for name, path in files.items())]
    return Result({"bucket": settings.bucket_name, **{name: str(path) for name, path in files.items()}}, text)


@bucket.command("share")
@command
def share(
    session: Session,
    reader: Annotated[str, typer.Argument(metavar="PEER", help="The peer's name in the agreement.")],
    days: Annotated[float, typer.Option(min=0.01, max=36_500, help="How long it is valid.")] = 90.0,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="[default: owner/shared/PEER.grant]")
    ] = None,
    owner: Owner = None,
    peers: Peers = None,
) -> Result:
    """Make a grant with which one peer reads this run's objects in the own bucket, and can do nothing else.

    Give the file to that peer alone, over a channel that you trust: whoever has it can read. The peer puts it where its
    [peers.NAME] credentials say. A renewed one is put in the same place, while the peer's daemon runs.

    \b
    Example:
      fednode bucket share bob --days 90

    \b
    Exit status: 0 written, 2 usage, 3 configuration, 4 a secret file is open to others, 6 the grant cannot be made.
    """
    home = find_home(session.home)
    site = app.open_site(home, peers=peers, epochs=None)
    name = PartyName(reader)
    path = (output or sharing.shared_file(home, name)).absolute()
    not_after = run_until_signal(sharing.share(site, name, days, path, owner or sharing.owner_file(home)))
    until = time.strftime("%Y-%m-%d %H:%M", time.localtime(not_after))
    data = {"reader": reader, "file": path, "not_after": not_after, "run_id": site.rules.run}
    return Result(data, [f"{path}: read-only, run {site.rules.run}, until {until}", f"give it to {reader} alone"])


@bucket.command("revoke")
@command
def revoke(
    session: Session,
    granted: Annotated[Path, typer.Argument(metavar="FILE", help="The grant to take back, as `share` wrote it.")],
    owner: Owner = None,
) -> Result:
    """Take a grant back. Storj may honour it for some minutes more; what was read already stays read.

    \b
    Example:
      fednode bucket revoke owner/shared/bob.grant

    \b
    Exit status: 0 revoked, 3 configuration, 4 a secret file is open to others, 6 Storj refuses or is not reached.
    """
    home = find_home(session.home)
    settings = load_settings(home.settings)
    run_until_signal(sharing.revoke(home, settings, granted.absolute(), owner or sharing.owner_file(home)))
    return Result({"revoked": granted}, f"{granted} is revoked")


@bucket.command("check")
@command
def check(session: Session, peers: Peers = None) -> Result:
    """Try every bucket from here: the own one as its writer, the peers' as their reader, who must not write.

    Leaves one small object in the own bucket for the peers' checks to read. Safe to repeat, before and during a run.

    \b
    Example:
      fednode bucket check

    \b
    Exit status: 0 all is well (warnings included), 3 configuration, 6 a bucket cannot be used, or a peer's be written.
    """
    site = app.open_site(find_home(session.home), peers=peers, epochs=None)
    found = run_until_signal(bucket_check.check(site))
    rows = [(each.party, each.what, each.verdict, each.text) for each in found]
    hints = [f"{each.party}: {each.hint}" for each in found if each.hint and each.verdict != "ok"]
    failed = any(each.verdict == "failed" for each in found)
    text: list[str | Table] = [Table(("bucket of", "tried", "", "found"), rows), *hints]
    return Result({"findings": [asdict(each) for each in found]}, text, StorageError.exit_status if failed else 0)


@bucket.command("prune")
@command
def prune(
    session: Session,
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="A finished run, 32 hex characters.")],
    credentials: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Credentials that may delete. Not needed for a folder.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it the objects are only counted.")] = False,
    peers: Peers = None,
) -> Result:
    """Delete what the own bucket holds of a finished run. Peers that still verify it need it: ask them first.

    \b
    Example:
      fednode bucket prune 5f2b… --credentials owner/janitor.grant --yes

    \b
    Exit status: 0 done, 2 usage, 3 configuration or the run is not finished here, 6 the store refuses.
    """
    if not re.fullmatch(r"[0-9a-f]{32}", run_id):
        raise UsageError(f"{run_id[:80]!r} is no run id, expected 32 hex characters", hint="`fednode status` shows it")
    home = find_home(session.home)
    site = app.open_site(home, peers=peers, epochs=None)
    if run_id == site.rules.run and not site_of.is_finalized(site):
        raise ConfigError(
            f"run {run_id} is not finished in this home, expected a finished or an earlier one",
            hint="its objects are needed until every party has the last adapter and the head is paid out",
        )
    entries = run_until_signal(bucket_check.prunable(site, run_id, credentials))
    size = sum(entry.size for entry in entries)
    what = f"{len(entries)} objects of run {run_id}, {size} bytes"
    if yes:
        run_until_signal(bucket_check.prune(site, entries, credentials))
    data = {"run_id": run_id, "objects": len(entries), "bytes": size, "deleted": yes}
    return Result(data, f"{what}: {'deleted' if yes else 'nothing was deleted; --yes does it'}")
