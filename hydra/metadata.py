"""The auxiliary data of a signal: a plain map with the single label 1729 (protocol.md section 4)."""

from __future__ import annotations

from typing import Final

import cbor2

from fednode.hydra.cbor import CborError, Map, Tag, Value, decode
from fednode.types import Digest, RunId, SignalContent

LABEL: Final = 1729
_VERSION: Final = 1
_REQUIRED: Final = frozenset({"v", "run", "round", "base"})
_WITH_OBJECT: Final = frozenset({"object", "size"})
_MAX_ROUND: Final = 1 << 31
_MAX_SIZE: Final = 1 << 53
_MAX_TEXT: Final = 64
"""Ledger rule: no string in metadata is longer, in bytes."""
_POST_ALONZO_TAG: Final = 259


class BrokenContent(Exception):
    """Metadata under the label that is not a signal's content; the text says which rule is broken."""


def encode_content(content: SignalContent) -> bytes:
    """The auxiliary data of `content`. Raises ValueError where the content itself breaks the rules."""
    fields: dict[str, object] = {"v": _VERSION, "run": bytes.fromhex(content.run), "round": content.round}
    if content.object is not None:
        fields |= {"object": bytes.fromhex(content.object), "size": content.size}
    fields["base"] = bytes.fromhex(content.base)
    if content.sections is not None:
        fields["sections"] = {name: bytes.fromhex(content.sections[name]) for name in sorted(content.sections)}
    encoded = cbor2.dumps({LABEL: fields})
    try:
        read = decode_content(decode(encoded))
    except BrokenContent as error:
        raise ValueError(f"this content cannot be a signal: {error}") from None
    if read != content:
        raise ValueError("this content cannot be a signal: its hex is not in lower case")
    return encoded


def has_label(auxiliary: bytes) -> bool:
    """Whether any of the three forms of auxiliary data holds the label (also where its content is nonsense)."""
    try:
        value = decode(auxiliary)
    except CborError:
        return False
    if isinstance(value, Tag) and value.number == _POST_ALONZO_TAG and isinstance(value.value, Map):
        value = next((item for key, item in value.value.pairs if key == 0), value)
    elif isinstance(value, tuple) and value:
        value = value[0]
    return isinstance(value, Map) and any(key == LABEL for key, _ in value.pairs)


def decode_content(auxiliary: Value) -> SignalContent:
    """Read the content strictly: exact key sets, exact types. BrokenContent names the first broken rule."""
    if not isinstance(auxiliary, Map) or [key for key, _ in auxiliary.pairs] != [LABEL]:
        raise BrokenContent(f"auxiliary data: expected a plain map with the single label {LABEL}")
    fields = _fields(auxiliary.pairs[0][1])
    if fields["v"] != _VERSION:
        raise BrokenContent(f"v: expected {_VERSION}, found {ascii(fields['v'])[:40]}")
    round_number = _integer(fields, "round", 0, _MAX_ROUND)
    names = set(fields)
    if round_number == 0 and not names > _WITH_OBJECT | {"sections"}:
        raise BrokenContent("round 0: expected object, size and sections")
    if round_number > 0 and "sections" in names:
        raise BrokenContent(f"round {round_number}: sections belong to round 0 only")
    has_object = "object" in names
    return SignalContent(
        run=RunId(_bytes(fields, "run", 16)),
        round=round_number,
        base=Digest(_bytes(fields, "base", 32)),
        object=Digest(_bytes(fields, "object", 32)) if has_object else None,
        size=_integer(fields, "size", 1, _MAX_SIZE) if has_object else None,
        sections=_sections(fields["sections"]) if round_number == 0 else None,
    )


def _fields(value: Value) -> dict[str, Value]:
    if not isinstance(value, Map):
        raise BrokenContent(f"label {LABEL}: expected a map")
    fields = {key: item for key, item in value.pairs if isinstance(key, str)}
    if len(fields) != len(value.pairs):
        raise BrokenContent(f"label {LABEL}: a key is twice there or not text")
    names = frozenset(fields) - {"sections"}
    if names not in (_REQUIRED, _REQUIRED | _WITH_OBJECT):
        shown = ", ".join(sorted(ascii(name[:_MAX_TEXT]) for name in fields))
        raise BrokenContent(f"label {LABEL}: expected keys v, run, round, base and object, size; found {shown[:300]}")
    return fields


def _integer(fields: dict[str, Value], name: str, least: int, bound: int) -> int:
    value = fields[name]
    if not isinstance(value, int) or not least <= value < bound:
        raise BrokenContent(f"{name}: expected an integer of at least {least} and below {bound}")
    return value


def _bytes(fields: dict[str, Value], name: str, length: int) -> str:
    value = fields[name]
    if not isinstance(value, bytes) or len(value) != length:
        raise BrokenContent(f"{name}: expected {length} bytes")
    return value.hex()


def _sections(value: Value) -> dict[str, str]:
    if not isinstance(value, Map):
        raise BrokenContent("sections: expected a map")
    result: dict[str, str] = {}
    for name, digest in value.pairs:
        if not isinstance(name, str) or len(name.encode()) > _MAX_TEXT or name in result:
            raise BrokenContent(f"sections: expected different names of at most {_MAX_TEXT} bytes")
        if not isinstance(digest, bytes) or len(digest) != 8:
            raise BrokenContent(f"sections.{name!a}: expected 8 bytes")
        result[name] = digest.hex()
    return result
