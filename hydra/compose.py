"""Compose files for real nodes: a devnet of all parties, or one party's own nodes on preprod.

Pure text generation from plain values (docs: hydra-node 2.3.0 and its demo, the images of cardano-node and hydra-node).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fednode.errors import ConfigError
from fednode.hydra import compose_scripts as scripts
from fednode.hydra.compose_options import (
    PREPROD_SCRIPTS,
    VERSION,
    HeadOptions,
    NodeOfParty,
    node_options,
    publish_options,
    service,
)
from fednode.hydra.compose_yaml import Yaml, literal, to_yaml

CARDANO_DEVNET: Final = "ghcr.io/intersectmbo/cardano-node:10.6.2"
CARDANO_PREPROD: Final = "ghcr.io/intersectmbo/cardano-node:11.0.1"
HYDRA_IMAGE: Final = "ghcr.io/cardano-scaling/hydra-node"
FIRST_PORT: Final = 4001
FUEL: Final = 500_000_000
"""Lovelace for each party's fuel address on a devnet; a head costs it a few ADA."""

_PARTIES: Final = "${FEDNODE_PARTIES:?set it to the folder that holds the homes of the parties}"
_HOME: Final = "${FEDNODE_HOME:?set it to the home of the own party}"
_PEER_BIND: Final = "${FEDNODE_PEER_BIND:?set it to the own address in the private network of the parties}"
_VKEYS: Final = "${FEDNODE_VKEYS:-./vkeys}"
_PARAMETERS: Final = "${FEDNODE_LEDGER_PARAMETERS:-./ledger-parameters.json}"
_LOGGING: Final[dict[str, Yaml]] = {"driver": "json-file", "options": {"max-size": "20m", "max-file": "5"}}
_BASH: Final = ("/bin/bash", "-euo", "pipefail", "-c")
_SH: Final = ("/bin/sh", "-euc")


def devnet(head: HeadOptions, parties: Sequence[NodeOfParty]) -> str:
    """A block producer, the set-up of the chain and the money, and one hydra-node for each party, on one machine.

    `parties` in agreement order. ConfigError for another version of hydra-node.
    """
    _check(head, parties)
    names = [party.name for party in parties]
    magic: dict[str, Yaml] = {"MAGIC": str(head.magic)}
    parameters: dict[str, Yaml] = {**magic, "DEPOSIT": str(head.deposit), "FUEL": str(FUEL)}
    keys: list[Yaml] = [_bind(f"{_PARTIES}/{n}/keys/{k}.vk", f"/parties/{n}/{k}.vk") for n in names for k in _KINDS]
    services: dict[str, Yaml] = {
        "prepare": {
            "image": CARDANO_DEVNET,
            **_once(_BASH, scripts.PREPARE, "prepare", names),
            "environment": magic,
            "volumes": ["devnet:/devnet", *keys],
        },
        "cardano-node": _block_producer(head.magic),
        "seed": {
            "image": CARDANO_DEVNET,
            **_once(_BASH, scripts.SEED, "seed", names),
            "environment": {**parameters, "CARDANO_NODE_SOCKET_PATH": "/devnet/node.socket"},
            "volumes": ["devnet:/devnet"],
            "depends_on": {"cardano-node": _HEALTHY},
        },
        "publish-scripts": {
            "image": f"{HYDRA_IMAGE}:{head.hydra_node}",
            **_once(_SH, scripts.PUBLISH, "publish-scripts", publish_options(head)),
            "volumes": ["devnet:/devnet"],
            "depends_on": {"cardano-node": _HEALTHY, "seed": _COMPLETED},
        },
    }
    services |= {service(party.name): _devnet_node(head, parties, i) for i, party in enumerate(parties)}
    services["ready"] = {
        "image": CARDANO_DEVNET,
        **_once(_BASH, scripts.READY, "ready", []),
        "volumes": ["devnet:/devnet:ro"],
        "depends_on": {service(name): _HEALTHY for name in names},
    }
    volumes: dict[str, Yaml] = {"devnet": {}, **{f"persist-{name}": {} for name in names}}
    content: dict[str, Yaml] = {"name": "fednode-devnet", "services": services, "volumes": volumes}
    return _header("A devnet of all parties, for one machine: docs/devnet.md.", "devnet") + to_yaml(content)


