"""The demo's text: the interpreter's own help topics, split by subject among the parties. No torch, no numpy."""

from __future__ import annotations

import importlib
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

from fednode.durable import make_folders, write_atomic
from fednode.errors import ConfigError

HELD_OUT = "held-out"
HOLD_OUT_EVERY = 12
LARGEST_TO_SMALLEST = Fraction(8, 5)
"""The first party's wanted share is 1.6 times the last one's: parties in the field are not equally rich either."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Text files written by `write_shares`: one per party in the order of `names`, and one that nobody trains on."""

    parties: tuple[Path, ...]
    held_out: Path


def write_shares(folder: Path, names: Sequence[str]) -> Shares:
    """Write `<folder>/<name>.txt` for 2 to 10 parties and `<folder>/held-out.txt`, UTF-8; create the folder.

    A subject (help topic) goes to one party as a whole; every 12th paragraph, over all subjects, is held out; a
    paragraph that several topics repeat stays only in the shortest of them. The split depends on the topics and the
    number of parties alone. Raises ConfigError for other counts, unsafe or repeated names, and where the
    interpreter lacks its help topics.
    """
    check_names(names)
    subjects, held_out = split_paragraphs(help_topics())
    make_folders(folder)
    paths: list[Path] = []
    for name, text in zip(names, deal(subjects, len(names)), strict=True):
        paths.append(folder / f"{name}.txt")
        write_atomic(paths[-1], text.encode())
    write_atomic(folder / f"{HELD_OUT}.txt", held_out.encode())
    return Shares(tuple(paths), folder / f"{HELD_OUT}.txt")


def check_names(names: Sequence[str]) -> None:
    """Raise ConfigError unless `names` are 2 to 10 different plain file names."""
    if not 2 <= len(names) <= 10:
        raise ConfigError(f"the demo text is split among 2 to 10 parties, not {len(names)}", hint="use --parties 3")
    for name in names:
        if name in {"", ".", "..", HELD_OUT} or "/" in name or "\0" in name or names.count(name) > 1:
            raise ConfigError(f"party name {name!r} cannot name its own text file; expected different plain names")


def help_topics() -> Mapping[str, str]:
    """The texts behind `help('topic')`. Raises ConfigError where a distribution left them out."""
    try:
        module = importlib.import_module("pydoc_data.topics")
    except ImportError as error:
        raise ConfigError(
            "this Python has no help topics (module pydoc_data.topics), from which the demo takes its text",
            hint="install the full standard library, or use: --task digits",
        ) from error
    return cast("Mapping[str, str]", module.topics)


def split_paragraphs(topics: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """(subject -> text without repeated and held-out paragraphs, held-out text)."""
    seen: set[str] = set()
    subjects: dict[str, str] = {}
    held_out: list[str] = []
    count = 0
    for name in sorted(topics, key=lambda name: (len(topics[name]), name)):
        kept: list[str] = []
        for paragraph in paragraphs(topics[name]):
            key = " ".join(paragraph.split())
            if key in seen:
                continue
            seen.add(key)
            count += 1
            (kept if count % HOLD_OUT_EVERY else held_out).append(paragraph)
        if kept:
            subjects[name] = "\n\n".join(kept) + "\n"
    return subjects, "\n\n".join(held_out) + "\n"


def paragraphs(text: str) -> list[str]:
    """Blocks between blank lines, without their common indentation."""
    blocks: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.strip():
            blocks[-1].append(line.rstrip())
        elif blocks[-1]:
            blocks.append([])
    return [textwrap.dedent("\n".join(block)) for block in blocks if block]


def deal(subjects: Mapping[str, str], parties: int) -> list[str]:
    """One text per party: subjects from the largest down, each to the party furthest below its wanted share."""
    wanted = [1 + (LARGEST_TO_SMALLEST - 1) * Fraction(parties - 1 - i, parties - 1) for i in range(parties)]
    hands: list[list[str]] = [[] for _ in range(parties)]
    sizes = [0] * parties
    for name in sorted(subjects, key=lambda name: (-len(subjects[name]), name)):
        poorest = min(range(parties), key=lambda i: ((sizes[i] + len(subjects[name])) / wanted[i], i))
        hands[poorest].append(name)
        sizes[poorest] += len(subjects[name])
    return ["\n".join(subjects[name] for name in sorted(hand)) for hand in hands]
