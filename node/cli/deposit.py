"""`deposit`: deposits that are on layer 1 and not in the head."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from fednode.errors import UsageError
from fednode.node import app, preflight
from fednode.node.cli.output import Result, Session, Table, command
from fednode.node.home import find_home
from fednode.node.service import run_until_signal

deposit = typer.Typer(
    help="Deposits on layer 1 that are not in the head: show them, or get their money back.", no_args_is_help=True
)
Peers = Annotated[
    Path | None, typer.Option("--peers", metavar="FILE", help="The agreement. [default: peers.toml in the home]")
]


@deposit.command("list")
@command
def list_(session: Session, peers: Peers = None) -> Result:
    """Show the deposits that the own hydra-node sees on layer 1 and no head has taken in, whoever made them.

    A deposit is recorded, then active (the head may take it in), then in the head and no longer here; or it expires,
    and after its deadline it can be recovered.

    \b
    Example:
      fednode deposit list

    \b
    Exit status: 0 answered, 3 configuration, 4 keys, 5 the hydra-node does not answer or is another party's.
    """
    site = app.open_site(find_home(session.home), peers=peers, epochs=None)
    found = run_until_signal(preflight.deposits(site))
    now = time.time()
    entries = [
        {
            "id": each.id,
            "party": each.party,
            "lovelace": each.lovelace,
            "state": each.state,
            "deadline": each.deadline,
            "recoverable": each.recoverable(now),
        }
        for each in found
    ]
    rows = [
        (
            each.id,
            each.party or "-",
            "-" if each.lovelace is None else f"{each.lovelace / 1e6:.6f}",
            each.state,
            _local(each.deadline),
            "yes" if each.recoverable(now) else "no",
        )
        for each in found
    ]
    if not rows:
        return Result({"deposits": []}, "no deposit is pending")
    return Result({"deposits": entries}, Table(("deposit", "party", "ADA", "state", "recoverable from", "now"), rows))


@deposit.command("recover")
@command
def recover(
    session: Session,
    txid: Annotated[str, typer.Argument(metavar="TXID", help="The deposit, as `fednode deposit list` shows it.")],
    peers: Peers = None,
) -> Result:
    """Pay an expired deposit back to the address that it came from. The fuel of the own node pays the fee.

    Possible after the deposit's deadline, whatever the head does. Waits until layer 1 shows it; safe to repeat.

    \b
    Example:
      fednode deposit recover 5f2b…

    \b
    Exit status: 0 paid back, 2 usage, 3 configuration, 4 keys, 5 not pending, too early, or the hydra-node refuses.
    """
    if len(txid) != 64 or txid.strip("0123456789abcdef"):
        raise UsageError(
            f"{txid[:80]!r} is no deposit, expected the 64 hex characters of its transaction id",
            hint="`fednode deposit list` shows them",
        )
    site = app.open_site(find_home(session.home), peers=peers, epochs=None)
    session.note(f"recovering deposit {txid[:16]}…: this takes a block or two")
    found, outputs = run_until_signal(preflight.recover_deposit(site, txid))
    data = {"id": txid, "party": found.party, "lovelace": found.lovelace, "outputs": list(outputs)}
    where = ", ".join(outputs) or "an output that the node did not name"
    text = [f"deposit {txid[:16]}… is paid back: {where}"]
    if found.party == site.rules.me:
        text.append(f"to deposit it again name that output in {site.home.settings}: [head] funding")
    return Result(data, text)


def _local(at: float | None) -> str:
    return "-" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
