"""What a node says that changes nothing here, in the words of the log: for the person who has to mend it."""

from __future__ import annotations

import logging
from typing import Final, TypeAlias

from fednode.hydra import messages

_LOG = logging.getLogger("fednode.head")
_NO_FUEL: Final = frozenset({"NotEnoughFuel", "NoFuelUTXOFound"})
Advice: TypeAlias = (
    messages.Refusal
    | messages.IgnoredHeadInitializing
    | messages.NetworkVersionMismatch
    | messages.NetworkClusterIDMismatch
    | messages.PeerState
    | messages.NetworkState
    | messages.EventLogRotated
    | messages.Decommit
)


def note(message: Advice) -> None:
    """Log it. A refusal is mostly a lost race, and then no harm. What is said of a state counts only live."""
    match message:
        case messages.Refusal(command=command, reason=reason) if reason in _NO_FUEL:
            # Nothing else ever says so: a node does not show its balance.
            _LOG.warning("hydra-node cannot pay for %s on layer 1 (%s): pay ADA to its fuel address", command, reason)
        case messages.Refusal(tag=tag, command=command, reason=reason):
            level = logging.WARNING if tag == "InvalidInput" else logging.INFO
            _LOG.log(level, "hydra-node: %s %s: %s", tag, command, reason)
        case messages.IgnoredHeadInitializing():
            _LOG.warning("hydra-node ignores head %s: its parties or periods are not the node's", message.head_id)
        case messages.NetworkVersionMismatch(ours=ours, theirs=theirs):
            _LOG.warning("a peer's hydra-node speaks network protocol %s, the own one %d", theirs, ours)
        case messages.NetworkClusterIDMismatch(ours=known, theirs=other):
            _LOG.warning("a peer's hydra-node was started with other peers: %s; own: %s", other, known)
        case messages.PeerState(peer=peer, connected=connected):
            _LOG.info("the hydra-node at %s is %s", peer, "connected" if connected else "not connected any more")
        case messages.NetworkState(connected=True):
            _LOG.info("hydra-node reaches its peers")
        case messages.NetworkState():
            _LOG.warning("hydra-node does not reach half of its peers: nothing is confirmed before it does")
        case messages.EventLogRotated():
            _LOG.warning("hydra-node has rotated its log: keep its old-state/, the history before is only there")
        case messages.Decommit():
            _LOG.warning("hydra-node: %s: a party takes money out of the open head", message.tag)
