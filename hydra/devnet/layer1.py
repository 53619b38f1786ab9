"""The simulated layer 1: a clock of blocks and slots, a UTxO with a faucet, deposits, what waits for the next block.

It stands still while the process does not run, and while the process is starved: no deposit expires for want of a CPU.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, cast

import cbor2

from fednode.hydra.addresses import address_bytes, enterprise_address, network_id
from fednode.hydra.devnet.cborview import CborError
from fednode.hydra.devnet.deposits import Deposit, draft, read_deposit
from fednode.hydra.devnet.ledger import Failure, Rules, apply, check
from fednode.hydra.devnet.settings import DevnetSettings, faucet_txid
from fednode.hydra.devnet.txview import Output, parse_output, parse_transaction
from fednode.hydra.keys import SigningKey

FUEL: Final = 1_000_000_000
"""Lovelace in each fuel output of genesis."""
FUEL_OUTPUTS: Final = 3
_MAX_VALIDITY_S: Final = 200


@dataclass
class Posted:
    """A head transaction on its way to the next block: what the nodes will see there."""

    kind: str
    """`Init`, `Deposit`, `Increment`, `Close`, `Fanout` or `Recover`."""
    party: int
    subject: str = ""
    """Deposit id, where there is one."""
    number: int = 0
    """Snapshot number of a close."""


@dataclass
class Chain:
    """State of layer 1. Times in Unix seconds."""

    settings: DevnetSettings
    genesis: float
    now: float
    utxo: dict[str, Output] = field(default_factory=dict[str, Output])
    deposits: dict[str, Deposit] = field(default_factory=dict[str, Deposit])
    posted: list[Posted] = field(default_factory=list[Posted])
    counter: int = 0
    """Of head transactions: makes their ids fresh."""

    @property
    def rules(self) -> Rules:
        return Rules(network_id(self.settings.magic), 16_384, fee_fixed=155_381, fee_per_byte=44, datums=True)

    @property
    def slot(self) -> int:
        return int((self.now - self.genesis) / self.settings.slot_s)

    def slot_time(self, slot: int) -> float:
        """Unix seconds of the start of a slot."""
        return self.genesis + slot * self.settings.slot_s

    def advance(self, elapsed: float) -> None:
        """The next block, `elapsed` seconds of wall time after the last; at most two block times count."""
        self.now += min(max(elapsed, 0.0), 2 * self.settings.block_s)

    def fresh_id(self, purpose: str) -> str:
        """A transaction id that never was."""
        self.counter += 1
        seed = f"fednode devnet {purpose}/{self.genesis}/{self.counter}"
        return hashlib.blake2b(seed.encode(), digest_size=32).hexdigest()

    def draft_deposit(self, head_id: str, commits: Mapping[str, Output], fuel: SigningKey) -> bytes:
        """A draft by the timing of hydra-node up to 2.3.0. DraftRefused where it cannot be made."""
        period = self.settings.deposit_period_s
        slots = int(min(_MAX_VALIDITY_S, 3 * period) / 2)
        return draft(
            head_id=head_id,
            deadline=self.now + 3 * period,
            ttl=self.slot + slots + 1,
            commits=commits,
            layer1=self.utxo,
            fuel=fuel,
            magic=self.settings.magic,
            rules=self.rules,
        )

    def submit(self, raw: bytes) -> tuple[Failure | None, list[str], dict[str, Output]]:
        """A transaction: why not, or None with what it spent and produced. Applied at once, seen next block."""
        try:
            tx = parse_transaction(raw)
        except CborError as error:
            return Failure("DecoderError", f"DecoderErrorDeserialiseFailure: {error}"), [], {}
        if tx.inputs and not any(txin in self.utxo for txin in tx.inputs):
            text = 'ConwayMempoolFailure "All inputs are spent. Transaction has probably already been included"'
            return Failure("ConwayMempoolFailure", text), [], {}
        failure = check(tx, self.utxo, self.slot, self.rules)
        if failure is not None:
            return failure, [], {}
        content = read_deposit(tx, self.utxo, self.rules.network)
        produced = tx.produced()
        apply(tx, self.utxo)
        if content is not None:
            locked = f"{tx.id}#0"
            del self.utxo[locked], produced[locked]
            created = self.slot_time(tx.ttl) if tx.ttl is not None else self.now
            self.counter += 1
            deposit = Deposit(tx.id, content.head_id, content.utxo, created, content.deadline, order=self.counter)
            self.deposits[tx.id] = deposit
            self.posted.append(Posted("Deposit", 0, tx.id))
        return None, list(tx.inputs), produced

    def pay_out(self, txid: str, outputs: Mapping[str, Output]) -> dict[str, Output]:
        """New layer-1 outputs of transaction `txid` with the given contents, in order."""
        produced = {f"{txid}#{index}": output for index, output in enumerate(outputs.values())}
        self.utxo |= produced
        return produced

    def active_deposit(self, head_id: str) -> Deposit | None:
        """The oldest deposit that the head may take now."""
        ready = [each for each in self.deposits.values() if each.status == "Active" and each.head_id == head_id]
        return min(ready, key=lambda each: each.order, default=None)

    def document(self) -> dict[str, object]:
        """Everything but the UTxO, as JSON values."""
        return {
            "genesis": self.genesis,
            "now": self.now,
            "counter": self.counter,
            "posted": [[each.kind, each.party, each.subject, each.number] for each in self.posted],
            "deposits": [
                {
                    "txid": each.txid,
                    "head": each.head_id,
                    "utxo": {txin: output.raw.hex() for txin, output in each.utxo.items()},
                    "times": [each.created, each.deadline],
                    "status": each.status,
                    "order": each.order,
                }
                for each in self.deposits.values()
            ],
        }


def begin(settings: DevnetSettings, funds: Mapping[str, str], fuels: Mapping[str, str], now: float) -> Chain:
    """Genesis: each party's fund in one output, and fuel. `funds` and `fuels`: party name to verification key, hex."""
    chain = Chain(settings, genesis=now, now=now)
    for party in settings.parties:
        fund = enterprise_address(funds[party.name], settings.magic)
        fuel = enterprise_address(fuels[party.name], settings.magic)
        chain.utxo[party.funding] = make_output(fund, party.fund)
        for index in range(1, FUEL_OUTPUTS + 1):
            chain.utxo[f"{faucet_txid(party.name)}#{index}"] = make_output(fuel, FUEL)
    return chain


def restore(settings: DevnetSettings, document: object, utxo: dict[str, Output]) -> Chain:
    """The chain that `document()` described."""
    fields = cast("dict[str, object]", document)
    chain = Chain(settings, cast("float", fields["genesis"]), cast("float", fields["now"]), utxo)
    chain.counter = cast("int", fields["counter"])
    chain.posted = [Posted(*each) for each in cast("list[tuple[str, int, str, int]]", fields["posted"])]
    for each in cast("list[dict[str, object]]", fields["deposits"]):
        created, deadline = cast("list[float]", each["times"])
        listed = cast("dict[str, str]", each["utxo"])
        deposit = Deposit(
            cast("str", each["txid"]),
            cast("str", each["head"]),
            {txin: parse_output(bytes.fromhex(raw)) for txin, raw in listed.items()},
            created,
            deadline,
            cast("str", each["status"]),
            cast("int", each["order"]),
        )
        chain.deposits[deposit.txid] = deposit
    return chain


def make_output(address: str, lovelace: int) -> Output:
    """An ADA-only output in map form at a bech32 address."""
    return parse_output(cbor2.dumps({0: address_bytes(address), 1: lovelace}))
