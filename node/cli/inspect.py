"""`status`, `rounds`, `export`: read the journal; they work while the daemon runs and when it does not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from fednode.node import app, buckets
from fednode.node import site as site_of
from fednode.node.cli.output import Result, Session, Table, command
from fednode.node.home import daemon_pid, find_home
from fednode.node.views import RoundView
from fednode.node.views import status as status_of

Peers = Annotated[
    Path | None, typer.Option("--peers", metavar="FILE", help="The agreement. [default: peers.toml in the home]")
]


@command
def status(session: Session, peers: Peers = None) -> Result:
    """What the daemon does now, and for whom it waits and since when.

    Example: fednode status --home alice

    Exit status: 0 answered, 3 configuration, 9 journal.
    """
    site = app.open_site(find_home(session.home), peers=peers, epochs=None)
    data = status_of(site_of.read_history(site), pid=daemon_pid(site.home))
    data["grants"] = [
        {"party": each.party, "not_after": each.not_after, "file": str(each.file)} for each in buckets.expiries(site)
    ]
    return Result(data, _status_text(data))


def _status_text(data: dict[str, object]) -> list[str | Table]:
    head = cast("dict[str, Any]", data["head"])
    lines: list[str | Table] = [
        f"{data['party']}: {data['state']}, round {data['round']} of {data['rounds']}",
        f"run {data['run_id'] or '-'}, adapter {str(data['digest'] or '-')[:16]}",
        f"head {str(head['id'] or '-')[:16]}: {head['status']}, snapshot {head['snapshot']}",
    ]
    waits = cast("list[str]", data["waiting_for"])
    if waits:
        since = cast("float | None", data["waiting_since"])
        words = time.strftime(", since %Y-%m-%d %H:%M:%S", time.localtime(since)) if since else ""
        lines.append(f"waiting for {', '.join(waits)}{words}")
    stalled = cast("dict[str, Any] | None", data["stalled"])
    if stalled:
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(stalled["since"]))
        lines.append(f"the head stands still since {clock}: {stalled['text']}")
    for party, run_id in cast("dict[str, str]", data["foreign_runs"]).items():
        lines.append(f"{party} signals for another run: {run_id}")
    faults = cast("list[dict[str, Any]]", data["faults"])
    lines.extend(f"fault of {x['party']}: {x['kind']}: {x['message']} ({x['evidence']})" for x in faults)
    if data["paid"]:
        paid = cast("dict[str, int]", data["paid"])
        lines.append("paid out (ADA): " + ", ".join(f"{p} {lovelace / 1e6:.6f}" for p, lovelace in paid.items()))
    lines.extend(_grant_lines(cast("list[dict[str, Any]]", data["grants"])))
    lines.append(f"daemon: process {data['pid']}" if data["pid"] else "daemon: not running")
    return lines


def _grant_lines(grants: list[dict[str, Any]]) -> list[str]:
    """Credentials that end soon or did; new ones are put in the file's place while the daemon runs."""
    now = time.time()
    lines: list[str] = []
    for grant in grants:
        days = (grant["not_after"] - now) / 86_400
        if days < buckets.WARN_DAYS:
            when = f"end in {days:.1f} days" if days > 0 else f"ended {-days:.1f} days ago"
            lines.append(f"the credentials for the bucket of {grant['party']} {when}: put new ones at {grant['file']}")
    return lines


@command
def rounds(
    session: Session,
    peers: Peers = None,
    last: Annotated[
        int | None, typer.Option("--last", metavar="N", min=1, max=1_000_000, help="Only the newest N rounds.")
    ] = None,
) -> Result:
    """One line per finished round: digest, loss, signals, outliers, seconds by phase.

    Example: fednode rounds --last 20

    Exit status: 0 answered, 3 configuration, 9 journal.
    """
    site = app.open_site(find_home(session.home), peers=peers, epochs=None)
    view = site_of.read_history(site)
    entries = view.rounds[-last:] if last else view.rounds
    table = Table(
        (
            "round",
            "phase",
            "loss",
            "digest",
            "outliers",
            "train s",
            "publish s",
            "signal s",
            "wait s",
            "fetch s",
            "aggr s",
        ),
        [_row(entry) for entry in entries],
    )
    return Result({"run_id": view.state.run, "rounds": entries}, [table])


def _row(entry: RoundView) -> tuple[object, ...]:
    loss = "-" if entry.loss is None else f"{entry.loss:.4f}"
    names = ("train", "publish", "signal", "wait", "fetch", "aggregate")
    times = [f"{entry.seconds[name]:.2f}" for name in names]
    return (entry.round, entry.phase, loss, entry.digest[:16], ",".join(entry.outliers) or "-", *times)


@command
def export(
    session: Session,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make; must not exist or be empty.")],
    peers: Peers = None,
    round_number: Annotated[
        int | None, typer.Option("--round", metavar="R", min=0, help="S_R of this round. [default: the newest]")
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="The whole model with the adapter merged in.")] = False,
) -> Result:
    """The adapter as a PEFT folder that `PeftModel.from_pretrained` loads, or the merged model.

    Example: fednode export out/ --merge

    Exit status: 0 written, 3 configuration, 7 training (the model cannot be loaded), 9 journal.
    """
    site = app.open_site(find_home(session.home), peers=peers, epochs=None)
    digest, number = app.export(site, folder.absolute(), round_number, merge=merge)
    data = {"folder": str(folder.absolute()), "round": number, "digest": digest, "merged": merge}
    return Result(data, f"S_{number} ({digest[:16]}…) is in {folder}")
