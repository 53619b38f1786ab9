"""What a real ledger may allow and the embedded head does not simulate: it refuses it, and says so."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from .broken import UNREADABLE, Case
from .drafts import Draft, digest, valid
from .encoding import array, head, integer, mapping, members, octets

_KEY = b"\x82\x00" + octets(digest(b"stake", 28))
"""A stake credential of a key."""
_ACCOUNT = octets(b"\xe0" + digest(b"stake", 28))
_SCRIPT = b"\x82\x01\x80"
"""A native script that needs nobody."""


def _fields(draft: Draft) -> dict[str, tuple[int, bytes]]:
    style = draft.style
    some_input = array([octets(digest(b"other")), integer(0, style)], style)
    vote = b"\xa1" + b"\x82\x04" + octets(digest(b"pool", 28)) + b"\xa1" + some_input + b"\x82\x01\xf6"
    return {
        "a certificate": (4, members([array([b"\x00", _KEY], style)], style)),
        "a withdrawal": (5, mapping([(_ACCOUNT, b"\x01")], style)),
        "a mint": (9, mapping([(octets(digest(b"mint", 28)), mapping([(octets(b"x"), b"\x01")], style))], style)),
        "a script data hash": (11, octets(digest(b"x"))),
        "collateral": (13, members([some_input], style)),
        "a collateral return": (16, draft.outputs[0].encode(style)),
        "a total collateral": (17, integer(5, style)),
        "a reference input": (18, members([some_input], style)),
        "a vote": (19, vote),
        "a treasury value": (21, integer(5, style)),
        "a donation": (22, integer(5, style)),
    }


def beyond(rng: random.Random, each: int) -> list[Case]:
    """`each` transactions for every feature that is not simulated."""
    found: list[Case] = []
    for name in _fields(valid(rng)):
        for _ in range(each):
            draft = valid(rng)
            draft.more.append(_fields(draft)[name])
            if name == "a donation":
                draft.utxo[draft.inputs[0]].coin += 5
            found.append(Case(name, draft, draft.encode(), "Unsupported"))
    for _ in range(each):
        draft = valid(rng)
        pay = draft.outputs[0]
        datum = b"\x82\x00" + octets(digest(b"datum"))
        raw = mapping(
            [(b"\x00", octets(pay.address)), (b"\x01", pay.value(draft.style)), (b"\x02", datum)], draft.style
        )
        draft.change_body = _swap(pay.encode(draft.style), raw)
        found.append(Case("a datum hash", draft, draft.encode(), "Unsupported"))
    for _ in range(each):
        draft = valid(rng)
        draft.style = replace(draft.style, indefinite=False)
        draft.metadata, draft.form, draft.hash = {1: 2}, "map", "right"
        content = draft.auxiliary() or b""
        raw = array([content, array([_SCRIPT], draft.style)], draft.style)
        draft.change_body = _swap(octets(digest(content)), octets(digest(raw)))
        draft.change_whole = _swap_end(content, raw)
        found.append(Case("a script beside the metadata", draft, draft.encode(), "Unsupported"))
    for _ in range(each):
        draft = valid(rng)
        byron = b"\x82\xd8\x18" + octets(b"\x83" + octets(digest(b"byron", 28)) + b"\xa0\x00") + head(0, 0)
        draft.outputs[0].address = byron
        found.append(Case("a Byron address", draft, draft.encode(), UNREADABLE))
    return found


def _swap(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda raw: raw.replace(old, new, 1)


def _swap_end(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda raw: raw[: -len(old)] + new
