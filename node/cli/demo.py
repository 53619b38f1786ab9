"""`demo`: a whole federation on this machine."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from fednode.node.cli.output import Result, Session, Table, command
from fednode.node.demo.federation import Demo
from fednode.node.demo.prepare import Federation
from fednode.node.demo.prepare import prepare as prepare_folder
from fednode.node.demo.show import Show
from fednode.node.demo.stores import DemoStore, read_network
from fednode.node.demo.tables import ROUNDS
from fednode.node.service import run_until_signal


class DemoTask(StrEnum):
    LM = "lm"
    DIGITS = "digits"
    LINEAR = "linear"


class DemoStoreName(StrEnum):
    LOCAL = "local"
    S3 = "s3"
    UPLINK = "uplink"
    RCLONE = "rclone"


@command
def demo(
    session: Session,
    parties: Annotated[int, typer.Option("--parties", metavar="N", min=2, max=10, help="How many parties.")] = 3,
    epochs: Annotated[
        int | None, typer.Option("--epochs", metavar="R", min=1, max=10_000, help="Rounds. [default: by task]")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="S", min=0, max=2**53 - 1, help="Seed of the run.")] = 0,
    task: Annotated[DemoTask, typer.Option("--task", help="What is trained.")] = DemoTask.LM,
    directory: Annotated[
        Path | None,
        typer.Option("--dir", metavar="DIR", help="Where the homes are made. [default: a temporary folder]"),
    ] = None,
    store: Annotated[
        DemoStoreName,
        typer.Option("--store", help="Where the buckets are: folders, or a Storj network on this machine."),
    ] = DemoStoreName.LOCAL,
    storj: Annotated[
        Path,
        typer.Option("--storj", metavar="DIR", help="The folder of that network, as scripts/storj-devnet made it."),
    ] = Path("storj-devnet"),
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Make the folders, start nothing, print the commands to type.")
    ] = False,
) -> Result:
    """Run a federation of N parties on this machine: real daemons, an embedded head, a bucket for each.

    Ends with the head closed and paid out, and says what each party alone would have reached. Repeated with the same
    --dir and options it goes on where it stopped.

    Example: fednode demo --parties 3 --epochs 6

    Exit status: 0 the run is complete and every party holds the same adapter; otherwise that of the part that failed.
    """
    started = time.monotonic()
    place = None if store is DemoStoreName.LOCAL else DemoStore(store.value, read_network(storj.absolute()))
    folder = directory or Path(tempfile.mkdtemp(prefix="fednode-demo-"))
    federation = prepare_folder(folder, parties, task.value, epochs or ROUNDS[task.value], seed, place)
    if place is not None:
        session.note("demo: making buckets and grants")
        run_until_signal(place.furnish(federation))
    if prepare:
        return _prepared(federation)
    session.note(f"demo: {parties} parties in {federation.dir}")
    work = Demo(federation, Show(list(federation.parties), quiet=session.quiet), started)
    data = run_until_signal(work.run())
    return Result(data, _text(data))


def _prepared(federation: Federation) -> Result:
    parties = {
        name: {key: str(value) if isinstance(value, Path) else list(value) for key, value in asdict(party).items()}
        for name, party in federation.parties.items()
    }
    data = {
        "dir": str(federation.dir),
        "env": dict(federation.env),
        "devnet": list(federation.devnet),
        "parties": parties,
    }
    lines = ["# terminal 1", _line(federation.devnet)]
    for number, (name, party) in enumerate(federation.parties.items(), start=2):
        lines += [f"# terminal {number}: {name}", _line(party.init_head), _line(party.run)]
    return Result(data, lines)


def _line(argv: Sequence[str]) -> str:

    return "fednode " + " ".join(word for word in argv[3:] if word != "--json")


def _text(data: Mapping[str, Any]) -> list[str | Table]:
    """The summary for people."""
    loss, seconds = data["loss"], data["seconds"]
    best = min(loss["alone"].values())
    gain = (1 - loss["federated"] / best) * 100
    rows = [("base model", f"{loss['base']:.4f}", _accuracy(data, "base"))]
    rows += [(f"{p} alone", f"{x:.4f}", _accuracy(data, p)) for p, x in loss["alone"].items()]
    rows.append(("federated", f"{loss['federated']:.4f}", _accuracy(data, "federated")))
    money = [
        (p, sum(data["bytes_up"][p]), f"{m['deposited'] / 1e6:.6f}", f"{m['paid_out'] / 1e6:.6f}")
        for p, m in data["lovelace"].items()
    ]
    return [
        "",
        f"{data['parties']} parties, {data['rounds']} rounds of {data['task']}, run {data['run_id']}",
        Table(("held-out", "loss", "accuracy"), rows),
        f"federated is {gain:.1f} % below the best lone party",
        "",
        f"adapter {data['digest']}: the same bytes at {', '.join(data['digests'])}",
        Table(("party", "bytes up", "ADA in", "ADA back"), money),
        f"head {data['head']['id'][:16]}…: {data['head']['status']}, {data['head']['snapshots']} snapshots",
        "seconds: " + ", ".join(f"{name} {value:.1f}" for name, value in seconds.items()),
        "median per round: " + ", ".join(f"{name} {value:.3f} s" for name, value in data["phase_seconds"].items()),
        f"everything is in {data['dir']}",
    ]


def _accuracy(data: Mapping[str, Any], who: str) -> str:
    accuracy = data.get("accuracy")
    if accuracy is None:
        return "-"
    return f"{accuracy[who] if who in accuracy else accuracy['alone'][who]:.4f}"
