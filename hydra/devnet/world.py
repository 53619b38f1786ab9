"""What every part of the embedded head shares: parties, state in memory and on disk, and the way to the clients."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol, cast

from fednode.errors import FednodeError
from fednode.hydra.addresses import enterprise_address, key_hash, network_id
from fednode.hydra.devnet import layer1, wire
from fednode.hydra.devnet.faults import Faults
from fednode.hydra.devnet.ledger import Rules, apply
from fednode.hydra.devnet.nodes import Nodes
from fednode.hydra.devnet.protocol import Head, Status
from fednode.hydra.devnet.settings import DevnetSettings
from fednode.hydra.devnet.store import Store
from fednode.hydra.devnet.wire import Event
from fednode.hydra.keys import SigningKey, load_signing_key, load_verification_key

_HEAD_FIELDS = (
    "status",
    "head_id",
    "seed",
    "order",
    "version",
    "number",
    "finalized",
    "deposit",
    "burned",
    "last_event",
    "closed_number",
    "deadline",
    "behind",
)


class Scheduler(Protocol):
    """Time, real or virtual."""

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    def wall(self) -> float:
        """Unix seconds."""
        ...

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call once, so many seconds from now."""
        ...


class Outlet(Protocol):
    """Where messages for clients go."""

    def publish(self, event: Event) -> None:
        """An event that is on disk, to every client of its parties."""
        ...

    def tell(self, party: int, text: str) -> None:
        """A client message, to every client of one party."""
        ...

    def disconnect(self, party: int) -> None:
        """Cut off every client of one party."""
        ...


@dataclass(frozen=True, slots=True)
class Party:
    """One simulated hydra-node: its place in the settings, and its keys."""

    index: int
    name: str
    port: int
    hydra: SigningKey
    fuel: SigningKey
    funds_vkey: str

    @property
    def participant(self) -> str:
        """Its on-chain id: the hash of the fuel key."""
        return key_hash(self.fuel.vkey).hex()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"


