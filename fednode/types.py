"""Ids, units and the few values that every part of fednode speaks of. Imports nothing of ours, does nothing.

Hex strings are lower case. A `Digest` is the hex of a sha256, a `TxId` the hex of a blake2b-256 over a transaction
body.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NewType

PartyName = NewType("PartyName", str)
Digest = NewType("Digest", str)
RunId = NewType("RunId", str)
HeadId = NewType("HeadId", str)
TxId = NewType("TxId", str)
Lovelace = NewType("Lovelace", int)

Phase = Literal["A", "B", "AB"]
PhasePolicy = Literal["alternate", "both"]
Codec = Literal["i8", "i4", "tk64", "f32"]

Progress = Callable[[int, int, float], None]
"""(step done, steps in all, last loss) of a local phase: information only."""

Transferred = Callable[[int, int], None]
"""(bytes moved so far, bytes in all) of one transfer: information only, may be called from any thread."""

LOVELACE_PER_ADA = 1_000_000
SIGNAL_LOVELACE = Lovelace(1_000_000)
"""What a signal pays to each peer, and the least that may stay as change (protocol.md section 4)."""


def phase_of(round_number: int, policy: PhasePolicy) -> Phase:
    """The factors that move in a round >= 1. Alternation starts with B: at B = 0 the gradient of A is exactly zero."""
    if policy == "both":
        return "AB"
    return "B" if round_number % 2 else "A"


@dataclass(frozen=True, slots=True)
class Member:
    """One party as the agreement names it. Keys are raw 32-byte verification keys in hex."""

    name: PartyName
    hydra_vkey: str
    cardano_vkey: str
    """The funds key: signs the signals; its hash is the payment credential of `address`."""
    fuel_vkey: str
    """The key of the party's hydra-node, its participant in the head."""
    address: str
    """Bech32 funds address on the agreement's network."""
    weight: int = 1


@dataclass(frozen=True, slots=True)
class SignalContent:
    """The metadata of a signal, label 1729 (protocol.md section 4)."""

    run: RunId
    round: int
    base: Digest
    object: Digest | None
    """None exactly in the last signal, round R + 1."""
    size: int | None
    sections: Mapping[str, str] | None = None
    """Name to hex of 8 bytes; present exactly in round 0."""


@dataclass(frozen=True, slots=True)
class SignedTx:
    """A transaction whose bytes never change again: only these bytes are sent, also again."""

    id: TxId
    cbor: str
    """Hex of the whole transaction with its witness."""


class TxKind(StrEnum):
    """What a confirmed transaction is, judged from its bytes alone (never from a node's word)."""

    SIGNAL = "signal"
    """Well-formed signal of a party of the agreement; its run may be foreign, its round is not judged yet."""
    BROKEN_SIGNAL = "broken-signal"
    """A party's transaction with label 1729 that breaks the rules of protocol.md section 4: a fault."""
    OTHER = "other"
    """Without the label, or of an unknown sender, and harmless: counted only."""
    DANGEROUS = "dangerous"
    """Without the label, but a fee, mint or script endangers the head: a fault where the sender is a party."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction in a confirmed snapshot, as read and judged by the Cardano adapter."""

    id: TxId
    cbor: str
    kind: TxKind
    sender: PartyName | None = None
    content: SignalContent | None = None
    problem: str | None = None
    """For BROKEN_SIGNAL and DANGEROUS: which rule is broken, in words, with expected and found."""


class HeadStatus(StrEnum):
    """The life of a head as hydra-node 2.3 shows it; the values are what users read."""

    UNKNOWN = "Unknown"
    IDLE = "Idle"
    OPEN = "Open"
    CLOSED = "Closed"
    FANOUT_POSSIBLE = "FanoutPossible"
    FINALIZED = "Finalized"


@dataclass(frozen=True, slots=True)
class TrainerSetup:
    """Everything a trainer child needs once, at its start. JSON-serialisable by `dataclasses.asdict`."""

    task: str
    """`lm`, `digits` or `linear`."""
    model: Mapping[str, object]
    """The agreement's [model] table as plain JSON values (path resolved to an absolute folder where it is local)."""
    training: Mapping[str, object]
    """The agreement's [training] table."""
    codec: Codec
    seed: int
    party: PartyName
    party_index: int
    run: RunId
    data: Mapping[str, object]
    """The private [data] table: path of the own data, format, held-out file."""
    device: str
    threads: int


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a trainer child reports once the model is loaded: the inputs of the schema."""

    tensors: tuple[tuple[str, tuple[int, ...]], ...]
    """Every LoRA tensor: PEFT state-dict name and shape, sorted by the name's UTF-8 bytes."""
    base: Mapping[str, str]
    """Every weight file of the base: file name to sha256 hex."""


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """One local phase. Paths are absolute."""

    round: int
    phase: Phase
    base: Digest
    """Digest of `state`, written into the object."""
    state: str
    """S_{r-1} as safetensors."""
    bundle: str | None
    """Bundle of round r-1; None = zero residual and a fresh optimiser."""
    objects: str
    """Folder for the object: written as `<sha256>.safetensors`."""
    bundles: str
    """Folder for the new bundle: written as `<round:06d>.safetensors`."""
    schema: Digest


@dataclass(frozen=True, slots=True)
class TrainResult:
    """Durable on disk by the time it is reported."""

    round: int
    object: Digest
    size: int
    bundle: Digest
    loss: float
    """Mean training loss of the phase (natural log per token; digits: cross-entropy; linear: mean squared error)."""
    seconds: float


@dataclass(frozen=True, slots=True)
class AggregateResult:
    """Durable on disk by the time it is reported."""

    digest: Digest
    """State digest of S_r."""
    outliers: tuple[PartyName, ...]
    """Parties whose update was clipped below a quarter of its length (information only, no fault)."""
    momentum: Digest | None = None
    """sha256 over the data of the momentum file; None where the outer optimiser has no momentum."""
