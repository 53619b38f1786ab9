"""The faults that come at some time: whole processes, nodes, connections, clocks, backups."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from fednode.node.protocol.state import State
from fednode.types import PartyName

from .party import Backup, Party, copy_prefix

if TYPE_CHECKING:
    from .world import World

DOWN_S = 20.0
"""A node is away at most so long at a time: shorter than the contestation period."""
CRASHES = 12
"""At most so many crashes of each party: every run ends some time."""
ACTS = 30
"""Faults of this kind in one world."""


ROTS = ("state", "momentum", "objects")
AT_STARTS = ("restore", "absence", "rot", "lost-folder")
"""Faults that come while the process is down."""


class Chaos:
    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = Random(f"{world.plan.seed}/chaos")
        self.restarts = True
        self.closing = False
        self.acts = 0

    # Starts -----------------------------------------------------------------------------------------------------------

    def start(self, party: Party) -> None:
        """Start the party's command, unless it runs."""
        if party.process is None and not party.finished and self.restarts:
            if self.closing and party.goal != "close":
                party.goal, party.reason = "close", "the operator waits no longer"
            if party.goal == "close" and party.fold().head.id is None:
                self.world.finish(party)  # the command says that there is no head
            else:
                party.start()

    def _now(self, kind: str, chance: float) -> bool:
        """Whether a fault comes with this start."""
        plan = self.world.plan
        wanted = self.rng.random() < (0.7 if kind in plan.forced else chance)
        return wanted and kind in plan.chaos and not self.world.safe

    def again(self, party: Party) -> None:
        """The process died: somebody starts the command again some time later, perhaps on a restored home."""
        rng = self.rng
        delay = rng.choice((0.1, 1.0, 10.0)) * rng.random()
        if self._now("absence", 0.1):
            self.world.count("absence")
            delay = rng.choice((300.0, 1500.0)) * (rng.random() if "absence" not in self.world.plan.forced else 1.0)
        restore = bool(party.backups) and self._now("restore", 0.5)

        def act() -> None:
            if party.process is None and not party.finished:
                if restore:
                    self._restore(party)
                self._damage(party)
            self.start(party)

        self.world.later(delay, act)

    # Backups ----------------------------------------------------------------------------------------------------------

    def fact(self, party: Party) -> None:
        """Something became durable: perhaps the home is backed up now."""
        if "restore" not in self.world.plan.chaos or self.world.safe or len(party.backups) >= 12:
            return
        if self.rng.random() < 0.05 and _may_be_restored(party.state):
            # Taken after the fact was journalled, and before anything acts on it.
            files = dict(party.disk.files) if party.folder is None else None
            party.backups.append(Backup(len(party.records), files))

    def _restore(self, party: Party) -> None:
        """An older journal, with the files of its time, those of now, or only what cannot be made again."""
        if not party.backups:
            return
        backup = self.rng.choice(party.backups)
        self.world.count("restore")
        self.world.note(party.me, f"restored: {backup.records} of {len(party.records)} records")
        party.backups = [b for b in party.backups if b.records <= backup.records]
        copy_prefix(party, backup.records)
        party.shown = -1
        self.world.oracle.losses.add(party.me)
        if backup.files is not None and self.rng.random() < 0.5:
            party.disk.files = dict(backup.files)

    def _damage(self, party: Party) -> None:
        """Files that can be made again are gone, or one of them has a flipped bit."""
        world, files = self.world, party.disk.files
        lost, rot = self._now("lost-folder", 0.15), self._now("rot", 0.3)
        if party.folder is not None or not (lost or rot):
            return
        if lost:
            world.count("lost-folder")
            world.note(party.me, "the run's folder is lost")
            world.oracle.losses.add(party.me)
            files.clear()
        elif names := [name for name in files if any(f"/{kind}/" in name for kind in ROTS)]:
            name = self.rng.choice(names)
            world.count("rot")
            world.note(party.me, f"rot in {name}")
            at = self.rng.randrange(len(files[name]))
            files[name] = files[name][:at] + bytes([files[name][at] ^ 1]) + files[name][at + 1 :]

    # From time to time ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        if self.world.plan.chaos:
            self._wait()

    def _wait(self) -> None:
        self.world.later(self.rng.expovariate(1 / self.world.plan.every_s), self._act)

    def _act(self) -> None:
        world, rng = self.world, self.rng
        if world.safe or self.acts >= ACTS:
            return
        self.acts += 1
        kind = rng.choice(world.plan.chaos)
        party = rng.choice(world.parties)
        if kind not in AT_STARTS:  # these come with a start
            world.note(party.me, f"CHAOS {kind}")
            getattr(self, "_" + kind.replace("-", "_"))(party)
        self._wait()

    def _kill(self, party: Party) -> None:
        if party.process is not None and party.crashes < CRASHES:
            party.crashes += 1
            self.world.count("kill")
            party.process.kill()

    def _power_cut(self, _: Party) -> None:
        self.world.count("power-cut")
        for party in self.world.parties:
            self._kill(party)
            self._node_crash(party)

    def _stop(self, party: Party) -> None:
        """Ctrl-C: the process ends in its own way."""
        if party.process is not None and party.process.task is not None and party.crashes < CRASHES:
            party.crashes += 1
            self.world.count("stop")
            party.process.task.cancel()

    def _node_crash(self, party: Party) -> None:
        if party.node.up:
            self.world.count("node-crash")
            party.node.crash(forget=self.rng.random() < 0.7)
            self.world.later(self.rng.random() * DOWN_S, party.node.start)

    def _drop_connection(self, party: Party) -> None:
        for socket in party.node.sockets[:]:
            self.world.count("drop-connection")
            socket.drop()

    def _half_open(self, party: Party) -> None:
        for socket in party.node.sockets[:]:
            self.world.count("half-open")
            socket.stick()

    def _clock_jump(self, party: Party) -> None:
        self.world.count("clock-jump")
        party.offset = self.rng.choice((0.0, 86400.0, -86400.0, 30.0, -30.0, 3600.0))

    def _bucket_outage(self, party: Party) -> None:
        self.world.count("bucket-outage")
        self.world.outages[party.me] = self.world.loop.now + self.rng.random() * 120

    def _slow_network(self, _: Party) -> None:
        self.world.count("slow-network")
        self.world.network.slow = self.rng.choice((1.0, 1.0, 10.0, 100.0))

    # The end of it ----------------------------------------------------------------------------------------------------

    def end(self) -> None:
        self.world.network.slow = 1.0
        self.world.outages.clear()

    def close_all(self) -> None:
        """Operators wait no longer: every honest party that still runs closes the head instead."""
        self.closing = True
        for party in self.world.parties:
            if party.process is not None and party.process.task is not None and party.me != self.liar:
                party.process.task.cancel()

    @property
    def liar(self) -> PartyName | None:
        return self.world.adversary.name


def _may_be_restored(state: State | None) -> bool:
    """With an older journal than this the command would be another one (init-head)."""
    return state is not None and state.head.id is not None and state.head.funded(state.rules.me) > 0