class World:
    """Parties, chain, head, store. All writes happen inside `unit`; what is emitted there is published after it."""

    def __init__(
        self, settings: DevnetSettings, store: Store, scheduler: Scheduler, outlet: Outlet, faults: Faults
    ) -> None:
        self.settings = settings
        self.store = store
        self.scheduler = scheduler
        self.outlet = outlet
        self.faults = faults
        self.rules = Rules(network_id(settings.magic), utxo_cost_per_byte=4_310)
        self.parties = [_party(settings, index) for index in range(len(settings.parties))]
        self.everyone = (1 << len(self.parties)) - 1
        self.nodes = Nodes(len(self.parties))
        self.synced = 0
        """Bit i: party i has caught up with layer 1."""
        self.cut = 0
        """Bit i: party i was offline when the faults were last looked at."""
        self._sees_at = [0.0] * len(self.parties)
        """When each node has seen what has happened on layer 1 so far."""
        self.rotated: dict[str, int] = cast("dict[str, int]", store.read("rotated") or {})
        """Party name to the event at which its history begins."""
        self.chain = self._restore_chain()
        self.head = self._restore_head()
        self._outbox: list[Callable[[], None]] | None = None

    @contextmanager
    def unit(self) -> Generator[None]:
        """One step: on disk as a whole, then visible. Inside another one it is part of that."""
        if self._outbox is not None:
            yield
            return
        outbox: list[Callable[[], None]] = []
        self._outbox = outbox
        try:
            with self.store.unit():
                yield
        finally:
            self._outbox = None
        for send in outbox:
            send()

    def emit(
        self,
        body: str,
        utxo: str | None = None,
        *,
        parties: int | None = None,
        unwritten: int = 0,
        note: tuple[str, tuple[str, ...]] = ("", ()),
    ) -> int:
        """Store a server output for `parties` (all), and publish it after the unit. Its id.

        The nodes in the mask `unwritten` tell it, and have it in no history.
        """
        mask = self.everyone if parties is None else parties
        time = wire.timestamp(self.scheduler.wall())
        event = Event(self.store.add_event(time, body, utxo, mask & ~unwritten), time, body, utxo, mask, note)
        self._after(lambda: self.outlet.publish(event))
        return event.id

    def emit_heard(
        self,
        body: str,
        utxo: str | None = None,
        *,
        parties: int | None = None,
        unwritten: int = 0,
        note: tuple[str, tuple[str, ...]] = ("", ()),
    ) -> int:
        """An output that follows from peers' messages: whoever is offline gets it on its return."""
        mask = self.everyone if parties is None else parties
        for party in self.parties:
            if mask & self.cut & 1 << party.index:
                self.store.hold_back(party.index, body, utxo)
        return self.emit(body, utxo, parties=mask & ~self.cut, unwritten=unwritten, note=note)

    def emit_seen(self, body: str, utxo: str | None = None, *, note: tuple[str, tuple[str, ...]] = ("", ())) -> None:
        """An output that follows from layer 1: whoever lags there gets it when it sees the block."""
        late = [party.index for party in self.parties if self._lags(party)]
        if len(late) < len(self.parties):
            self.emit(body, utxo, parties=self.everyone & ~sum(1 << party for party in late), note=note)
        for party in late:
            self.when_seen(party, partial(self.emit, body, utxo, parties=1 << party, note=note))

    def when_seen(self, party: int, action: Callable[[], object]) -> None:
        """Run `action` as one step when the node of this party has seen the current block; at once if it has."""
        if not self._lags(self.parties[party]):
            action()
            return
        now = self.scheduler.now()
        self._sees_at[party] = max(self._sees_at[party], now + self.faults.lag_of(self.parties[party].name))

        def seen() -> None:
            with self.unit():
                action()

        self.scheduler.later(self._sees_at[party] - now, seen)

    def _lags(self, party: Party) -> bool:
        """Also where it has just caught up, and older blocks are on their way to it still."""
        return self.faults.lag_of(party.name) > 0 or self._sees_at[party.index] > self.scheduler.now()

    def tell(self, party: int, text: str) -> None:
        """A client message; after the unit where there is one."""
        self._after(lambda: self.outlet.tell(party, text))

    def save_head(self) -> None:
        """Write everything of the head but its UTxO and pending transactions."""
        self.store.write("head", {name: getattr(self.head, name) for name in _HEAD_FIELDS})

    def save_chain(self) -> None:
        """Write everything of layer 1 but its UTxO."""
        self.store.write("chain", self.chain.document())

    def quorum(self) -> bool:
        """Whether the network carries messages: fewer than half of the nodes are cut off."""
        return 2 * self.cut.bit_count() < len(self.parties) or self.cut == 0

    def connected(self, party: int) -> bool:
        """Whether the node of this party reaches a quorum."""
        return self.quorum() and not self.cut >> party & 1

    def by_order(self) -> list[Party]:
        """The parties in protocol order."""
        return [self.parties[index] for index in self.head.order]

    def funds_address(self, party: Party) -> str:
        return enterprise_address(party.funds_vkey, self.settings.magic)

    def _after(self, send: Callable[[], None]) -> None:
        if self._outbox is None:
            send()
        else:
            self._outbox.append(send)

    def _restore_chain(self) -> layer1.Chain:
        document = self.store.read("chain")
        if document is not None:
            return layer1.restore(self.settings, document, self.store.utxo("layer1"))
        funds = {party.name: party.funds_vkey for party in self.parties}
        fuels = {party.name: party.fuel.vkey for party in self.parties}
        chain = layer1.begin(self.settings, funds, fuels, self.scheduler.wall())
        with self.store.unit():
            self.store.change_utxo("layer1", (), chain.utxo)
            self.store.write("chain", chain.document())
        return chain

    def _restore_head(self) -> Head:
        document = cast("dict[str, object] | None", self.store.read("head"))
        if document is None:
            return Head()
        head = Head()
        for name in _HEAD_FIELDS:
            if name in document:
                setattr(head, name, document[name])
        head.status, head.order = Status(head.status), tuple(head.order)
        head.snapshot, head.commit = self.store.utxo("snapshot"), self.store.utxo("commit")
        head.local = head.base()
        for tx in self.store.pending():
            # It was checked when it came; only a damaged file could make it fail now.
            if any(txin not in head.local for txin in tx.inputs):
                raise FednodeError(
                    f"{self.settings.state}: stored transaction {tx.id} spends what the stored head does not hold",
                    hint="the state is damaged; remove the folder to start anew",
                )
            apply(tx, head.local)
            head.pending[tx.id] = tx
        return head


def _party(settings: DevnetSettings, index: int) -> Party:
    entry = settings.parties[index]
    keys = settings.folder / entry.name / "keys"
    return Party(
        index=index,
        name=entry.name,
        port=entry.port,
        hydra=load_signing_key(keys / "hydra.sk"),
        fuel=load_signing_key(keys / "fuel.sk"),
        funds_vkey=load_verification_key(keys / "funds.vk"),
    )
