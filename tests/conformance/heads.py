"""An embedded head over real sockets, and what its parties are in our own client's terms."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fednode.hydra.addresses import enterprise_address
from fednode.hydra.devnet import DevnetSettings, Faults, serve
from fednode.hydra.keys import SigningKey, load_signing_key, load_verification_key
from fednode.hydra.signals import build_signal
from fednode.types import Digest, Member, PartyName, RunId, SignalContent, SignedTx


@asynccontextmanager
async def serving(settings: DevnetSettings, faults: Faults | None = None) -> AsyncGenerator[None]:
    """Served until the block ends; what `serve` raises is raised."""
    ready = asyncio.Event()
    task = asyncio.create_task(serve(settings, ready=ready.set, faults=faults))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        waiting.cancel()
        task.result()
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def funds_key(settings: DevnetSettings, name: str) -> SigningKey:
    return load_signing_key(settings.folder / name / "keys" / "funds.sk")


def members(settings: DevnetSettings) -> list[Member]:
    """The parties of the head, in its order."""
    found = []
    for party in settings.parties:
        keys = settings.folder / party.name / "keys"
        hydra, fuel, funds = (load_verification_key(keys / f"{kind}.vk") for kind in ("hydra", "fuel", "funds"))
        address = enterprise_address(funds, settings.magic)
        found.append(Member(PartyName(party.name), hydra, funds, fuel, address))
    return found


def signal(settings: DevnetSettings, name: str, owned: dict[str, int], number: int = 1) -> SignedTx:
    """A signal of round `number` by party `name`, over its outputs in the head."""
    content = SignalContent(
        run=RunId("ab" * 16), round=number, base=Digest("cd" * 32), object=Digest("ef" * 32), size=1000
    )
    key = funds_key(settings, name)
    return build_signal(content, owned, me=PartyName(name), members=members(settings), key=key)
