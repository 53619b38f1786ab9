"""Reading a settings file: TOML to checked values, and every way that can fail to one sentence with file, line, key,
value, expectation and the edit that mends it."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from fednode.errors import ConfigError
from fednode.node.printable import one_line

MAX_FILE: Final = 1 << 20
MAX_SHOWN: Final = 80
"""Characters of a wrong key or value that a message shows."""
_TABLE: Final = re.compile(r"\s*(\[\[?)\s*([A-Za-z0-9_.\"' -]+?)\s*\]\]?\s*(#.*)?$")
_KEY: Final = re.compile(r"\s*[\"']?([A-Za-z0-9_.-]+)[\"']?\s*=")

Where = tuple[str | int, ...]
"""Where a value stands: table, index in an array of tables, key."""
M = TypeVar("M", bound=BaseModel)


class Strict(BaseModel):
    """A table: unknown keys and loose types are refused, values never change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


class TomlFile:
    """The text of one settings file, kept to find the line of a key."""

    def __init__(self, name: str, text: str = "", data: bytes = b"") -> None:
        self.name = name
        self.text = text
        self.data = data
        """What was read, byte for byte."""

    @classmethod
    def read(cls, path: Path, *, missing_hint: str) -> TomlFile:
        """ConfigError where the file is missing, unreadable, longer than 1 MiB or not UTF-8."""
        try:
            with path.open("rb") as handle:
                data = handle.read(MAX_FILE + 1)
        except FileNotFoundError:
            raise ConfigError(f"{path} does not exist", hint=missing_hint) from None
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
        if len(data) > MAX_FILE:
            raise ConfigError(f"{path} has more than {MAX_FILE} bytes, expected a settings file")
        try:
            return cls(str(path), data.decode("utf-8-sig").replace("\r\n", "\n"), data)
        except UnicodeDecodeError as error:
            line = data[: error.start].count(b"\n") + 1
            raise ConfigError(
                f"{path}: line {line} is not UTF-8 text (byte {data[error.start]:#04x})",
                hint="save the file as UTF-8",
            ) from None

    def tables(self) -> dict[str, Any]:
        """The parsed TOML. ConfigError with line and column."""
        try:
            return tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            hint = "text values stand in double quotes; each table and key stands once"
            raise ConfigError(f"{self.name}: not valid TOML: {error}", hint=hint) from None
        except (ValueError, RecursionError):
            raise ConfigError(f"{self.name}: not valid TOML: a number is too long or values nest too deep") from None

    def checked(self, model: type[M], tables: Mapping[str, Any], *, context: Mapping[str, object] | None = None) -> M:
        """`tables` as `model`. ConfigError for the first wrong value, with the number of further ones."""
        try:
            return model.model_validate(tables, context=dict(context or {}))
        except ValidationError as error:
            found = error.errors(include_url=False)
            # A misspelt key is the cause of the missing one: named first.
            first = next((item for item in found if item["type"] == "extra_forbidden"), found[0])
            problem = self._problem(model, first["loc"], first["type"], first["msg"], tables)
            others = len({item["loc"][:3] for item in found if not _caused(item, first)})
            if others:
                problem.message += f" (and {others} more wrong)"
            raise problem from None

    def wrong(self, where: Sequence[str | int], value: object, expected: str, hint: str = "") -> ConfigError:
        """The error for a value that is wrong."""
        return ConfigError(f"{self._place(where)} is {shown(value)}, expected {expected}", hint=hint)

    def missing(self, where: Sequence[str | int], expected: str) -> ConfigError:
        """The error for a value that is not there."""
        return ConfigError(f"{self._place(where)} is missing, expected {expected}", hint=f"add {where[-1]}")

    def _problem(
        self, model: type[BaseModel], where: Where, kind: str, message: str, tables: Mapping[str, Any]
    ) -> ConfigError:
        meaning, names = _meaning(model, where)
        key = one_line(str(where[-1]))
        if kind == "extra_forbidden":
            near = difflib.get_close_matches(key, names, n=1)
            known = ", ".join(names)
            hint = f"did you mean {near[0]}?" if near else f"known here: {known}"
            return ConfigError(f"{self._place(where)} is an unknown key, expected one of: {known}", hint=hint)
        hint = f"{key}: {meaning}" if meaning else ""
        if kind == "missing":
            return self.missing(where, meaning or "this table")
        if kind == "model_type":
            return self.wrong(where, _value(tables, where), "a table", hint)
        return self.wrong(where, _value(tables, where), _expectation(message), hint)

    def _place(self, where: Sequence[str | int]) -> str:
        # A value in an inline table stands in the line of the table's key.
        line = next((found for end in range(len(where), 1, -1) if (found := self._line(where[:end]))), None)
        return f"{self.name}: {dotted(where)}" + (f" (line {line})" if line else "")

    def _line(self, where: Sequence[str | int]) -> int | None:
        """The line of the key, of its table where the key is missing, None where neither is found (inline tables)."""
        names = [str(item) for item in where if isinstance(item, str)]
        index = next((item for item in where if isinstance(item, int)), 0)
        table, seen, at = "", -1, None
        for number, line in enumerate(self.text.split("\n"), 1):
            header = _TABLE.match(line)
            if header:
                table = re.sub(r"[\"' ]", "", header[2])
                seen += header[1] == "[[" and table == names[0]
                if table in (".".join(names), ".".join(names[:-1])) and (header[1] == "[" or seen == index):
                    at = number
                continue
            key = _KEY.match(line)
            full = f"{table}.{key[1]}" if key and table else key[1] if key else None
            if full == ".".join(names) and (seen < 0 or table != names[0] or seen == index):
                return number
        return at


