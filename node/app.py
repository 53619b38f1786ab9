"""The composition root: the only place that builds adapters and puts the ports of one goal together."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fednode.durable import make_folders
from fednode.errors import ConfigError
from fednode.node import buckets
from fednode.node import site as sites
from fednode.node.agreement import Agreement
from fednode.node.daemon import Daemon
from fednode.node.effects import Effects
from fednode.node.home import Home
from fednode.node.journal import SqliteJournal
from fednode.node.logs import logged
from fednode.node.ports import Aggregator, Bucket, Head, Trainer
from fednode.node.protocol.events import Begin, Goal
from fednode.node.protocol.state import State
from fednode.node.setup import check_address
from fednode.node.site import Site, confirmed, replay
from fednode.node.watch import Style, Talk
from fednode.types import LOVELACE_PER_ADA, Digest, HeadId, Lovelace, ModelFacts, PartyName, TrainerSetup

if TYPE_CHECKING:
    from fednode.hydra.devnet.settings import DevnetSettings
    from fednode.hydra.settings import HeadSettings

_LOG = logging.getLogger("fednode.buckets")
PROGRESS = "FEDNODE_PROGRESS"
"""Environment variable: `json` makes the daemon's talk JSON lines (the demo listens to them)."""


def open_site(home: Home, *, peers: Path | None, epochs: int | None) -> Site:
    """`site.open_site`, with addresses checked against their keys."""
    return sites.open_site(home, peers=peers, epochs=epochs, check_address=check_address)


class SystemClock:
    """Unix time of this machine at the start, and the seconds since: setting the clock moves no deadline."""

    def __init__(self) -> None:
        self._zero = time.time() - _elapsed()

    def now(self) -> float:
        return self._zero + _elapsed()


