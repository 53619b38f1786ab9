"""How a daemon's work ends: with the goal reached, or with an error that says who, what and what to do."""

from __future__ import annotations

from dataclasses import dataclass

from fednode.errors import Diverged, FednodeError, HeadError, PeerFault
from fednode.node.protocol.state import State
from fednode.types import HeadStatus, PartyName


@dataclass(frozen=True, slots=True)
class Ended:
    """`error` is None where the goal was reached."""

    error: FednodeError | None = None


def ended(state: State) -> Ended | None:
    """None while there is something left to do or to wait for."""
    if len(state.evidence) < len(state.faults):
        return None  # the proof must be on disk before anybody is told
    if state.goal == "open":
        return _opened(state)
    if state.paid is not None:
        return _paid(state)
    if state.goal == "run" and state.divergence is not None:
        return Ended(_divergence(state))
    if state.goal == "run" and state.halted:
        return Ended(_fault(state))
    return None


def unfunded(state: State) -> tuple[PartyName, ...]:
    """Parties whose agreed deposit is not yet in the head, in agreement order."""
    return tuple(p for p in state.rules.parties if state.head.funded(p) < state.rules.deposit)


def _opened(state: State) -> Ended | None:
    if state.paid is not None or state.head.status in (HeadStatus.CLOSED, HeadStatus.FANOUT_POSSIBLE):
        hint = "start a new home for a new head; `fednode close-head` shows the payout of this one"
        return Ended(HeadError(f"head {state.head.id} is {state.head.status}: it cannot be opened again", hint=hint))
    if state.head.status is HeadStatus.OPEN and state.head.replayed and not unfunded(state):
        return Ended()
    return None


def _paid(state: State) -> Ended | None:
    paid = state.paid
    if paid is None or (state.goal == "run" and _unfinished(state)):
        return None
    if state.goal == "run" and state.divergence is not None:
        return Ended(_divergence(state))
    closed = state.head.closed_snapshot
    if not paid.verified and closed is not None and closed > state.head.snapshot:
        message = (
            f"head {state.head.id} was closed with snapshot {closed}, the own node knows {state.head.snapshot} only"
        )
        hint = f"the payout {dict(paid.paid)} lovelace cannot be checked here: compare it with a peer's"
        return Ended(HeadError(message, hint=hint))
    if not paid.verified:
        message = f"the fanout of head {state.head.id} did not pay what the last confirmed snapshot says"
        hint = f"expected {dict(paid.expected)}, found {dict(paid.paid)} lovelace: compare the layer-1 outputs"
        return Ended(HeadError(message, hint=hint))
    if state.goal == "close" or state.certified:
        return Ended()
    if state.faults:
        return Ended(_fault(state))
    reason = state.close_reason or "closed by a peer or an operator"
    message = f"the head was closed in round {state.round} of {state.rules.rounds}: {reason}"
    return Ended(HeadError(message, hint="balances were paid out; `fednode rounds` shows what was finished"))


def _unfinished(state: State) -> bool:
    """The head is paid out, but not all that its transcript holds has been read, recomputed and stored."""
    if state.certified:
        return not state.transcript_stored
    if state.faults or state.divergence is not None:
        return False
    return not state.head.replayed or state.transcript.complete(state.rules.rounds + 1)


def _fault(state: State) -> FednodeError:
    fault = state.faults[0]
    where = state.evidence.get(0, "evidence/")
    return PeerFault(
        f"{fault.party} broke the protocol in round {fault.round} ({fault.kind}): {fault.message}",
        hint=f"evidence: {where}; close the head with `fednode close-head --reason fault`",
    )


def _divergence(state: State) -> FednodeError:
    found = state.divergence
    assert found is not None
    groups: dict[str, list[str]] = {}
    for party in state.rules.parties:
        groups.setdefault(found.digests.get(party, "?"), []).append(party)
    words = "; ".join(f"{', '.join(names)}: {digest[:16]}…" for digest, names in groups.items())
    return Diverged(
        f"the run diverged before round {found.round}: the parties start it from different adapters ({words})",
        hint="compare fednode and numpy versions and the agreement; `fednode close-head` ends the head",
    )
