"""The words between the daemon and its trainer child: one JSON object a line, in both directions.

request   {"op": "setup" | "describe" | "train" | "evaluate" | "alone", ...}
reply     {"progress": [step, steps, loss]} any number of times, then {"ok": true, ...} or {"ok": false, "error": {...}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar, cast

from fednode.errors import ConfigError, FednodeError, TrainingError
from fednode.types import ModelFacts

LINE_LIMIT = 64 << 20
"""Longest line in bytes: the facts of a very large adapter are a few hundred kilobytes."""

Message = dict[str, Any]
T = TypeVar("T")


def encode(message: Mapping[str, object]) -> bytes:
    """One line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Message:
    """Raises TrainingError for a line that is no JSON object: something else wrote to the channel."""
    try:
        message = json.loads(line)
    except ValueError as error:
        raise TrainingError(f"unreadable line between daemon and trainer: {line[:200]!r}") from error
    if not isinstance(message, dict):
        raise TrainingError(f"unreadable line between daemon and trainer: {line[:200]!r}")
    return cast(Message, message)


def record(kind: type[T], message: Message) -> T:
    """A flat dataclass from the message's keys of the same names. Raises TrainingError where one is missing."""
    names = [field.name for field in fields(cast(Any, kind))]
    missing = [name for name in names if name not in message]
    if missing:
        raise TrainingError(f"message between daemon and trainer lacks {', '.join(missing)}")
    return kind(**{name: message[name] for name in names})


def facts_to_json(facts: ModelFacts) -> Message:
    return {"tensors": [[name, list(shape)] for name, shape in facts.tensors], "base": dict(facts.base)}


def facts_from_json(message: Message) -> ModelFacts:
    return ModelFacts(tuple((name, tuple(shape)) for name, shape in message["tensors"]), dict(message["base"]))


def error_to_json(error: BaseException) -> Message:
    """Errors of ours as they are; anything else becomes a training error that names its kind."""
    if isinstance(error, FednodeError):
        return {"code": error.code, "message": error.message, "hint": error.hint}
    name = type(error).__name__
    if isinstance(error, MemoryError) or name == "OutOfMemoryError":
        hint = "lower training.batch or training.sequence, or use a larger device"
        return {"code": TrainingError.code, "message": f"the trainer ran out of memory: {error}", "hint": hint}
    hint = "the trainer's log has the traceback"
    return {"code": TrainingError.code, "message": f"the trainer failed: {name}: {error}", "hint": hint}


def error_from_json(message: Message) -> FednodeError:
    kind = ConfigError if message.get("code") == ConfigError.code else TrainingError
    return kind(str(message.get("message", "the trainer failed")), hint=str(message.get("hint", "")))
