"""What the own bucket says of an own signal that the journal does not know: the home may be an older backup."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from fednode.errors import Conflict, NotFound, Unavailable
from fednode.node.ports import Bucket, Clock, Head
from fednode.node.protocol import events as e
from fednode.node.protocol.state import State
from fednode.types import PartyName, SignedTx, TxKind

SIGNAL_LIMIT: Final = 16_384
"""No transaction of a head is larger (hydra-node's maxTxSize is 10,250 here)."""


class Site(Protocol):
    """What looking needs of the node."""

    @property
    def clock(self) -> Clock: ...
    @property
    def head(self) -> Head: ...
    @property
    def buckets(self) -> Mapping[PartyName, Bucket]: ...

    def key(self, party: PartyName, name: str) -> str: ...


async def find_own_signal(site: Site, round_number: int, state: State) -> e.Event:
    """The own signal of a round as it lies in the own bucket, or that there is none.

    Conflict where something else lies in its place; Unavailable where the bucket lacks what must be in it.
    """
    me, key = state.rules.me, site.key(state.rules.me, f"{round_number:06d}/signal.cbor")
    try:
        data = await site.buckets[me].read(key, limit=SIGNAL_LIMIT)
    except NotFound:
        await _require_bucket(site, round_number, state)
        return e.OwnSignalAbsent(site.clock.now(), round_number)
    tx = site.head.read_transaction(data)
    content = tx.content
    own = tx.kind is TxKind.SIGNAL and tx.sender == me and content is not None
    if not own or content is None or (content.run, content.round) != (state.rules.run, round_number):
        raise Conflict(
            f"{key} in the own bucket is not the own signal of round {round_number} of this run",
            hint="somebody else wrote into this bucket; give every home its own bucket and prefix",
        )
    return e.OwnSignalFound(site.clock.now(), round_number, SignedTx(tx.id, tx.cbor), content)


async def _require_bucket(site: Site, round_number: int, state: State) -> None:
    """Unavailable unless the newest own signal before this round is there: an unmounted bucket looks empty too."""
    me = state.rules.me
    known = [k for k in range(round_number) if me in state.transcript.signals(k)]
    if not known:
        return
    try:
        await site.buckets[me].head(site.key(me, f"{known[-1]:06d}/signal.cbor"))
    except NotFound as missing:
        raise Unavailable(
            f"the own bucket lacks what the journal knows to be in it: {missing.message}",
            hint="is the disk mounted, and does [storage] bucket in fednode.toml name this home's bucket?",
        ) from missing
