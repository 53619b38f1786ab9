"""Looking before money moves: the checks of `init-head` against the own node, once or until the node is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from fednode.errors import FednodeError, HeadError, HeadUnavailable
from fednode.hydra.probe import NodeFacts, probe
from fednode.hydra.recovery import PendingDeposit, pending_deposits, recover
from fednode.node import checks
from fednode.node.app import head_settings
from fednode.node.checks import Check
from fednode.node.site import Site, replay
from fednode.types import HeadStatus

_PAUSE_FIRST, _PAUSE_MOST = 0.2, 5.0


@dataclass(frozen=True, slots=True)
class Preflight:
    """`steps`: what `init-head` will do; `error`: the first failed check, None where it would go on."""

    checks: tuple[Check, ...]
    steps: tuple[str, ...]
    status: HeadStatus | None
    """Of the own node's head; None where the node does not answer."""
    error: FednodeError | None


async def look(site: Site) -> Preflight:
    """Check once. No effect outside this process; ConfigError or KeyFileError where nothing can be asked."""
    own, settings = _own(site), head_settings(site, replay(site).head.id, read_only=False)
    try:
        node: NodeFacts | None = await probe(settings)
        found = checks.check(site.agreement, own, node) if node else ()
    except HeadError as error:
        node, found = None, (checks.unreachable(error),)
    status = node.status if node else None
    return Preflight(found, checks.steps(site.agreement, own, status), status, checks.error_of(found))


async def require(site: Site, waiting: Callable[[str], None]) -> None:
    """Wait until the own node answers and is in sync, then raise what speaks against a deposit, if anything does.

    `waiting` is told why it is waited. A party whose money is in the head already, or back, is not checked again.
    """
    state = replay(site)
    if state.paid is not None or state.head.funded(site.rules.me) >= site.rules.deposit:
        return
    own, settings = _own(site), head_settings(site, state.head.id, read_only=False)
    pause = _PAUSE_FIRST
    while True:
        try:
            node = await probe(settings)
            found = checks.check(site.agreement, own, node)
            error = checks.error_of(found)
            if error is None:
                return
            if not checks.only_waits(found):
                raise error
            waiting("the hydra-node is not in sync with layer 1 yet: waiting for it")
        except HeadUnavailable as error:
            waiting(f"the hydra-node cannot be reached ({error.message}): waiting for it")
        await asyncio.sleep(pause)
        pause = min(2 * pause, _PAUSE_MOST)


def _own(site: Site) -> checks.Own:
    state = replay(site)
    me = site.rules.me
    deposited = state.head.own_deposit is not None or any(
        deposit.party == me and deposit.stage != "failed" for deposit in state.head.deposits.values()
    )
    return checks.Own(me, site.settings.funding, deposited)


async def deposits(site: Site) -> tuple[PendingDeposit, ...]:
    """Deposits on layer 1 that the own node knows and no head has taken in."""
    return await pending_deposits(head_settings(site, None, read_only=True))


async def recover_deposit(site: Site, deposit: str) -> tuple[PendingDeposit, tuple[str, ...]]:
    """Pay one back; where its money is now."""
    return await recover(head_settings(site, None, read_only=True), deposit)
