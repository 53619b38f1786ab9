"""The shell scripts inside the compose files; their arguments and environment are set by `fednode.hydra.compose`.

The cardano-node image has bash, coreutils, jq and cardano-cli, the hydra-node image busybox (docs: nix/docker of
cardano-node 10.6.2, nix/hydra/docker.nix of hydra 2.3.0): the scripts use nothing else.
"""

from __future__ import annotations

from typing import Final

PREPARE: Final = r"""
# Arguments: the parties' names. Environment: MAGIC.
# A chain with 0.1 s slots cannot be continued 6,480 slots (3 k / f) after its last block.
if [[ -e /devnet/prepared ]]; then
  newest=$(stat -c %Y /devnet/prepared)
  for file in /devnet/db/volatile/*; do
    if [[ -e $file ]] && (($(stat -c %Y "$file") > newest)); then newest=$(stat -c %Y "$file"); fi
  done
  if (($(date +%s) - newest > 600)); then
    echo 'this devnet stood still for more than 10 minutes and cannot go on; remove it: scripts/hydra-devnet down' >&2
    exit 1
  fi
  exit 0
fi

rm -rf /devnet/genesis /devnet/db /devnet/vkeys
mkdir -p /devnet/vkeys
for name; do
  for kind in hydra fuel funds; do cp "/parties/$name/$kind.vk" "/devnet/vkeys/$name.$kind.vk"; done
done

# The prices of scripts and sizes are those of the mainnet genesis, which the image brings along.
public=/opt/cardano/config/mainnet
cardano-cli conway genesis create-testnet-data \
  --spec-alonzo "$public/alonzo-genesis.json" --spec-conway "$public/conway-genesis.json" \
  --testnet-magic "$MAGIC" --pools 1 --stake-delegators 1 --utxo-keys 1 \
  --total-supply 20000000000000 --delegated-supply 10000000000000 \
  --start-time "$(date -u -d '+15 seconds' +%Y-%m-%dT%H:%M:%SZ)" --out-dir /devnet/genesis
cd /devnet/genesis

# A block in every slot; a KES key that lasts 90 days; no rewards; fees and protocol version as on the public networks.
jq '.slotLength = 0.1 | .activeSlotsCoeff = 1.0 | .securityParam = 2160 | .epochLength = 21600
  | .slotsPerKESPeriod = 1296000
  | .protocolParams += {
      protocolVersion: {major: 11, minor: 0}, decentralisationParam: 0, rho: 0, tau: 0,
      minFeeA: 44, minFeeB: 155381, maxTxSize: 16384, maxBlockBodySize: 90112, maxBlockHeaderSize: 1100,
      keyDeposit: 0, poolDeposit: 0, minPoolCost: 0, minUTxOValue: 0}' shelley-genesis.json > shelley.new
mv shelley.new shelley-genesis.json
jq '.maxTxExUnits = {exUnitsMem: 14000000, exUnitsSteps: 10000000000}
  | .maxBlockExUnits = {exUnitsMem: 62000000, exUnitsSteps: 40000000000}' alonzo-genesis.json > alonzo.new
mv alonzo.new alonzo-genesis.json

jq -n '{
  Protocol: "Cardano", RequiresNetworkMagic: "RequiresMagic",
  ByronGenesisFile: "genesis/byron-genesis.json", ShelleyGenesisFile: "genesis/shelley-genesis.json",
  AlonzoGenesisFile: "genesis/alonzo-genesis.json", ConwayGenesisFile: "genesis/conway-genesis.json",
  DijkstraGenesisFile: "genesis/dijkstra-genesis.json",
  ExperimentalHardForksEnabled: true, ExperimentalProtocolsEnabled: true,
  TestShelleyHardForkAtEpoch: 0, TestAllegraHardForkAtEpoch: 0, TestMaryHardForkAtEpoch: 0,
  TestAlonzoHardForkAtEpoch: 0, TestBabbageHardForkAtEpoch: 0, TestConwayHardForkAtEpoch: 0,
  "LastKnownBlockVersion-Major": 9, "LastKnownBlockVersion-Minor": 0, "LastKnownBlockVersion-Alt": 0,
  TurnOnLogging: true, TurnOnLogMetrics: false, UseTraceDispatcher: true,
  minSeverity: "Critical", setupBackends: [], defaultBackends: [], setupScribes: [], defaultScribes: [], options: {},
  TraceOptions: {"": {severity: "Notice", detail: "DNormal", backends: ["Stdout HumanFormatUncoloured"]}}
}' > /devnet/config.json
echo '{"localRoots": [], "publicRoots": []}' > /devnet/topology.json

# hydra-node and cardano-cli take the key of the first money as an ordinary payment key.
jq '.type = "PaymentSigningKeyShelley_ed25519"' utxo-keys/utxo1/utxo.skey > /devnet/faucet.sk
jq '.type = "PaymentVerificationKeyShelley_ed25519"' utxo-keys/utxo1/utxo.vkey > /devnet/faucet.vk
chmod 0400 /devnet/faucet.sk pools-keys/pool1/*.skey pools-keys/pool1/byron-delegate.key
touch /devnet/prepared
"""

