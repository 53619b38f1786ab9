"""Hostile transactions: what mallory's key signs, against running daemons (protocol.md section 4)."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cbor2
import pytest

from fednode.errors import Conflict
from fednode.hydra.addresses import address_bytes
from fednode.hydra.devnet import ledger
from fednode.hydra.head import HydraHead
from fednode.hydra.metadata import LABEL
from fednode.node.protocol.facts import RepeatSeen, SignalAdopted
from fednode.reports import TransactionRefused
from fednode.types import Digest, RunId, SignedTx

from . import federation as f
from . import verdicts
from .conftest import Record
from .mallory import ADA, Mallory, sign, stranger

pytestmark = pytest.mark.asyncio(loop_scope="session")
GOOD = b"the object of a good signal is not looked at before its rules are"
Build = Callable[[Mallory], SignedTx]


def fields(mallory: Mallory, **changes: Any) -> bytes:
    """Auxiliary data of a round-1 signal with changed fields; None removes one."""
    content = mallory.content(GOOD)
    assert content.object is not None
    found: dict[str, Any] = {
        "v": 1,
        "run": bytes.fromhex(content.run),
        "round": 1,
        "object": bytes.fromhex(content.object),
        "size": content.size,
        "base": bytes.fromhex(content.base),
    }
    found |= changes
    return cbor2.dumps({LABEL: {name: value for name, value in found.items() if value is not None}})


def peers(mallory: Mallory) -> list[tuple[bytes, int]]:
    return [(address_bytes(m.address), ADA) for m in mallory.members if m.name != mallory.me]


def labelled(**options: Any) -> Build:
    return lambda m: m.transaction(m.content(GOOD), **options)


def metadata(**changes: Any) -> Build:
    return lambda m: m.transaction(auxiliary=fields(m, **changes), pay=peers(m))


def auxiliary(build: Callable[[bytes], bytes]) -> Build:
    return lambda m: m.transaction(auxiliary=build(fields(m)), pay=peers(m))


def pays(change: Callable[[list[tuple[bytes, int]]], list[tuple[bytes, int]]]) -> Build:
    return lambda m: m.transaction(m.content(GOOD), pay=change(peers(m)))


BROKEN: dict[str, Build] = {
    "a fee": labelled(fee=200_000),
    "a wrong amount": pays(lambda p: [(p[0][0], ADA + 1), p[1]]),
    "the wrong order of recipients": pays(lambda p: p[::-1]),
    "one recipient twice": pays(lambda p: [p[0], p[0]]),
    "nobody paid": pays(lambda p: []),
    "change to a stranger": labelled(change_to=stranger()[1]),
    "a validity bound": labelled(extra={3: 10**9}),
    "a required signer": lambda m: m.transaction(
        m.content(GOOD), extra={14: [hashlib.blake2b(bytes.fromhex(m.key.vkey), digest_size=28).digest()]}
    ),
    "an object in the last round": lambda m: m.transaction(auxiliary=fields(m, round=f.ROUNDS + 1), pay=peers(m)),
    "a round beyond the last": metadata(round=99),
    "no object in round 1": lambda m: m.transaction(auxiliary=fields(m, object=None, size=None), pay=[]),
    "round as text": metadata(round="1"),
    "a negative round": metadata(round=-1),
    "round of 2^63": metadata(round=1 << 63),
    "round as a float": metadata(round=b"\x00"),
    "version 2": metadata(v=2),
    "a run of 15 bytes": metadata(run=b"\1" * 15),
    "a base of 33 bytes": metadata(base=b"\1" * 33),
    "an object as text": metadata(object="ab" * 32),
    "a size of 0": metadata(size=0),
    "a size of 2^60": metadata(size=1 << 60),
    "no size": metadata(size=None),
    "an unknown key": metadata(zz=1),
    "sections after round 0": metadata(sections={"run": bytes(8)}),
    "a label's value that is a list": auxiliary(lambda _: cbor2.dumps({LABEL: [1, 2]})),
    "a second label": auxiliary(lambda a: cbor2.dumps(cbor2.loads(a) | {1730: 1})),
    "a key twice": auxiliary(lambda a: b"\xa1\x19\x06\xc1\xa7" + a[5:] + cbor2.dumps("v") + cbor2.dumps(1)),
    "auxiliary data in the tagged form": auxiliary(lambda a: b"\xd9\x01\x03\xa1\x00" + a),
    "auxiliary data in the list form": auxiliary(lambda a: b"\x82" + a + b"\x80"),
    "escape sequences in a key": metadata(**{"\x1b[2J\nnot a line of fednode": 1}),
}
"""Labelled transactions that the ledger takes and that break a rule of a signal."""


@pytest.mark.parametrize("name", BROKEN)
async def test_a_signal_that_breaks_a_rule(one: f.Federation, record: Record, name: str) -> None:
    async with one.attacked() as (mallory, running):
        await mallory.confirm(BROKEN[name](mallory))
        await verdicts.fault(one, running, record, name, "signal-rules", proves="breaks a rule")
        for daemon in running:
            assert all(line.isprintable() for line in daemon.talk.splitlines())


@pytest.mark.parametrize("label", [True, False])
async def test_a_mint(one: f.Federation, record: Record, label: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded head's ledger knows no mint and refuses it; a ledger that lets it pass shows what daemons do."""
    mint = {9: {bytes(28): {b"gold": 1}}}
    async with one.attacked() as (mallory, running):
        tx = mallory.transaction(mallory.content(GOOD) if label else None, extra=mint)
        await mallory.post(tx)
        await mallory.have(lambda report: isinstance(report, TransactionRefused) and report.id == tx.id)
        lenient = tuple(rule for rule in ledger._RULES if rule not in (ledger._supported, ledger._value_conserved))
        monkeypatch.setattr(ledger, "_RULES", lenient)
        tx = mallory.transaction(mallory.content(GOOD) if label else None, extra=mint)
        await mallory.post(tx)
        kind = "signal-rules" if label else "dangerous-transaction"
        await verdicts.fault(one, running, record, f"a mint {'with' if label else 'without'} the label", kind)