def _elapsed() -> float:
    """Seconds on a clock that nobody sets and that goes on while the machine sleeps (where the system has one)."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


# Doing ---------------------------------------------------------------------------------------------------------------


def talk(*, quiet: bool) -> Talk:
    """The talk on standard error, in the style that the environment asks for."""
    style: Style = "none" if quiet else "json" if os.environ.get(PROGRESS) == "json" else "plain"
    return Talk(style)


async def work(site: Site, goal: Goal, voice: Talk, *, reason: str = "") -> State:
    """Run one party's daemon until the goal is reached. The caller holds the home's lock."""
    with logged(voice, site.settings.log_level):
        return await _work(site, goal, voice, reason)


async def _work(site: Site, goal: Goal, voice: Talk, reason: str) -> State:
    state = replay(site)
    voice.state = state
    if goal == "run" and state.run is None:
        # Only before the first run: later a missing folder is a lost or unmounted bucket, and must not look empty.
        buckets.make_local(site)
    opened = buckets.open_buckets(site)
    for each in buckets.expiring(site):
        ends = time.strftime("%Y-%m-%d %H:%M", time.localtime(each.not_after))
        _LOG.warning("the credentials for the bucket of %s end on %s: put new ones at %s", each.party, ends, each.file)
    async with contextlib.AsyncExitStack() as closing:  # each of them, whatever another one's closing raises
        for bucket in opened.values():
            closing.push_async_callback(bucket.aclose)
        journal = closing.enter_context(contextlib.closing(SqliteJournal(site.home.journal)))
        clock = SystemClock()
        head = _head(site, state, read_only=goal == "close")
        closing.push_async_callback(head.aclose)
        trainer = _trainer(site)
        closing.push_async_callback(trainer.aclose)
        effects = _effects(site, opened, head, clock, trainer, voice)
        daemon = Daemon(state, journal=journal, head=head, perform=effects.perform, clock=clock, watcher=voice)
        run = site.rules.run if goal == "run" else None
        rounds = site.rules.rounds if goal == "run" else None
        return await daemon.run(Begin(clock.now(), goal, site.rules.binding, run, rounds, reason))


def _effects(
    site: Site, opened: Mapping[PartyName, Bucket], head: Head, clock: SystemClock, trainer: Trainer, voice: Talk
) -> Effects:
    return Effects(
        head=head,
        clock=clock,
        folder=site.folder,
        evidence_folder=site.home.evidence,
        phase=site.agreement.training.phase,
        prefixes={party: buckets.run_prefix(site, party) for party in site.rules.parties},
        buckets=opened,
        trainer=trainer,
        make_aggregator=lambda facts: _aggregator(site.agreement, facts),
        first_round_object=site.agreement.object_json,
        sha256=_sha256,
        confirmed=lambda: confirmed(site.home),
        progress=voice.step,
        transfer=voice.transfer,
    )


def _sha256(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())


def _head(site: Site, state: State, *, read_only: bool) -> Head:
    from fednode.hydra.head import HydraHead

    return HydraHead(head_settings(site, state.head.id, read_only=read_only))


def head_settings(site: Site, bound: HeadId | None, *, read_only: bool) -> HeadSettings:
    """What the Cardano adapter must know. ConfigError or KeyFileError where url, keys or addresses do not fit."""
    from fednode.hydra.keys import load_signing_key
    from fednode.hydra.settings import HeadSettings

    agreement, settings = site.agreement, site.settings
    return HeadSettings(
        url=settings.head_url,
        me=site.rules.me,
        members=agreement.members,
        magic=agreement.head.magic,
        version=agreement.head.hydra_node,
        funds_key=load_signing_key(settings.funds_key(site.home.root)),
        funding=settings.funding,
        deposit=Lovelace(agreement.head.deposit),
        contestation_period_s=agreement.head.contestation_period_s,
        deposit_period_s=agreement.head.deposit_period_s,
        bound_head=bound,
        allow_plain=settings.allow_plain,
        ca_file=settings.ca_file(site.home.root),
        read_only=read_only,
    )


def _trainer(site: Site) -> Trainer:
    from fednode.training.client import TrainerProcess

    return TrainerProcess(trainer_setup(site), log=site.home.root / "trainer.log")


def trainer_setup(site: Site) -> TrainerSetup:
    """What a trainer child of this party is told."""
    agreement, settings = site.agreement, site.settings
    return TrainerSetup(
        task=agreement.training.task,
        model=agreement.model_table(site.home.root),
        training=agreement.training_table(),
        codec=agreement.aggregation.codec,
        seed=agreement.run.seed,
        party=site.rules.me,
        party_index=site.rules.index,
        run=site.rules.run,
        data=settings.data_table(site.home.root),
        device=settings.device,
        threads=settings.threads or max(1, len(os.sched_getaffinity(0))),
    )


def _aggregator(agreement: Agreement, facts: ModelFacts) -> Aggregator:
    from fednode.training.exact.aggregator import AggregatorSettings, ExactAggregator

    return ExactAggregator(
        AggregatorSettings(
            facts=facts,
            rank=agreement.model.rank,
            alpha=agreement.model.alpha,
            quantisation=agreement.model.quantisation,
            codec=agreement.aggregation.codec,
            seed=agreement.run.seed,
            phase_policy=agreement.training.phase,
            rule=agreement.aggregation.rule,
            clip=agreement.aggregation.clip,
            outer=agreement.aggregation.outer,
            outer_lr=agreement.aggregation.outer_lr,
            outer_momentum=agreement.aggregation.outer_momentum,
            members=tuple((m.name, m.weight) for m in agreement.members),
        )
    )


def export(site: Site, folder: Path, round_number: int | None, *, merge: bool) -> tuple[Digest, int]:
    """Write S_r as a PEFT folder or a merged model; returns its digest and r. ConfigError where it is not here."""
    from fednode.training.trainers.export import export as write

    state = replay(site)
    if not state.digests:
        raise ConfigError(f"no adapter of run {site.rules.run} is in this home yet", hint="`fednode run` makes them")
    number = len(state.digests) - 1 if round_number is None else round_number
    path = site.folder.state(number)
    if not 0 <= number < len(state.digests) or not path.exists():
        have = ", ".join(str(int(p.stem)) for p in sorted(path.parent.glob("*.safetensors"))) or "none"
        raise ConfigError(f"S_{number} of run {site.rules.run} is not in this home", hint=f"adapters here: {have}")
    write(path, folder, trainer_setup(site), merge)
    return state.digests[number], number


# The embedded head ---------------------------------------------------------------------------------------------------


def devnet_settings(folder: Path, parties: int, *, contestation_period_s: int, fund_ada: int) -> DevnetSettings:
    """Settings of an embedded head in `folder`, made if there are none."""
    from fednode.hydra.devnet.settings import create
    from fednode.node.names import party_names

    try:
        make_folders(folder)
    except (FileExistsError, NotADirectoryError):
        raise ConfigError(f"--dir {folder}: expected a folder, found a file in its place") from None
    names = party_names(parties)
    fund = fund_ada * LOVELACE_PER_ADA
    return create(folder.absolute(), names, contestation_period_s=contestation_period_s, fund=fund)


async def serve_devnet(settings: DevnetSettings, ready: Callable[[], None], voice: Talk) -> None:
    """Serve until cancelled."""
    from fednode.hydra.devnet import serve

    with logged(voice, "warning"):
        await serve(settings, ready=ready)
