"""Planted bugs: shipped rules broken one at a time, each to be found by the simulation.

Where two rules cover for each other, the layer of defence beside the broken one is switched off too; `layers` says so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import fednode.hydra.delivery as delivery
import fednode.hydra.view as view
import fednode.node.app as app
import fednode.node.daemon as daemon
import fednode.node.effects as effects
import fednode.node.fetching as fetching
import fednode.node.protocol.decide as decide
import fednode.node.protocol.evolve as evolve
import fednode.node.protocol.findings as findings
import fednode.node.protocol.pending as pending
import fednode.node.protocol.state as states
import fednode.node.protocol.transcript as transcripts
import fednode.node.reconcile as reconcile
import fednode.node.runfolder as runfolder
from fednode.node.protocol import facts as f
from fednode.node.protocol import pending as c
from fednode.types import TxKind

from . import buckets
from .plan import Limits
from .world import simulate

Set = Callable[[Any, str, Any], None]


@dataclass(frozen=True)
class Bug:
    name: str
    what: str
    plant: Callable[[Set], None]
    limits: Limits
    """What makes it show soon."""
    layers: str = ""


@contextmanager
def planted(bug: Bug) -> Iterator[None]:
    """The bug is in the program as long as the block lasts."""
    before: list[tuple[Any, str, Any]] = []

    def put(owner: Any, name: str, value: Any) -> None:
        """Replace the attribute, and every name by which another module has imported the same function."""
        old = getattr(owner, name)
        places = [(owner, name)]
        for key, module in list(sys.modules.items()):
            if module is not None and ("fednode" in key or "simulation" in key) and module is not sys.modules[__name__]:
                places += [(module, n) for n, v in vars(module).items() if v is old and callable(old)]
        for place, attribute in dict.fromkeys(places):
            before.append((place, attribute, getattr(place, attribute)))
            setattr(place, attribute, value)

    try:
        bug.plant(put)
        yield
    finally:
        for owner, name, value in reversed(before):
            setattr(owner, name, value)


# The transcript ------------------------------------------------------------------------------------------------------


def _last_signal_wins(put: Set) -> None:
    own_run = transcripts._own_run

    def last(transcript: Any, tx: Any, sender: Any, content: Any) -> Any:
        after, finding = own_run(transcript, tx, sender, content)
        if finding is None or finding.kind != "equivocation":
            return after, finding
        signal = transcripts.Signal(tx.id, content.base, content.object, content.size)
        if content.round == transcript.open_round:
            return replace(transcript, open={**transcript.open, sender: signal}), None
        done = list(transcript.done)
        done[content.round] = {**done[content.round], sender: signal}
        return replace(transcript, done=tuple(done)), None

    put(transcripts, "_own_run", last)


def _early_signal_accepted(put: Set) -> None:
    own_run = transcripts._own_run

    def lenient(transcript: Any, tx: Any, sender: Any, content: Any) -> Any:
        after, finding = own_run(transcript, tx, sender, content)
        return (after, None) if finding is not None and finding.kind == "early" else (after, finding)

    put(transcripts, "_own_run", lenient)


def _repeat_is_fault(put: Set) -> None:
    own_run = transcripts._own_run

    def strict(transcript: Any, tx: Any, sender: Any, content: Any) -> Any:
        after, finding = own_run(transcript, tx, sender, content)
        if finding is not None and finding.kind == "repeat":
            finding = replace(finding, kind="equivocation")
        return after, finding

    put(transcripts, "_own_run", strict)


def _any_run_counts(put: Set) -> None:
    fold = transcripts.fold

    def blind(transcript: Any, run: Any, tx: Any) -> Any:
        if tx.kind is TxKind.SIGNAL and tx.content is not None:
            tx = replace(tx, content=replace(tx.content, run=run))
        return fold(transcript, run, tx)

    put(transcripts, "fold", blind)


def _majority_completes(put: Set) -> None:
    """A round is taken for complete with one signal missing, wherever the core asks."""
    complete = transcripts.Transcript.complete

    def most(self: Any, number: int) -> bool:
        return complete(self, number) or len(self.signals(number)) >= max(2, len(self.parties) - 1)

    put(transcripts.Transcript, "complete", most)


# Deciding ------------------------------------------------------------------------------------------------------------


def _judged_too_early(put: Set) -> None:
    put(findings, "judged_late", lambda state, at: [])


def _base_not_compared(put: Set) -> None:
    conclusion = decide._conclusion

    def trusting(state: Any, at: float) -> Any:
        found = conclusion(state, at)
        if isinstance(found, f.DivergenceFound):
            return f.RoundAgreed(at, state.round) if state.round in (0, state.rules.rounds + 1) else None
        return found

    put(decide, "_conclusion", trusting)


def _deadline_counts_absence(put: Set) -> None:
    def since(state: Any) -> float:
        ready = state.work.ready_at or state.work.final_at
        return max(ready, state.work.complete_at) if ready else 0.0

    put(decide, "waiting_since", since)


def _deposit_counted_twice(put: Set) -> None:
    changed = evolve._deposit_changed

    def again(state: Any, fact: Any) -> Any:
        after = changed(state, fact)
        known = state.head.deposits.get(fact.deposit)
        if known is None or fact.stage != "final":
            return after
        deposits = {**after.head.deposits, f"{fact.deposit}-{known.at}": after.head.deposits[fact.deposit]}
        return replace(after, head=replace(after.head, deposits=deposits))

    put(evolve, "_STEPS", {**evolve._STEPS, f.DepositChanged: again})


def _forgets_the_signal(put: Set) -> None:
    """A start forgets that a signal was signed; the own bucket, which would tell, is not looked at."""
    begun = evolve._begun

    def forgetful(state: Any, fact: Any) -> Any:
        after = begun(state, fact)
        return replace(after, own_bucket_checked=True, work=replace(after.work, signal=None, stored=False))

    put(evolve, "_STEPS", {**evolve._STEPS, f.Begun: forgetful})


def _own_bucket_ignored(put: Set) -> None:
    begun = evolve._begun
    steps = {**evolve._STEPS, f.Begun: lambda state, fact: replace(begun(state, fact), own_bucket_checked=True)}
    put(evolve, "_STEPS", steps)


def _clock_may_go_back(put: Set) -> None:
    put(evolve, "_past_head", lambda head, now: head)
    put(evolve, "_past_work", lambda work, now: work)


# What is to be done --------------------------------------------------------------------------------------------------


def _signal_before_object(put: Set) -> None:
    own_signal = pending._own_signal

    def hasty(state: Any) -> Any:
        if state.work.object is None or state.work.published:
            return own_signal(state)
        done = own_signal(replace(state, work=replace(state.work, published=True)))
        return (*done, c.Publish(state.round)) if any(isinstance(x, c.Send) for x in done) else done

    put(pending, "_own_signal", hasty)


def _sent_before_stored(put: Set) -> None:
    own_signal = pending._own_signal

    def hasty(state: Any) -> Any:
        now = own_signal(state)
        return (*now, c.Send(state.round)) if any(isinstance(x, c.StoreSignal) for x in now) else now

    put(pending, "_own_signal", hasty)


def _aggregate_at_majority(put: Set) -> None:
    """Most objects are there: the others are taken to be as before (objects that lack are not asked for)."""
    aggregate = pending._aggregate

    def hasty(state: Any) -> Any:
        most = len(state.rules.parties) // 2
        ready = state.transcript.complete(state.round) and len(state.work.fetched) >= most
        return (c.Aggregate(state.round),) if ready and states.own_object_known(state) else aggregate(state)

    async def present(site: Any, aggregator: Any, state: Any, **_: Any) -> Any:
        signals = state.transcript.signals(state.round)
        paths = {p: site.folder.object(signals[p].object) for p in state.rules.parties}
        own = paths[state.rules.me]
        return {p: path if path.exists() else own for p, path in paths.items()}

    put(pending, "_aggregate", hasty)
    put(effects, "objects_of", present)


def _closes_alone(put: Set) -> None:
    """The run is taken for complete with the own last signal."""
    conclusion = decide._conclusion

    def hasty(state: Any, at: float) -> Any:
        last = state.rules.rounds + 1
        if state.round == last and state.rules.me in state.transcript.signals(last):
            return f.RoundAgreed(at, last)
        return conclusion(state, at)

    put(decide, "_conclusion", hasty)


# Effects -------------------------------------------------------------------------------------------------------------


def _digest_unchecked(put: Set) -> None:
    """Whatever has the right size is taken for the object; what lies in the cache is not hashed again."""

    async def get(self: Any, key: str, target: Any, *, size: int, sha256: Any, progress: Any = None) -> None:
        await self._arrive(key)
        data = self._store.view(key, self._process.party.me)
        if data is None or len(data) != size:
            raise buckets.NotFound(key)
        if self._process.world.chance("bucket-wrong-bytes"):
            data = data[:-1] + bytes([data[-1] ^ 1])
        target.write_bytes(data)

    put(buckets.SimBucket, "get", get)


def _cache_not_read(put: Set) -> None:
    """What lies in the cache at a start is taken for what was fetched."""
    objects_of = effects.objects_of

    async def trusting(site: Any, aggregator: Any, state: Any, **_: Any) -> Any:
        return await objects_of(site, aggregator, state)

    put(effects, "objects_of", trusting)


def _momentum_unchecked(put: Set) -> None:
    aggregated = evolve._STEPS[f.Aggregated]
    steps = {**evolve._STEPS, f.Aggregated: lambda state, fact: aggregated(state, replace(fact, momentum=None))}
    put(evolve, "_STEPS", steps)


def _one_wrong_answer_is_fault(put: Set) -> None:
    put(fetching, "FETCHES", 1)


def _bundle_dropped(put: Set) -> None:
    put(runfolder.RunFolder, "bundle", lambda self, number: self.bundles / f"lost-{number:06d}.safetensors")


def _whole_transcript_stored(put: Set) -> None:
    """Everything confirmed goes into the transcript, not the signals that count."""

    async def store(self: Any, command: Any, state: Any) -> Any:
        data = b"".join(bytes.fromhex(cbor) for _, cbor in self.confirmed())
        effects.write_atomic(self.folder.transcript, data)
        await self.buckets[state.rules.me].put(self.key(state.rules.me, "transcript.cborseq"), self.folder.transcript)
        return effects.e.TranscriptKept(self.clock.now())

    put(effects, "_PERFORM", {**effects._PERFORM, c.StoreTranscript: store})


def _journal_after_effect(put: Set) -> None:
    """What was decided reaches the journal only with what is decided next."""
    late: dict[int, list[Any]] = {}

    def record(self: Any, events: Any) -> None:
        state, steps = self.state, []
        for event in events:
            for fact in daemon.decide(state, event):
                state = daemon.evolve(state, fact)
                steps.append((state, fact))
        if not steps:
            return
        before, late[id(self)] = late.get(id(self), []), [daemon.to_record(fact) for _, fact in steps]
        if before:
            self._journal.append(before)
        self.state = state
        for after, fact in steps:
            self._watcher.fact(after, fact)

    put(daemon.Daemon, "_record", record)


def _never_sent_again(put: Set) -> None:
    put(delivery.Delivery, "next", lambda self, now, seen: delivery.Action.NOTHING)


def _never_tried_again(put: Set) -> None:
    put(reconcile, "FIRST_DELAY_S", 1e9)
    put(reconcile, "LONGEST_DELAY_S", 1e9)


def _wall_clock(put: Set) -> None:
    put(app.SystemClock, "now", lambda self: app.time.time())


def _early_deposit_lost(put: Set) -> None:
    finalise = view.View.finalise

    def late(self: Any, deposited: Any) -> None:
        finalise(self, deposited)
        self._early.clear()

    put(view.View, "finalise", late)


QUIET = frozenset({"files"})


def _lie(lie: str) -> Limits:
    return Limits(lie=lie, without=QUIET)


def _with(*faults: str, lie: str | None = None) -> Limits:
    return Limits(faults=frozenset(faults), lie=lie, without=QUIET | (frozenset() if lie else {"lie"}))


BUGS = (
    Bug("last-signal-wins", "the last of two signals counts", _last_signal_wins, _lie("equivocate")),
    Bug("early-signal-accepted", "a signal before its round is no fault", _early_signal_accepted, _lie("early")),
    Bug("repeat-is-fault", "an equal second signal is a fault", _repeat_is_fault, _lie("repeat")),
    Bug("any-run-counts", "signals of any run count", _any_run_counts, _lie("foreign")),
    Bug("majority-completes", "a round is complete without one signal", _majority_completes, Limits(without=QUIET)),
    Bug(
        "judged-too-early",
        "what is confirmed while init-head still runs is never judged",
        _judged_too_early,
        _with("half-open", lie="equivocate"),
    ),
    Bug("base-not-compared", "other base digests are no divergence", _base_not_compared, _lie("wrong-base")),
    Bug(
        "deadline-counts-absence",
        "the own absence counts",
        _deadline_counts_absence,
        replace(_with("absence", "kill"), close=True),
    ),
    Bug(
        "deposit-counted-twice", "a deposit counts once for each report", _deposit_counted_twice, Limits(without=QUIET)
    ),
    Bug(
        "signal-built-twice",
        "a start forgets the signed signal",
        _forgets_the_signal,
        _with("kill", "node-crash", "message-lost"),
        layers="the own bucket is not looked at",
    ),
    Bug("own-bucket-ignored", "an old backup signs anew", _own_bucket_ignored, _with("restore", "kill")),
    Bug("clock-set-back", "times from the future stay", _clock_may_go_back, _with("clock-jump", "kill")),
    Bug("clock-set-while-running", "waits follow the wall clock", _wall_clock, _with("clock-jump")),
    Bug("signal-before-object", "the object is published last", _signal_before_object, Limits(without=QUIET)),
    Bug("sent-before-stored", "a signal is sent before it is stored", _sent_before_stored, Limits(without=QUIET)),
    Bug(
        "aggregate-at-majority",
        "most objects are enough",
        _aggregate_at_majority,
        _with("bucket-outage", "slow-training"),
        layers="a missing object is not fetched before the aggregate",
    ),
    Bug("closes-alone", "the own last signal ends the run", _closes_alone, Limits(without=QUIET)),
    Bug(
        "digest-unchecked",
        "a fetched object is not hashed",
        _digest_unchecked,
        _with("bucket-wrong-bytes", lie="two-faced"),
    ),
    Bug("cache-not-read", "what rots in the cache is aggregated", _cache_not_read, _with("rot", "kill", "crash-point")),
    Bug("momentum-unchecked", "what rots in the momentum", _momentum_unchecked, _with("rot", "kill", "crash-point")),
    Bug("one-wrong-answer-is-fault", "one wrong answer", _one_wrong_answer_is_fault, _with("bucket-wrong-bytes")),
    Bug("bundle-dropped", "residual and optimiser start anew", _bundle_dropped, Limits(without=QUIET)),
    Bug("whole-transcript-stored", "all transactions are stored", _whole_transcript_stored, _lie("repeat")),
    Bug("journal-after-effect", "facts are journalled late", _journal_after_effect, Limits(without=QUIET)),
    Bug("never-sent-again", "a lost signal is not sent again", _never_sent_again, _with("message-lost", "node-crash")),
    Bug("never-tried-again", "a failed command stays failed", _never_tried_again, _with("bucket-unavailable")),
    Bug("early-deposit-lost", "a deposit final too early", _early_deposit_lost, _with("slow-node")),
)

BOUND = 200
"""Seeds; the limits of a bug only say which lie and which faults these have for sure."""


def seeds_needed(bug: Bug, bound: int = BOUND) -> tuple[int, str] | None:
    """How many seeds until the bug shows, and how; None where it does not."""
    with planted(bug):
        for count, seed in enumerate(range(700_000, 700_000 + bound), start=1):
            outcome = simulate(seed, bug.limits)
            if outcome.problem is not None:
                return count, outcome.problem
    return None