async def test_a_fee_without_the_label(one: f.Federation, record: Record) -> None:
    async with one.attacked() as (mallory, running):
        await mallory.confirm(mallory.transaction(fee=1))
        await verdicts.fault(one, running, record, "a fee without the label", "dangerous-transaction", proves="fee 1")


async def test_a_signal_of_a_round_to_come(one: f.Federation, record: Record) -> None:
    async with one.attacked() as (mallory, running):
        await mallory.confirm(mallory.signal(mallory.content(GOOD, round=2)))
        await verdicts.fault(one, running, record, "a future round", "early", proves="signed round 2")


@pytest.mark.parametrize("number", [0, 1])
async def test_a_stale_or_second_signal_with_other_content(one: f.Federation, record: Record, number: int) -> None:
    async with one.attacked() as (mallory, running):
        if number == 0:
            second = replace(await mallory.content_zero(), base=Digest("12" * 32))
        else:
            data = await mallory.honest_object()
            await mallory.attack(data)
            second = mallory.content(GOOD)
        await mallory.confirm(mallory.signal(second))
        name = f"a second signal of round {number} with other content"
        await verdicts.fault(one, running, record, name, "equivocation", proves="two signals")


async def test_a_second_signal_with_equal_content_is_reported(one: f.Federation, record: Record) -> None:
    async with one.attacked() as (mallory, running):
        data = await mallory.honest_object()
        await mallory.attack(data)
        await mallory.confirm(mallory.signal(mallory.content(data)))
        for daemon in running:
            await daemon.until(lambda d=daemon: any(isinstance(x, RepeatSeen) for x in d.ear.facts))
        await verdicts.goes_on(running, record, "a second signal with equal content", "reported, no fault")


