"""A client that nobody here wrote against the embedded head: @hydra-sdk/bridge 1.3.1 (npm) in Node.

It knows the messages of 1.x too: `initSync` waits for one that no head of 2.x sends, so Init is sent as a command.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fednode.hydra.deposit import sign_draft
from fednode.hydra.devnet import DevnetSettings, create

from . import node
from .heads import funds_key, members, serving, signal
from .node import Bridge, CallFailed, bridges

pytestmark = pytest.mark.process
FUND = 100_000_000


@pytest.fixture(scope="module")
def modules() -> Path:
    return node.install()


async def _connect(bridge: Bridge, parties: int) -> None:
    for party in range(parties):
        assert await bridge.call(party, "connect") is True
        greetings = await bridge.until(party, "Greetings")
        if greetings["chainSyncedStatus"] != "InSync":
            await bridge.until(party, "NodeSynced")


async def _deposit(bridge: Bridge, settings: DevnetSettings, party: int) -> str:
    """The genesis output, through the client's own commit and submit; the deposit's id."""
    entry, member = settings.parties[party], members(settings)[party]
    draft = await bridge.call(
        party, "commit", {entry.funding: {"address": member.address, "value": {"lovelace": entry.fund}}}
    )
    signed = sign_draft(bytes.fromhex(draft["cborHex"]), entry.funding, funds_key(settings, entry.name))
    envelope = {"type": draft["type"], "description": draft["description"], "cborHex": signed.cbor}
    assert await bridge.call(party, "submitCardanoTransaction", envelope) == {"tag": "TransactionSubmitted"}
    return signed.id


async def _open(bridge: Bridge, settings: DevnetSettings) -> str:
    """Init and every party's deposit; the head's id."""
    parties = range(len(settings.parties))
    await _connect(bridge, len(settings.parties))
    await bridge.call(0, "commands.init")
    opened = [await bridge.until(party, "HeadIsOpen") for party in parties]
    ids = [await _deposit(bridge, settings, party) for party in parties]
    await asyncio.gather(
        *(bridge.until(party, "CommitFinalized", depositTxId=txid) for party in parties for txid in ids)
    )
    return str(opened[0]["headId"])


def _envelope(cbor: str, txid: str) -> dict[str, Any]:
    return {"type": "Witnessed Tx ConwayEra", "description": "", "cborHex": cbor, "txId": txid}


async def test_from_init_to_fanout(tmp_path: Path, modules: Path) -> None:
    settings = create(tmp_path, ["alice", "bob"], contestation_period_s=1)
    addresses = [member.address for member in members(settings)]
    async with serving(settings), bridges(modules, [party.url for party in settings.parties]) as bridge:
        idle = await bridge.call(0, "headInfo")
        assert idle == {"headId": None, "headStatus": "Idle", "vkey": None}
        head = await _open(bridge, settings)
        info = await bridge.call(1, "headInfo")
        assert info == {"headId": head, "headStatus": "Open", "vkey": members(settings)[0].hydra_vkey}

        first = signal(settings, "alice", {settings.parties[0].funding: FUND})
        result = await bridge.call(0, "submitTxSync", _envelope(first.cbor, first.id))
        assert (result["txId"], result["isValid"], result["isConfirmed"]) == (first.id, True, True)
        assert [tx["txId"] for tx in result["result"]["snapshot"]["confirmed"]] == [first.id]
        await bridge.until(1, "TxValid", transactionId=first.id)
        await bridge.until(1, "SnapshotConfirmed", snapshot=result["result"]["snapshot"])
        for party in range(2):
            balances = [await bridge.call(party, "getAddressBalance", each) for each in addresses]
            assert balances == [{"lovelace": str(FUND - 1_000_000)}, {"lovelace": str(FUND + 1_000_000)}]
            assert sorted(await bridge.call(party, "addressesInHead")) == sorted(addresses)
        held = await bridge.call(0, "queryAddressUTxO", addresses[1])
        assert sorted(each["output"]["amount"][0]["quantity"] for each in held) == ["1000000", str(FUND)]

        await bridge.call(1, "commands.close")
        closed = await bridge.until(0, "HeadIsClosed", headId=head)
        assert (await bridge.call(0, "headInfo"))["headStatus"] == "Closed"
        assert closed["snapshotNumber"] == result["result"]["snapshot"]["number"]
        await bridge.until(0, "ReadyToFanout", headId=head)
        await bridge.call(0, "commands.fanout")
        final = await bridge.until(1, "HeadIsFinalized", headId=head)
        paid = sorted((each["address"], each["value"]["lovelace"]) for each in final["finalizedUTxO"].values())
        expected = [(addresses[0], FUND - 1_000_000), (addresses[1], 1_000_000), (addresses[1], FUND)]
        assert paid == sorted(expected)
        assert (await bridge.call(1, "headInfo"))["headStatus"] == "Idle"
        assert await bridge.call(1, "disconnect") is True


async def test_refusals_reach_it(tmp_path: Path, modules: Path) -> None:
    settings = create(tmp_path, ["alice", "bob"])
    async with serving(settings), bridges(modules, [party.url for party in settings.parties]) as bridge:
        await _open(bridge, settings)
        owned = {settings.parties[0].funding: FUND}
        first, second = signal(settings, "alice", owned), signal(settings, "alice", owned, 2)
        # Its NewTx names no id: the head computes it, and answers with it.
        await bridge.call(0, "commands.newTx", first.cbor)
        await bridge.until(1, "TxValid", transactionId=first.id)
        with pytest.raises(CallFailed) as refused:
            await bridge.call(0, "submitTxSync", _envelope(second.cbor, second.id))
        assert (refused.value.error["txId"], refused.value.error["tag"]) == (second.id, "TxInvalid")
        assert "BadInputsUTxO" in refused.value.error["reason"]
        for name, tag in (("fanout", "Fanout"), ("contest", "Contest"), ("init", "Init")):
            await bridge.call(1, f"commands.{name}")
            failed = await bridge.until(1, "CommandFailed", clientInput={"tag": tag})
            assert failed["state"]["tag"] == "Open"
        spent = {settings.parties[0].funding: {"address": members(settings)[0].address, "value": {"lovelace": FUND}}}
        with pytest.raises(CallFailed, match="400"):
            await bridge.call(0, "commit", spent)


async def test_protocol_parameters_are_those_of_cardano_api(tmp_path: Path, modules: Path) -> None:
    settings = create(tmp_path, ["alice"])
    async with serving(settings), bridges(modules, [settings.parties[0].url]) as bridge:
        found = await bridge.call(0, "getProtocolParameters")
        assert found == {
            "epoch": 0, "minFeeA": 0, "minFeeB": 0, "maxBlockSize": 90_112, "maxTxSize": 10_250,
            "maxBlockHeaderSize": 1_100, "keyDeposit": 2_000_000, "poolDeposit": 500_000_000, "decentralisation": 0,
            "minPoolCost": "0", "priceMem": 0, "priceStep": 0, "maxTxExMem": "14000000",
            "maxTxExSteps": "10000000000", "maxBlockExMem": "62000000", "maxBlockExSteps": "20000000000",
            "maxValSize": 5_000, "collateralPercent": 150, "maxCollateralInputs": 3, "coinsPerUtxoSize": 4_310,
            "minFeeRefScriptCostPerByte": 0,
        }  # fmt: skip
