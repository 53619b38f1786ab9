"""The embedded head: N hydra-nodes of one machine in one process, for demo, tests and development.

It serves, for each party on a loopback port of its own, the websocket and HTTP API of hydra-node 2.3, over a simulated
layer 1 with a faucet. It says what it is: version `2.3.0-fednode-embedded` in Greetings, and a line in the log.

Simulated, by the real rules: Init, deposits with their periods, expiry and recovery, increments one a block in order,
the Conway ledger rules without scripts, retries, rotating leader, batches, snapshots signed by every party's real
Ed25519 key, the limit of 4095 outputs, Close with contest, fanout in chunks, lost and stale closes, nodes that are
offline, slow, silent, unsynced, restarted, or behind with their layer 1, loss of quorum, rotated event logs, side-load.
State and history are on disk and survive kill -9.

Not simulated: scripts, tokens, minting, decommits, deposit blueprints, CBOR frames, mirror nodes, rollbacks, fees of
head transactions, hydra-node's BLS accumulator (signatures cover our own canonical bytes), CORS headers, divergence of
one node's ledger from the others': all nodes share one; the minutes in which a node answers nothing to a recovery that
cannot work (here it is refused at once). Layer 1 stands still while the process does not run.
"""

from __future__ import annotations

from fednode.hydra.devnet.faults import Faults
from fednode.hydra.devnet.server import serve
from fednode.hydra.devnet.settings import DevnetParty, DevnetSettings, create, load

__all__ = ["DevnetParty", "DevnetSettings", "Faults", "create", "load", "serve"]
