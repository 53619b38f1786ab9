"""Facts: what happened and was news. They are journalled, and the state is their fold. Names are part of the journal's
schema: a change of a name or a field needs a new schema number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fednode.node.protocol.events import Goal
from fednode.reports import StallKind
from fednode.types import Digest, HeadId, HeadStatus, Lovelace, PartyName, RunId, SignedTx, Transaction, TxId


@dataclass(frozen=True, slots=True)
class Begun:
    at: float
    goal: Goal
    reason: str


@dataclass(frozen=True, slots=True)
class HomeBound:
    """From now on this home serves this agreement (run.rounds apart) only."""

    at: float
    binding: str


@dataclass(frozen=True, slots=True)
class RunBound:
    at: float
    run: RunId
    rounds: int


@dataclass(frozen=True, slots=True)
class HeadBound:
    at: float
    head_id: HeadId


@dataclass(frozen=True, slots=True)
class HeadChanged:
    """`snapshot`: what the head was closed with. `deadline`: end of the contestation period, Unix seconds."""

    at: float
    status: HeadStatus
    snapshot: int | None
    deadline: float | None


@dataclass(frozen=True, slots=True)
class HeadLost:
    """The own node cannot be reached. Deadlines are not judged until it answers again."""

    at: float


@dataclass(frozen=True, slots=True)
class HeadRegained:
    at: float


@dataclass(frozen=True, slots=True)
class HeadStalled:
    """No snapshot can be confirmed since `since`, and who could change that. Information: `status` shows it."""

    at: float
    kind: StallKind
    snapshot: int
    parties: tuple[PartyName, ...]
    since: float


@dataclass(frozen=True, slots=True)
class HeadResumed:
    at: float


@dataclass(frozen=True, slots=True)
class DepositSigned:
    at: float
    deposit: SignedTx


@dataclass(frozen=True, slots=True)
class DepositChanged:
    """`stage` is recorded, final or failed."""

    at: float
    deposit: TxId
    party: PartyName | None
    lovelace: Lovelace
    stage: str
    reason: str


@dataclass(frozen=True, slots=True)
class SnapshotNoted:
    """A confirmed snapshot with the raw bytes of its transactions: the transcript is the sequence of these."""

    at: float
    number: int
    transactions: tuple[Transaction, ...]


@dataclass(frozen=True, slots=True)
class ReplayDone:
    at: float
    number: int


@dataclass(frozen=True, slots=True)
class Prepared:
    at: float
    object: Digest
    size: int
    base: Digest


@dataclass(frozen=True, slots=True)
class OwnBucketChecked:
    at: float
    round: int


@dataclass(frozen=True, slots=True)
class SignalAdopted:
    at: float
    round: int
    signal: SignedTx
    object: Digest | None
    size: int | None
    base: Digest


@dataclass(frozen=True, slots=True)
class Trained:
    at: float
    round: int
    object: Digest
    size: int
    bundle: Digest
    loss: float
    seconds: float


@dataclass(frozen=True, slots=True)
class ObjectLost:
    """The trained object is gone before anybody could see it: the round is trained again."""

    at: float
    round: int


@dataclass(frozen=True, slots=True)
class Published:
    at: float
    round: int
    seconds: float


@dataclass(frozen=True, slots=True)
class SignalSigned:
    """The one signal of the own party for this round. Only these bytes are ever sent."""

    at: float
    round: int
    signal: SignedTx


@dataclass(frozen=True, slots=True)
class SignalStored:
    at: float
    round: int


@dataclass(frozen=True, slots=True)
class Fetched:
    at: float
    round: int
    party: PartyName
    seconds: float


@dataclass(frozen=True, slots=True)
class Aggregated:
    at: float
    round: int
    digest: Digest
    outliers: tuple[PartyName, ...]
    seconds: float
    momentum: Digest | None
    """sha256 over the data of the momentum file; None without an outer momentum, and in journals of format 1."""


@dataclass(frozen=True, slots=True)
class RoundAgreed:
    """All signals of round 0 or R + 1 are final and name one base: the round is over (others end with Aggregated)."""

    at: float
    round: int


@dataclass(frozen=True, slots=True)
class ForeignRunSeen:
    """A party signals for another run. `sections`: which of ours differ; empty where the signal does not tell."""

    at: float
    party: PartyName
    run: RunId
    sections: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RepeatSeen:
    at: float
    party: PartyName
    round: int
    tx: TxId


@dataclass(frozen=True, slots=True)
class FaultFound:
    """A peer broke the protocol. `raw` holds the hex of the transactions that prove it, `file` the object that does."""

    at: float
    party: PartyName
    round: int
    kind: str
    message: str
    raw: tuple[str, ...]
    file: str


@dataclass(frozen=True, slots=True)
class EvidenceStored:
    at: float
    fault: int
    path: str


@dataclass(frozen=True, slots=True)
class DivergenceFound:
    at: float
    round: int
    digests: Mapping[PartyName, Digest]


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    at: float
    round: int
    missing: tuple[PartyName, ...]


@dataclass(frozen=True, slots=True)
class CloseDecided:
    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class TranscriptStored:
    at: float


@dataclass(frozen=True, slots=True)
class PaidOut:
    at: float
    paid: tuple[tuple[PartyName, Lovelace], ...]
    expected: tuple[tuple[PartyName, Lovelace], ...]
    verified: bool


Fact = (
    Begun | HomeBound | RunBound | HeadBound | HeadChanged | HeadLost | HeadRegained | HeadStalled | HeadResumed
    | DepositSigned | DepositChanged | SnapshotNoted | ReplayDone | Prepared | OwnBucketChecked | SignalAdopted
    | Trained | ObjectLost | Published | SignalSigned | SignalStored | Fetched | Aggregated | RoundAgreed
    | ForeignRunSeen | RepeatSeen | FaultFound | EvidenceStored | DivergenceFound | DeadlinePassed | CloseDecided
    | TranscriptStored | PaidOut
)  # fmt: skip
