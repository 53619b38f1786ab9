"""Any order of steps, crashes and restored backups: no second signal, no false accusation, the same digests, an end."""

from __future__ import annotations

import os
import random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fednode import reports as r
from fednode.node.protocol import events as e

from .simulation import Site, World, check_all, foreign, new_world, repeat, settle

which = st.integers(0, 2)
before = st.integers(0, 60)
"""Steps of ordinary life, in any order, before a rule disturbs it: so that every point of a run is disturbed."""
seeds = st.integers(0, 2**32)


class Run(RuleBasedStateMachine):
    """Two or three nodes, up to three rounds."""

    world: World
    sites: list[Site]

    @initialize(rounds=st.integers(1, 3), parties=st.integers(2, 3))
    def begin(self, rounds: int, parties: int) -> None:
        self.world, self.sites = new_world(rounds, parties)

    def site(self, index: int) -> Site:
        return self.sites[index % len(self.sites)]

    @rule(steps=st.integers(0, 120), seed=seeds)
    def live(self, steps: int, seed: int) -> None:
        """Reports arrive, commands are performed (also twice), snapshots are made: in any order and at any pace."""
        order = random.Random(seed)
        for _ in range(steps):
            site, choice = order.choice(self.sites), order.random()
            if choice < 0.5:
                site.deliver()
            elif choice < 0.9:
                wanted = [] if site.done() else site.wanted()
                if wanted:
                    site.perform(order.choice(wanted))
            else:
                waiting = [x.tx for x in self.world.waiting.values()]
                self.world.confirm(order.sample(waiting, order.randint(0, len(waiting))), site.node.now)

    @rule(index=which, pick=st.integers(0, 200), steps=before, seed=seeds)
    def stale(self, index: int, pick: int, steps: int, seed: int) -> None:
        """Something that this process was told before comes once more."""
        self.live(steps, seed)
        site = self.site(index)
        if site.seen:
            event = site.seen[pick % len(site.seen)]
            site.node.take(event)

    @rule(index=which, steps=before, seed=seeds)
    def replay_from_start(self, index: int, steps: int, seed: int) -> None:
        """The node's whole history again, as after a reconnect."""
        self.live(steps, seed)
        site = self.site(index)
        if not any(isinstance(x, r.SnapshotsSynced) for x in site.inbox):
            site.node.take(r.HeadUnreachable(site.node.now, "gone"))
            site.inbox = [x for x in site.inbox if not isinstance(x, r.SnapshotConfirmed)]
            site.inbox += [r.HeadConnected(site.node.now, self.world.status, None, True, "2.3.0"), *self.world.log]
            site.read = len(self.world.log)

    @rule(index=which, after_effect=st.booleans(), steps=before, seed=seeds)
    def crash(self, index: int, after_effect: bool, steps: int, seed: int) -> None:
        """Killed: events not yet journalled are lost, whether their effects happened or not."""
        self.live(steps, seed)
        site = self.site(index)
        if after_effect and not site.done():
            for command in site.wanted():
                site.perform(command)
        site.start()

    @rule(index=which, back=st.integers(1, 40), steps=before, seed=seeds)
    def restore_backup(self, index: int, back: int, steps: int, seed: int) -> None:
        self.live(steps, seed)
        site = self.site(index)
        site.start(keep=max(0, len(site.node.journal) - back))

    @rule(index=which, number=st.integers(0, 3))
    def foreign_signal(self, index: int, number: int) -> None:
        self.world.confirm([foreign(self.world, self.site(index).me, number)], 0.0)

    @rule(index=which, number=st.integers(0, 3))
    def repeated_signal(self, index: int, number: int) -> None:
        if (tx := repeat(self.world, self.site(index).me, number)) is not None:
            self.world.confirm([tx], 0.0)

    @rule(index=which, seconds=st.sampled_from([1.0, 30.0, 200.0]))
    def time_passes(self, index: int, seconds: float) -> None:
        site = self.site(index)
        site.node.now += seconds
        site.node.take(e.Tick(site.node.now))

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "sites"):
            check_all(self.world, self.sites)

    def teardown(self) -> None:
        if not hasattr(self, "sites"):
            return
        settle(self.world, self.sites)
        assert {len(site.node.state.digests) for site in self.sites} == {self.world.rounds + 1}
        for site in self.sites:
            assert site.node.state.certified
            assert site.node.state.paid is not None
            site.start()
            assert site.node.pending() == ()
            assert site.done()


TestRun = Run.TestCase
TestRun.settings = settings(
    max_examples=int(os.environ.get("FEDNODE_EXAMPLES", "40")),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
