"""Parties with fixed keys, for the tests of this folder."""

from __future__ import annotations

from fednode.hydra.addresses import enterprise_address
from fednode.hydra.keys import SigningKey
from fednode.types import Digest, Member, PartyName, RunId, SignalContent

MAGIC = 42
NAMES = ("ada", "bo", "cy")


def secret(name: str, kind: str) -> SigningKey:
    return SigningKey(f"{name}/{kind}".encode().ljust(32, b"."))


def member(name: str) -> Member:
    funds = secret(name, "funds").vkey
    return Member(
        name=PartyName(name),
        hydra_vkey=secret(name, "hydra").vkey,
        cardano_vkey=funds,
        fuel_vkey=secret(name, "fuel").vkey,
        address=enterprise_address(funds, MAGIC),
    )


MEMBERS = tuple(member(name) for name in NAMES)
KEYS = {name: secret(name, "funds") for name in NAMES}
ADA, BO, CY = MEMBERS
RUN = RunId("0123456789abcdef" * 2)


def content(round_number: int = 1, *, last: bool = False) -> SignalContent:
    return SignalContent(
        run=RUN,
        round=round_number,
        base=Digest("ab" * 32),
        object=None if last else Digest("cd" * 32),
        size=None if last else 12345,
        sections={"run": "11" * 8, "party.ada": "22" * 8} if round_number == 0 else None,
    )
