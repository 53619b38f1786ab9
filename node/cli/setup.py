"""Set-up commands: `fednode init`, and `fednode peers card | add | show | hash`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from fednode.durable import write_atomic
from fednode.errors import ConfigError, FednodeError
from fednode.node import setup
from fednode.node.agreement import Agreement
from fednode.node.cli.output import Result, Session, Table, command
from fednode.node.home import Home, find_home
from fednode.node.tomlwrite import add_parties, add_peers, card_text, read_card

peers = typer.Typer(rich_markup_mode=None)

PeersFile = Annotated[
    Path | None, typer.Option("--peers", metavar="FILE", help="The agreement. [default: peers.toml in the home]")
]
Epochs = Annotated[int | None, typer.Option("--epochs", metavar="N", help="Replaces run.rounds, as in `fednode run`.")]


@command
def init(
    session: Session,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Own name: 1 to 32 of a-z, 0-9 and -.")] = "",
    network: Annotated[
        str, typer.Option("--network", metavar="NET", help="embedded, devnet, preprod. [default: embedded]")
    ] = "",
    head_url: Annotated[
        str, typer.Option("--head-url", metavar="URL", help="Own hydra-node. [default: http://127.0.0.1:4001]")
    ] = "",
    funding: Annotated[
        str, typer.Option("--funding", metavar="TXID#IX", help="Output at the funds address to deposit from.")
    ] = "",
    data: Annotated[str, typer.Option("--data", metavar="PATH", help="Own training data: file or folder.")] = "",
) -> Result:
    """Make the home of a party: keys, private settings, own card.

    Safe to repeat: keys and settings that exist are kept. Questions are asked only at a terminal.

    \b
    Example:
      fednode init --home alice --name alice --data texts/

    \b
    Exit status: 0 done, 2 usage, 3 a setting is wrong or the home is another party's, 4 a key file is wrong.
    """
    home = find_home(session.home, must_exist=False)
    fresh = not home.settings.exists()
    name = name or session.ask("Own name in the agreement", "", flag="--name")
    if fresh:
        network = network or session.ask("Network (embedded, devnet, preprod)", "embedded", flag="--network")
        head_url = head_url or session.ask("Own hydra-node", "http://127.0.0.1:4001", flag="--head-url")
        data = data or session.ask("Own training data (file or folder, - = later)", "-", flag="--data")
    elif network or head_url or data or funding:
        session.note(f"{home.settings} exists and is kept: edit it to change network, head, funding or data")
    path = str(Path(data).expanduser().absolute()) if data not in ("", "-") else ""
    head = {key: value for key, value in (("network", network), ("url", head_url), ("funding", funding)) if value}
    made = setup.make_home(home, {"party": {"name": name}, "head": head, "data": {"path": path}})
    where = f" --home {session.home}" if session.home is not None else ""
    text = [f"{made.home}: home of {made.name}"]
    text += [f"  created  {item}" for item in made.created] + [f"  kept     {item}" for item in made.kept]
    text.append(f"funds address: {made.address}")
    if not funding:
        text.append(
            "  pay the agreed deposit to it in one output, and name that output in [head] funding of fednode.toml"
        )
    text += [
        f"next: fednode peers card{where} -o {made.name}.toml, and send it to the peers",
    ]
    return Result(made, text)


@peers.command("card")
@command
def card(
    session: Session,
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write it there.")] = None,
) -> Result:
    """Show or write the own public card, which the peers add to their peers.toml.

    \b
    Example:
      fednode peers card -o alice.toml

    \b
    Exit status: 0 done, 3 the home or a setting is wrong, 4 a key file is missing or wrong.
    """
    own = setup.own_card(find_home(session.home))
    if output is None:
        return Result({"card": own}, card_text(own).rstrip("\n").split("\n"))
    if not output.absolute().parent.is_dir() or output.is_dir():
        raise ConfigError(
            f"--output {output}: expected a file in an existing folder", hint="-o NAME.toml writes it here"
        )
    write_atomic(output.absolute(), card_text(own).encode())
    return Result({"card": own, "file": output}, f"{output}: card of {own['name']}")


@peers.command("add")
@command
def add(
    session: Session,
    cards: Annotated[list[Path], typer.Argument(metavar="CARD...", help="Cards: files of `fednode peers card`.")],
    peers: PeersFile = None,
) -> Result:
    """Add parties to peers.toml, which is created with commented defaults where it is missing.

    Comments stay, parties are sorted by name, a card that is there already changes nothing. Where the home has private
    settings, it is noted in them where a new peer's bucket is.

    \b
    Example:
      fednode peers add alice.toml bob.toml

    \b
    Exit status: 0 done, 2 usage, 3 a card or the agreement is wrong (nothing is written then).
    """
    home = find_home(session.home, must_exist=False)
    path = peers or home.agreement
    read = [read_card(file) for file in cards]
    fresh = not os.path.exists(path)  # unlike Path.exists it takes any name
    if fresh:
        setup.new_agreement(home, path)
    try:
        added = add_parties(path, read, check_address=setup.check_address)
    except FednodeError:
        if fresh:
            path.unlink()
        raise
    if fresh:
        session.note(f"{path} is new: read its defaults, and agree on them with the peers")
    noted = _note_buckets(home, read)
    for name in noted:
        session.note(f"{home.settings}: [peers.{name}] added: look whether it is right for this machine")
    text = f"{path}: added {', '.join(added)}" if added else f"{path}: nothing to add, every card is there already"
    return Result({"file": path, "added": added, "buckets": noted}, text)


def _note_buckets(home: Home, cards: list[dict[str, object]]) -> list[str]:
    """Where the cards' buckets are, as far as they say it, into the private settings."""
    tables: dict[str, str | dict[str, object]] = {}
    for card in cards:
        name, store, read = (str(card.get(key, "")) for key in ("name", "store", "read"))
        credentials = f"grants/{name}.grant"
        if store == "storj":
            tables[name] = {"backend": "rclone", "credentials": credentials}
        elif store == "s3":
            tables[name] = {"backend": "s3", "credentials": credentials, "endpoint": read}
        elif read.startswith("/"):
            tables[name] = read
    return add_peers(home.settings, tables) if home.settings.exists() else []


