"""The command lines of hydra-node 2.3.0 (docs: hydra-node/src/Hydra/Options.hs at that tag), and what they need."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

VERSION: Final = "2.3.0"
"""Of hydra-node: the one whose options and published scripts are known here."""
PREPROD_SCRIPTS: Final = (
    "b88df0c62f9734f0a6dba0faa7636ed51699cbe21706ce4a9736684daf418d67,"
    "40ab074125b4734939cd45a00b2cfe1b20d679b2a1c52d6472aca193f637a2bc"
)
"""Transactions that hold the scripts of hydra-node 2.3.0 on preprod (hydra-node/networks.json at that tag)."""


@dataclass(frozen=True, slots=True)
class NodeOfParty:
    """What a peer's node must know of a party."""

    name: str
    host: str = ""
    """host:port where the peers' hydra-nodes reach this party's; not needed on a devnet."""


@dataclass(frozen=True, slots=True)
class HeadOptions:
    """The part of the agreement that all nodes are started with. Periods in seconds, the deposit in lovelace."""

    magic: int
    contestation_period_s: int
    deposit_period_s: int
    deposit: int
    hydra_node: str = VERSION


def node_options(
    head: HeadOptions, parties: Sequence[NodeOfParty], me: str, socket: str, parameters: str
) -> tuple[str, ...]:
    """The options of one party's hydra-node, without the ids of the scripts. Hosts and keys in agreement order."""
    own = next(party for party in parties if party.name == me)
    peers = [party for party in parties if party.name != me]
    # The same text at every party: the cluster of the etcd members is made of it.
    hosts = {party.name: party.host or f"{service(party.name)}:5001" for party in parties}
    public = head.magic in (1, 2)
    return (
        f"--node-id={own.name}",
        "--api-host=0.0.0.0",
        "--api-port=4001",
        "--monitoring-port=6001",
        "--listen=0.0.0.0:5001",
        f"--advertise={hosts[me]}",
        *(f"--peer={hosts[peer.name]}" for peer in peers),
        "--hydra-signing-key=/keys/hydra.sk",
        *(f"--hydra-verification-key=/vkeys/{peer.name}.hydra.vk" for peer in peers),
        "--cardano-signing-key=/keys/fuel.sk",
        *(f"--cardano-verification-key=/vkeys/{peer.name}.fuel.vk" for peer in peers),
        f"--ledger-protocol-parameters={parameters}",
        f"--testnet-magic={head.magic}",
        f"--node-socket={socket}",
        "--persistence-dir=/persist",
        f"--contestation-period={head.contestation_period_s}s",
        f"--deposit-period={head.deposit_period_s}s",
        # A public network is silent for a minute now and then: half the contestation period would be too short.
        f"--unsynced-period={300 if public else 600}s",
    )


def publish_options(head: HeadOptions) -> tuple[str, ...]:
    """The command line that puts the scripts on a devnet."""
    return (
        "publish-scripts",
        f"--testnet-magic={head.magic}",
        "--node-socket=/devnet/node.socket",
        "--cardano-signing-key=/devnet/faucet.sk",
    )


def vkey_files(name: str, hydra_vkey: str, fuel_vkey: str) -> dict[str, str]:
    """File name -> text envelope of a party's public keys (raw 32 bytes in hex), as its peers' nodes read them."""
    kinds = {
        "hydra": ("HydraVerificationKey_ed25519", hydra_vkey),
        "fuel": ("PaymentVerificationKeyShelley_ed25519", fuel_vkey),
    }
    return {
        f"{name}.{kind}.vk": json.dumps({"type": text, "description": "", "cborHex": "5820" + key}, indent=4) + "\n"
        for kind, (text, key) in kinds.items()
    }


def service(name: str) -> str:
    """Name of a party's hydra-node among the services, and its host name on a devnet."""
    return f"hydra-node-{name}"
