"""What a node says about itself and its head, as JSON text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fednode.hydra.devnet import wire
from fednode.hydra.devnet.deposits import Deposit
from fednode.hydra.devnet.parameters import protocol_parameters
from fednode.hydra.devnet.protocol import Head, Status
from fednode.hydra.devnet.world import World

API_TIMEOUT_S: Final = 300.0
"""--api-transaction-timeout of a node."""


def greetings(world: World, party: int, *, with_utxo: bool) -> str:
    """The message that ends the history of a new connection."""
    own, head = world.parties[party], world.head
    fields: dict[str, object] = {
        "me": {"vkey": own.hydra.vkey},
        "headStatus": head.status.value,
        "hydraNodeVersion": wire.VERSION,
        "env": _environment(world, party),
        "networkInfo": {
            "networkConnected": world.connected(party),
            "peersInfo": {each.host: world.connected(each.index) for each in world.parties if each.index != party},
        },
        "chainSyncedStatus": "InSync" if world.synced >> party & 1 else "CatchingUp",
        "currentSlot": world.chain.slot,
    }
    raw: dict[str, str] = {}
    if head.status is not Status.IDLE:
        fields["hydraHeadId"] = head.head_id
        if with_utxo:
            raw["snapshotUtxo"] = snapshot_utxo(head)
    return wire.message("Greetings", fields, raw)


def snapshot_utxo(head: Head) -> str:
    """The UTxO of the last snapshot joined with what it commits: shows a deposit before it is spendable."""
    return wire.utxo_text(head.snapshot | head.commit)


def confirmed_snapshot(world: World, party: int | None = None) -> str:
    """The last confirmed snapshot with its signatures, as the node of `party` knows it."""
    head = world.head
    number_and_event = None if party is None else head.behind.get(world.parties[party].name)
    event = head.last_event if number_and_event is None else number_and_event[1]
    if event == 0:
        return wire.encode({"tag": "InitialSnapshot", "headId": head.head_id})
    opening = wire.opened("SnapshotConfirmed", {"headId": head.head_id}) + ","
    return '{"tag":"ConfirmedSnapshot",' + world.store.event(event).full.removeprefix(opening) + "}"


def last_seen(world: World) -> str:
    """How far the next snapshot is; its `signatories` tell who has not signed."""
    head, request = world.head, world.head.in_flight
    if request is None:
        if head.number == 0:
            return wire.encode({"tag": "NoSeenSnapshot"})
        return wire.encode({"tag": "LastSeenSnapshot", "lastSeen": head.number})
    if not request.seen:
        fields = {"tag": "RequestedSnapshot", "lastSeen": head.number, "requested": request.number}
        return wire.encode(fields)
    snapshot = {
        "headId": head.head_id,
        "version": request.version,
        "number": request.number,
        "accumulator": request.accumulator,
        "utxoToDecommit": None,
    }
    raw = {
        "confirmed": wire.transactions_text(request.txs),
        "utxo": wire.utxo_text(request.utxo),
        "utxoToCommit": wire.utxo_text(request.commit) if request.commit else "null",
    }
    signed = {world.parties[index].hydra.vkey: value.hex() for index, value in request.signatures.items()}
    return f'{{"tag":"SeenSnapshot","snapshot":{wire.joined(snapshot, raw)},"signatories":{wire.encode(signed)}}}'


def head_state(world: World, party: int) -> str:
    """GET /head of one party's node, and the state inside its CommandFailed."""
    head = world.head
    chain_state = {"recordedAt": {"slot": world.chain.slot}, "spendableUTxO": {}}
    if head.status is Status.IDLE:
        return wire.encode({"tag": "Idle", "contents": {"chainState": chain_state}})
    fields: dict[str, object] = {
        "parameters": _head_parameters(world),
        "chainState": chain_state,
        "headId": head.head_id,
        "headSeed": head.seed,
    }
    if head.status is Status.OPEN:
        contents = wire.joined(fields, {"coordinatedHeadState": _coordinated(world, party)})
        return f'{{"tag":"Open","contents":{contents}}}'
    fields |= {
        "contestationDeadline": wire.timestamp(head.deadline),
        "readyToFanoutSent": head.status is Status.FANOUT_POSSIBLE,
        "version": head.version,
        "distributedFanoutOutputs": {},
        "remainingFanoutOutputs": None,
    }
    contents = wire.joined(fields, {"confirmedSnapshot": confirmed_snapshot(world, party)})
    return f'{{"tag":"Closed","contents":{contents}}}'


def node_state(world: World, party: int) -> str:
    """The checkpoint with which a rotated event log begins."""
    synced = world.synced >> party & 1
    clock = {"currentSlot": world.chain.slot, "currentChainTime": wire.timestamp(world.chain.now), "drift": 0}
    fields = {"tag": "NodeInSync" if synced else "NodeCatchingUp", "chainPointTime": clock}
    deposits = [f"{wire.encode(each.txid)}:{_deposit(each)}" for each in world.chain.deposits.values()]
    return wire.joined(
        fields, {"headState": head_state(world, party), "pendingDeposits": "{" + ",".join(deposits) + "}"}
    )


def _deposit(deposit: Deposit) -> str:
    fields = {
        "headId": deposit.head_id,
        "created": wire.timestamp(deposit.created),
        "deadline": wire.timestamp(deposit.deadline),
        "status": deposit.status,
    }
    return wire.joined(fields, {"deposited": wire.utxo_text(deposit.utxo)})


