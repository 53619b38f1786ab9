"""What a node says about itself and its head, as JSON text."""

from __future__ import annotations

from collections.abc import Mapping

from fednode.hydra.devnet import wire
from fednode.hydra.devnet.parameters import protocol_parameters
from fednode.hydra.devnet.protocol import Head, Status
from fednode.hydra.devnet.world import World


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


def confirmed_snapshot(world: World) -> str:
    """The last confirmed snapshot with its signatures."""
    head = world.head
    if head.last_event == 0:
        return wire.encode({"tag": "InitialSnapshot", "headId": head.head_id})
    opening = wire.opened("SnapshotConfirmed", {"headId": head.head_id}) + ","
    return '{"tag":"ConfirmedSnapshot",' + world.store.event(head.last_event).full.removeprefix(opening) + "}"


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


def head_state(world: World) -> str:
    """GET /head, and the state inside CommandFailed."""
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
        contents = wire.joined(fields, {"coordinatedHeadState": _coordinated(world)})
        return f'{{"tag":"Open","contents":{contents}}}'
    fields |= {
        "contestationDeadline": wire.timestamp(head.deadline),
        "readyToFanoutSent": head.status is Status.FANOUT_POSSIBLE,
        "version": head.version,
        "distributedFanoutOutputs": {},
        "remainingFanoutOutputs": None,
    }
    contents = wire.joined(fields, {"confirmedSnapshot": confirmed_snapshot(world)})
    return f'{{"tag":"Closed","contents":{contents}}}'


def posting_failed(world: World, kind: str, fields: Mapping[str, object], reason: str) -> str:
    """PostTxOnChainFailed: the node's own `Increment` or `Close` transaction did not get on layer 1."""
    posted = {"tag": f"{kind}Tx", "headId": world.head.head_id, "headParameters": _head_parameters(world), **fields}
    key = "closingSnapshot" if kind == "Close" else "incrementingSnapshot"
    error = {"tag": f"FailedToConstruct{kind}Tx", "failureReason": reason}
    raw = {"postChainTx": wire.joined(posted, {key: confirmed_snapshot(world)}), "postTxError": wire.encode(error)}
    return wire.message("PostTxOnChainFailed", {}, raw)


def config(world: World, party: int) -> str:
    """GET /config: the options that a hydra-node of this party would have been started with."""
    own, settings = world.parties[party], world.settings
    return wire.encode(
        {
            "nodeId": own.name,
            "apiHost": "127.0.0.1",
            "apiPort": own.port,
            "listen": own.host,
            "advertise": own.host,
            "peers": [each.host for each in world.parties if each.index != party],
            "contestationPeriod": settings.contestation_period_s,
            "depositPeriod": settings.deposit_period_s,
            "unsyncedPeriod": _unsynced_period(world),
            "testnetMagic": settings.magic,
            "persistenceDir": str(settings.state),
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


def _coordinated(world: World) -> str:
    head = world.head
    fields = {"currentDepositTxId": head.deposit, "decommitTx": None, "version": head.version}
    in_flight = {tx.id for tx in head.in_flight.txs} if head.in_flight is not None else set[str]()
    local = [tx for tx in head.pending.values() if tx.id not in in_flight]
    raw = {
        "localUTxO": wire.utxo_text(head.local),
        "localTxs": wire.transactions_text(local),
        "allTxs": "{" + ",".join(f'"{tx.id}":{tx.envelope()}' for tx in head.pending.values()) + "}",
        "confirmedSnapshot": confirmed_snapshot(world),
        "seenSnapshot": last_seen(world),
    }
    return wire.joined(fields, raw)
