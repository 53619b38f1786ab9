"""Live progress of the demo: a line per party that is kept up to date on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

COLUMNS = (("party", 6), ("round", 5), ("state", 12), ("step", 5), ("loss", 6), ("waits for", 10), ("last", 20))
"""Heading and least width."""


@dataclass(slots=True)
class PartyLine:
    state: str = "starting"
    round: str = ""
    step: str = ""
    loss: str = ""
    waiting: str = ""
    text: str = ""


@dataclass(slots=True)
class Show:
    """Shows what the daemons report. `quiet` shows nothing at all."""

    parties: Sequence[str]
    quiet: bool = False
    lines: dict[str, PartyLine] = field(default_factory=dict[str, PartyLine], init=False)
    title: str = ""
    _live: Live | None = None
    _console: Console = field(default_factory=lambda: Console(stderr=True))

    def __post_init__(self) -> None:
        self.lines = {party: PartyLine() for party in self.parties}

    def __enter__(self) -> Show:
        if sys.stderr.isatty() and not self.quiet:
            self._live = Live(self._table(), console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def stage(self, title: str) -> None:
        """A new part of the demo begins."""
        self.title = title
        if self._live is not None:
            self._live.update(self._table())
        elif not self.quiet:
            self._line(title)

    def listener(self, party: str) -> Callable[[Mapping[str, Any]], None]:
        """The callback for one party's JSON lines."""
        return lambda talk: self._update(party, talk)

    def _update(self, party: str, talk: Mapping[str, Any]) -> None:
        line = self.lines[party]
        if "step" in talk:
            line.step, line.loss = f"{talk['step']}/{talk['steps']}", f"{float(talk['loss']):.4f}"
        elif talk.get("state") != "training":
            line.step = ""
        line.state = str(talk.get("state", line.state))
        if "rounds" in talk:
            line.round = f"{talk.get('round', 0)}/{talk['rounds']}"
        line.waiting = ", ".join(str(p) for p in talk.get("waiting_for", []))
        text = str(talk.get("text", ""))
        if text:
            line.text = text
        if self._live is not None:
            self._live.update(self._table())
        elif text and not self.quiet:
            self._line(f"{party:>8}  {text}")

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _table(self) -> Table:
        table = Table(title=self.title, title_justify="left", box=None, pad_edge=False)
        for heading, width in COLUMNS:
            table.add_column(heading, no_wrap=True, overflow="ellipsis", min_width=width)
        for party, line in self.lines.items():
            table.add_row(party, line.round, line.state, line.step, line.loss, line.waiting, line.text)
        return table
