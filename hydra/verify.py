"""Is this node, and is this head, the one of the agreement? Every check names what is expected and what was found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from fednode.errors import HeadError
from fednode.hydra.addresses import key_hash
from fednode.hydra.messages import Greetings
from fednode.hydra.settings import HeadSettings
from fednode.types import HeadId, HeadStatus, Member

_STATUSES: Final = {
    "Idle": HeadStatus.IDLE,
    "Open": HeadStatus.OPEN,
    "Closed": HeadStatus.CLOSED,
    "FanoutPossible": HeadStatus.FANOUT_POSSIBLE,
}


def status_of(greetings: Greetings) -> HeadStatus:
    """UNKNOWN for a status that release 2.3 does not have."""
    return _STATUSES.get(greetings.status, HeadStatus.UNKNOWN)


def check_greetings(greetings: Greetings, settings: HeadSettings) -> None:
    """HeadError unless version, own key, parties, participants and periods are the agreement's."""
    series = ".".join(settings.version.split(".")[:2])
    if not f"{greetings.version}.".startswith(f"{series}."):
        raise HeadError(
            f"hydra-node has version {greetings.version[:60]!r}, the agreement expects {settings.version}",
            hint="all parties must run the same release",
        )
    me = settings.member
    if greetings.me != me.hydra_vkey:
        raise HeadError(
            f"hydra-node has the Hydra key {greetings.me[:64]}, the agreement expects {me.hydra_vkey} for {me.name}",
            hint="is the url that of another party's node?",
        )
    environment = greetings.environment
    if environment is None:
        raise HeadError("hydra-node Greetings: expected env with the parties and periods, found none")
    check_parties((environment.party, *environment.other_parties), settings.members)
    fuel = {key_hash(member.fuel_vkey).hex(): f"fuel key of {member.name}" for member in settings.members}
    _same_set("participants", fuel, environment.participants)
    _same_period("contestation period", settings.contestation_period_s, environment.contestation_period)
    _same_period("deposit period", settings.deposit_period_s, environment.deposit_period)


def check_parties(hydra_vkeys: Sequence[str], members: Iterable[Member]) -> None:
    """HeadError unless the Hydra keys are exactly the agreement's, in any order."""
    _same_set("parties", {member.hydra_vkey: f"Hydra key of {member.name}" for member in members}, hydra_vkeys)


def check_head(bound: HeadId | None, found: HeadId | None) -> None:
    """HeadError where this home is bound to another head than the node is in."""
    if bound is not None and found is not None and bound != found:
        raise HeadError(
            f"hydra-node is in head {found[:64]}, this home is bound to head {bound}",
            hint="use the node that holds this home's head, or a new home for a new head",
        )


def _same_set(what: str, expected: dict[str, str], found: Sequence[str]) -> None:
    missing = [f"{key} ({expected[key]})" for key in expected if key not in found]
    extra = [key[:64] for key in found if key not in expected]
    if missing or extra or len(found) != len(expected):
        raise HeadError(
            f"hydra-node has other {what} than the agreement: missing {', '.join(missing) or 'none'}; "
            f"not in the agreement {', '.join(extra) or 'none'}; expected {len(expected)}, found {len(found)}",
            hint="start the node with the keys of peers.toml",
        )


def _same_period(what: str, expected: int, found: float) -> None:
    if found != expected:
        raise HeadError(
            f"hydra-node has a {what} of {found:g} s, the agreement expects {expected} s",
            hint="start the node with the periods of peers.toml",
        )
