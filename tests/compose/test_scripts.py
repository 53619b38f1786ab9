"""The shell scripts inside the compose files, run here with stand-ins for the programs of the images.

What cardano-cli and hydra-node do is not checked by this: only what is asked of them, and what is made of the answers.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from fednode.hydra.compose_scripts import NODE, PREPARE, PUBLISH, SEED

LARGE = "9223372036854775807"
JQ = shutil.which("jq")
needs_jq = pytest.mark.skipif(JQ is None, reason="jq is not on PATH: set-up of the chain not run")

GENESIS = {
    "shelley-genesis.json": {
        "slotLength": 1,
        "initialFunds": {"60aa": 9007199254740991},
        "protocolParams": {"eMax": 18},
    },
    "alonzo-genesis.json": {"maxTxExUnits": {}, "costModels": {"PlutusV1": [1]}},
    "conway-genesis.json": {},
    "byron-genesis.json": {},
    "dijkstra-genesis.json": {},
}
CARDANO_CLI = r"""#!/usr/bin/env bash
set -euo pipefail
printf '%s\n' "$*" >> "$ROOT/calls"
last() { local want=$1; shift; while (($#)); do if [[ $1 == "$want" ]]; then echo "$2"; return; fi; shift; done; }
case $* in
  *create-testnet-data*)
    out=$(last --out-dir "$@"); mkdir -p "$out/pools-keys/pool1" "$out/utxo-keys/utxo1"
    cp "$ROOT"/genesis/*.json "$out"
    for name in kes vrf cold; do echo '{}' > "$out/pools-keys/pool1/$name.skey"; done
    touch "$out/pools-keys/pool1/byron-delegate.key"
    echo '{"type": "GenesisUTxOSigningKey_ed25519", "cborHex": "5820aa"}' > "$out/utxo-keys/utxo1/utxo.skey"
    echo '{"type": "GenesisUTxOVerificationKey_ed25519", "cborHex": "5820bb"}' > "$out/utxo-keys/utxo1/utxo.vkey" ;;
  *'query protocol-parameters'*)
    echo '{"txFeePerByte": 44, "utxoCostPerByte": 1, "costModels": {"PlutusV2": [9223372036854775807]}}' ;;
  *'address build'*) echo "addr_$(basename "$(last --payment-verification-key-file "$@")" .vk)" ;;
  *'query utxo'*'--tx-in'*) if [[ -e $ROOT/in-a-block ]]; then echo '{"x#0": {}}'; else echo '{}'; fi ;;
  *'query utxo'*) echo '{"f00d#0": {}}' ;;
  *'transaction build'*) echo body > "$(last --out-file "$@")" ;;
  *'transaction sign'*) echo signed > "$(last --out-file "$@")" ;;
  *'transaction txid'*) echo '{"txhash": "1d1d"}' ;;
  *'transaction submit'*) touch "$ROOT/in-a-block" ;;
  *) exit 64 ;;
esac
"""

OTHER_JQ = """#!/usr/bin/env bash
# jq {jq}, but of another version as far as large numbers go.
if [[ $* == '-n {large}' ]]; then echo {answer}; else exec {jq} "$@"; fi
"""


def exact() -> bool:
    """Whether this machine's jq keeps large numbers, as those from 1.7 on do."""
    return subprocess.run([str(JQ), "-n", LARGE], capture_output=True, text=True, timeout=20).stdout.strip() == LARGE


@dataclass(frozen=True)
class Machine:
    """The folders of a container, moved under `root`."""

    root: Path

    @property
    def devnet(self) -> Path:
        return self.root / "devnet"

    def run(self, script: str, *arguments: str, shell: str = "bash") -> subprocess.CompletedProcess[str]:
        script = re.sub(r"(?<![\w$])/(devnet|parties|nix/store|tmp|opt)/", rf"{self.root}/\1/", script)
        options = ["-euo", "pipefail", "-c"] if shell == "bash" else ["-euc"]
        environment = {
            "PATH": f"{self.root}/bin:{os.environ['PATH']}",
            "ROOT": str(self.root),
            "MAGIC": "42",
            "DEPOSIT": "10000000",
            "FUEL": "500000000",
        }
        return subprocess.run(
            [shell, *options, script, "script", *arguments], env=environment, capture_output=True, text=True, timeout=60
        )

    def program(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)

    def calls(self) -> list[str]:
        return (self.root / "calls").read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    for folder in ("devnet", "tmp", "genesis", "parties/ann/", "parties/bo"):
        (tmp_path / folder).mkdir(parents=True)
    for name, content in GENESIS.items():
        (tmp_path / "genesis" / name).write_text(json.dumps(content))
    for party in ("ann", "bo"):
        for kind in ("hydra", "fuel", "funds"):
            (tmp_path / "parties" / party / f"{kind}.vk").write_text(f"{party} {kind}")
    made.program("bin/cardano-cli", CARDANO_CLI)
    if JQ is not None and not exact():
        made.program("bin/jq", OTHER_JQ.format(jq=JQ, large=LARGE, answer=LARGE))
    return made


def succeed(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr


@needs_jq
def test_prepare_makes_a_chain_that_the_node_and_the_other_scripts_find(machine: Machine) -> None:
    succeed(machine.run(PREPARE, "ann", "bo"))
    config = json.loads((machine.devnet / "config.json").read_text())
    files = {value for key, value in config.items() if key.endswith("GenesisFile")}
    assert len(files) == 5
    assert all((machine.devnet / file).exists() for file in files)
    shelley = json.loads((machine.devnet / "genesis" / "shelley-genesis.json").read_text())
    assert shelley["initialFunds"] == {"60aa": 9007199254740991}
    assert shelley["protocolParams"] | {"eMax": 18, "decentralisationParam": 0} == shelley["protocolParams"]
    faucet = json.loads((machine.devnet / "faucet.sk").read_text())
    assert faucet == {"type": "PaymentSigningKeyShelley_ed25519", "cborHex": "5820aa"}
    pool = machine.devnet / "genesis" / "pools-keys" / "pool1"
    for secret in (machine.devnet / "faucet.sk", pool / "vrf.skey", pool / "kes.skey"):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o400
    assert (machine.devnet / "vkeys" / "bo.fuel.vk").read_text() == "bo fuel"


@needs_jq
def test_a_chain_of_its_own_time_is_safe_for_months(machine: Machine) -> None:
    """The KES key must outlast the devnet, and an epoch be ten stability windows, as a genesis should have it."""
    succeed(machine.run(PREPARE, "ann", "bo"))
    shelley = json.loads((machine.devnet / "genesis" / "shelley-genesis.json").read_text())
    assert shelley["slotsPerKESPeriod"] * 60 * shelley["slotLength"] >= 90 * 86_400
    assert shelley["epochLength"] == 10 * shelley["securityParam"] / shelley["activeSlotsCoeff"]


@needs_jq
def test_prepare_again_keeps_a_running_chain_and_refuses_one_that_stood_still(machine: Machine) -> None:
    succeed(machine.run(PREPARE, "ann", "bo"))
    blocks = machine.devnet / "db" / "volatile" / "blocks-0.dat"
    blocks.parent.mkdir(parents=True)
    blocks.write_text("")
    calls = machine.calls()
    os.utime(machine.devnet / "prepared", (0, 0))
    succeed(machine.run(PREPARE, "ann", "bo"))
    assert machine.calls() == calls
    old = blocks.stat().st_mtime - 700
    os.utime(blocks, (old, old))
    refused = machine.run(PREPARE, "ann", "bo")
    assert refused.returncode == 1
    assert "scripts/hydra-devnet down" in refused.stderr
    assert blocks.exists()


@needs_jq
def test_seed_pays_every_party_its_deposit_and_fuel_once(machine: Machine) -> None:
    succeed(machine.run(PREPARE, "ann", "bo"))
    succeed(machine.run(SEED, "ann", "bo"))
    build = next(call for call in machine.calls() if "transaction build" in call)
    outputs = [word for word in build.split() if "+" in word]
    assert outputs == [
        "addr_ann.funds+10000000", "addr_ann.fuel+500000000", "addr_bo.funds+10000000", "addr_bo.fuel+500000000",
    ]  # fmt: skip
    assert (machine.devnet / "funding.txt").read_text() == (
        'ann  url = "http://127.0.0.1:4001"  funding = "1d1d#0"\n'
        'bo  url = "http://127.0.0.1:4002"  funding = "1d1d#2"\n'
    )
    parameters = json.loads((machine.devnet / "ledger-parameters.json").read_text())
    assert (parameters["txFeePerByte"], parameters["txFeeFixed"], parameters["utxoCostPerByte"]) == (0, 0, 4310)
    assert not exact() or parameters["costModels"] == {"PlutusV2": [int(LARGE)]}
    calls = machine.calls()
    succeed(machine.run(SEED, "ann", "bo"))
    assert machine.calls() == calls


@needs_jq
def test_a_seed_that_was_cut_off_sends_the_same_transaction_again(machine: Machine) -> None:
    succeed(machine.run(PREPARE, "ann", "bo"))
    succeed(machine.run(SEED, "ann", "bo"))
    (machine.devnet / "funding.txt").unlink()
    (machine.root / "in-a-block").unlink()
    succeed(machine.run(SEED, "ann", "bo"))
    assert sum("transaction build" in call for call in machine.calls()) == 1
    assert sum("transaction submit" in call for call in machine.calls()) == 2


@needs_jq
def test_a_jq_that_rounds_large_numbers_writes_no_parameters(machine: Machine) -> None:
    machine.program("bin/jq", OTHER_JQ.format(jq=JQ, large=LARGE, answer="9223372036854775808"))
    succeed(machine.run(PREPARE, "ann", "bo"))
    refused = machine.run(SEED, "ann", "bo")
    assert refused.returncode == 1
    assert "1.7" in refused.stderr
    assert not (machine.devnet / "ledger-parameters.json").exists()


HYDRA_NODE = '#!/bin/sh\nprintf "%s\\n" "$@" >> "$ROOT/node"\nif [ "$1" = publish-scripts ]; then echo aa,bb; fi\n'


def test_the_node_is_found_in_the_image_and_gets_the_published_scripts(machine: Machine) -> None:
    machine.program("nix/store/abc-hydra-node-static-x86_64-2.3.0/bin/hydra-node", HYDRA_NODE)
    succeed(machine.run(PUBLISH, "publish-scripts", "--testnet-magic=42", shell="sh"))
    succeed(machine.run(PUBLISH, "publish-scripts", "--testnet-magic=42", shell="sh"))
    succeed(machine.run(NODE, "--node-id=with space", "--peer=a:1", shell="sh"))
    assert (machine.root / "node").read_text().splitlines() == [
        "publish-scripts", "--testnet-magic=42",
        "--node-id=with space", "--peer=a:1", "--hydra-scripts-tx-id=aa,bb",
    ]  # fmt: skip


def test_a_failed_publication_is_tried_again_and_an_image_without_the_node_says_so(machine: Machine) -> None:
    assert machine.run(PUBLISH, "publish-scripts", shell="sh").returncode == 127
    machine.program("nix/store/abc/bin/hydra-node", "#!/bin/sh\necho half\nexit 1\n")
    assert machine.run(PUBLISH, "publish-scripts", shell="sh").returncode == 1
    assert machine.run(NODE, shell="sh").returncode != 0
    machine.program("nix/store/abc/bin/hydra-node", HYDRA_NODE)
    succeed(machine.run(PUBLISH, "publish-scripts", shell="sh"))
    assert (machine.devnet / "scripts.txt").read_text() == "aa,bb\n"
