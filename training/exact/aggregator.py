"""The aggregator of a run: schema, S_0, object checks and S_r on files (protocol.md sections 2, 5 and 6)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from fednode.errors import ConfigError
from fednode.training.exact.aggregate import FULL, Rule, check_weights, clip_factors, make_plan, square_norm
from fednode.training.exact.initial import write_initial
from fednode.training.exact.next_state import StatePaths, advance
from fednode.training.exact.objects import CHUNK, ObjectId, check_object, object_size, open_object
from fednode.training.exact.outer_step import Outer, OuterKind
from fednode.training.exact.schema import Schema
from fednode.training.exact.state_file import digest_of_state, existing_state
from fednode.types import AggregateResult, Codec, Digest, ModelFacts, PartyName, Phase, PhasePolicy, RunId, phase_of

OUTLIER = FULL // 4
"""A clip factor below this is reported."""
MAX_THREADS = 4
"""More would not keep the memory above the state below 64 MB with 29 parties."""
_ANY_RUN = RunId("0" * 32)
_ANY_DIGEST = Digest("0" * 64)


@dataclass(frozen=True, slots=True)
class AggregatorSettings:
    """What the agreement and the trainer say about tensors. Numbers as in the agreement."""

    facts: ModelFacts
    rank: int
    alpha: int | float
    quantisation: str
    codec: Codec
    seed: int
    phase_policy: PhasePolicy
    rule: Rule
    clip: bool
    outer: OuterKind
    outer_lr: float
    outer_momentum: float
    members: tuple[tuple[PartyName, int], ...]
    """(name, weight) of every party."""


class ExactAggregator:
    """Satisfies `Aggregator` in the daemon's ports. Raises ConfigError for settings that protocol.md refuses."""

    def __init__(self, settings: AggregatorSettings, *, threads: int | None = None, chunk: int = CHUNK) -> None:
        self._settings = settings
        self._schema = Schema.of(
            settings.facts,
            rank=settings.rank,
            alpha=settings.alpha,
            quantisation=settings.quantisation,
            codec=settings.codec,
        )
        self._outer = Outer(settings.outer, settings.outer_lr, settings.outer_momentum)
        self._members = dict(sorted(settings.members, key=lambda member: member[0].encode()))
        check_weights(settings.rule, [weight for _, weight in settings.members])
        if len(self._members) != len(settings.members):
            raise ConfigError("two parties have the same name")
        self._threads = threads or min(MAX_THREADS, os.cpu_count() or 1)
        self._chunk = chunk

    def schema(self) -> bytes:
        """Canonical JSON of the schema."""
        return self._schema.json

    @property
    def schema_digest(self) -> Digest:
        """Hex sha256 of the schema, as objects carry it."""
        return self._schema.digest

    def object_size(self, round_number: int, party: PartyName) -> int:
        """The exact size in bytes of the object of `party` in a round.

        The header holds the party's name, so names of other lengths may need another 64 bytes.
        """
        return object_size(
            self._schema, ObjectId(_ANY_RUN, round_number, party, self._phase(round_number), _ANY_DIGEST)
        )

    def initial(self, state: Path) -> Digest:
        """Write S_0 durably, return its digest."""
        return write_initial(state, self._schema, self._settings.seed)

    def digest(self, state: Path, momentum: Path | None) -> Digest:
        """State digest of S_r in `state`, read from the disk; `momentum` None for S_0.

        Raises TrainingError where `state`, or with an outer momentum `momentum`, is missing or not of this run.
        """
        if momentum is not None and self._outer.kind != "none":
            with existing_state(momentum, self._schema):
                pass
        with existing_state(state, self._schema) as file:
            return digest_of_state(file.fd, self._schema)

    def momentum_digest(self, momentum: Path) -> Digest | None:
        """sha256 over the data of a momentum file, as `aggregate` gave it; None without an outer momentum.

        Raises TrainingError where the file is missing or not of this run.
        """
        if self._outer.kind == "none":
            return None
        with existing_state(momentum, self._schema) as file:
            return digest_of_state(file.fd, self._schema)

    def check(
        self, object_file: Path, *, run: RunId, round_number: int, party: PartyName, phase: Phase, base: Digest
    ) -> None:
        """Raise ObjectRefused unless the bytes are an object of exactly this run, round, party, phase and base."""
        check_object(object_file, self._schema, ObjectId(run, round_number, party, phase, base))

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
        """S_r from S_{r-1} and every party's checked object. Writes both files durably, the momentum first.

        Memory above the state stays below 64 MB. Without an outer momentum the momentum file holds no tensor.
        Raises ObjectRefused for an object whose size or codes are wrong, TrainingError for damaged own files.
        """
        if set(objects) != set(self._members):
            raise ConfigError(f"round {round_number} has objects of {sorted(objects)}, expected {list(self._members)}")
        size = {party: self.object_size(round_number, party) for party in self._members}
        phase = self._phase(round_number)
        with ExitStack() as stack:
            opened = [
                stack.enter_context(open_object(objects[party], self._schema, phase, size[party]))
                for party in self._members
            ]
            norms = [square_norm(file, threads=self._threads, chunk=self._chunk) for file in opened]
            clips = clip_factors(norms) if self._settings.clip else [FULL] * len(norms)
            digest, momentum_digest = advance(
                self._schema,
                make_plan(self._settings.rule, clips, list(self._members.values())),
                self._outer,
                opened,
                StatePaths(state, momentum, new_state, new_momentum),
                threads=self._threads,
                chunk=self._chunk,
            )
        outliers = tuple(party for party, clip in zip(self._members, clips, strict=True) if clip < OUTLIER)
        return AggregateResult(digest, outliers, momentum_digest)

    def _phase(self, round_number: int) -> Phase:
        return phase_of(round_number, self._settings.phase_policy)
