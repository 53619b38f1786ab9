"""Is this node, and is this head, the one of the agreement? Every check names what is expected and what was found."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto
from typing import Final

from fednode.errors import HeadError
from fednode.hydra.addresses import key_hash
from fednode.hydra.messages import Environment, Greetings
from fednode.hydra.settings import HeadSettings
from fednode.types import HeadId, HeadStatus, Member

_LOG = logging.getLogger("fednode.head")
_STATUSES: Final = {
    "Idle": HeadStatus.IDLE,
    "Open": HeadStatus.OPEN,
    "Closed": HeadStatus.CLOSED,
    "FanoutPossible": HeadStatus.FANOUT_POSSIBLE,
}


def status_of(greetings: Greetings) -> HeadStatus:
    """UNKNOWN for a status that release 2.3 does not have."""
    return _STATUSES.get(greetings.status, HeadStatus.UNKNOWN)


class Support(Enum):
    """What may be done with a node of some release."""

    FULL = auto()
    READ_ONLY = auto()
    """Follow the head, close it, fan out, recover deposits; no Init, deposit or signal."""
    REFUSED = auto()


def support(version: str, agreed: str) -> tuple[Support, str]:
    """What a node of release `version` is good for where the agreement says `agreed`, and why not for all."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)(?![\d.])", version)
    if found is None:
        return Support.REFUSED, "fednode cannot tell which release that is"
    number = tuple(int(part) for part in found.groups())
    if number[0] < 2:
        return Support.REFUSED, "before 2.0 a head opened by commits, and fednode does not speak that"
    if number[0] > 2:
        return Support.REFUSED, "it is newer than all that fednode knows"
    if number[1] < 3:
        reason = "before 2.3 a node signs other snapshots and forgets messages while it is out of sync"
    elif number[1] > 3:
        reason = "it is newer than all that fednode was made for"
    elif found.group(0) != agreed:
        reason = "all parties must run the same release"
    else:
        return Support.FULL, ""
    return Support.READ_ONLY, f"{reason}: such a node only follows, closes and fans out"


def check_greetings(greetings: Greetings, settings: HeadSettings) -> None:
    """HeadError unless version, own key, parties, participants and periods are the agreement's.

    Where `settings.read_only`, other periods are no obstacle, nor is a release that must not signal: an open head can
    always be closed.
    """
    for _, check in GREETINGS_CHECKS:
        check(greetings, settings)


def _check_version(greetings: Greetings, settings: HeadSettings) -> None:
    level, reason = support(greetings.version, settings.version)
    if level is Support.REFUSED or (level is Support.READ_ONLY and not settings.read_only):
        raise HeadError(
            f"hydra-node has version {greetings.version[:60]!r}, the agreement expects {settings.version}: {reason}",
            hint=f"start hydra-node {settings.version}; `fednode close-head` works with any 2.x",
        )
    if level is Support.READ_ONLY:
        _LOG.warning("hydra-node has version %s: %s", greetings.version[:60], reason)


def _check_own_key(greetings: Greetings, settings: HeadSettings) -> None:
    me = settings.member
    if greetings.me != me.hydra_vkey:
        raise HeadError(
            f"hydra-node has the Hydra key {greetings.me[:64]}, the agreement expects {me.hydra_vkey} for {me.name}",
            hint="is the url that of another party's node?",
        )


def _environment(greetings: Greetings) -> Environment:
    if greetings.environment is None:
        raise HeadError("hydra-node Greetings: expected env with the parties and periods, found none")
    return greetings.environment


def _check_parties(greetings: Greetings, settings: HeadSettings) -> None:
    environment = _environment(greetings)
    check_parties((environment.party, *environment.other_parties), settings.members)


def _check_participants(greetings: Greetings, settings: HeadSettings) -> None:
    fuel = {key_hash(member.fuel_vkey).hex(): f"fuel key of {member.name}" for member in settings.members}
    _same_set("participants", fuel, _environment(greetings).participants)


def _check_periods(greetings: Greetings, settings: HeadSettings) -> None:
    environment = _environment(greetings)
    try:
        _same_period("contestation period", settings.contestation_period_s, environment.contestation_period)
        _same_period("deposit period", settings.deposit_period_s, environment.deposit_period)
    except HeadError as error:
        if not settings.read_only:
            raise
        _LOG.warning("%s", error.message)


GREETINGS_CHECKS: Final[tuple[tuple[str, Callable[[Greetings, HeadSettings], None]], ...]] = (
    ("version", _check_version),
    ("own key", _check_own_key),
    ("parties", _check_parties),
    ("participants", _check_participants),
    ("periods", _check_periods),
)
"""Name and check; each raises HeadError."""


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
    extra = [key[:64] for key in found if key not in expected][: len(expected) + 1]
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
