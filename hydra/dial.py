"""One websocket connection to a node, as every part of this package makes it."""

from __future__ import annotations

import ssl
from typing import Final

from websockets.asyncio.client import connect

MAX_MESSAGE: Final = 64 << 20
"""Bytes. Refusals carry whole ledger states."""


def dial(base: str, tls: ssl.SSLContext | None, *, history: bool, limit: int = MAX_MESSAGE) -> connect:
    """`base`: ws(s)://host:port. Await it, or use it with `async with`; messages come without the snapshots' UTxO."""
    url = f"{base}/?history={'yes' if history else 'no'}&snapshot-utxo=no"
    # No pings of the library: the node answers none before it has sent its whole history. No proxies from the
    # environment: the node is the party's own.
    return connect(url, ssl=tls, max_size=limit, ping_interval=None, close_timeout=0.5, compression=None, proxy=None)
