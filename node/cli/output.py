"""One place where a command's result becomes text, a table or JSON, and an error becomes words and an exit status.

Data goes to standard output, talk to standard error. With `--json` standard output holds exactly one JSON object:
`{"ok": true, ...}`, or `{"ok": false, "error": {"code", "message", "hint"}}`.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Concatenate, NoReturn, ParamSpec, cast, get_type_hints

import typer

from fednode.errors import FednodeError, UsageError
from fednode.node.printable import one_line

P = ParamSpec("P")

INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headings, for people: aligned columns, no box drawing, readable aloud and by `awk`."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]

    def lines(self) -> Iterator[str]:
        cells = [[one_line(str(cell)) for cell in row] for row in (self.columns, *self.rows)]
        widths = [max(len(row[index]) for row in cells) for index in range(len(self.columns))]
        for row in cells:
            yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


@dataclass(frozen=True, slots=True)
class Result:
    """What a command hands back. `data` is the JSON (a mapping, or a dataclass of plain values); `text` is for people.

    Without `text` the top level of `data` is shown as `key: value` lines. `exit_status` other than 0 means that the
    command did its work and the answer is bad news: `ok` is false then.
    """

    data: object
    text: str | Table | Sequence[str | Table] | None = None
    exit_status: int = 0


@dataclass(frozen=True, slots=True)
class Session:
    """The options that every command has, and the ways to talk while it works."""

    home: Path | None = None
    json: bool = False
    quiet: bool = False
    verbose: bool = False

    @property
    def interactive(self) -> bool:
        """Whether a question may be asked: a person at a terminal, and no machine reading."""
        return not self.json and sys.stdin.isatty() and sys.stderr.isatty()

    def note(self, text: str) -> None:
        """Talk: one line on standard error, silent with --quiet."""
        if not self.quiet:
            typer.echo(text, err=True)

    def detail(self, text: str) -> None:
        """Talk that only -v shows."""
        if self.verbose and not self.quiet:
            typer.echo(text, err=True)

    def say(self, text: str) -> None:
        """A line of the answer that is shown at once; with --json the answer is the final object alone."""
        if not self.json:
            typer.echo(text)

    def ask(self, question: str, default: str, *, flag: str) -> str:
        """The answer of a person at a terminal; without one the default, or UsageError naming `flag` if it is empty."""
        if self.interactive:
            return str(typer.prompt(question, default=default or None, err=True))
        if default:
            return default
        raise UsageError(f"{flag} is missing", hint=f"add {flag}; questions are asked only at a terminal")


def command(function: Callable[Concatenate[Session, P], Result | None]) -> Callable[..., int]:
    """Make `function(session, ...)` a typer command that also has --home, --json, --quiet and -v.

    Its return value is shown, its errors are shown, and the wrapper returns the exit status. The parameters after
    `session` are ordinary typer parameters; their annotations must be importable at run time.
    """
    hints = get_type_hints(function, include_extras=True)
    own = [p.replace(annotation=hints[p.name]) for p in list(inspect.signature(function).parameters.values())[1:]]
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + _global_parameters()

    def wrapper(**options: Any) -> int:
        session = Session(**{name: options.pop(name) for name in _GLOBALS})
        call = cast(Callable[..., Result | None], function)
        return run_command(session, lambda: call(session, **options))

    wrapper.__name__ = function.__name__
    wrapper.__doc__ = function.__doc__
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    wrapper.__dict__["__signature__"] = inspect.Signature(parameters)
    return wrapper


_GLOBALS: dict[str, object] = {
    "home": Annotated[
        Path | None,
        typer.Option("--home", metavar="DIR", help="Home folder of the party. [default: $FEDNODE_HOME, else here]"),
    ],
    "json": Annotated[bool, typer.Option("--json", help="One JSON object on standard output, also on failure.")],
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="No talk on standard error, only errors.")],
    "verbose": Annotated[bool, typer.Option("--verbose", "-v", help="More talk; tracebacks of internal errors.")],
}


def _global_parameters() -> list[inspect.Parameter]:
    return [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=None if name == "home" else False, annotation=annotation
        )
        for name, annotation in _GLOBALS.items()
    ]


def run_command(session: Session, work: Callable[[], Result | None]) -> int:
    """Run `work`, show its result or its error, return the exit status. Only SystemExit passes through."""
    try:
        result = work()
        return 0 if result is None and not session.json else show(result or Result({}), session)
    except FednodeError as error:
        return show_error(error.code, error.message, error.hint, error.exit_status, json_wanted=session.json)
    except KeyboardInterrupt:
        return show_error("stopped", "interrupted", "", INTERRUPTED, json_wanted=session.json)
    except typer.Abort:
        return show_error("stopped", "cancelled at a question", "", INTERRUPTED, json_wanted=session.json)
    except BrokenPipeError:
        _leave_pipe()
    except OSError as error:
        return show_error("io", _os_error(error), "", 1, json_wanted=session.json)
    except Exception as error:
        return show_internal(error, session)


def show(result: Result, session: Session) -> int:
    """Print a result; returns its exit status."""
    if session.json:
        _print_json({"ok": result.exit_status == 0, **cast(Mapping[str, object], plain(result.data))})
        return result.exit_status
    text = result.text
    if text is None:
        data = cast(Mapping[str, object], plain(result.data))
        text = [f"{key}: {value if isinstance(value, str) else json.dumps(value)}" for key, value in data.items()]
    for part in [text] if isinstance(text, str | Table) else text:
        for line in part.lines() if isinstance(part, Table) else [one_line(part)]:
            typer.echo(line)
    return result.exit_status


def show_error(code: str, message: str, hint: str, status: int, *, json_wanted: bool) -> int:
    """Print an error in words or as JSON; returns `status`."""
    if json_wanted:
        _print_json({"ok": False, "error": {"code": code, "message": message, "hint": hint}})
    else:
        typer.echo(f"error[{code}]: {one_line(message)}", err=True)
        if hint:
            typer.echo(f"  hint: {one_line(hint)}", err=True)
    return status


def plain(value: object) -> object:
    """JSON values only: dataclasses and mappings to objects, sequences and sets to arrays, Path and enum to text.

    Infinite and NaN floats become null. TypeError for anything else, bytes included: nothing leaks by accident.
    """
    kind = type(value)
    if kind is str or kind is int:
        return value
    if value is None or isinstance(value, bool | int | str):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in cast(Mapping[object, object], value).items()}
    if isinstance(value, Set):
        return sorted((plain(item) for item in cast(Set[object], value)), key=str)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [plain(item) for item in cast(Sequence[object], value)]
    raise TypeError(f"no JSON form for {kind.__name__}")


def _print_json(value: Mapping[str, object]) -> None:
    typer.echo(json.dumps(value, allow_nan=False))


def _os_error(error: OSError) -> str:
    reason = error.strerror or type(error).__name__
    return f"{error.filename}: {reason}" if error.filename is not None else reason


def _leave_pipe() -> NoReturn:
    """The reader of our output is gone: end without a word. The interpreter's last flush must not complain either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(1)


def show_internal(error: Exception, session: Session) -> int:
    """A mistake of this program: one line, the traceback in a private file (0600), on the screen only with -v."""
    trace = "".join(traceback.format_exception(error))
    if session.verbose:
        typer.echo(trace, err=True)
    try:
        fd, name = tempfile.mkstemp(prefix="fednode-crash-", suffix=".txt")
        with os.fdopen(fd, "w", encoding="utf-8") as handle:
            handle.write(trace)
        hint = f"the details are in {name}; read it before you send it to anybody"
    except OSError:
        hint = "run the command again with -v to see the details"
    return show_error("internal", f"internal error: {type(error).__name__}", hint, 1, json_wanted=session.json)
