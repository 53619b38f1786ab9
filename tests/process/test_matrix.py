"""The full kill matrix: every journal write and every effect of an undisturbed run, before and after, in every round
and at every party. The points are read off that run's journals; each one is tried, none is skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from crash import around, kill_along, kill_node, kill_trainer, stop_trainer
from federation import Federation, undisturbed

from fednode.node.protocol import facts as f
from fednode.node.protocol.evolve import evolve
from fednode.node.protocol.facts import Fact
from fednode.node.protocol.pending import CloseHead, Fanout, InitHead, pending
from fednode.node.protocol.state import State, initial
from fednode.node.site import open_site

pytestmark = [pytest.mark.process, pytest.mark.long, pytest.mark.timeout(3600)]

Make = Callable[..., Federation]
Points = dict[str, list[str]]
PASSES = 12
"""Federation runs that may be needed: facts that are journalled together hide each other's points."""
ONLY_FIRST = (InitHead, CloseHead, Fanout)
"""Commands that the other parties give only where the first one is missing."""
OFTEN = (f.SnapshotNoted, f.ReplayDone, f.HeadChanged, f.DepositChanged)
"""Facts without a round, or with a number that differs from run to run: the order of the points says which is meant."""


def things(whole: Federation, party: str, goal: str) -> list[str]:
    """Names of all facts and commands of a goal in the party's journal, in the order in which they came; once for
    each round."""
    site = open_site(whole.home(party), peers=whole.root / "peers.toml", epochs=None)
    state, found = initial(site.rules), list[tuple[str, object]]()
    facts = whole.facts(party)
    for index, fact in enumerate(facts):
        state = evolve(state, fact)
        if _goal(facts, index, state) == goal:
            found.append((_name(fact), _when(fact, state)))
            found += [(name, None) for name in _commands(state)]
    return [name for name, _ in dict.fromkeys(found)]


def _goal(facts: list[Fact], index: int, state: State) -> str | None:
    """The goal that a fact serves; what binds a home is journalled just before its start."""
    if isinstance(facts[index], f.HomeBound | f.RunBound):
        return next((fact.goal for fact in facts[index:] if isinstance(fact, f.Begun)), None)
    return state.goal


def _name(thing: object) -> str:
    number = None if isinstance(thing, OFTEN) else getattr(thing, "round", None)
    return type(thing).__name__ + ("" if number is None else f":{number}")


def _when(fact: Fact, state: State) -> object:
    match fact:
        case f.SnapshotNoted() | f.ReplayDone():
            return state.round
        case f.HeadChanged():
            return fact.status
        case f.DepositChanged():
            return fact.stage
        case _:
            return None


def _commands(state: State) -> Iterable[str]:
    return [_name(c) for c in pending(state) if state.rules.index == 0 or not isinstance(c, ONLY_FIRST)]


def points(whole: Federation, goal: str) -> Points:
    return {name: around(*things(whole, name, goal)) for name in whole.names}


def try_all(make: Callable[[int], Federation], what: str, ahead: Points, check: Callable[[Federation], None]) -> str:
    """Kill at every point, in as many federations as it takes; returns the count in words."""
    tried, survived, number = sum(map(len, ahead.values())), 0, 0
    while any(ahead.values()) and number < PASSES:
        number += 1
        whole = make(number)
        try:
            kills = kill_along(whole, what, ahead, timeout=1800)
            check(whole)
        finally:
            whole.end()
        survived += len(kills.survived)
        ahead = {party: [point for name, point in kills.missed if name == party] for party in ahead}
    assert not any(ahead.values()), f"{what}: never reached in {PASSES} federations: {ahead}"
    assert survived == tried
    return f"{what}: {tried} points tried, {survived} survived, in {number} federations"


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    def tell(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}")  # noqa: T201  the count is the result of these tests

    return tell


def test_run(opened: Path, tmp_path: Path, told: Callable[[str], None]) -> None:
    digest = undisturbed(opened, tmp_path / "undisturbed")

    def make(number: int) -> Federation:
        whole = Federation.copy(opened, tmp_path / f"pass{number}")
        whole.serve()
        return whole

    ahead = points(Federation.copy(tmp_path / "undisturbed", tmp_path / "look"), "run")
    told(try_all(make, "run", ahead, lambda whole: whole.check_complete(digest)))