def checked_address(value: str, schemes: Collection[str], expected: str) -> str:
    """The address of a service, without a `/` at its end. ValueError with `expected` where it is none of `schemes`."""
    try:
        parts = urlsplit(value)
        valid = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    else:
        if "@" in parts.netloc:
            raise ValueError("an address without user and password (it is shown in logs)")
        valid = valid and not parts.query and not parts.fragment
    if not valid:
        raise ValueError(expected)
    return value.rstrip("/")


def dotted(where: Sequence[str | int]) -> str:
    """`("party", 1, "weight")` as `party[1].weight`; a key that is no key of ours may have any length and any
    characters, and is made fit to be read."""
    text = ""
    for item in where:
        if isinstance(item, str):
            item = one_line(item if len(item) <= MAX_SHOWN else item[: MAX_SHOWN - 3] + "...")
        text += f"[{item}]" if isinstance(item, int) else f".{item}" if text else item
    return text


def shown(value: object) -> str:
    """A value as the user wrote it, at most 80 characters. What may be a secret pasted at the wrong place (a key in
    hex, a password in an address) is shown in part only."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and re.fullmatch(r"[0-9a-fA-F]{40,}", value):
        return f"'{value[:8]}...' ({len(value)} characters)"
    text = re.sub(r"//[^/@]*@", "//***@", repr(value))
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def _caused(item: ErrorDetails, first: ErrorDetails) -> bool:
    """Whether an error is `first` itself, or the gap that the misspelt key `first` leaves in its table."""
    gap = first["type"] == "extra_forbidden" and item["type"] == "missing" and item["loc"][:-1] == first["loc"][:-1]
    return gap or item["loc"][:3] == first["loc"][:3]


def _expectation(message: str) -> str:
    text = message.removeprefix("Value error, ").removeprefix("Input should be ").removeprefix("String should ")
    return text.removeprefix("expected ")


def _value(tables: Mapping[str, Any], where: Where) -> object:
    value: Any = tables
    for item in where:
        try:
            value = value[item]
        except (KeyError, IndexError, TypeError):
            break
    return value


def _meaning(model: type[BaseModel], where: Where) -> tuple[str, list[str]]:
    """What the field at `where` means, and the names that its table knows."""
    meaning, names = "", list(model.model_fields)
    current: type[BaseModel] | None = model
    for item in where:
        if isinstance(item, int) or current is None:
            continue
        names = list(current.model_fields)
        field = current.model_fields.get(item)
        if field is None:
            # The name of a peer: below it stands the table of one peer.
            continue
        meaning, current = field.description or "", _inner(field.annotation)
    return meaning, names


def _inner(annotation: object) -> type[BaseModel] | None:
    """The table class inside an annotation such as `tuple[Party, ...]` or `dict[str, Peer]`."""
    for item in (annotation, *cast("tuple[object, ...]", getattr(annotation, "__args__", ()))):
        if isinstance(item, type) and issubclass(item, BaseModel):
            return item
    return None