def increment_failed(world: World, deposit: str) -> str:
    """PostTxOnChainFailed of a node that was not the first to post an increment."""
    fields = {**_posted(world, "Increment"), "headSeed": world.head.seed, "depositTxId": deposit}
    reason = "BadInputsUTxO: spent by another node's increment"
    error = {"tag": "FailedToConstructIncrementTx", "failureReason": reason}
    return _posting_failed(wire.joined(fields, {"incrementingSnapshot": confirmed_snapshot(world)}), error)


def close_failed(world: World, error: Mapping[str, object]) -> str:
    """PostTxOnChainFailed: a close did not get on layer 1."""
    fields = {**_posted(world, "Close"), "openVersion": world.head.version}
    return _posting_failed(wire.joined(fields, {"closingSnapshot": confirmed_snapshot(world)}), error)


def fanout_failed(world: World, error: Mapping[str, object]) -> str:
    """PostTxOnChainFailed: a fanout did not get on layer 1."""
    head = world.head
    fields = {
        "tag": "FanoutTx",
        "utxoToCommit": None,
        "utxoToDecommit": None,
        "headSeed": head.seed,
        "contestationDeadline": wire.timestamp(head.deadline),
    }
    utxo = wire.utxo_text(head.base())
    return _posting_failed(wire.joined(fields, {"utxo": utxo, "utxoForProof": utxo}), error)


def failed_to_post(reason: str) -> dict[str, object]:
    """The error of a transaction that layer 1 refused. None is built here: an empty one stands for it."""
    empty = {"type": "Tx ConwayEra", "description": "", "cborHex": "84a0a0f5f6"}
    return {"tag": "FailedToPostTx", "failureReason": reason, "failingTx": empty}


def _posted(world: World, kind: str) -> dict[str, object]:
    return {"tag": f"{kind}Tx", "headId": world.head.head_id, "headParameters": _head_parameters(world)}


def _posting_failed(posted: str, error: Mapping[str, object]) -> str:
    return wire.message("PostTxOnChainFailed", {}, {"postChainTx": posted, "postTxError": wire.encode(error)})


def config(world: World, party: int) -> str:
    """GET /config: the options that a hydra-node of this party would have been started with."""
    own, settings = world.parties[party], world.settings
    others = [each.name for each in world.parties if each.index != party]

    def key(name: str, file: str) -> str:
        return str(settings.folder / name / "keys" / file)

    chain = {
        "mode": "cardano",
        "cardano-signing-key": key(own.name, "fuel.sk"),
        "cardano-verification-keys": [key(name, "fuel.vk") for name in others],
        "contestation-period": settings.contestation_period_s,
        "deposit-period": settings.deposit_period_s,
        "unsynced-period": _unsynced_period(world),
        # There is no cardano-node: layer 1 is simulated in this process.
        "backend": {"mode": "direct", "node-socket": "", "testnet-magic": settings.magic},
    }
    return wire.encode(
        {
            "node-id": own.name,
            "quiet": True,
            "listen": own.host,
            "advertise": own.host,
            "api-host": "127.0.0.1",
            "api-port": own.port,
            "hydra-signing-key": key(own.name, "hydra.sk"),
            "hydra-verification-keys": [key(name, "hydra.vk") for name in others],
            "peers": [each.host for each in world.parties if each.index != party],
            "persistence-dir": str(settings.state),
            "ledger-protocol-parameters": "",
            "use-system-etcd": False,
            "api-transaction-timeout": API_TIMEOUT_S,
            "chain": chain,
        }
    )


def parameters(world: World) -> str:
    """GET /protocol-parameters."""
    return wire.encode(protocol_parameters(world.rules))


def _head_parameters(world: World) -> dict[str, object]:
    parties = [{"vkey": party.hydra.vkey} for party in world.by_order()]
    return {"contestationPeriod": world.settings.contestation_period_s, "parties": parties}


def _environment(world: World, party: int) -> dict[str, object]:
    settings = world.settings
    return {
        "party": {"vkey": world.parties[party].hydra.vkey},
        "otherParties": [{"vkey": each.hydra.vkey} for each in world.parties if each.index != party],
        "participants": [each.participant for each in world.parties],
        "contestationPeriod": settings.contestation_period_s,
        "depositPeriod": settings.deposit_period_s,
        "unsyncedPeriod": _unsynced_period(world),
        "configuredPeers": ",".join(f"{each.host}=http://{each.host}" for each in world.parties),
    }


def _unsynced_period(world: World) -> float:
    return world.settings.contestation_period_s / 2


def _coordinated(world: World, party: int) -> str:
    head = world.head
    fields = {"currentDepositTxId": head.deposit, "decommitTx": None, "version": head.version}
    in_flight = {tx.id for tx in head.in_flight.txs} if head.in_flight is not None else set[str]()
    held = [tx for tx in head.pending.values() if not world.nodes.lacks(party, tx.id)]
    raw = {
        "localUTxO": wire.utxo_text(head.local),
        "localTxs": wire.transactions_text([tx for tx in held if tx.id not in in_flight]),
        "allTxs": "{" + ",".join(f'"{tx.id}":{tx.envelope()}' for tx in held) + "}",
        "confirmedSnapshot": confirmed_snapshot(world, party),
        "seenSnapshot": last_seen(world),
    }
    return wire.joined(fields, raw)
