"""Payments that other code writes: pycardano, our own signals, and the deposits that the embedded head drafts."""

from __future__ import annotations

import random
from dataclasses import replace

from pycardano import (
    Address,
    AlonzoMetadata,
    AuxiliaryData,
    Metadata,
    MultiAsset,
    Network,
    ShelleyMarryMetadata,
    Transaction,
    TransactionBody,
    TransactionId,
    TransactionInput,
    TransactionOutput,
    TransactionWitnessSet,
    Value,
    VerificationKeyHash,
    VerificationKeyWitness,
)
from pycardano.key import PaymentVerificationKey

from fednode.hydra.addresses import enterprise_address
from fednode.hydra.deposit import sign_draft
from fednode.hydra.devnet.deposits import draft as draft_deposit
from fednode.hydra.devnet.ledger import Rules
from fednode.hydra.devnet.txview import parse_output
from fednode.hydra.signals import build_signal
from fednode.types import Digest, Member, PartyName, RunId, SignalContent

from .broken import Case
from .drafts import KEYS, SLOT, Draft, Pay, address, digest, valid
from .edges import LAYER_1
from .encoding import Style

MAGIC = 42


def by_pycardano(rng: random.Random) -> Case:
    """A valid payment, its CBOR by pycardano."""
    draft = valid(rng)
    body = TransactionBody(
        inputs=[TransactionInput(TransactionId(txid), index) for txid, index in draft.inputs],
        outputs=[_output(pay, draft) for pay in draft.outputs],
        fee=draft.fee,
        ttl=draft.ttl,
        validity_start=draft.start,
        network_id=None if draft.network is None else Network(draft.network),
        required_signers=[VerificationKeyHash(each) for each in draft.signers] or None,
    )
    auxiliary = None
    if draft.metadata is not None:
        metadata = Metadata({1729: {"v": 1, "r": rng.randrange(1000), "h": rng.randbytes(32), "l": [1, "x", b"y"]}})
        forms = {"map": metadata, "pair": ShelleyMarryMetadata(metadata, []), "tag": AlonzoMetadata(metadata)}
        auxiliary = AuxiliaryData(forms[draft.form])
        body.auxiliary_data_hash = auxiliary.hash()
    witnesses = [
        VerificationKeyWitness(PaymentVerificationKey(bytes.fromhex(key.vkey)), key.sign(body.hash()))
        for key in draft.witnesses
    ]
    raw = Transaction(body, TransactionWitnessSet(vkey_witnesses=witnesses), True, auxiliary).to_cbor()
    return Case("pycardano", draft, raw)


def _output(pay: Pay, draft: Draft) -> TransactionOutput:
    assets = MultiAsset()
    for (policy, name), quantity in pay.assets.items():
        assets += MultiAsset.from_primitive({policy: {name: quantity}})
    value = Value(pay.coin, assets) if pay.assets else pay.coin
    legacy = draft.style.legacy if pay.legacy is None else pay.legacy
    return TransactionOutput(Address.from_primitive(pay.address), value, post_alonzo=not legacy)


def signals(rng: random.Random) -> list[Case]:
    """Signals of every round by our own client, in heads of 2 to 29 parties."""
    found = []
    for count in (2, 3, 5, 10, 29):
        parties = [Member(PartyName(f"party{index}"), key.vkey, key.vkey, key.vkey, enterprise_address(key.vkey, MAGIC))
                   for index, key in enumerate((KEYS * 4)[:count])]  # fmt: skip
        for content in (_content(rng, 0, count), _content(rng, 7, count), _content(rng, 8, count)):
            for inputs in (1, 3, 40):
                draft = Draft(Style(), Rules(network=0))
                for _ in range(inputs):
                    draft.utxo[rng.randbytes(32), rng.randrange(40)] = Pay(address(KEYS[0], 0), 30_000_000)
                owned = {f"{txid.hex()}#{index}": pay.coin for (txid, index), pay in draft.utxo.items()}
                signed = build_signal(content, owned, me=PartyName("party0"), members=parties, key=KEYS[0])
                found.append(Case("signal", draft, bytes.fromhex(signed.cbor)))
    return found


def _content(rng: random.Random, number: int, count: int) -> SignalContent:
    last = number == 8
    sections = {f"party.{index}": rng.randbytes(8).hex() for index in range(count)}
    return SignalContent(
        run=RunId(rng.randbytes(16).hex()),
        round=number,
        base=Digest(rng.randbytes(32).hex()),
        object=None if last else Digest(rng.randbytes(32).hex()),
        size=None if last else rng.randrange(1 << 40),
        sections=sections if number == 0 else None,
    )


def deposits(rng: random.Random, count: int) -> list[Case]:
    """Deposits as the embedded head drafts them and our own client signs them, on layer 1."""
    found = []
    for _ in range(count):
        draft = Draft(Style(), replace(LAYER_1, datums=True))
        owner, fuel = KEYS[0], KEYS[1]
        funding, fuelled = (rng.randbytes(32), 0), (rng.randbytes(32), 1)
        draft.utxo = {
            funding: Pay(address(owner, 0), rng.randint(5_000_000, 10**9)),
            fuelled: Pay(address(fuel, 0), 10**9),
        }
        layer_1 = {
            f"{txid.hex()}#{index}": parse_output(pay.encode(draft.style)) for (txid, index), pay in draft.utxo.items()
        }
        reference = f"{funding[0].hex()}#0"
        raw = draft_deposit(
            head_id=digest(b"head", 28).hex(),
            deadline=1e9,
            ttl=SLOT + 40,
            commits={reference: layer_1[reference]},
            layer1=layer_1,
            fuel=fuel,
            magic=MAGIC,
            rules=draft.rules,
        )
        found.append(Case("deposit", draft, bytes.fromhex(sign_draft(raw, reference, owner).cbor)))
    return found