async def test_a_base_digest_that_differs(one: f.Federation, record: Record) -> None:
    async with one.attacked() as (mallory, running):
        await mallory.attack(GOOD, base=Digest("99" * 32))
        await verdicts.diverged(running, record, "a base digest that differs")


async def test_another_schema_in_round_zero(zero: f.Federation, record: Record) -> None:
    async with zero.attacked() as (mallory, running):
        content = replace(await mallory.content_zero(), object=Digest("77" * 32))
        await mallory.confirm(mallory.signal(content))
        await verdicts.diverged(running, record, "another agreement object in round 0")


async def foreign_in_round_zero(mallory: Mallory) -> SignedTx:
    content = await mallory.content_zero()
    sections = dict(content.sections or {}) | {"training": "00" * 8, "\x1b]0;owned\x07": "11" * 8}
    return mallory.signal(replace(content, run=RunId("ab" * 16), sections=sections))


async def foreign_with_other_parties(mallory: Mallory) -> SignedTx:
    """An agreement that lists the parties in another order pays them in another order."""
    content = replace(await mallory.content_zero(), run=RunId("ab" * 16))
    return mallory.transaction(content, pay=peers(mallory)[::-1])


@pytest.mark.parametrize("build", [foreign_in_round_zero, foreign_with_other_parties], ids=lambda x: x.__name__)
async def test_a_foreign_run_is_reported_and_ignored(zero: f.Federation, record: Record, build: Any) -> None:
    async with zero.attacked() as (mallory, running):
        await mallory.confirm(await build(mallory))
        for daemon in running:
            await daemon.said("mallory runs another agreement, abab")
            assert all(line.isprintable() for line in daemon.talk.splitlines())
            assert zero.status(daemon.site.rules.me)["foreign_runs"] == {"mallory": "ab" * 16}
        await mallory.signal_round_zero()
        for daemon in running:
            await daemon.reached(lambda state: state.round >= 1)
            assert daemon.state.faults == ()
        record(build.__name__.replace("_", " "), "reported with sections, ignored, goes on")


async def test_a_foreign_run_with_a_fee_is_still_a_fault(zero: f.Federation, record: Record) -> None:
    async with zero.attacked() as (mallory, running):
        content = replace(await mallory.content_zero(), run=RunId("ab" * 16))
        await mallory.confirm(mallory.transaction(content, fee=5))
        await verdicts.fault(zero, running, record, "a foreign run with a fee", "signal-rules", proves="fee 5")


async def test_an_unknown_sender_is_counted(one: f.Federation, record: Record) -> None:
    """A stranger with money in the head and a perfect signal."""
    key, address = stranger()
    async with one.attacked() as (mallory, running):
        gift = mallory.transaction(pay=[(address_bytes(address), 10 * ADA)])
        await mallory.confirm(gift)
        forged = mallory.transaction(
            mallory.content(GOOD), owned={f"{gift.id}#0": 10 * ADA}, signers=[key], change_to=address
        )
        await mallory.confirm(forged)
        data = await mallory.honest_object()
        await mallory.attack(data)
        await verdicts.goes_on(running, record, "a signal of an unknown sender", "counted, ignored")
        assert {daemon.state.transcript.unlabelled for daemon in running} == {2}


async def test_a_thousand_transactions_without_the_label(one: f.Federation, record: Record) -> None:
    async with one.attacked() as (mallory, running):
        chain, owned = [], mallory.owned
        for _ in range(1000):
            tx = mallory.transaction(owned=owned)
            chain.append(tx)
            owned = {f"{tx.id}#0": sum(owned.values())}
        await mallory.confirm(*chain)
        data = await mallory.honest_object()
        await mallory.attack(data)
        await verdicts.goes_on(running, record, "1,000 spam transactions", "counted, no fault")
        assert {daemon.state.transcript.unlabelled for daemon in running} == {1000}
        assert one.status("alice")["unlabelled_transactions"] == 1000


