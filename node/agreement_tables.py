"""The tables of peers.toml (protocol.md section 1). Each field's description is also its comment in a new file."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, cast

from pydantic import BeforeValidator, Field, StringConstraints

from fednode.node.tomlfile import Strict
from fednode.types import LOVELACE_PER_ADA, Codec, PhasePolicy

MAX_PARTIES: Final = 29
MAX_WEIGHTS: Final = 1024
MAX_ROUNDS: Final = 999_998
"""Round R + 1 still has six digits in bucket keys."""
MAGIC: Final = {"embedded": 42, "devnet": 42, "preprod": 1, "preview": 2}

Store = Literal["local", "s3", "storj"]
Network = Literal["embedded", "devnet", "preprod", "preview"]
VerificationKey = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Sha256 = VerificationKey
PartyNameText = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,32}$")]
Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=200)]
Host = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9._\[\]:-]+:\d{1,5})?$", max_length=260)]
BucketName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Prefix = Annotated[
    str, StringConstraints(pattern=r"^([a-z0-9_-][a-z0-9._-]*(/[a-z0-9_-][a-z0-9._-]*)*)?$", max_length=200)
]
FileName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$", max_length=200)
]


def _targets(value: object) -> str | tuple[str, ...]:
    if value == "all-linear":
        return "all-linear"
    items = tuple(cast("list[object]", value)) if isinstance(value, list | tuple) else ()
    names = {item for item in items if isinstance(item, str) and 0 < len(item) <= 100}
    if not items or len(items) > 100 or len(names) != len(items):
        raise ValueError('"all-linear" or a list of different names of modules')
    return tuple(sorted(names))


class Run(Strict):
    name: Annotated[Line, Field(min_length=1, max_length=64, description="what people call this run")] = "run"
    rounds: int = Field(
        default=10, ge=1, le=MAX_ROUNDS, description="rounds to run; `fednode run --epochs N` replaces it"
    )
    seed: int = Field(default=1, ge=0, lt=2**53, description="the first adapter and every data order come from it")
    deadline_s: float = Field(
        default=86400.0, gt=0, le=31_536_000, description="seconds to wait for a peer before on_deadline is obeyed"
    )
    on_deadline: Literal["wait", "close"] = Field(default="wait", description='"wait" or "close" the head')
    on_fault: Literal["halt", "close"] = Field(
        default="halt", description='when a peer breaks the protocol: "halt" or "close"'
    )


class Model(Strict):
    name: Annotated[Line, Field(min_length=1, description="name of the base model, or builtin:...")]
    revision: Line = Field(default="", description="exact revision of the base model, where it has one")
    path: Line = Field(
        default="", description="folder with the base model, from the home if relative; each party may have its own"
    )
    sha256: dict[FileName, Sha256] = Field(
        default_factory=dict[FileName, Sha256], max_length=1000, description="sha256 of every weight file of the base"
    )
    quantisation: Literal["nf4", "int8", "none"] = Field(
        default="nf4", description='of the base: "nf4", "int8" or "none"'
    )
    rank: int = Field(default=16, ge=1, le=1024, description="rank of the LoRA adapter")
    alpha: float = Field(default=32.0, gt=0, le=1_000_000, description='LoRA scale, "auto" = twice the rank')
    dropout: float = Field(default=0.0, ge=0, lt=1, description="LoRA dropout")
    target_modules: Annotated[str | tuple[str, ...], BeforeValidator(_targets)] = Field(
        default="all-linear", description='"all-linear" or a list of module names'
    )


class Training(Strict):
    task: Literal["lm", "digits", "linear"] = Field(default="lm", description='"lm", "digits" or "linear"')
    steps: int = Field(default=100, ge=1, le=1_000_000, description="optimiser steps of one local phase")
    batch: int = Field(default=8, ge=1, le=65_536, description="sequences per optimiser step")
    sequence: int = Field(default=128, ge=1, le=1_048_576, description="tokens per sequence")
    learning_rate: float = Field(
        default=4e-4, gt=0, le=100, description='"auto" = 0.0004 with phase "alternate", 0.0002 with "both"'
    )
    optimiser: Literal["adamw"] = Field(default="adamw", description='"adamw"')
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="weight decay of the optimiser")
    clip_norm: float = Field(default=1.0, ge=0, le=1_000_000, description="gradient norm is clipped to this; 0 = off")
    phase: PhasePolicy = Field(
        default="alternate", description='"alternate" (B in odd rounds, A in even ones) or "both"'
    )


class Aggregation(Strict):
    rule: Literal["mean", "trimmed_mean", "median"] = Field(
        default="mean",
        description='"mean", "trimmed_mean", "median"; "auto" = mean up to 3 parties, trimmed_mean from 4',
    )
    clip: bool = Field(default=True, description="clip every update to the median norm")
    outer: Literal["none", "nesterov"] = Field(default="nesterov", description='outer step: "none" or "nesterov"')
    outer_lr: float = Field(default=0.7, gt=0, le=10, description="learning rate of the outer step")
    outer_momentum: float = Field(default=0.5, ge=0, lt=1, description="momentum of the outer step")
    codec: Codec = Field(default="i8", description='how updates are encoded: "i8", "i4", "tk64" or "f32"')


class HeadTable(Strict):
    network: Network = Field(default="embedded", description='"embedded" (simulated), "devnet", "preprod" or "preview"')
    magic: int = Field(default=42, ge=0, lt=2**32, description='network magic, "auto" = the network\'s own')
    contestation_period_s: int = Field(
        default=60, ge=1, le=31_536_000, description="contestation period, equal on all nodes"
    )
    deposit_period_s: int = Field(default=30, ge=1, le=31_536_000, description="deposit period, equal on all nodes")
    deposit: int = Field(
        default=10 * LOVELACE_PER_ADA, ge=1, lt=2**53, description="lovelace of each party; at least max(10, 3 N) ADA"
    )
    hydra_node: Annotated[str, StringConstraints(pattern=r"^\d+\.\d+\.\d+$", max_length=20)] = Field(
        default="2.3.0", description="version of hydra-node at every party"
    )
    ledger_parameters: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")] = Field(
        default="", description='hash of the ledger parameters, shown by `init-head --dry-run`; "" = not compared'
    )
    settle_s: float = Field(
        default=0.0, ge=0, le=86_400, description="seconds between the last deposit and the first signal"
    )
    takeover_s: float = Field(
        default=10.0, ge=0, le=86_400, description="at the end party i closes after i times this many seconds"
    )


class Party(Strict):
    name: PartyNameText = Field(description="1 to 32 of a-z, 0-9 and -")
    hydra_vkey: VerificationKey = Field(description="hydra verification key, 64 hex characters")
    cardano_vkey: VerificationKey = Field(description="verification key of the funds, 64 hex characters")
    fuel_vkey: VerificationKey = Field(description="verification key of the hydra-node, 64 hex characters")
    address: Annotated[str, StringConstraints(pattern=r"^addr_test1[02-9ac-hj-np-z]{50,110}$")] = Field(
        description="funds address, addr_test1..."
    )
    host: Host = Field(default="", description="host:port where the peers' hydra-nodes reach this party's")
    store: Store = Field(default="local", description='kind of the bucket: "local", "s3" or "storj"')
    bucket: BucketName = Field(description="name of the bucket: letters, digits, dot, _ and -")
    prefix: Prefix = Field(default="", description="keys in the bucket start with this; may be empty")
    read: Line = Field(default="", description="hint where the peers find the bucket; never a secret")
    weight: int = Field(default=1, ge=1, le=1023, description="weight in the mean, 1 to 1023")


class Tables(Strict):
    run: Run = Field(default_factory=Run, description="table [run]")
    model: Model = Field(description="table [model] with name")
    training: Training = Field(default_factory=Training, description="table [training]")
    aggregation: Aggregation = Field(default_factory=Aggregation, description="table [aggregation]")
    head: HeadTable = Field(default_factory=HeadTable, description="table [head]")
    party: tuple[Party, ...] = Field(strict=False, description="one table [[party]] for each party")


def resolve_auto(tables: dict[str, Any]) -> dict[str, Any]:
    """A copy of raw tables in which every `"auto"` and absent automatic value is filled in from the others.

    Tables and values of wrong types stay as they are: the check that follows refuses them.
    """
    party = tables.get("party")
    count = len(cast("list[object]", party)) if isinstance(party, list) else 0
    head, model, training = (_table(tables, name) for name in ("head", "model", "training"))
    network = str(head.get("network", "embedded"))
    rank = model.get("rank", 16)
    sane = isinstance(rank, int) and abs(rank) < 2**53  # no float holds a number of 400 digits
    public = network in ("preprod", "preview")
    automatic: dict[str, dict[str, Any]] = {
        "aggregation": {"rule": "mean" if count <= 3 else "trimmed_mean"},
        "model": {"alpha": 2.0 * rank if sane else 32.0},
        "training": {"learning_rate": 2e-4 if training.get("phase") == "both" else 4e-4},
        "head": {
            "magic": MAGIC.get(network, 42),
            "contestation_period_s": 600 if public else 60 if network == "devnet" else 2,
            "deposit_period_s": least_deposit_period(network, count),
            "deposit": minimum_deposit(count),
            "settle_s": 200.0 if public else 3.0 if network == "devnet" else 0.0,
            "takeover_s": 120.0 if public else 20.0 if network == "devnet" else 10.0,
        },
    }
    filled = dict(tables)
    for name, values in automatic.items():
        if isinstance(tables.get(name, {}), dict):
            own = _table(tables, name)
            filled[name] = own | {key: value for key, value in values.items() if own.get(key, "auto") == "auto"}
    return filled


def least_deposit_period(network: str, count: int) -> int:
    """Seconds, for `count` parties: deposits enter one after the other, a block or two each, before they expire."""
    if network in ("preprod", "preview"):
        return max(1200, 200 * count)
    return max(30, 10 * count) if network == "devnet" else max(3, (count + 1) // 2)


def minimum_deposit(count: int) -> int:
    """The least deposit of each of `count` parties in lovelace: max(10, 3 N) ADA (protocol.md section 1)."""
    return max(10, 3 * count) * LOVELACE_PER_ADA


def _table(tables: dict[str, Any], name: str) -> dict[str, Any]:
    value: Any = tables.get(name)
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
