"""What a network leaves in its folder: storj.json with its secrets, 0600, whole or absent."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fednode.durable import write_atomic

NAME = "storj.json"
LOGS = "log"


@dataclass(frozen=True)
class Process:
    """A process for sure: `started` (clock ticks since boot) tells it from a later one of the same number."""

    pid: int
    started: int


@dataclass(frozen=True)
class Project:
    """One customer of the satellite, with buckets of his own: what reaches them."""

    api_key: str = field(repr=False)
    passphrase: str = field(repr=False)
    grant: str = field(repr=False)


@dataclass(frozen=True)
class Gateway:
    """The S3 gateway before the first project."""

    endpoint: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    region: str = "us-east-1"


@dataclass(frozen=True)
class Description:
    """A running network. `control` is the socket for commands, `runtime` the throwaway folder of its data."""

    satellite: str
    nodes: list[str]
    projects: list[Project]
    gateway: Gateway | None
    processes: dict[str, Process]
    runtime: str
    control: str


def save(folder: Path, described: Description) -> None:
    """Write `folder`/storj.json; the public values come first."""
    text = json.dumps({"notice": "a test network; nothing in it is worth anything", **asdict(described)}, indent=2)
    write_atomic(folder / NAME, text.encode() + b"\n", mode=0o600)


def load(folder: Path) -> Description | None:
    """What is written in `folder`; None where nothing is."""
    try:
        values = json.loads((folder / NAME).read_bytes())
    except FileNotFoundError:
        return None
    gateway = values["gateway"]
    return Description(
        satellite=values["satellite"],
        nodes=values["nodes"],
        projects=[Project(**project) for project in values["projects"]],
        gateway=None if gateway is None else Gateway(**gateway),
        processes={name: Process(**process) for name, process in values["processes"].items()},
        runtime=values["runtime"],
        control=values["control"],
    )