async def test_a_hundred_broken_signals(one: f.Federation, record: Record) -> None:
    """One fault is enough: evidence does not grow with the number of times that the same rule is broken."""
    async with one.attacked() as (mallory, running):
        chain, owned = [], mallory.owned
        for _ in range(100):
            tx = mallory.transaction(mallory.content(GOOD), pay=[], owned=owned)
            chain.append(tx)
            owned = {f"{tx.id}#0": sum(owned.values())}
        await mallory.confirm(*chain)
        await verdicts.fault(one, running, record, "100 broken signals", "signal-rules")
        for daemon in running:
            assert len(list(daemon.site.home.evidence.glob("*.json"))) == 1


# Framing an honest party --------------------------------------------------------------------------------------------


def more_witnesses(tx: SignedTx, key: Any, *, kind: int = 0) -> SignedTx:
    """The same transaction (same id) with a witness of mallory's beside the sender's."""
    body, witnesses, valid, aux = cbor2.loads(bytes.fromhex(tx.cbor))
    raw = bytes.fromhex(tx.cbor)
    start, end = 1, 1 + len(cbor2.dumps(body))
    del valid, aux
    own = witnesses[0].value if isinstance(witnesses[0], cbor2.CBORTag) else witnesses[0]
    extra = [bytes.fromhex(key.vkey), key.sign(bytes.fromhex(tx.id))]
    before = cbor2.dumps(witnesses)
    after = cbor2.dumps({0: [*own, extra]})
    assert raw[end : end + len(before)] == before
    del kind
    return SignedTx(tx.id, (raw[:start] + raw[start:end] + after + raw[end + len(before) :]).hex())