def preprod(head: HeadOptions, parties: Sequence[NodeOfParty], me: str) -> str:
    """The nodes of the party `me` on the public test network preprod.

    ConfigError where a party has no host, `me` is no party, or the version of hydra-node is another.
    """
    _check(head, parties)
    own = next((party for party in parties if party.name == me), None)
    if own is None:
        raise ConfigError(f"party {me!r} is not in the agreement: {', '.join(party.name for party in parties)}")
    for party in parties:
        if not party.host:
            hint = "set party.host in its fednode.toml, and exchange cards again"
            raise ConfigError(f"party {party.name} has no host, expected host:port of its hydra-node", hint=hint)
    socket = "/ipc/node.socket"
    synced = scripts.TIP.format(magic=head.magic, condition='.syncProgress == "100.00"')
    services: dict[str, Yaml] = {
        "cardano-node": {
            "image": CARDANO_PREPROD,
            "environment": {"NETWORK": "preprod", "CARDANO_NODE_SOCKET_PATH": socket},
            "volumes": ["node-db:/data", "ipc:/ipc"],
            # The first synchronisation takes many hours; until then nothing that needs it is started.
            "healthcheck": _health(["CMD", "/bin/bash", "-c", literal(synced)], start_period="72h", interval="30s"),
            **_LONG_RUNNING,
        },
        service(me): {
            "image": f"{HYDRA_IMAGE}:{head.hydra_node}",
            "command": [
                *node_options(head, parties, me, socket, "/parameters/ledger.json"),
                f"--hydra-scripts-tx-id={PREPROD_SCRIPTS}",
            ],
            "ports": [f"127.0.0.1:{FIRST_PORT}:4001", f"{_PEER_BIND}:{own.host.rpartition(':')[2]}:5001"],
            "volumes": [
                "ipc:/ipc",
                f"persist-{me}:/persist",
                *_own_keys(_HOME),
                _bind(_VKEYS, "/vkeys"),
                _bind(_PARAMETERS, "/parameters/ledger.json"),
            ],
            "depends_on": {"cardano-node": _HEALTHY},
            # A head that was open for weeks is read for minutes before the API answers.
            "healthcheck": _health(_NODE_PROBE, start_period="30m", interval="15s"),
            **_LONG_RUNNING,
        },
    }
    volumes: dict[str, Yaml] = {"node-db": {}, "ipc": {}, f"persist-{me}": {}}
    content: dict[str, Yaml] = {"name": f"fednode-preprod-{me}", "services": services, "volumes": volumes}
    title = f"The nodes of the party {me} on preprod: docs/preprod.md."
    return _header(title, f"preprod --party {me}") + to_yaml(content)


_KINDS: Final = ("hydra", "fuel", "funds")
_HEALTHY: Final[dict[str, Yaml]] = {"condition": "service_healthy"}
_COMPLETED: Final[dict[str, Yaml]] = {"condition": "service_completed_successfully"}
_LONG_RUNNING: Final[dict[str, Yaml]] = {
    "restart": "unless-stopped",
    "stop_grace_period": "60s",
    "logging": _LOGGING,
}
_NODE_PROBE: Final = ("CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:4001/protocol-parameters")


def _check(head: HeadOptions, parties: Sequence[NodeOfParty]) -> None:
    if head.hydra_node != VERSION:
        hint = f'hydra_node = "{VERSION}" in [head] of the agreement'
        raise ConfigError(f"head.hydra_node is {head.hydra_node}, these compose files know {VERSION}", hint=hint)
    if len(parties) < 2:
        raise ConfigError(f"{len(parties)} parties, expected at least 2")


