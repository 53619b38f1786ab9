"""Did the fanout pay what the last confirmed snapshot says?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fednode.hydra.utxo import Coin, Utxo, same_money
from fednode.hydra.view import View
from fednode.reports import HeadFinalized
from fednode.types import Lovelace, Member, PartyName


def payout(now: float, members: Sequence[Member], paid: Utxo, view: View) -> HeadFinalized:
    """Compare the multisets of (address, value); references do not count, a fanout creates new ones."""
    verified = not view.stale and same_money(paid.values(), view.utxo.values())
    return HeadFinalized(now, _sums(members, paid.values()), _sums(members, view.utxo.values()), verified)


def _sums(members: Sequence[Member], coins: Iterable[Coin]) -> tuple[tuple[PartyName, Lovelace], ...]:
    totals = {member.address: 0 for member in members}
    for coin in coins:
        if coin.address in totals:
            totals[coin.address] += coin.lovelace
    return tuple(sorted((member.name, Lovelace(totals[member.address])) for member in members))
