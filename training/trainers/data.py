"""A party's own texts: read, tokenise, pack, and put in the order of a round. No torch.

A packed sequence is a window of `sequence + 1` tokens: the first `sequence` are the input, the last `sequence` the
targets, so windows with stride `sequence` predict every token but the first exactly once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from fednode.errors import TrainingError

Tokens = NDArray[np.int64]


class Encoder(NamedTuple):
    """How a model reads text."""

    encode: Callable[[str], Sequence[int]]
    separator: tuple[int, ...]
    """Tokens between two texts: the model's end-of-text token where it has one."""


SUFFIXES = {"text": (".txt", ".md"), "jsonl": (".jsonl",)}
PIECE = 1 << 20
"""Characters tokenised at once: bounds the tokenizer's memory on a large file."""


BYTES = Encoder(str.encode, (0x0A,))
"""A byte-level model: the UTF-8 bytes themselves, 0..255; texts are separated by a line feed."""


def read_tokens(path: Path, kind: Literal["text", "jsonl"], field: str, encoder: Encoder) -> Tokens:
    """All tokens of a file, or of a folder's files in name order, int64 [n].

    Raises TrainingError where nothing is there, a line is not JSON with `field`, or a text is not UTF-8.
    """
    parts: list[Tokens] = []
    for file in data_files(path, kind):
        for text in read_jsonl(file, field) if kind == "jsonl" else read_text(file):
            if parts and text:
                parts.append(np.array(encoder.separator, dtype=np.int64))
            parts += [np.asarray(list(encoder.encode(piece)), dtype=np.int64) for piece in pieces(text)]
    tokens = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
    if not len(tokens):
        raise TrainingError(f"data at {path} holds no text", hint="correct data.path in fednode.toml")
    return tokens


def data_files(path: Path, kind: Literal["text", "jsonl"]) -> list[Path]:
    """The file itself, or the folder's files with the kind's suffixes, sorted by path."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise TrainingError(f"data path {path} does not exist", hint="correct data.path in fednode.toml")
    files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES[kind] and file.is_file())
    if not files:
        raise TrainingError(
            f"data folder {path} holds no {' or '.join(SUFFIXES[kind])} file",
            hint="correct data.path or data.format in fednode.toml",
        )
    return files


def read_text(file: Path) -> Iterator[str]:
    """The file as one text."""
    try:
        yield file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TrainingError(f"{file} is not UTF-8 text: byte {error.start}", hint="convert it to UTF-8") from error


def read_jsonl(file: Path, field: str) -> Iterator[str]:
    """One text per line: the string under `field`. Blank lines are skipped."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row: object = json.loads(line)
            except ValueError as error:
                raise TrainingError(f"{file} line {number} is not JSON: {error}", hint="correct the line") from error
            text = cast("dict[str, object]", row).get(field) if isinstance(row, dict) else None
            if not isinstance(text, str):
                raise TrainingError(
                    f"{file} line {number} has no text under {field!r}",
                    hint="correct data.field in fednode.toml, or the line",
                )
            yield text


def pieces(text: str) -> Iterator[str]:
    """`text` cut at line ends into pieces of about PIECE characters; empty texts give none."""
    start = 0
    while start < len(text):
        end = text.rfind("\n", start, start + PIECE) + 1 if len(text) - start > PIECE else len(text)
        end = end or start + PIECE
        yield text[start:end]
        start = end


def round_windows(tokens: Tokens, length: int, count: int, random: np.random.Generator) -> Tokens:
    """`count` training windows int64 [count, length + 1]: random passes over the text, each cut at another offset.

    Raises TrainingError where the text is shorter than one window.
    """
    spare = len(tokens) - (length + 1)
    if spare < 0:
        raise TrainingError(
            f"the data has {len(tokens)} tokens, but one sequence needs {length + 1}",
            hint="add data, or agree on a smaller training.sequence",
        )
    starts: list[NDArray[np.int64]] = []
    missing = count
    while missing > 0:
        offset = int(random.integers(0, min(length, spare + 1)))
        one_pass = offset + length * np.arange((len(tokens) - 1 - offset) // length, dtype=np.int64)
        starts.append(random.permutation(one_pass)[:missing])
        missing -= len(starts[-1])
    return tokens[np.concatenate(starts)[:, None] + np.arange(length + 1)]


def all_windows(tokens: Tokens, length: int, batch: int) -> Iterator[Tokens]:
    """The whole text in order, [<= batch, length + 1] each, then the rest as one shorter window.

    Every token but the first is a target exactly once. Raises TrainingError for fewer than two tokens.
    """
    if len(tokens) < 2:
        raise TrainingError(f"the held-out text has {len(tokens)} tokens, at least 2 are needed")
    full = (len(tokens) - 1) // length
    for first in range(0, full, batch):
        starts = length * np.arange(first, min(first + batch, full))
        yield tokens[starts[:, None] + np.arange(length + 1)]
    if full * length < len(tokens) - 1:
        yield tokens[None, full * length :]