SEED: Final = r"""
# Arguments: the parties' names. Environment: MAGIC, DEPOSIT and FUEL in lovelace.
if [[ -e /devnet/funding.txt ]]; then exit 0; fi
if [[ $(jq -n 9223372036854775807) != 9223372036854775807 ]]; then
  echo 'jq in this image rounds large numbers: version 1.7 or later is needed' >&2
  exit 1
fi
cli() { cardano-cli conway "$@" --testnet-magic "$MAGIC"; }
address() { cli address build --payment-verification-key-file "$1"; }

# The head's ledger: no fees, and the least output of the public networks, so that a fanout never holds dust.
cli query protocol-parameters | jq -S '. + {
  txFeeFixed: 0, txFeePerByte: 0, executionUnitPrices: {priceMemory: 0, priceSteps: 0},
  minFeeRefScriptCostPerByte: 0, utxoCostPerByte: 4310, maxTxSize: 10250}' > /devnet/parameters.new
mv /devnet/parameters.new /devnet/ledger-parameters.json

# Signed once: the same transaction can be sent again without paying twice.
if [[ ! -e /devnet/seed.signed ]]; then
  faucet=$(address /devnet/faucet.vk)
  outputs=()
  for name; do
    outputs+=(--tx-out "$(address "/devnet/vkeys/$name.funds.vk")+$DEPOSIT")
    outputs+=(--tx-out "$(address "/devnet/vkeys/$name.fuel.vk")+$FUEL")
  done
  cli query utxo --address "$faucet" > /tmp/faucet.json
  cli transaction build --tx-in "$(jq -r 'keys[0]' /tmp/faucet.json)" "${outputs[@]}" \
    --change-address "$faucet" --out-file /tmp/seed.body
  cli transaction sign --tx-body-file /tmp/seed.body --signing-key-file /devnet/faucet.sk \
    --out-file /devnet/seed.new
  mv /devnet/seed.new /devnet/seed.signed
fi
id=$(cardano-cli conway transaction txid --tx-file /devnet/seed.signed | jq -r .txhash)
for ((try = 1; ; try++)); do
  if (($(cli query utxo --tx-in "$id#0" | jq length))); then break; fi
  if ((try > 60)); then echo "transaction $id did not reach a block" >&2; exit 1; fi
  cli transaction submit --tx-file /devnet/seed.signed || true
  sleep 1
done
index=0
for name; do
  printf '%s  url = "http://127.0.0.1:%d"  funding = "%s#%d"\n' "$name" $((4001 + index)) "$id" $((2 * index))
  index=$((index + 1))
done > /devnet/funding.new
mv /devnet/funding.new /devnet/funding.txt
"""

FIND_NODE: Final = r"""
# The image knows hydra-node by its place in the nix store only.
program=$(command -v hydra-node || true)
for file in /nix/store/*/bin/hydra-node; do
  if [ -z "$program" ] && [ -x "$file" ]; then program=$file; fi
done
if [ -z "$program" ]; then echo 'no program hydra-node in this image' >&2; exit 127; fi
"""

PUBLISH: Final = (
    FIND_NODE
    + r"""
# Arguments: of hydra-node. It costs about 50 ADA of the faucet and takes some blocks.
if [ -s /devnet/scripts.txt ]; then exit 0; fi
"$program" "$@" > /devnet/scripts.new
mv /devnet/scripts.new /devnet/scripts.txt
"""
)

NODE: Final = (
    FIND_NODE
    + r"""
# Arguments: of hydra-node, without the ids of the scripts, which are known only now.
scripts=$(cat /devnet/scripts.txt)
exec "$program" "$@" "--hydra-scripts-tx-id=$scripts"
"""
)

READY: Final = "cat /devnet/funding.txt\n"
"""Runs when every hydra-node answers: `docker compose up` waits for that."""

TIP: Final = "cardano-cli conway query tip --testnet-magic {magic} | jq -e '{condition}'"
"""Health of a cardano-node; `condition` is a jq expression over the tip."""
