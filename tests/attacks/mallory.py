"""The dishonest party: the real keys of one member, its real node, and no scruples."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import cbor2

from fednode.hydra.addresses import address_bytes, enterprise_address
from fednode.hydra.head import HydraHead
from fednode.hydra.keys import SigningKey, load_signing_key
from fednode.hydra.messages import NewTx
from fednode.hydra.metadata import encode_content
from fednode.hydra.signals import build_signal
from fednode.node import app
from fednode.node.ports import Aggregator
from fednode.node.site import Site, replay
from fednode.reports import HeadReport, SnapshotConfirmed, SnapshotsSynced, TransactionRefused
from fednode.types import (
    Digest,
    HeadStatus,
    PartyName,
    SignalContent,
    SignedTx,
    TrainRequest,
    Transaction,
    TxId,
    TxKind,
    phase_of,
)

PATIENCE_S = 60.0
ADA = 1_000_000


class Mallory:
    def __init__(self, site: Site) -> None:
        self.site = site
        self.me: PartyName = site.rules.me
        state = replay(site)
        self.head = HydraHead(app.head_settings(site, state.head.id, read_only=False))
        self.key = load_signing_key(site.settings.funds_key(site.home.root))
        self.members = site.agreement.members
        self.member = next(m for m in self.members if m.name == self.me)
        self.trainer = app._trainer(site)
        self.found: list[HeadReport] = []
        self._news = asyncio.Condition()

    @classmethod
    @asynccontextmanager
    async def at_work(cls, site: Site) -> AsyncIterator[Mallory]:
        self = cls(site)
        task = asyncio.ensure_future(self._listen())
        try:
            await self.have(lambda report: isinstance(report, SnapshotsSynced))
            yield self
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await self.head.aclose()

    async def _listen(self) -> None:
        async for report in self.head.reports(0):
            async with self._news:
                self.found.append(report)
                self._news.notify_all()

    async def have(self, fits: Callable[[HeadReport], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: any(fits(report) for report in self.found))

    # Transactions ---------------------------------------------------------------------------------------------------

    @property
    def confirmed(self) -> set[TxId]:
        session = self.head._session
        assert session is not None
        return session.confirmed

    @property
    def owned(self) -> dict[str, int]:
        session = self.head._session
        assert session is not None
        return session.view.owned(self.member.address)

    def confirmed_signals(self) -> list[Transaction]:
        """Everybody's signals, in confirmed order."""
        snapshots = [report for report in self.found if isinstance(report, SnapshotConfirmed)]
        return [tx for report in snapshots for tx in report.transactions if tx.kind is TxKind.SIGNAL]

    async def post(self, *signed: SignedTx) -> None:
        """Hand transactions to the own node."""
        client = self.head._client
        assert client is not None
        await client.until(HeadStatus.OPEN)
        for tx in signed:
            await client.send(NewTx(tx.cbor))

    async def confirm(self, *signed: SignedTx) -> None:
        """Post transactions and wait until a snapshot holds the last of them. AssertionError where it is refused."""
        await self.post(*signed)
        wanted = {tx.id for tx in signed}

        def refused() -> list[str]:
            return [r.reason for r in self.found if isinstance(r, TransactionRefused) and r.id in wanted]

        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: wanted <= self.confirmed or bool(refused()))
        assert wanted <= self.confirmed, refused()

    def signal(self, content: SignalContent) -> SignedTx:
        """An orderly signal of any content."""
        return build_signal(content, self.owned, me=self.me, members=self.members, key=self.key)

    def transaction(
        self,
        content: SignalContent | None = None,
        *,
        auxiliary: bytes | None = None,
        pay: Sequence[tuple[bytes, int]] | None = None,
        fee: int = 0,
        extra: Mapping[int, object] | None = None,
        signers: Sequence[SigningKey] = (),
        owned: Mapping[str, int] | None = None,
        change_to: str = "",
        value: Callable[[int], object] = lambda lovelace: lovelace,
    ) -> SignedTx:
        """A transaction that may break any rule; by default it pays like a signal (or nobody, without content)."""
        owned = self.owned if owned is None else owned
        if auxiliary is None and content is not None:
            auxiliary = encode_content(content)
        if pay is None:
            peers = [m for m in self.members if m.name != self.me and content is not None]
            pay = [(address_bytes(m.address), ADA) for m in peers]
        change = sum(owned.values()) - fee - sum(amount for _, amount in pay)
        home = address_bytes(change_to or self.member.address)
        inputs = [[bytes.fromhex(ref[:64]), int(ref[65:])] for ref in sorted(owned)]
        body: dict[int, object] = {
            0: cbor2.CBORTag(258, inputs),
            1: [*([to, value(amount)] for to, amount in pay), [home, change]],
            2: fee,
        }
        if auxiliary is not None:
            body[7] = hashlib.blake2b(auxiliary, digest_size=32).digest()
        return sign(cbor2.dumps(body | dict(extra or {})), auxiliary, signers or (self.key,))

    # The own part of rounds -----------------------------------------------------------------------------------------

    async def aggregator(self) -> Aggregator:
        return app._aggregator(self.site.agreement, await self.trainer.describe())

    async def content_zero(self) -> SignalContent:
        """What she would honestly signal in round 0; the object lies in her bucket."""
        aggregator = await self.aggregator()
        data = self.site.agreement.object_json(aggregator.schema())
        self.site.folder.create()
        base = aggregator.initial(self.site.folder.state(0))
        digest = self.store(0, data, suffix="json")
        return SignalContent(self.site.rules.run, 0, base, digest, len(data), dict(self.site.rules.sections))

    async def signal_round_zero(self) -> None:
        await self.confirm(self.signal(await self.content_zero()))

    async def honest_object(self) -> bytes:
        """Her honest update of round 1."""
        aggregator, folder = await self.aggregator(), self.site.folder
        folder.create()
        base = aggregator.initial(folder.state(0))
        done = await self.trainer.train(
            TrainRequest(
                round=1,
                phase=phase_of(1, self.site.agreement.training.phase),
                base=base,
                state=str(folder.state(0)),
                bundle=None,
                objects=str(folder.objects),
                bundles=str(folder.bundles),
                schema=Digest(hashlib.sha256(aggregator.schema()).hexdigest()),
            )
        )
        return folder.object(done.object).read_bytes()

    @property
    def base(self) -> Digest:
        """S_0's digest: what round 1 starts from."""
        return replay_base(self)

    def content(self, data: bytes, **changes: Any) -> SignalContent:
        """The content of an honest round-1 signal for the object `data`."""
        digest = Digest(hashlib.sha256(data).hexdigest())
        return replace(SignalContent(self.site.rules.run, 1, self.base, digest, len(data)), **changes)

    def path(self, round_number: int, digest: str, suffix: str = "safetensors") -> Path:
        run = self.site.rules.run
        return self.site.home.bucket / run / f"{round_number:06d}" / f"{digest}.{suffix}"

    def store(self, round_number: int, data: bytes, *, suffix: str = "safetensors", digest: str = "") -> Digest:
        """Put bytes into her bucket, under the name of another digest where asked for."""
        name = Digest(digest or hashlib.sha256(data).hexdigest())
        path = self.path(round_number, name, suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return name

    async def attack(self, data: bytes, **changes: Any) -> SignedTx:
        """Store `data` as the object of round 1 and vouch for it with a signal that is final."""
        self.store(1, data)
        signed = self.signal(self.content(data, **changes))
        await self.confirm(signed)
        return signed


def replay_base(mallory: Mallory) -> Digest:
    """The base digest of the confirmed round-0 signals, read like anybody else would."""
    for report in mallory.found:
        if isinstance(report, SnapshotConfirmed):
            for tx in report.transactions:
                if tx.content is not None and tx.content.round == 0:
                    return tx.content.base
    raise AssertionError("no signal of round 0 yet")


def sign(body: bytes, auxiliary: bytes | None, signers: Sequence[SigningKey]) -> SignedTx:
    """[body, witnesses, true, auxiliary data]."""
    digest = hashlib.blake2b(body, digest_size=32).digest()
    witnesses = [[bytes.fromhex(key.vkey), key.sign(digest)] for key in signers]
    tail = b"\xf6" if auxiliary is None else auxiliary
    return SignedTx(TxId(digest.hex()), (b"\x84" + body + cbor2.dumps({0: witnesses}) + b"\xf5" + tail).hex())


def stranger() -> tuple[SigningKey, str]:
    """A key that is nobody's in the agreement, and its address."""
    key = SigningKey(b"a stranger's funds key, 32 bytes")
    return key, enterprise_address(key.vkey, 42)
