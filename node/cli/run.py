"""`run`: the daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fednode.node import app
from fednode.node import site as site_of
from fednode.node.agreement_tables import MAX_ROUNDS
from fednode.node.cli.output import Result, Session, command
from fednode.node.home import find_home
from fednode.node.service import run_until_signal


@command
def run(
    session: Session,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs", metavar="R", min=1, max=MAX_ROUNDS, help="Rounds. [default: run.rounds of peers.toml]"
        ),
    ] = None,
    peers: Annotated[
        Path | None, typer.Option("--peers", metavar="FILE", help="The agreement. [default: peers.toml in the home]")
    ] = None,
) -> Result:
    """Train, publish, signal, wait, fetch, verify, aggregate: R rounds, then close the head and verify the payout.

    May be stopped or killed at any moment; the same command goes on. `--epochs` counts rounds and binds this home to
    the run from the first start on.

    Example: fednode run --epochs 1500

    Exit status: 0 the run is complete and paid out, 3 configuration or another run than this home's, 4 keys or funds,
    5 head, 6 storage, 7 training, 8 a peer broke the protocol or the run diverged, 9 journal, 75 already running,
    130 interrupted.
    """
    site = app.open_site(find_home(session.home), peers=peers, epochs=epochs)
    site_of.require_deposit(site)
    with site.home.lock():
        state = run_until_signal(app.work(site, "run", app.talk(quiet=session.quiet)))
    adapter = site.folder.state(site.rules.rounds)
    data = {
        "party": site.rules.me,
        "run_id": site.rules.run,
        "rounds": site.rules.rounds,
        "digest": state.digests[-1],
        "adapter": str(adapter),
        "head": {"id": state.head.id, "status": str(state.head.status), "snapshots": state.head.snapshot},
        "paid": dict(state.paid.paid) if state.paid else {},
    }
    text = [
        f"run {site.rules.run} is complete: {site.rules.rounds} rounds",
        f"adapter {state.digests[-1]}",
        f"  {adapter}",
        "next: fednode export DIR",
    ]
    return Result(data, text)
