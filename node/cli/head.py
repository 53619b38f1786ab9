"""`init-head`, `close-head`, `devnet`: the head's life, from the party's side, and an embedded head to try it with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fednode.durable import write_atomic
from fednode.errors import Stopped, UsageError
from fednode.node import app
from fednode.node import site as site_of
from fednode.node.cli.output import Result, Session, Table, command
from fednode.node.home import find_home
from fednode.node.service import run_until_signal

Peers = Annotated[
    Path | None, typer.Option("--peers", metavar="FILE", help="The agreement. [default: peers.toml in the home]")
]


@command
def init_head(session: Session, peers: Peers = None) -> Result:
    """Open the head and deposit: the first party posts Init, every party deposits the agreed sum.

    Waits for an unreachable hydra-node and for the other parties. Safe to repeat at any point; ends when all deposits
    are final.

    Example: fednode init-head --peers peers.toml

    Exit status: 0 all deposits final, 3 configuration, 4 keys or funds, 5 head, 75 already running, 130 interrupted.
    """
    site = app.open_site(find_home(session.home), peers=peers, epochs=None)
    with site.home.lock():
        if peers is not None and not site.home.agreement.exists():
            write_atomic(site.home.agreement, peers.read_bytes())  # later commands find it without --peers
        state = run_until_signal(app.work(site, "open", app.talk(quiet=session.quiet)))
    deposits = {p: state.head.funded(p) for p in site.rules.parties}
    text = f"head {state.head.id} is open with the deposits of {', '.join(deposits)}"
    return Result(
        {"head": {"id": state.head.id, "status": str(state.head.status)}, "lovelace": deposits},
        [text, "next: fednode run"],
    )


@command
def close_head(
    session: Session,
    peers: Peers = None,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the journal and the log.")] = "closed by hand",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> Result:
    """Close the head, wait out the contestation period, fan out, and verify the payout.

    Closing pays out the balances of the last confirmed snapshot; it judges nobody. On a head that is finalized
    already it verifies the payout and ends.

    Example: fednode close-head --reason "bob is gone" --yes

    Exit status: 0 paid out as the last snapshot says, 2 usage, 3 configuration, 5 head, 75 already running,
    130 interrupted.
    """
    site = app.open_site(find_home(session.home), peers=peers, epochs=None)
    site_of.require_head(site)
    if not yes and not site_of.is_finalized(site):
        _confirm(session, site)
    with site.home.lock():
        state = run_until_signal(app.work(site, "close", app.talk(quiet=session.quiet), reason=reason))
    assert state.paid is not None
    paid, expected = dict(state.paid.paid), dict(state.paid.expected)
    rows = [(p, f"{expected.get(p, 0) / 1e6:.6f}", f"{paid.get(p, 0) / 1e6:.6f}") for p in site.rules.parties]
    data = {
        "head": {"id": state.head.id, "status": str(state.head.status), "snapshot": state.head.snapshot},
        "paid": paid,
        "expected": expected,
        "verified": state.paid.verified,
    }
    return Result(
        data, [Table(("party", "expected ADA", "paid ADA"), rows), "the payout is what the last snapshot says"]
    )


def _confirm(session: Session, site: site_of.Site) -> None:
    if not session.interactive:
        raise UsageError("closing a head ends it for every party", hint="add --yes to close it without a question")
    period = site.agreement.head.contestation_period_s
    session.note(f"This closes the head for all {len(site.rules.parties)} parties, whatever round they are in.")
    session.note(f"Keep your hydra-node running for the contestation period ({period} s, more if a peer contests).")
    typer.confirm("Close the head?", abort=True, err=True)


@command
def devnet(
    session: Session,
    parties: Annotated[int, typer.Option("--parties", metavar="N", min=2, max=10, help="How many parties.")],
    directory: Annotated[Path, typer.Option("--dir", metavar="DIR", help="Folder of the homes and of its own state.")],
    contestation_period: Annotated[
        int, typer.Option("--contestation-period", metavar="S", min=1, help="Seconds to contest a close.")
    ] = 2,
    fund: Annotated[
        int | None,
        typer.Option("--fund", metavar="ADA", min=10, help="What each party owns. [default: the least deposit]"),
    ] = None,
) -> Result | None:
    """Serve the embedded head: hydra-node's API for N parties over a simulated layer 1, on loopback.

    For demonstration, tests and development; no real money. Ports, state and history stay in DIR/devnet, so that a
    second call goes on where the first one stopped. Ends with SIGTERM or Ctrl-C.

    Example: fednode devnet --parties 3 --dir /tmp/federation

    Exit status: 0 stopped, 2 usage, 3 configuration (a port in use), 1 failed.
    """
    settings = app.devnet_settings(
        directory, parties, contestation_period_s=contestation_period, fund_ada=fund or max(10, 3 * parties)
    )

    def ready() -> None:
        data = {"parties": {p.name: {"url": p.url, "funding": p.funding} for p in settings.parties}}
        rows = [(p.name, p.url, p.funding) for p in settings.parties]
        from fednode.node.cli.output import show

        show(Result(data, [Table(("party", "url", "funding output"), rows)]), session)
        session.note("embedded head: ready; Ctrl-C stops it")

    try:
        run_until_signal(app.serve_devnet(settings, ready))
    except Stopped:
        session.note("embedded head: stopped")
        raise SystemExit(0) from None
    return None
