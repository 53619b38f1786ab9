"""`init-head`, `close-head`, `devnet`: the head's life, from the party's side, and an embedded head to try it with."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from fednode.durable import write_atomic
from fednode.errors import Stopped, UsageError
from fednode.node import app, preflight
from fednode.node import site as site_of
from fednode.node.checks import FEE
from fednode.node.cli.output import Result, Session, Table, command
from fednode.node.home import find_home
from fednode.node.protocol.state import State
from fednode.node.service import run_until_signal
from fednode.node.watch import Talk

_CLOSE_BOUND_S = 200
"""A close may take so long to reach a block; the contestation period counts from then (hydra-node 2.3)."""
Peers = Annotated[
    Path | None, typer.Option("--peers", metavar="FILE", help="The agreement. [default: peers.toml in the home]")
]


@command
def init_head(
    session: Session,
    peers: Peers = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check, say what would happen and what it costs, and change nothing.")
    ] = False,
) -> Result:
    """Open the head and deposit: the first party posts Init, every party deposits the agreed sum.

    First checks the own hydra-node against the agreement, and refuses before any money moves. Waits for an
    unreachable hydra-node and for the other parties. Safe to repeat at any point; ends when all deposits are final.

    Example: fednode init-head --peers peers.toml

    Exit status: 0 all deposits final (with --dry-run: nothing speaks against it), 3 configuration, 4 keys or funds,
    5 head, 75 already running, 130 interrupted.
    """
    site = app.open_site(find_home(session.home), peers=peers, epochs=None)
    if dry_run:
        return _preflight(site, run_until_signal(preflight.look(site)))
    with site.home.lock():
        if peers is not None and not site.home.agreement.exists():
            write_atomic(site.home.agreement, site.agreement.source)  # later commands find it without --peers
        state = run_until_signal(_open(site, app.talk(quiet=session.quiet)))
    deposits = {p: state.head.funded(p) for p in site.rules.parties}
    text = f"head {state.head.id} is open with the deposits of {', '.join(deposits)}"
    return Result(
        {"head": {"id": state.head.id, "status": str(state.head.status)}, "lovelace": deposits},
        [text, "next: fednode run"],
    )


async def _open(site: site_of.Site, voice: Talk) -> State:
    await preflight.require(site, voice.waiting)
    return await app.work(site, "open", voice)


def _preflight(site: site_of.Site, found: preflight.Preflight) -> Result:
    """The answer of --dry-run; its exit status is that of the first failed check."""
    low, high = FEE
    error = found.error
    data: dict[str, object] = {
        "dry_run": True,
        "checks": found.checks,
        "steps": found.steps,
        "head": {"status": found.status},
        "lovelace": {"deposit": site.rules.deposit, "fee_from": low, "fee_to": high},
    }
    if error is not None:
        data["error"] = {"code": error.code, "message": error.message, "hint": error.hint}
    rows = [(each.verdict, each.name, each.text) for each in found.checks]
    hints = [f"  {each.name}: {each.hint}" for each in found.checks if each.hint and each.verdict != "ok"]
    lines: list[str | Table] = [Table(("", "check", "found"), rows)]
    lines += ["", "what to do:", *hints] if hints else []
    lines += ["", "`fednode init-head` would:", *(f"  {number}. {step}" for number, step in enumerate(found.steps, 1))]
    lines += ["", "nothing was changed" if error is None else "nothing was changed; it would be refused"]
    return Result(data, lines, 0 if error is None else error.exit_status)


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
    if not site_of.is_finalized(site):
        _announce(session, site)
        _confirm(session, yes)
    with site.home.lock():
        state = run_until_signal(app.work(site, "close", app.talk(quiet=session.quiet), reason=reason))
    assert state.paid is not None
    paid, expected = dict(state.paid.paid), dict(state.paid.expected)
    rows = [(p, f"{expected.get(p, 0) / 1e6:.6f}", f"{paid.get(p, 0) / 1e6:.6f}") for p in site.rules.parties]
    data = {
        "head": {
            "id": state.head.id,
            "status": str(state.head.status),
            "snapshot": state.head.snapshot,
            "contestation_deadline": state.head.contestation_deadline,
        },
        "paid": paid,
        "expected": expected,
        "verified": state.paid.verified,
    }
    return Result(
        data, [Table(("party", "expected ADA", "paid ADA"), rows), "the payout is what the last snapshot says"]
    )


def _announce(session: Session, site: site_of.Site) -> None:
    """What closing means, until when, and for whom. The exact time is shown once layer 1 has the close."""
    period, parties = site.agreement.head.contestation_period_s, ", ".join(site.rules.parties)
    until = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() + period + min(period, _CLOSE_BOUND_S)))
    session.note(f"This closes the head for all {len(site.rules.parties)} parties, whatever round they are in.")
    session.note(
        f"The hydra-nodes of all parties ({parties}) must stay online until about {until}, and {period} s longer for "
        "each contest: a node that is away cannot contest an old snapshot. Afterwards one of them fans out."
    )


def _confirm(session: Session, yes: bool) -> None:
    if yes:
        return
    if not session.interactive:
        raise UsageError("closing a head ends it for every party", hint="add --yes to close it without a question")
    typer.confirm("Close the head?", abort=True, err=True)


@command
def devnet(
    session: Session,
    parties: Annotated[int, typer.Option("--parties", metavar="N", min=2, max=10, help="How many parties.")],
    directory: Annotated[Path, typer.Option("--dir", metavar="DIR", help="Folder of the homes and of its own state.")],
    contestation_period: Annotated[
        int,
        typer.Option("--contestation-period", metavar="S", min=1, max=31_536_000, help="Seconds to contest a close."),
    ] = 2,
    fund: Annotated[
        int | None,
        typer.Option(
            "--fund",
            metavar="ADA",
            min=10,
            max=9_000_000_000,
            help="What each party owns. [default: the least deposit]",
        ),
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
        run_until_signal(app.serve_devnet(settings, ready, app.talk(quiet=session.quiet)))
    except Stopped:
        session.note("embedded head: stopped")
        raise SystemExit(0) from None
    return None
