"""What the daemon tells the core besides the head's reports: starts, the clock, and how commands ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fednode.reports import HeadReport
from fednode.types import Digest, PartyName, RunId, SignalContent, SignedTx

Goal = Literal["open", "run", "close"]


@dataclass(frozen=True, slots=True)
class Begin:
    """The daemon starts: `open` = init-head, `run` = the rounds, `close` = close-head."""

    at: float
    goal: Goal
    binding: str
    """Hash of the agreement without run.rounds."""
    run: RunId | None = None
    """Set for `run`: binds the home to this run id from the first time on."""
    rounds: int | None = None
    reason: str = ""
    """Why the head is closed, for `close`."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passes. Deadlines are judged by this alone."""

    at: float


@dataclass(frozen=True, slots=True)
class DepositDrafted:
    at: float
    deposit: SignedTx


@dataclass(frozen=True, slots=True)
class DepositLapsed:
    """The signed deposit can no longer reach the chain (its validity is over): a new draft is needed."""

    at: float
    deposit: str


@dataclass(frozen=True, slots=True)
class AgreementPrepared:
    """Round 0: S_0 and the object of agreement and schema are durable on disk."""

    at: float
    object: Digest
    size: int
    base: Digest


@dataclass(frozen=True, slots=True)
class OwnSignalAbsent:
    """The own bucket holds no signal of this round: nothing was signed that the journal does not know."""

    at: float
    round: int


@dataclass(frozen=True, slots=True)
class OwnSignalFound:
    """The own bucket holds a signal that the journal does not know (an older backup of the home): it is adopted."""

    at: float
    round: int
    signal: SignedTx
    content: SignalContent


@dataclass(frozen=True, slots=True)
class TrainingDone:
    at: float
    round: int
    object: Digest
    size: int
    bundle: Digest
    loss: float
    seconds: float


@dataclass(frozen=True, slots=True)
class OwnObjectLost:
    """The trained object is neither on the own disk nor in the own bucket as it was: nobody has seen or signed it."""

    at: float
    round: int


@dataclass(frozen=True, slots=True)
class ObjectPublished:
    at: float
    round: int
    seconds: float


@dataclass(frozen=True, slots=True)
class SignalBuilt:
    at: float
    round: int
    signal: SignedTx


@dataclass(frozen=True, slots=True)
class SignalKept:
    """The signed bytes lie in the own bucket as `signal.cbor`."""

    at: float
    round: int


@dataclass(frozen=True, slots=True)
class ObjectFetched:
    """A party's object lies verified in the local cache."""

    at: float
    round: int
    party: PartyName
    seconds: float


@dataclass(frozen=True, slots=True)
class ObjectFaulty:
    """A party's object breaks the rules for good. `evidence` is the file that holds its exact bytes ("" if none)."""

    at: float
    round: int
    party: PartyName
    rule: str
    message: str
    evidence: str


@dataclass(frozen=True, slots=True)
class AggregateDone:
    at: float
    round: int
    digest: Digest
    outliers: tuple[PartyName, ...]
    seconds: float
    momentum: Digest | None


@dataclass(frozen=True, slots=True)
class TranscriptKept:
    at: float


@dataclass(frozen=True, slots=True)
class EvidenceKept:
    at: float
    fault: int
    """Index of the fault in the order of discovery."""
    path: str


Outcome = (
    DepositDrafted
    | DepositLapsed
    | AgreementPrepared
    | OwnSignalAbsent
    | OwnSignalFound
    | TrainingDone
    | OwnObjectLost
    | ObjectPublished
    | SignalBuilt
    | SignalKept
    | ObjectFetched
    | ObjectFaulty
    | AggregateDone
    | TranscriptKept
    | EvidenceKept
)
"""How a command ended."""

Event = Begin | Tick | Outcome | HeadReport
