"""What each command does to the world: one method per command, each idempotent, each returning the event of its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fednode.durable import write_atomic, write_pieces
from fednode.errors import (
    ConfigError,
    Conflict,
    FundsError,
    HeadError,
    HeadUnavailable,
    Integrity,
    NotFound,
)
from fednode.node import evidence
from fednode.node.fetching import Answers, fetch_object, holds
from fednode.node.own_bucket import find_own_signal
from fednode.node.ports import Aggregator, Bucket, Clock, Head, Trainer
from fednode.node.protocol import events as e
from fednode.node.protocol import pending as c
from fednode.node.protocol.state import State
from fednode.node.recompute import aggregate, ensure_base, objects_of
from fednode.node.runfolder import RunFolder
from fednode.types import (
    Digest,
    ModelFacts,
    PartyName,
    PhasePolicy,
    Progress,
    SignalContent,
    TrainRequest,
    Transferred,
    TxId,
    phase_of,
)

_log = logging.getLogger("fednode.node")


@dataclass(slots=True)
class Effects:
    """The ports of one node. `keys(party)` is the prefix of a party's objects of this run; `first_round_object(schema)`
    gives the bytes of the round-0 object; `transactions(kind)` re-reads confirmed transactions from the journal."""

    head: Head
    clock: Clock
    folder: RunFolder
    evidence_folder: Path
    phase: PhasePolicy
    prefixes: Mapping[PartyName, str]
    buckets: Mapping[PartyName, Bucket]
    trainer: Trainer
    make_aggregator: Callable[[ModelFacts], Aggregator]
    first_round_object: Callable[[bytes], bytes]
    sha256: Callable[[bytes], Digest]
    confirmed: Callable[[], Iterable[tuple[TxId, str]]]
    """(id, hex of the bytes) of every confirmed transaction in the journal, in confirmed order."""
    progress: Progress | None = None
    transfer: Callable[[str], Transferred | None] = lambda what: None
    answers: Answers = field(default_factory=Answers, init=False)
    base_checked: bool = field(default=False, init=False)
    """See `recompute.Site`."""
    _objects_read: bool = field(default=False, init=False)
    """What an earlier process left in the cache was read again: a disk may have changed it meanwhile."""
    _aggregator: Aggregator | None = field(default=None, init=False)
    _loading: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def perform(self, command: c.Command, state: State) -> e.Event | None:
        """Make one command true."""
        work: Callable[[Effects, Any, State], Awaitable[e.Event | None]] = _PERFORM[type(command)]
        return await work(self, command, state)

    async def aggregator(self, state: State) -> Aggregator:
        """The exact aggregator of this run; loads the model once to learn its tensors."""
        async with self._loading:
            if self._aggregator is None:
                self.folder.create()
                made = self.make_aggregator(await self.trainer.describe())
                if state.digests:
                    self._same_model(made, state)
                self._aggregator = made
            return self._aggregator

    def _same_model(self, made: Aggregator, state: State) -> None:
        data = self.first_round_object(made.schema())
        signal = state.transcript.signals(0).get(state.rules.me)
        if self.sha256(data) != (signal.object if signal else state.work.object):
            raise ConfigError(
                "the base model or its LoRA layout is not the one this run started with",
                hint="restore the model files that peers.toml names, then run the same command again",
            )
        if not self.folder.agreement.exists():
            write_atomic(self.folder.agreement, data)

    def key(self, party: PartyName, name: str) -> str:
        return f"{self.prefixes[party]}{name}"

    def object_key(self, party: PartyName, round_number: int, digest: str, suffix: str = "safetensors") -> str:
        return self.key(party, f"{round_number:06d}/{digest}.{suffix}")

    # The head -----------------------------------------------------------------------------------------------------

    async def init_head(self, command: c.InitHead, state: State) -> None:
        await self.head.init()

    async def draft_deposit(self, command: c.DraftDeposit, state: State) -> e.Event:
        return e.DepositDrafted(self.clock.now(), await self.head.draft_deposit())

    async def submit_deposit(self, command: c.SubmitDeposit, state: State) -> e.Event | None:
        deposit = state.head.own_deposit
        assert deposit is not None
        try:
            await self.head.submit_deposit(deposit)
        except (FundsError, HeadUnavailable):
            raise
        except HeadError:
            return e.DepositLapsed(self.clock.now(), deposit.id)
        return None

    async def send(self, command: c.Send, state: State) -> None:
        assert state.work.signal is not None
        await self.head.deliver(state.work.signal)

    async def close_head(self, command: c.CloseHead, state: State) -> None:
        await self.head.close()

    async def fanout(self, command: c.Fanout, state: State) -> None:
        await self.head.fanout()

    # The own part of a round --------------------------------------------------------------------------------------

    async def prepare(self, command: c.Prepare, state: State) -> e.Event:
        self.folder.create()
        aggregator = await self.aggregator(state)
        data = self.first_round_object(aggregator.schema())
        base = await asyncio.to_thread(aggregator.initial, self.folder.state(0))
        write_atomic(self.folder.agreement, data)
        return e.AgreementPrepared(self.clock.now(), self.sha256(data), len(data), base)

    async def check_own_bucket(self, command: c.CheckOwnBucket, state: State) -> e.Event:
        return await find_own_signal(self, command.round, state)

    async def train(self, command: c.Train, state: State) -> e.Event:
        aggregator, number = await self.aggregator(state), command.round
        await ensure_base(self, aggregator, state)
        assert state.base is not None
        needed = {s.object for s in state.transcript.signals(number).values() if s.object is not None}
        self.folder.tidy(number, needed)
        bundle = self.folder.bundle(number - 1)
        if number > 1 and not bundle.exists():
            _log.warning("round %d: no bundle of round %d: zero residual, fresh optimiser", number, number - 1)
        request = TrainRequest(
            round=number,
            phase=phase_of(number, self.phase),
            base=state.base,
            state=str(self.folder.state(number - 1)),
            bundle=str(bundle) if bundle.exists() else None,
            objects=str(self.folder.objects),
            bundles=str(self.folder.bundles),
            schema=self.sha256(aggregator.schema()),
        )
        done = await self.trainer.train(request, self.progress)
        now = self.clock.now()
        return e.TrainingDone(now, number, done.object, done.size, done.bundle, done.loss, done.seconds)

    async def publish(self, command: c.Publish, state: State) -> e.Event:
        me, digest = state.rules.me, state.work.object
        assert digest is not None
        started = self.clock.now()
        if command.round == 0:
            source, key = self.folder.agreement, self.object_key(me, 0, digest, "json")
        else:
            source, key = self.folder.object(digest), self.object_key(me, command.round, digest)
        if not await asyncio.to_thread(holds, source, digest) and not await self._regained(command.round, state):
            return e.OwnObjectLost(self.clock.now(), command.round)
        await self.buckets[me].put(key, source, progress=self.transfer("storing the own object"))
        size = await self.buckets[me].head(key)
        if size != state.work.size:
            raise Conflict(f"{key} in the own bucket has {size} bytes, expected {state.work.size}")
        return e.ObjectPublished(self.clock.now(), command.round, self.clock.now() - started)

    async def _regained(self, round_number: int, state: State) -> bool:
        """The own object, which the cache has lost, lies there again: from the bucket where it was published already.

        That of round 0 is made anew, from the model that `aggregator` compares with what is known of it.
        """
        me, digest, size = state.rules.me, state.work.object, state.work.size
        assert digest is not None
        assert size is not None
        if round_number == 0:
            data = self.first_round_object((await self.aggregator(state)).schema())
            write_atomic(self.folder.agreement, data)
            return True
        path = self.folder.object(digest)
        path.unlink(missing_ok=True)
        try:
            await self.buckets[me].get(self.object_key(me, round_number, digest), path, size=size, sha256=digest)
        except (NotFound, Integrity):
            return False
        return True

    async def sign(self, command: c.Sign, state: State) -> e.Event:
        rules, last = state.rules, command.round == state.rules.rounds + 1
        assert state.base is not None
        content = SignalContent(
            run=rules.run,
            round=command.round,
            base=state.base,
            object=None if last else state.work.object,
            size=None if last else state.work.size,
            sections=dict(rules.sections) if command.round == 0 else None,
        )
        return e.SignalBuilt(self.clock.now(), command.round, self.head.build_signal(content))

    async def store_signal(self, command: c.StoreSignal, state: State) -> e.Event:
        assert state.work.signal is not None
        self.folder.create()
        path = self.folder.signal(command.round)
        write_atomic(path, bytes.fromhex(state.work.signal.cbor))
        me = state.rules.me
        await self.buckets[me].put(self.key(me, f"{command.round:06d}/signal.cbor"), path)
        return e.SignalKept(self.clock.now(), command.round)

    # The peers' part, the aggregate, the end ----------------------------------------------------------------------

    async def fetch(self, command: c.Fetch, state: State) -> e.Event:
        return await fetch_object(self, await self.aggregator(state), command, state)

    async def aggregate(self, command: c.Aggregate, state: State) -> e.Event:
        aggregator, number = await self.aggregator(state), command.round
        await ensure_base(self, aggregator, state)
        objects = await objects_of(self, aggregator, state, read=not self._objects_read)
        if isinstance(objects, e.ObjectFaulty):
            return objects
        self._objects_read = True
        started = self.clock.now()
        done = await aggregate(self, aggregator, number, objects)
        now = self.clock.now()
        return e.AggregateDone(now, number, done.digest, done.outliers, now - started, done.momentum)

    async def store_transcript(self, command: c.StoreTranscript, state: State) -> e.Event:
        accepted = {s.tx for signals in state.transcript.rounds for s in signals.values()}
        self.folder.create()
        # Piece by piece: the transcript of a long run is larger than what the daemon needs otherwise.
        write_pieces(self.folder.transcript, (bytes.fromhex(cbor) for tx, cbor in self.confirmed() if tx in accepted))
        me = state.rules.me
        await self.buckets[me].put(self.key(me, "transcript.cborseq"), self.folder.transcript)
        return e.TranscriptKept(self.clock.now())

    async def store_evidence(self, command: c.StoreEvidence, state: State) -> e.Event:
        path = await asyncio.to_thread(evidence.write, self.evidence_folder, state, command.fault, self.confirmed)
        return e.EvidenceKept(self.clock.now(), command.fault, str(path))


_PERFORM: dict[type, Callable[[Effects, Any, State], Awaitable[e.Event | None]]] = {
    c.InitHead: Effects.init_head,
    c.DraftDeposit: Effects.draft_deposit,
    c.SubmitDeposit: Effects.submit_deposit,
    c.Prepare: Effects.prepare,
    c.CheckOwnBucket: Effects.check_own_bucket,
    c.Train: Effects.train,
    c.Publish: Effects.publish,
    c.Sign: Effects.sign,
    c.StoreSignal: Effects.store_signal,
    c.Send: Effects.send,
    c.Fetch: Effects.fetch,
    c.Aggregate: Effects.aggregate,
    c.StoreTranscript: Effects.store_transcript,
    c.StoreEvidence: Effects.store_evidence,
    c.CloseHead: Effects.close_head,
    c.Fanout: Effects.fanout,
}
