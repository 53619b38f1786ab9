"""A real process that serves the embedded head is killed at any moment and goes on."""

from __future__ import annotations

import asyncio
import signal
import sys

import httpx
import pytest

from fednode.hydra.devnet import create

pytestmark = pytest.mark.process
ADA = 1_000_000
_PROGRAM = """
import asyncio, sys
from pathlib import Path
from fednode.hydra.devnet import load, serve
asyncio.run(serve(load(Path(sys.argv[1])), ready=lambda: print("ready", flush=True)))
"""


async def _start(folder):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PROGRAM, str(folder), stdout=asyncio.subprocess.PIPE
    )
    assert (await process.stdout.readline()) == b"ready\n"
    return process


async def _kill(process):
    process.send_signal(signal.SIGKILL)
    await process.wait()


async def _until_valid(peer, cbor, txid):
    """Send until the node, which may still be catching up, takes it and says it valid."""
    await peer.new_tx(cbor)
    while (message := await peer.receive()).get("transactionId") != txid or message["tag"] != "TxValid":
        if message.get("tag") == "RejectedInputBecauseUnsynced":
            await peer.until("NodeSynced")
            await peer.new_tx(cbor)


@pytest.mark.timeout(120)
async def test_kill_9_loses_nothing_that_was_said(tmp_path, make_peer):
    settings = create(tmp_path, ["alice", "bob"])
    process = await _start(tmp_path)
    try:
        peers = [await make_peer(settings, index).connect() for index in range(2)]
        for peer in peers:
            await peer.synced()
        await peers[0].send("Init")
        await peers[0].until("HeadIsOpen")
        async with httpx.AsyncClient() as http:
            ids = [await peer.deposit(http) for peer in peers]
        # Killed with both deposits on layer 1 and neither in the head.
        await _kill(process)
        process = await _start(tmp_path)
        peers = [await make_peer(settings, index).connect("?history=yes") for index in range(2)]
        await asyncio.gather(*(peer.until("CommitFinalized", depositTxId=ids[1]) for peer in peers))
        inputs, valid = peers[0].party.funding, []
        for _ in range(6):
            wallet = peers[0].wallet
            cbor, txid = wallet.transaction([inputs], [(wallet.raw, 100 * ADA)])
            await _until_valid(peers[0], cbor, txid)
            # Killed at the moment that it was said valid, with its snapshot on the way.
            await _kill(process)
            valid.append(txid)
            inputs = f"{txid}#0"
            process = await _start(tmp_path)
            peers[0] = await make_peer(settings, 0).connect("?history=yes&snapshot-utxo=no")
            await peers[0].until_confirmed(*valid)
        sequence = [each["seq"] for each in peers[0].seen if "seq" in each]
        snapshots = [each["snapshot"] for each in peers[0].seen if each.get("tag") == "SnapshotConfirmed"]
        assert sorted({tx["txId"] for each in snapshots for tx in each["confirmed"]}) == sorted(valid)
        assert {each["number"] for each in snapshots} == set(range(1, len(valid) + 3))
        assert sequence == sorted(sequence)
    finally:
        if process.returncode is None:
            await _kill(process)
