"""Any order of steps, crashes and restored backups: no second signal, no false accusation, the same digests, an end."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fednode import reports as r
from fednode.node.protocol import events as e

from .simulation import Site, World, check_all, foreign, new_world, repeat, settle

which = st.integers(0, 2)


class Run(RuleBasedStateMachine):
    """Three nodes, two or three rounds."""

    world: World
    sites: list[Site]

    @initialize(rounds=st.integers(1, 3), parties=st.integers(2, 3))
    def begin(self, rounds: int, parties: int) -> None:
        self.world, self.sites = new_world(rounds, parties)

    def site(self, index: int) -> Site:
        return self.sites[index % len(self.sites)]

    @rule(index=which, count=st.integers(1, 6))
    def deliver(self, index: int, count: int) -> None:
        for _ in range(count):
            self.site(index).deliver()

    @rule(index=which, pick=st.integers(0, 5))
    def perform(self, index: int, pick: int) -> None:
        """Start a wanted command; it may be one that is under way already."""
        site = self.site(index)
        wanted = [] if site.done() else site.wanted()
        if wanted:
            site.perform(wanted[pick % len(wanted)])

    @rule(index=which, steps=st.integers(1, 12))
    def go_on(self, index: int, steps: int) -> None:
        """A stretch of orderly life, so that deep rounds are reached."""
        site = self.site(index)
        for _ in range(steps):
            while site.deliver():
                pass
            for command in [] if site.done() else site.wanted():
                site.perform(command)

    @rule(indices=st.permutations(range(3)), split=st.integers(1, 3))
    def confirm(self, indices: list[int], split: int) -> None:
        """Snapshots of what was sent, in any order of the senders."""
        waiting = [x.tx for x in self.world.waiting.values()]
        waiting.sort(key=lambda tx: indices[[s.me for s in self.sites].index(tx.sender or self.sites[0].me)])
        for start in range(0, len(waiting), split):
            self.world.confirm(waiting[start : start + split], self.sites[0].node.now)

    @rule(index=which, pick=st.integers(0, 200))
    def stale(self, index: int, pick: int) -> None:
        """Something that this process was told before comes once more."""
        site = self.site(index)
        if site.seen:
            event = site.seen[pick % len(site.seen)]
            site.node.take(event)

    @rule(index=which)
    def replay_from_start(self, index: int) -> None:
        """The node's whole history again, as after a reconnect."""
        site = self.site(index)
        if not any(isinstance(x, r.SnapshotsSynced) for x in site.inbox):
            site.node.take(r.HeadUnreachable(site.node.now, "gone"))
            site.inbox = [x for x in site.inbox if not isinstance(x, r.SnapshotConfirmed)]
            site.inbox += [r.HeadConnected(site.node.now, self.world.status, None, True, "2.3.0"), *self.world.log]
            site.read = len(self.world.log)

    @rule(index=which, after_effect=st.booleans())
    def crash(self, index: int, after_effect: bool) -> None:
        """Killed: events not yet journalled are lost, whether their effects happened or not."""
        site = self.site(index)
        if after_effect and not site.done():
            for command in site.wanted():
                site.perform(command)
        site.start()

    @rule(index=which, back=st.integers(1, 40))
    def restore_backup(self, index: int, back: int) -> None:
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
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
