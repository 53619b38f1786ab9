"""`demo`: a whole federation on this machine."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fednode.node.cli.output import Result, Session, command
from fednode.node.demo.federation import Demo
from fednode.node.demo.prepare import Federation
from fednode.node.demo.prepare import prepare as prepare_folder
from fednode.node.demo.show import Show
from fednode.node.demo.summary import text
from fednode.node.demo.tables import ROUNDS
from fednode.node.service import run_until_signal


class DemoTask(StrEnum):
    LM = "lm"
    DIGITS = "digits"
    LINEAR = "linear"


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
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Make the folders, start nothing, print the commands to type.")
    ] = False,
) -> Result:
    """Run a federation of N parties on this machine: real daemons, an embedded head, local buckets.

    Ends with the head closed and paid out, and says what each party alone would have reached. Repeated with the same
    --dir and options it goes on where it stopped.

    Example: fednode demo --parties 3 --epochs 6

    Exit status: 0 the run is complete and every party holds the same adapter; otherwise that of the part that failed.
    """
    started = time.monotonic()
    folder = directory or Path(tempfile.mkdtemp(prefix="fednode-demo-"))
    federation = prepare_folder(folder, parties, task.value, epochs or ROUNDS[task.value], seed)
    if prepare:
        return _prepared(federation)
    session.note(f"demo: {parties} parties in {federation.dir}")
    work = Demo(federation, Show(list(federation.parties), quiet=session.quiet), started)
    data = run_until_signal(work.run())
    return Result(data, text(data))


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