@peers.command("show")
@command
def show(session: Session, peers: PeersFile = None) -> Result:
    """Show the agreement as it is understood: defaults filled in, `auto` resolved.

    \b
    Example:
      fednode peers show --peers peers.toml

    \b
    Exit status: 0 done, 3 the agreement is wrong.
    """
    path, agreement = _agreement(session, peers, None)
    rows = [(p.name, p.weight, p.host or "-", f"{p.store}:{p.bucket}", p.address) for p in agreement.party]
    lines: list[str | Table] = [f"{path}: run {agreement.run_id}", ""]
    for name, table in agreement.content.items():
        if name != "party":
            lines += [f"[{name}]", *(f"  {key} = {json.dumps(value)}" for key, value in table.items()), ""]
    return Result(
        {"file": path, "run": agreement.run_id, "agreement": agreement.content},
        [*lines, Table(("party", "weight", "host", "bucket", "address"), rows)],
    )


@peers.command("hash")
@command
def hash_(session: Session, epochs: Epochs = None, peers: PeersFile = None) -> Result:
    """Show the hash of the agreement, to compare with the peers by voice, and of each table, to find what differs.

    \b
    Example:
      fednode peers hash --epochs 1500

    \b
    Exit status: 0 done, 3 the agreement is wrong.
    """
    path, agreement = _agreement(session, peers, epochs)
    data = {
        "file": path,
        "agreement_hash": agreement.agreement_hash,
        "run": agreement.run_id,
        "binding_hash": agreement.binding_hash,
        "rounds": agreement.run.rounds,
        "sections": agreement.sections,
    }
    rows = [("agreement", agreement.agreement_hash), ("run id", agreement.run_id), *agreement.sections.items()]
    return Result(data, Table(("part", "hash"), rows))


def _agreement(session: Session, peers: Path | None, epochs: int | None) -> tuple[Path, Agreement]:
    path = peers or find_home(session.home, must_exist=False).agreement
    agreement = setup.read_agreement(path)
    return path, agreement if epochs is None else agreement.with_rounds(epochs)
