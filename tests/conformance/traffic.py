"""Everything that the embedded head says, from one life with everything in it."""

from __future__ import annotations

import json
from typing import Any

from fednode.hydra.devnet import views
from fednode.hydra.devnet.parameters import protocol_parameters
from tests.hydra.devnet.conftest import ADA, Lab


def live(lab: Lab) -> None:
    """A head of three parties from Init to fanout and a second one, with faults; `lab.seen` has the messages."""
    lab.send(0, "Close")
    lab.open(fund=False)
    _deposits(lab)
    for party in range(3):
        lab.new_tx(party, lab.signal(party)[0])
    lab.time.run(1)
    _refusals(lab)
    _side_load(lab)
    for name in ("party2", "party1"):
        lab.faults.take_offline(name)
    for name in ("party2", "party1"):
        lab.faults.bring_back(name)
    lab.faults.rotate("party1")
    lab.faults.restart("party2")
    lab.faults.lose_sync("party1")
    lab.time.run(1)
    lab.send(1, "Close")
    lab.send(1, "NewTx", transaction={"cborHex": lab.signal(1)[0]})
    lab.send(1, "Recover", recoverTxId="00" * 32)
    lab.faults.regain_sync("party1")
    lab.time.run(1)
    lab.faults.close_stale(1)
    for party in range(2):
        lab.send(party, "Close")
    lab.time.run(1)
    lab.send(0, "NewTx", transaction={"cborHex": lab.signal(0)[0]})  # a node takes that, and tells it whole
    lab.time.run(10)
    for party in range(2):
        lab.send(party, "Fanout")
    lab.time.run(1)
    _burn(lab)


def _deposits(lab: Lab) -> None:
    """One that expires and is recovered, then one of every party but the first."""
    lab.faults.silence("party1")
    missed = lab.deposit(0)
    lab.time.run(1)
    lab.send(0, "Recover", recoverTxId=missed)
    lab.faults.take_offline("party0")
    lab.time.run(12)
    lab.faults.bring_back("party0")
    lab.faults.unsilence("party1")
    lab.time.run(1)
    recovered = lab.world.chain.deposits.get(missed)
    if recovered is not None:
        lab.send(0, "Recover", recoverTxId=missed)
        lab.time.run(1)
    for party in (1, 2):
        lab.deposit(party)
    lab.time.run(4 * lab.settings.deposit_period_s)


def _refusals(lab: Lab) -> None:
    lab.send(0, "Contest")
    lab.send(1, "Fanout")
    wallet = lab.wallets[1]
    spent = lab.settings.parties[1].funding
    lab.new_tx(1, wallet.transaction([spent], [(wallet.raw, 100 * ADA)])[0])
    lab.time.run(1)


def _side_load(lab: Lab) -> None:
    known = json.loads(views.confirmed_snapshot(lab.world))
    lab.send(0, "SideLoadSnapshot", snapshot=known)
    other = json.loads(json.dumps(known))
    other["snapshot"]["number"] += 7
    lab.send(0, "SideLoadSnapshot", snapshot=other)
    lab.send(0, "SideLoadSnapshot", snapshot={"tag": "InitialSnapshot", "headId": lab.world.head.head_id})


def _burn(lab: Lab) -> None:
    """A second head, where a fee makes closing impossible."""
    lab.open(fund=False)
    output = next(txin for txin, out in lab.world.chain.utxo.items() if out.address == lab.wallets[0].raw)
    held = {output: lab.world.chain.utxo[output]}
    signed = lab.wallets[0].witness(lab.chain.draft_deposit(0, held).hex())
    assert lab.chain.submit(bytes.fromhex(signed)) is None
    lab.time.run(4 * lab.settings.deposit_period_s)
    own = lab.own(0)
    wallet = lab.wallets[0]
    lab.new_tx(0, wallet.transaction(list(own), [(wallet.raw, sum(own.values()) - ADA)], fee=ADA)[0])
    lab.time.run(1)
    lab.send(0, "Close")
    lab.time.run(1)


def answers(lab: Lab) -> dict[str, list[Any]]:
    """What HTTP would answer now, by the name of its schema."""
    texts = {
        "HeadState": [views.head_state(lab.world, party) for party in range(len(lab.wallets))],
        "SeenSnapshot": [views.last_seen(lab.world)],
        "UTxO": [views.snapshot_utxo(lab.world.head)],
        "NodeConfig": [views.config(lab.world, 0)],
        "Greetings": [views.greetings(lab.world, 0, with_utxo=each) for each in (True, False)],
    }
    if lab.world.head.status.value != "Idle":
        texts["ConfirmedSnapshot"] = [views.confirmed_snapshot(lab.world)]
    found = {name: [json.loads(each) for each in listed] for name, listed in texts.items()}
    return found | {"ProtocolParameters": [protocol_parameters(lab.world.rules)]}
