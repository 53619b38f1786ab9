"""The program `fednode`. A command's module is imported only when that command is called, so that help is instant.

To add a command: one row in `COMMANDS`, and in that module a function (made by `output.command`) or a `typer.Typer`
with the command's name, `-` written as `_`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, cast

import typer

from fednode import __version__
from fednode.node.cli.output import Session, show_error, show_internal

COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("setup", "Make the home of a party: keys, private settings, own card."),
    "peers": ("setup", "The agreement: own card, add parties, show, hash."),
    "bucket": ("bucket", "The own bucket, who may read it, and whether the peers' can be read."),
    "init-head": ("head", "Open the head and deposit; waits until all deposits are final."),
    "deposit": ("deposit", "Deposits that are not in the head: show them, or get their money back."),
    "run": ("run", "The daemon: train, publish, signal, wait, verify, aggregate, R rounds."),
    "status": ("inspect", "What the daemon does now, and for whom it waits."),
    "rounds": ("inspect", "One line per finished round."),
    "close-head": ("head", "Close the head, fan out, verify the payout."),
    "export": ("inspect", "The adapter as a PEFT folder, or merged into the model."),
    "devnet": ("head", "The embedded head alone, for trying things out."),
    "demo": ("demo", "A whole federation on this machine, start to end."),
}
"""Name to (module in this package, one line of help), in the order of `fednode --help`."""

_FLAGS = ("--json", "--quiet", "-q", "--verbose", "-v")
_HELP = """Federated QLoRA fine-tuning without a coordinator.

Exit status: 0 done, 1 failed, 2 usage, 3 configuration, 4 keys or funds, 5 head, 6 storage, 7 training,
8 a peer broke the protocol or the run diverged, 9 journal, 75 already running, 130 interrupted.
"""


def build(invoked: str | None) -> typer.Typer:
    """The program with the module of one command loaded; the other commands have a name and a line of help."""
    app = typer.Typer(
        name="fednode", help=_HELP, rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False
    )
    app.callback()(_root)
    for name, (module, line) in COMMANDS.items():
        loaded = _load(module, name) if name == invoked else _named_only
        if isinstance(loaded, typer.Typer):
            app.add_typer(loaded, name=name, help=line, short_help=line)
        else:
            app.command(name, short_help=line)(loaded)
    return app


def invoke(arguments: Sequence[str]) -> int:
    """Run one command line (without the program's name) and return the exit status."""
    words = _globals_last(list(arguments)) or ["--help"]
    try:
        status = typer.main.get_command(build(words[0]))(args=words, prog_name="fednode", standalone_mode=False)
    except typer.TyperException as error:
        path = f"fednode {words[0]}" if words[0] in COMMANDS else "fednode"
        hint = f"see `{path} --help`"
        return show_error("usage", error.format_message(), hint, error.exit_code, json_wanted="--json" in words)
    except Exception as error:
        return show_internal(error, Session(json="--json" in words, verbose="-v" in words or "--verbose" in words))
    return status if isinstance(status, int) else 0


def main() -> None:
    """Console entry point."""
    sys.exit(invoke(sys.argv[1:]))


def _load(module: str, name: str) -> Callable[..., Any] | typer.Typer:
    loaded = getattr(importlib.import_module(f"fednode.node.cli.{module}"), name.replace("-", "_"))
    return cast(Callable[..., Any] | typer.Typer, loaded)


def _named_only() -> None:
    """Stands for a command that was not called: help needs its name, and nothing ever runs this."""


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit(0)


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """The program without a command: its own options act in their callbacks."""


def _globals_last(words: list[str]) -> list[str]:
    """`fednode --home X status` means `fednode status --home X`: global options may also stand first."""
    first: list[str] = []
    while words and (words[0] in _FLAGS or words[0].startswith("--home=") or (words[0] == "--home" and words[1:])):
        count = 2 if words[0] == "--home" else 1
        first, words = first + words[:count], words[count:]
    # Before the first option, not at the end: an option there may lack its value, and would take ours for it.
    end = next((index for index, word in enumerate(words) if word.startswith("-")), len(words))
    return words[:end] + first + words[end:]
