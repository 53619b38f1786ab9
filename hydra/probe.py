"""One look at a hydra-node: connect, read Greetings and the ledger parameters, go away. Changes nothing anywhere."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Any, Final, cast

import rfc8785
from websockets.exceptions import WebSocketException

from fednode.errors import HeadError, HeadUnavailable
from fednode.hydra.dial import dial
from fednode.hydra.messages import Greetings
from fednode.hydra.rest import Rest
from fednode.hydra.settings import HeadSettings, endpoints, trust
from fednode.hydra.verify import GREETINGS_CHECKS, check_head, status_of
from fednode.hydra.wire import decode
from fednode.types import HeadId, HeadStatus

_GREETED_WITHIN: Final = 30.0
_EXACT: Final = 2**53
"""JSON numbers are doubles: above this RFC 8785 writes the double, and so must we."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One comparison of the node with the agreement; `problem` is empty where they agree."""

    name: str
    problem: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a node says about itself."""

    version: str
    status: HeadStatus
    head_id: HeadId | None
    in_sync: bool
    findings: tuple[Finding, ...]
    """Of version, own key, parties, participants, periods, head: in this order."""
    peers: tuple[str, ...] | None
    """host:port of every configured node; None where the node does not say."""
    unconnected: tuple[str, ...]
    parameters: dict[str, Any]
    parameters_hash: str
    """sha256 of the canonical JSON (RFC 8785) of GET /protocol-parameters, hex."""


async def probe(settings: HeadSettings) -> NodeFacts:
    """HeadUnavailable where the node does not answer, HeadError where its answers cannot be read."""
    http, websocket = endpoints(settings.url, allow_plain=settings.allow_plain)
    tls = trust(settings.url, settings.ca_file)
    rest = Rest(http, tls)
    try:
        parameters = await rest.protocol_parameters()  # first: HTTP says best why a node cannot be reached
        try:
            async with asyncio.timeout(_GREETED_WITHIN), dial(websocket, tls, history=False) as socket:
                while not isinstance(message := decode(await socket.recv()).message, Greetings):
                    pass
        except (OSError, WebSocketException, TimeoutError) as error:
            raise HeadUnavailable(f"{websocket}: {type(error).__name__} {error}".strip()) from None
    finally:
        await rest.aclose()
    if not isinstance(parameters, dict):
        raise HeadError("hydra-node GET /protocol-parameters: expected a JSON object")
    content = cast("dict[str, Any]", parameters)
    environment = message.environment
    return NodeFacts(
        version=message.version[:60],
        status=status_of(message),
        head_id=message.head_id,
        in_sync=message.in_sync,
        findings=tuple(_findings(message, settings)),
        peers=environment.configured_peers if environment else None,
        unconnected=message.unconnected,
        parameters=content,
        parameters_hash=parameters_hash(content),
    )


def _findings(greetings: Greetings, settings: HeadSettings) -> list[Finding]:
    found: list[Finding] = []
    for name, check in GREETINGS_CHECKS:
        try:
            check(greetings, settings)
            found.append(Finding(name))
        except HeadError as error:
            found.append(Finding(name, error.message, error.hint))
    try:
        check_head(settings.bound_head, greetings.head_id)
        found.append(Finding("head"))
    except HeadError as error:
        found.append(Finding("head", error.message, error.hint))
    return found


def parameters_hash(parameters: object) -> str:
    """sha256 of the canonical JSON (RFC 8785) of ledger parameters, hex. Order and white space do not count."""
    return hashlib.sha256(rfc8785.dumps(_doubles(parameters))).hexdigest()


def _doubles(value: object) -> Any:
    if isinstance(value, dict):
        return {str(key): _doubles(item) for key, item in cast("dict[object, object]", value).items()}
    if isinstance(value, list):
        return [_doubles(item) for item in cast("list[object]", value)]
    return float(value) if isinstance(value, int) and abs(value) >= _EXACT else value
