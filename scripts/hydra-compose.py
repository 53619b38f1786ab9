"""Writes the compose file of an agreement: of all parties on a devnet, or of one party on preprod."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fednode.durable import write_atomic
from fednode.errors import ConfigError, FednodeError
from fednode.hydra.compose import devnet, preprod
from fednode.hydra.compose_options import HeadOptions, NodeOfParty, vkey_files
from fednode.node.agreement import Agreement, load_agreement

FILES = {"devnet": "docker-compose.hydra.yml", "preprod": "docker-compose.hydra.preprod.yml"}


def main() -> int:
    options = _arguments()
    try:
        agreement = load_agreement(options.peers)
        network = options.network or agreement.head.network
        text = _compose(agreement, network, options.party)
        if options.out is None:
            print(text, end="")
        else:
            _write(agreement, network, text, options.out)
    except FednodeError as error:
        print(f"hydra-compose: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        return 3
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/hydra-compose", description=__doc__)
    parser.add_argument("--peers", type=Path, required=True, metavar="FILE", help="the agreement")
    parser.add_argument("--network", choices=("devnet", "preprod"), help="must be the agreement's [default: it]")
    parser.add_argument("--party", metavar="NAME", help="whose nodes; preprod only")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write the file there, for preprod with the folder vkeys [default: print]",
    )
    return parser.parse_args()


def _compose(agreement: Agreement, network: str, me: str | None) -> str:
    head = agreement.head
    if network not in FILES or network != head.network:
        hint = f'network = "{network if network in FILES else "devnet"}" in [head] of the agreement'
        message = f"the agreement's head.network is {head.network!r}, expected devnet or preprod, as asked"
        raise ConfigError(message, hint=hint)
    options = HeadOptions(
        magic=head.magic,
        contestation_period_s=head.contestation_period_s,
        deposit_period_s=head.deposit_period_s,
        deposit=head.deposit,
        hydra_node=head.hydra_node,
    )
    parties = [NodeOfParty(party.name, party.host) for party in agreement.party]
    if network == "devnet":
        return devnet(options, parties)
    if me is None:
        raise ConfigError("preprod needs --party: each party runs its own nodes")
    return preprod(options, parties, me)


def _write(agreement: Agreement, network: str, text: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if network == "preprod":
        vkeys = folder / "vkeys"
        vkeys.mkdir(exist_ok=True)
        for party in agreement.party:
            for name, envelope in vkey_files(party.name, party.hydra_vkey, party.fuel_vkey).items():
                write_atomic((vkeys / name).absolute(), envelope.encode())
    path = folder / FILES[network]
    write_atomic(path.absolute(), text.encode())
    print(path)


if __name__ == "__main__":
    raise SystemExit(main())
