"""Facts to journal records and back: (kind, JSON object), with every type checked on the way in."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import cache
from typing import Any, Literal, NewType, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from fednode.errors import JournalError
from fednode.node.protocol import facts
from fednode.node.protocol.facts import Fact

Decoder = Callable[[Any], Any]
T = TypeVar("T")


def to_record(fact: Fact) -> tuple[str, dict[str, object]]:
    """(kind, body); the body is plain JSON."""
    return type(fact).__name__, {f.name: plain(getattr(fact, f.name)) for f in dataclasses.fields(fact)}


_ADDED: dict[type, dict[str, object]] = {facts.Aggregated: {"momentum": None}}
"""Fields that records of an older format lack, and what they are then."""


def from_record(kind: str, body: Mapping[str, object]) -> Fact:
    """The fact of a record. Raises JournalError for an unknown kind or a body of another shape."""
    cls = _KINDS.get(kind)
    if cls is None:
        raise JournalError(
            f"journal: unknown fact {kind!r}", hint="this journal was written by a newer fednode: update"
        )
    try:
        return cast(Fact, _decoder(cls)(body))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise JournalError(f"journal: fact {kind} has another shape than expected: {error}") from error


_KINDS: dict[str, type] = {cls.__name__: cls for cls in get_args(facts.Fact)}


def decoded(cls: type[T], value: object) -> T:
    """A value of a dataclass of ours from what `plain` made of it. TypeError, ValueError or KeyError for another."""
    return cast(T, _decoder(cast(Any, cls))(value))


def plain(value: Any) -> object:
    """Plain JSON; a set becomes a sorted list."""
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in cast("Mapping[object, object]", value).items()}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in cast("tuple[object, ...]", value)]
    if isinstance(value, frozenset):
        return sorted(cast("frozenset[str]", value))
    return cast(object, value)


@cache
def _decoder(hint: Any) -> Decoder:
    """A function that turns JSON into a value of the type `hint`; built once per type, since replays are long."""
    if isinstance(hint, NewType):
        return _decoder(hint.__supertype__)
    if dataclasses.is_dataclass(hint):
        return _dataclass_decoder(cast(type, hint))
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        inner = [arg for arg in get_args(hint) if arg is not type(None)]
        if len(inner) != 1:
            raise TypeError(f"no decoder for {hint}")
        decode = _decoder(inner[0])
        return lambda value: None if value is None else decode(value)
    if origin is Literal:
        return _choice_decoder(get_args(hint))
    if origin is tuple:
        return _tuple_decoder(get_args(hint))
    if origin is not None and issubclass(origin, Mapping):
        key, decode_value = (int if get_args(hint)[0] is int else str), _decoder(get_args(hint)[1])
        return lambda value: {key(k): decode_value(v) for k, v in _mapping(value).items()}
    if origin is frozenset:
        decode_item = _decoder(get_args(hint)[0])
        return lambda value: frozenset([decode_item(item) for item in _items(value)])
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint
    return _scalar_decoder(cast(type, hint))


def _dataclass_decoder(cls: type) -> Decoder:
    hints = get_type_hints(cls)
    added = _ADDED.get(cls, {})
    decoders = [(f.name, _bare(hints[f.name]), _decoder(hints[f.name])) for f in dataclasses.fields(cls)]

    def decode(value: Any) -> Any:
        if added and len(_mapping(value)) < len(decoders):
            value = {**added, **value}
        if len(_mapping(value)) != len(decoders):
            raise ValueError(f"{cls.__name__} has the fields {[d[0] for d in decoders]}, found {sorted(value)}")
        # Most values have the very type that is expected: they are spared a call.
        return cls(*[x if type(x := value[name]) is bare else decoder(x) for name, bare, decoder in decoders])

    return decode


def _bare(hint: Any) -> type | None:
    """The JSON type whose values are taken as they are; None where a value has to be looked into."""
    while isinstance(hint, NewType):
        hint = hint.__supertype__
    return hint if hint in (str, int, float, bool) else None


def _choice_decoder(choices: tuple[object, ...]) -> Decoder:
    def decode(value: Any) -> Any:
        if value not in choices:
            raise ValueError(f"{value!r} is none of {choices}")
        return value

    return decode


def _tuple_decoder(args: tuple[Any, ...]) -> Decoder:
    if len(args) == 2 and args[1] is Ellipsis:
        decode_item = _decoder(args[0])
        return lambda value: tuple([decode_item(item) for item in _items(value)])
    decoders = [_decoder(arg) for arg in args]
    return lambda value: tuple([decoder(item) for decoder, item in zip(decoders, _items(value), strict=True)])


def _items(value: Any) -> Sequence[Any]:
    if type(value) is not list:
        raise TypeError(f"expected a list, found {type(value).__name__}")
    return cast("Sequence[Any]", value)


def _mapping(value: Any) -> Mapping[str, Any]:
    if type(value) is not dict:
        raise TypeError(f"expected an object, found {type(value).__name__}")
    return cast("dict[str, Any]", value)


def _scalar_decoder(cls: type) -> Decoder:
    def decode(value: Any) -> Any:
        if cls is float and type(value) is int:
            return float(value)
        if type(value) is not cls:
            raise TypeError(f"expected {cls.__name__}, found {type(value).__name__}")
        return value

    return decode