async def test_a_witness_added_to_an_honest_signal_frames_nobody(
    zero: f.Federation, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signed transaction keeps its id when anybody adds a witness. mallory is faster than alice with alice's own."""
    honest = HydraHead.deliver

    async def late(self: HydraHead, signal: SignedTx, /) -> None:
        round_number = self.read_transaction(bytes.fromhex(signal.cbor)).content
        if self._settings.me == "alice" and round_number is not None and round_number.round == 1:
            await mallory.confirm(more_witnesses(signal, mallory.key))
        await honest(self, signal)

    monkeypatch.setattr(HydraHead, "deliver", late)
    async with zero.attacked() as (mallory, running):
        await mallory.signal_round_zero()
        data = await mallory.honest_object()
        await mallory.attack(data)
        await verdicts.goes_on(running, record, "her witness on alice's signal", "no fault of anybody, goes on")


# Time and backups ---------------------------------------------------------------------------------------------------


async def test_a_payment_between_building_and_sending(
    zero: f.Federation, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """alice's signal is built from the outputs she had; one that she gets meanwhile changes nothing."""
    honest, paid = HydraHead.deliver, []

    async def late(self: HydraHead, signal: SignedTx, /) -> None:
        read = self.read_transaction(bytes.fromhex(signal.cbor)).content
        if self._settings.me == "alice" and read is not None and read.round == 1 and not paid:
            gift = mallory.transaction(pay=[(address_bytes(self._settings.member.address), 2 * ADA)])
            paid.append(gift)
            await mallory.confirm(gift)
        await honest(self, signal)

    monkeypatch.setattr(HydraHead, "deliver", late)
    async with zero.attacked() as (mallory, running):
        await mallory.signal_round_zero()
        for daemon in running:
            await daemon.reached(lambda state: set(state.transcript.signals(1)) == set(f.HONEST))
        data = await mallory.honest_object()
        await mallory.attack(data)
        await verdicts.goes_on(running, record, "a payment between building and sending", "the signal stays good")
        assert len(paid) == 1
        assert {daemon.state.transcript.unlabelled for daemon in running} == {1}


async def play_with_backup(found: f.Federation) -> None:
    """alice's journal is of before round 1; her bucket, and the head, know her signal of round 1."""
    home = found.home("alice")
    backup = found.folder / "backup.sqlite3"
    shutil.copyfile(home.journal, backup)
    async with found.attacked() as (mallory, running):
        await mallory.signal_round_zero()
        for daemon in running:
            await daemon.reached(lambda state: "alice" in state.transcript.signals(1))
    for name in ("journal.sqlite3", "journal.sqlite3-wal", "journal.sqlite3-shm"):
        home.root.joinpath(name).unlink(missing_ok=True)
    shutil.copyfile(backup, home.journal)
    shutil.rmtree(home.root / "runs")


async def test_an_own_signal_that_the_journal_does_not_know_is_adopted(zero: f.Federation, record: Record) -> None:
    await play_with_backup(zero)
    async with zero.attacked() as (mallory, running):
        data = await mallory.honest_object()
        await mallory.attack(data)
        await verdicts.goes_on(running, record, "an older backup: own signal confirmed", "read from the head, goes on")
        signals = [tx for tx in mallory.confirmed_signals() if tx.sender == "alice"]
        assert sorted(tx.content.round for tx in signals if tx.content) == [0, 1]


async def test_an_own_signal_that_was_never_sent_is_adopted(
    zero: f.Federation, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signed bytes lie in the own bucket, the journal is older, and nobody has seen them yet."""
    honest, held = HydraHead.deliver, []

    async def hold(self: HydraHead, signal: SignedTx, /) -> None:
        read = self.read_transaction(bytes.fromhex(signal.cbor)).content
        if self._settings.me == "alice" and read is not None and read.round == 1:
            held.append(signal)
            return
        await honest(self, signal)

    home, backup = zero.home("alice"), zero.folder / "backup.sqlite3"
    shutil.copyfile(home.journal, backup)
    with monkeypatch.context() as patch:
        patch.setattr(HydraHead, "deliver", hold)
        async with zero.attacked() as (mallory, running):
            await mallory.signal_round_zero()
            await running[0].until(lambda: bool(held))
    for name in ("journal.sqlite3", "journal.sqlite3-wal", "journal.sqlite3-shm"):
        home.root.joinpath(name).unlink(missing_ok=True)
    shutil.copyfile(backup, home.journal)
    async with zero.attacked() as (mallory, running):
        data = await mallory.honest_object()
        await mallory.attack(data)
        await verdicts.goes_on(running, record, "an older backup: own signal unsent", "adopted from the own bucket")
        assert [x.signal for x in running[0].ear.facts if isinstance(x, SignalAdopted)] == [held[0]]
        assert held[0].id in mallory.confirmed


async def test_an_adopted_signal_without_its_object_halts(
    zero: f.Federation, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    await play_with_backup(zero)
    for path in (zero.bucket("alice") / zero.site("alice").rules.run / "000001").glob("*.safetensors"):
        path.unlink()
    async with zero.attacked() as (_, running):
        error = await running[0].error()
        assert isinstance(error, Conflict)
        assert "its object is not in the own bucket" in error.message
        assert "must not sign the round a second time" in error.hint
        record("an older backup: own object lost", "halts: nothing is signed a second time")


async def test_bytes_that_are_no_transaction_never_reach_a_snapshot(one: f.Federation, record: Record) -> None:
    """Nonsense is the embedded head's business; the daemons hear nothing of it."""
    async with one.attacked() as (mallory, running):
        good = mallory.transaction()
        await mallory.post(
            SignedTx(good.id, "00"), SignedTx(good.id, good.cbor[:-2]), sign(b"\xa0", None, [mallory.key])
        )
        data = await mallory.honest_object()
        await mallory.attack(data)
        await verdicts.goes_on(running, record, "bytes that are no transaction", "refused by the head, goes on")
