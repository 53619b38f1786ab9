"""The command lines of hydra-node against the options that version 2.3.0 has (its Options.hs: facts, by hand)."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from fednode.hydra.compose import devnet, preprod
from fednode.hydra.compose_options import HeadOptions, NodeOfParty, node_options, publish_options

from .conftest import NAMES
from .yamlread import Service, services

FILE, KEY = r"/[\w./-]+", r"/[\w./-]+\.(sk|vk)"
HOST, PORT, SECONDS = r"[A-Za-z0-9.-]+:\d{1,5}", r"\d{1,5}", r"\d+s"
TXIDS = r"[0-9a-f]{64}(,[0-9a-f]{64})*"

# Option -> how its value looks, for the command that runs a node. Without a value: None.
RUN: dict[str, str | None] = {
    "advertise": HOST,
    "api-host": r"\d+\.\d+\.\d+\.\d+",
    "api-port": PORT,
    "api-transaction-timeout": r"\d+s?",
    "blockfrost": FILE,
    "blockfrost-query-timeout": r"\d+",
    "blockfrost-retry-timeout": r"\d+",
    "cardano-signing-key": KEY,
    "cardano-verification-key": KEY,
    "config": FILE,
    "contestation-period": SECONDS,
    "deposit-period": SECONDS,
    "hydra-scripts-tx-id": TXIDS,
    "hydra-signing-key": KEY,
    "hydra-verification-key": KEY,
    "initial-utxo": FILE,
    "ledger-genesis": FILE,
    "ledger-protocol-parameters": FILE,
    "listen": HOST,
    "mainnet": None,
    "monitoring-port": PORT,
    "network": "preview|preprod|mainnet",
    "node-id": r".+",
    "node-socket": FILE,
    "offline-head-seed": "[0-9a-f]+",
    "peer": HOST,
    "persistence-dir": FILE,
    "persistence-rotate-after": "[1-9][0-9]*",
    "quiet": None,
    "start-chain-from": r"\d+\.[0-9a-f]{64}|0",
    "testnet-magic": r"\d+",
    "tls-cert": FILE,
    "tls-key": FILE,
    "unsynced-period": SECONDS,
    "use-system-etcd": None,
}
PUBLISH = ("blockfrost", "cardano-signing-key", "mainnet", "node-socket", "testnet-magic")
PER_PEER = {"peer", "hydra-verification-key", "cardano-verification-key"}

PARTIES = [NodeOfParty(name, f"{name}.example:5001") for name in NAMES]
DEVNET = HeadOptions(magic=42, contestation_period_s=60, deposit_period_s=100, deposit=30_000_000)
PREPROD = HeadOptions(magic=1, contestation_period_s=600, deposit_period_s=2000, deposit=30_000_000)


def parsed(line: list[str]) -> list[tuple[str, str | None]]:
    pairs: list[tuple[str, str | None]] = []
    for word in line:
        assert word.startswith("--"), word
        name, equals, value = word.removeprefix("--").partition("=")
        pairs.append((name, value if equals else None))
    return pairs


def node_lines() -> list[tuple[str, list[str], Service]]:
    """(party, options of its node without script ids, service) of every hydra-node of both kinds of file."""
    found: list[tuple[str, list[str], Service]] = []
    for name, service in services(devnet(DEVNET, PARTIES)).items():
        if name.startswith("hydra-node-"):
            script, zero, *line = service.command
            assert (zero, "--hydra-scripts-tx-id=" in script) == ("hydra-node", True)
            found.append((name.removeprefix("hydra-node-"), line, service))
    for party in NAMES:
        service = services(preprod(PREPROD, PARTIES, party))[f"hydra-node-{party}"]
        found.append((party, service.command, service))
    return found


LINES = node_lines()


@pytest.mark.parametrize(("party", "line", "service"), LINES)
def test_every_option_exists_and_has_a_value_of_its_kind(party: str, line: list[str], service: Service) -> None:
    for name, value in parsed(line):
        assert name in RUN, f"hydra-node 2.3.0 has no option --{name}"
        form = RUN[name]
        assert value is None if form is None else value is not None and re.fullmatch(form, value), f"--{name}={value}"
    counts = Counter(name for name, _ in parsed(line))
    assert {name for name, count in counts.items() if count > 1} == PER_PEER
    assert {counts[name] for name in PER_PEER} == {len(NAMES) - 1}


@pytest.mark.parametrize(("party", "line", "service"), LINES)
def test_peers_and_keys_are_the_others_in_agreement_order(party: str, line: list[str], service: Service) -> None:
    values: dict[str, list[str]] = {}
    for name, value in parsed(line):
        values.setdefault(name, []).append(value or "")
    others = [name for name in NAMES if name != party]
    assert values["node-id"] == [party]
    for option, kind in (("hydra-verification-key", "hydra"), ("cardano-verification-key", "fuel")):
        assert [value.rpartition("/")[2] for value in values[option]] == [f"{name}.{kind}.vk" for name in others]
    for option, kind in (("hydra-signing-key", "hydra"), ("cardano-signing-key", "fuel")):
        assert values[option] == [f"/keys/{kind}.sk"]
    assert [host.partition(":")[0].removeprefix("hydra-node-").partition(".")[0] for host in values["peer"]] == others


@pytest.mark.parametrize("preset", [DEVNET, PREPROD])
def test_the_cluster_is_the_same_text_at_every_party(preset: HeadOptions) -> None:
    hosts = NAMES if preset is PREPROD else ()
    parties = [NodeOfParty(name, f"{name}.example:5001" if hosts else "") for name in NAMES]
    clusters: set[frozenset[str]] = set()
    for name in NAMES:
        line = parsed(list(node_options(preset, parties, name, "/s", "/p")))
        clusters.add(frozenset(value or "" for option, value in line if option in ("advertise", "peer")))
    assert len(clusters) == 1
    assert len(next(iter(clusters))) == len(NAMES)


def test_publish_takes_only_what_it_knows() -> None:
    command, *line = publish_options(DEVNET)
    assert command == "publish-scripts"
    for name, value in parsed(line):
        assert name in PUBLISH
        assert re.fullmatch(RUN[name] or "", value or ""), f"--{name}={value}"


@pytest.mark.parametrize("text", [devnet(DEVNET, PARTIES), preprod(PREPROD, PARTIES, "alice")])
def test_interfaces_are_bound_to_this_machine(text: str) -> None:
    for name, service in services(text).items():
        for port in service.ports:
            private = port.endswith(":4001")
            assert port.startswith("127.0.0.1:" if private else "${FEDNODE_PEER_BIND:?"), (name, port)
        assert service.ports or not name.startswith("hydra-node-")


@pytest.mark.parametrize("text", [devnet(DEVNET, PARTIES), preprod(PREPROD, PARTIES, "alice")])
def test_no_container_gets_the_key_of_the_funds_and_keys_are_read_only(text: str) -> None:
    binds = [bind for service in services(text).values() for bind in service.binds]
    secrets = [bind for bind in binds if bind["source"].endswith(".sk")]
    assert {bind["target"] for bind in secrets} == {"/keys/hydra.sk", "/keys/fuel.sk"}
    assert all(bind["read_only"] and not bind["bind"]["create_host_path"] for bind in binds)


@pytest.mark.parametrize("text", [devnet(DEVNET, PARTIES), preprod(PREPROD, PARTIES, "alice")])
def test_long_running_services_come_back_stop_gently_and_bound_their_logs(text: str) -> None:
    for name, service in services(text).items():
        running = name == "cardano-node" or name.startswith("hydra-node-")
        assert service.raw["restart"] == ("unless-stopped" if running else "no")
        assert service.raw["logging"]["options"].keys() == {"max-size", "max-file"}
        assert ("stop_grace_period" in service.raw, "healthcheck" in service.raw) == (running, running)
        if running:
            assert service.raw["stop_grace_period"] == "60s"


def test_no_two_nodes_share_persistence_or_a_port() -> None:
    nodes = [service for name, service in services(devnet(DEVNET, PARTIES)).items() if name.startswith("hydra-node-")]
    stores = [volume for node in nodes for volume in node.named if volume.endswith(":/persist")]
    ports = [port for node in nodes for port in node.ports]
    assert len(set(stores)) == len(set(ports)) == len(NAMES)
