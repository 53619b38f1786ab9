"""The daemon's view of the world: one Protocol class per port. Adapters satisfy them structurally, without import.

Errors are those of `fednode.errors`; an error with `retryable = True` makes the daemon try the command again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from fednode.reports import HeadReport
from fednode.types import (
    AggregateResult,
    Digest,
    ModelFacts,
    PartyName,
    Phase,
    Progress,
    RunId,
    SignalContent,
    SignedTx,
    TrainRequest,
    TrainResult,
    Transaction,
    Transferred,
)


class Head(Protocol):
    """The party's own hydra-node."""

    def reports(self, after: int) -> AsyncIterator[HeadReport]:
        """Connect and reconnect for ever: every snapshot with a number > `after`, then SnapshotsSynced, then live."""
        ...

    async def init(self) -> None:
        """Send Init once. Only the first party does."""
        ...

    async def draft_deposit(self) -> SignedTx:
        """A deposit of the agreed sum from the funding output, signed by the fuel key (node) and the funds key (us)."""
        ...

    async def submit_deposit(self, deposit: SignedTx) -> None:
        """Put it on layer 1. Sending it again is harmless. Raises FundsError where its inputs do not exist."""
        ...

    def build_signal(self, content: SignalContent) -> SignedTx:
        """Sign a signal that spends all own outputs of the newest confirmed state (pure given the reports so far)."""
        ...

    def read_transaction(self, cbor: bytes) -> Transaction:
        """Judge transaction bytes from anywhere (own bucket, side channel). Never raises for hostile bytes."""
        ...

    async def deliver(self, signal: SignedTx) -> None:
        """Send, and send again by protocol.md section 4, until cancelled (the core cancels when it is final)."""
        ...

    async def close(self) -> None:
        """Send Close, and repeat with back-off, until cancelled (the core cancels on HeadClosed)."""
        ...

    async def fanout(self) -> None:
        """Send Fanout, and repeat with back-off, until cancelled (the core cancels on HeadFinalized)."""
        ...

    async def aclose(self) -> None: ...


class Bucket(Protocol):
    """One party's bucket. Keys are `/`-separated relative paths of [a-z0-9._/-]."""

    async def put(self, key: str, source: Path, *, progress: Transferred | None = None) -> None:
        """Create `key` with the bytes of `source`, or verify that the same bytes stand there. Other bytes: Conflict."""
        ...

    async def get(
        self, key: str, target: Path, *, size: int, sha256: Digest, progress: Transferred | None = None
    ) -> None:
        """Download exactly `size` bytes (reads at most size + 1), verify, then appear atomically at `target` (fsynced).

        NotFound where the key is absent; Integrity(kind="size" | "digest", kept=file with the bytes) otherwise.
        """
        ...

    async def read(self, key: str, *, limit: int) -> bytes:
        """A small object whole. NotFound where absent; Integrity(kind="size") where longer than `limit`."""
        ...

    async def head(self, key: str) -> int:
        """Size in bytes; NotFound where absent."""
        ...

    async def aclose(self) -> None: ...


class Trainer(Protocol):
    """The one trainer child of a run. Started on first use, restarted after a crash."""

    async def describe(self) -> ModelFacts: ...

    async def train(self, request: TrainRequest, progress: Progress | None = None) -> TrainResult:
        """Raises TrainingError (OOM, non-finite update, child killed); the daemon decides whether to try again.

        `progress` may be called from any task of the loop.
        """
        ...

    async def aclose(self) -> None:
        """Ends the child at once."""
        ...


class Aggregator(Protocol):
    """Exact tensors, numpy only: schema, S_0, checking objects, S_r. Blocking; the daemon calls it in a thread."""

    def schema(self) -> bytes:
        """Canonical JSON of the schema (protocol.md section 2)."""
        ...

    def object_size(self, round_number: int, party: PartyName) -> int:
        """The exact size in bytes of the party's object of this round (the header holds the name)."""
        ...

    def initial(self, state: Path) -> Digest:
        """Write S_0 durably, return its digest."""
        ...

    def digest(self, state: Path, momentum: Path | None) -> Digest:
        """State digest of an own S_r (momentum None: of S_0), read from the disk.

        Raises TrainingError where the file, or the momentum beside it, is missing or not one of this run.
        """
        ...

    def momentum_digest(self, momentum: Path) -> Digest | None:
        """What `AggregateResult.momentum` said of the own file, read from the disk; None without an outer momentum.

        Raises TrainingError where the file is missing or not one of this run.
        """
        ...

    def check(
        self, object_file: Path, *, run: RunId, round_number: int, party: PartyName, phase: Phase, base: Digest
    ) -> None:
        """Raise ObjectRefused unless the bytes are an object of exactly this run, round, party, phase and base."""
        ...

    def aggregate(
        self,
        round_number: int,
        objects: Mapping[PartyName, Path],
        *,
        state: Path,
        momentum: Path | None,
        new_state: Path,
        new_momentum: Path,
    ) -> AggregateResult:
        """S_r from S_{r-1} and every party's checked object (own one included). Writes both files durably.

        `momentum` is None in round 1 only: it starts from zero.
        """
        ...


class Clock(Protocol):
    def now(self) -> float:
        """Unix time in seconds."""
        ...


class Journal(Protocol):
    """Append-only facts. A fact that `append` returned from survives power loss."""

    def append(self, records: Sequence[tuple[str, Mapping[str, object]]]) -> None:
        """(kind, JSON body) records, all or none, fsynced."""
        ...

    def close(self) -> None: ...
