"""A Storj network on this machine, for tests and for the curious. Its parts are in tests/storj/loopback."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "storj"))

from loopback import client
from loopback.files import NAME, Description, load
from loopback.programs import CannotRun, build
from loopback.supervisor import serve

_SIGNALS: Final = {"freeze": signal.SIGSTOP, "thaw": signal.SIGCONT, "kill": signal.SIGKILL}
_HELP: Final = {
    "build": "build the programs that are not built yet (5-10 minutes the first time, needs Go)",
    "up": "start a network; its addresses and secrets go to DIR/storj.json",
    "down": "end the network, its data with it",
    "status": "say what runs; status 1 where nothing does",
    "freeze": "stop satellite and storage nodes in mid-air (SIGSTOP)",
    "thaw": "let them go on",
    "kill": "kill them (SIGKILL)",
    "stop-node": "end one storage node for good",
}


def main() -> int:
    options = _parser().parse_args()
    try:
        if options.command == "serve":
            return serve(options.dir, with_gateway=options.gateway, leashed=options.leashed)
        commands: dict[str, Callable[[argparse.Namespace], int]] = {
            "build": _build, "up": _up, "down": _down, "status": _status, "stop-node": _stop_node,
        }  # fmt: skip
        return commands.get(options.command, _signal)(options)
    except CannotRun as reason:
        print(f"storj-devnet: {reason}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/storj-devnet", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in _HELP.items():
        command = commands.add_parser(name, help=text, description=text)
        if name != "build":
            command.add_argument(
                "--dir", type=_folder, default=_folder("storj-devnet"), metavar="DIR",
                help="the network's folder [default: ./storj-devnet]",
            )  # fmt: skip
        if name == "up":
            _gateway_option(command)
        if name == "stop-node":
            command.add_argument("node", type=int, metavar="N", help="0 is the first")
    hidden = commands.add_parser("serve")
    hidden.add_argument("--dir", type=_folder, required=True)
    hidden.add_argument("--leashed", action="store_true")
    _gateway_option(hidden)
    return parser


def _gateway_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--gateway", action=argparse.BooleanOptionalAction, default=True, help="with the S3 gateway before it"
    )


def _folder(path: str) -> Path:
    return Path(path).absolute()


def _build(_options: argparse.Namespace) -> int:
    print(build())
    return 0


def _up(options: argparse.Namespace) -> int:
    client.start(options.dir, with_gateway=options.gateway)
    _show(options.dir, _described(options.dir))
    return 0


def _down(options: argparse.Namespace) -> int:
    print("The network is gone." if client.stop(options.dir) else f"No network in {options.dir}.")
    return 0


def _status(options: argparse.Namespace) -> int:
    described = _described(options.dir)
    running = client.running(described)
    for name, process in described.processes.items():
        print(f"{name:<11} process {process.pid:<8} {'runs' if running[name] else 'is gone'}")
    _show(options.dir, described)
    return 0 if all(running.values()) else 1


def _signal(options: argparse.Namespace) -> int:
    client.signal_satellite(_described(options.dir), _SIGNALS[options.command])
    return 0


def _stop_node(options: argparse.Namespace) -> int:
    client.stop_node(_described(options.dir), options.node)
    return 0


def _described(folder: Path) -> Description:
    described = load(folder)
    if described is None:
        raise CannotRun(f"no network in {folder}; start one: scripts/storj-devnet up --dir {folder}")
    return described


def _show(folder: Path, described: Description) -> None:
    """What it is and where; secrets stay in the file."""
    print(
        f"A Storj TEST network on this machine: satellite, {len(described.nodes)} storage nodes, no real money or data."
    )
    print(f"satellite   {described.satellite}")
    if described.gateway is not None:
        print(f"S3 gateway  {described.gateway.endpoint} (region {described.gateway.region})")
    print(f"API keys, grants and S3 keys are in {folder / NAME}")
    print(f"It ends with: scripts/storj-devnet down --dir {folder}")


if __name__ == "__main__":
    sys.exit(main())