def _block_producer(magic: int) -> dict[str, Yaml]:
    pool = "/devnet/genesis/pools-keys/pool1"
    return {
        "image": CARDANO_DEVNET,
        "command": [
            "run",
            *("--config", "/devnet/config.json", "--topology", "/devnet/topology.json"),
            *("--database-path", "/devnet/db"),
            *("--shelley-kes-key", f"{pool}/kes.skey", "--shelley-vrf-key", f"{pool}/vrf.skey"),
            *("--shelley-operational-certificate", f"{pool}/opcert.cert"),
            *("--byron-delegation-certificate", f"{pool}/byron-delegation.cert"),
            *("--byron-signing-key", f"{pool}/byron-delegate.key"),
        ],
        "environment": {
            "CARDANO_BLOCK_PRODUCER": "true",
            "CARDANO_SOCKET_PATH": "/devnet/node.socket",
            "CARDANO_NODE_SOCKET_PATH": "/devnet/node.socket",
        },
        "volumes": ["devnet:/devnet"],
        "depends_on": {"prepare": _COMPLETED},
        "healthcheck": _health(
            ["CMD", "/bin/bash", "-c", literal(scripts.TIP.format(magic=magic, condition=".block > 0"))],
            start_period="60s",
            interval="3s",
        ),
        **_LONG_RUNNING,
    }


def _devnet_node(head: HeadOptions, parties: Sequence[NodeOfParty], index: int) -> dict[str, Yaml]:
    name = parties[index].name
    # On a devnet the nodes are reached by the names of their services, whatever the cards say.
    local = [NodeOfParty(party.name) for party in parties]
    options = node_options(head, local, name, "/devnet/node.socket", "/devnet/ledger-parameters.json")
    vkeys = [option.replace("=/vkeys/", "=/devnet/vkeys/") for option in options]
    return {
        "image": f"{HYDRA_IMAGE}:{head.hydra_node}",
        "entrypoint": list(_SH),
        "command": [literal(scripts.NODE), "hydra-node", *vkeys],
        "ports": [f"127.0.0.1:{FIRST_PORT + index}:4001"],
        "volumes": ["devnet:/devnet:ro", f"persist-{name}:/persist", *_own_keys(f"{_PARTIES}/{name}")],
        "depends_on": {"cardano-node": _HEALTHY, "publish-scripts": _COMPLETED},
        "healthcheck": _health(_NODE_PROBE, start_period="60s", interval="3s"),
        **_LONG_RUNNING,
    }


def _once(shell: Sequence[str], script: str, name: str, arguments: Sequence[str]) -> dict[str, Yaml]:
    """A service that ends: `up` runs it again, and then it finds its work done."""
    return {
        "entrypoint": list(shell),
        "command": [literal(script), name, *arguments],
        "restart": "no",
        "logging": _LOGGING,
    }


def _own_keys(home: str) -> list[Yaml]:
    """The two secrets that the node needs, each as a file: the key of the funds stays with the daemon."""
    return [_bind(f"{home}/keys/{kind}.sk", f"/keys/{kind}.sk") for kind in ("hydra", "fuel")]


def _bind(source: str, target: str) -> dict[str, Yaml]:
    # Docker must not make an empty folder of a missing key.
    bind: dict[str, Yaml] = {"create_host_path": False}
    return {"type": "bind", "source": source, "target": target, "read_only": True, "bind": bind}


def _health(test: Sequence[str], *, start_period: str, interval: str) -> dict[str, Yaml]:
    return {"test": list(test), "interval": interval, "timeout": "10s", "retries": 40, "start_period": start_period}


def _header(title: str, network: str) -> str:
    return (
        f"# {title}\n# Made by scripts/hydra-compose --network {network}; for another agreement, make another one.\n\n"
    )
