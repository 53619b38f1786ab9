"""One party's home with everything that is known before anything is started: settings, agreement, journal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fednode.errors import ConfigError, HeadError, RunMismatch
from fednode.node import checkpoint, views
from fednode.node.agreement import Agreement, CheckAddress, load_agreement
from fednode.node.config import Settings, load_settings
from fednode.node.home import Home
from fednode.node.journal import JournalReader, NothingWritten, open_reader
from fednode.node.protocol.evolve import evolve
from fednode.node.protocol.facts import Fact, RunBound, SnapshotNoted
from fednode.node.protocol.outcome import unfunded
from fednode.node.protocol.records import from_record
from fednode.node.protocol.state import Rules, State, initial
from fednode.node.runfolder import RunFolder
from fednode.types import Lovelace, TxId


@dataclass(frozen=True, slots=True)
class Site:
    """One party's home with everything that is known before anything is started."""

    home: Home
    settings: Settings
    agreement: Agreement
    """With run.rounds of this home's run."""
    rules: Rules

    @property
    def folder(self) -> RunFolder:
        return self.home.run(self.rules.run)


def open_site(home: Home, *, peers: Path | None, epochs: int | None, check_address: CheckAddress | None = None) -> Site:
    """Read and check everything. `epochs` replaces run.rounds; without it the run that the journal is bound to counts.

    Raises ConfigError; RunMismatch where the agreement, the run or --epochs is not the one this home is bound to.
    """
    settings = load_settings(home.settings)
    agreement = load_agreement(peers or home.agreement, check_address=check_address)
    bound = _bound_rounds(home)
    rounds = epochs or (bound.rounds if bound else None)
    if rounds is not None:
        agreement = agreement.with_rounds(rounds)
    site = Site(home, settings, agreement, _rules(settings, agreement))
    if bound is not None and bound.run != site.rules.run:
        raise _other_run(site, f"{bound.run} of {bound.rounds} rounds")
    return site


def _other_run(site: Site, bound: str) -> RunMismatch:
    return RunMismatch(
        f"{site.home.root} is bound to run {bound}; "
        f"this agreement with {site.agreement.run.rounds} rounds is run {site.rules.run}",
        hint="use the same peers.toml and --epochs as before; another run needs another home and another head",
    )


def _rules(settings: Settings, agreement: Agreement) -> Rules:
    names = tuple(m.name for m in agreement.members)
    if settings.name not in names:
        raise ConfigError(
            f"fednode.toml: party.name is {settings.name!r}, but the agreement's parties are {', '.join(names)}",
            hint="add the own card: fednode peers card -o me.toml, fednode peers add me.toml",
        )
    return Rules(
        me=settings.name,
        parties=names,
        rounds=agreement.run.rounds,
        run=agreement.run_id,
        binding=agreement.binding_hash,
        sections=agreement.sections,
        deposit=Lovelace(agreement.head.deposit),
        deadline_s=agreement.run.deadline_s,
        on_deadline=agreement.run.on_deadline,
        on_fault=agreement.run.on_fault,
        settle_s=agreement.head.settle_s,
        takeover_s=agreement.head.takeover_s,
    )


def read_facts(home: Home) -> Iterator[Fact]:
    """Every fact in the journal; none where nothing was written yet."""
    reader = _reader(home)
    if reader is not None:
        with reader:
            for _, kind, body in reader.read():
                yield from_record(kind, body)


def _reader(home: Home) -> JournalReader | None:
    """The journal; None where nothing was written yet."""
    if not home.journal.exists():
        return None
    try:
        return open_reader(home.journal)
    except NothingWritten:
        return None


def confirmed(home: Home) -> Iterator[tuple[TxId, str]]:
    """(id, hex of the bytes) of every confirmed transaction in the journal, in confirmed order."""
    for fact in read_facts(home):
        if isinstance(fact, SnapshotNoted):
            for tx in fact.transactions:
                yield tx.id, tx.cbor


def _bound_rounds(home: Home) -> RunBound | None:
    return next((fact for fact in read_facts(home) if isinstance(fact, RunBound)), None)


def replay(site: Site) -> State:
    """The state that the journal holds. Raises RunMismatch where it belongs to another agreement or run."""
    state = initial(site.rules)
    for fact in read_facts(site.home):
        state = evolve(state, fact)
    return _belonging(site, state)


def _belonging(site: Site, state: State) -> State:
    if state.binding not in (None, site.rules.binding):
        raise RunMismatch(
            f"{site.home.root} is bound to another agreement than {site.agreement.path}",
            hint="`fednode peers hash` at every party shows which tables differ; a new agreement needs a new home",
        )
    if state.run not in (None, site.rules.run):  # bound by another process, since `open_site` looked
        raise _other_run(site, str(state.run))
    return state


def read_history(site: Site) -> views.History:
    """What `status` and `rounds` show."""
    view = views.History(initial(site.rules), site.agreement.training.phase)
    reader = _reader(site.home)
    if reader is not None:
        with reader:
            view = checkpoint.read_on(site.home.history, reader, view)
    _belonging(site, view.state)
    return view


def require_head(site: Site) -> State:
    """The journal's state; HeadError unless init-head has bound this home to a head."""
    state = replay(site)
    if state.head.id is None:
        raise HeadError("this home has no open head yet", hint="run `fednode init-head --peers peers.toml` first")
    return state


def require_deposit(site: Site) -> None:
    """HeadError unless init-head has bound this home to a head and brought the own deposit in."""
    state = require_head(site)
    if state.paid is None and site.rules.me in unfunded(state):
        raise HeadError(
            f"the own deposit of {site.rules.deposit / 1e6:.6g} ADA is not in head {state.head.id}",
            hint="run `fednode init-head --peers peers.toml` again: it goes on where it stopped",
        )


def is_finalized(site: Site) -> bool:
    """The journal knows the payout."""
    return replay(site).paid is not None