def test_init_head(opened: Path, tmp_path: Path, told: Callable[[str], None]) -> None:
    def make(number: int) -> Federation:
        whole = Federation.prepare(tmp_path / f"pass{number}", rounds=3)
        whole.serve()
        return whole

    def check(whole: Federation) -> None:
        for name in whole.names:
            deposits = [d for d in whole.state(name).head.deposits.values() if d.stage == "final"]
            assert sorted((d.party, d.lovelace) for d in deposits) == [(n, 30_000_000) for n in whole.names]

    told(try_all(make, "init_head", points(Federation.copy(opened, tmp_path / "look"), "open"), check))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_close_head(opened: Path, tmp_path: Path, told: Callable[[str], None], number: int) -> None:
    def make(run: int) -> Federation:
        whole = Federation.copy(opened, tmp_path / f"pass{run}")
        whole.serve()
        ways = {name: whole.party(name, "run", crash_at=f"after-journal:Aggregated:{number}") for name in whole.names}
        for way in ways.values():
            assert whole.over(way).status == -9
        return whole

    def check(whole: Federation) -> None:
        for name in whole.names:
            answer = whole.command(name, "close_head")
            assert answer.status == 0, answer
            assert answer.json["verified"]
            assert sum(answer.json["paid"].values()) == 3 * 30_000_000

    plain = make(0)
    try:
        assert plain.command("alice", "close_head").status == 0
        ahead = {"alice": points(plain, "close")["alice"]}
    finally:
        plain.end()
    told(f"in round {number}: " + try_all(make, "close_head", ahead, check))


def test_trainer_node_and_power_in_every_round(federation: Make, tmp_path: Path, told: Callable[[str], None]) -> None:
    whole = federation(steps=4000)
    whole.open()
    whole.end()
    digest = undisturbed(whole.root, tmp_path / "undisturbed")
    whole.serve()
    for number, victim in enumerate(whole.names, start=1):
        daemons = {name: whole.party(name, "run") for name in whole.names if name != victim}
        killed = whole.party(victim, "run", crash_at=f"before:Train:{number}")
        # Whoever is the next victim is held up, so that nobody can be in the next round before the power cut.
        late = whole.names[number % len(whole.names)]
        stop_trainer(whole, daemons[late], late, number)
        assert whole.over(killed).status == -9
        daemons[victim] = whole.party(victim, "run")
        kill_trainer(whole, daemons[victim], victim, number)
        kill_node(whole, daemons)
        whole.kill_all()
        whole.serve()
    whole.finish()
    whole.check_complete(digest)
    told("3 trainer children in mid-step, 3 embedded heads, 3 power cuts: all survived")


LM = {
    "alice": [
        "after:Prepare",
        "after-journal:Trained:1",
        "before:Sign:2",
        "before:CloseHead",
        "before-journal:PaidOut",
    ],
    "bob": ["before:Publish:1", "after-journal:SignalSigned:1", "before:Fetch:2", "after:StoreTranscript"],
    "carol": ["before-journal:Trained:1", "after-journal:SnapshotNoted", "before:Aggregate:1", "after:Aggregate:2"],
}


@pytest.mark.torch
def test_lm_killed_once_in_each_phase(tmp_path: Path, told: Callable[[str], None]) -> None:
    whole = Federation.prepare(tmp_path / "f", task="lm", rounds=2, steps=12, takeover_s=120.0)
    try:
        whole.open()
    finally:
        whole.end()
    digest = undisturbed(whole.root, tmp_path / "undisturbed", timeout=600)
    chained, trainer = Federation.copy(whole.root, tmp_path / "chain"), Federation.copy(whole.root, tmp_path / "t")
    try:
        chained.serve()
        kills = kill_along(chained, "run", LM, timeout=1500)
        assert not kills.missed
        chained.check_complete(digest)
        trainer.serve()
        daemons = {name: trainer.party(name, "run") for name in trainer.names}
        kill_trainer(trainer, daemons["bob"], "bob", 1)
        trainer.succeed(list(daemons.values()), timeout=600)
        trainer.check_complete(digest)
    finally:
        chained.end()
        trainer.end()
    told(f"lm: {len(kills.survived) + 1} points tried, {len(kills.survived) + 1} survived")
