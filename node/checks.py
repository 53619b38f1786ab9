"""What must be right before a head is opened or money is put into it, and what that will cost.

One list of checks for `init-head` and `init-head --dry-run`: pure, over what the own node said (hydra/probe.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from fednode.errors import ConfigError, FednodeError, HeadError
from fednode.hydra.addresses import enterprise_address
from fednode.hydra.probe import NodeFacts
from fednode.node.agreement import Agreement
from fednode.node.agreement_tables import least_deposit_period
from fednode.types import HeadStatus, PartyName

Verdict = Literal["ok", "warning", "failed", "unknown"]

_BLOCK_S: Final = {"embedded": 0.1, "devnet": 0.1, "preprod": 20.0, "preview": 20.0}
"""Mean seconds between two blocks."""
_SLOT_S: Final = {"embedded": 0.3, "devnet": 0.1, "preprod": 1.0, "preview": 1.0}
_PUBLIC: Final = ("preprod", "preview")
_CONTESTATION_PUBLIC_S: Final = 600
FEE: Final = (500_000, 800_000)
"""Lovelace, about: an Init, and the increment of one deposit, with 1 and with 10 parties."""
IN_SYNC: Final = "in sync"
FUEL_ADA: Final = 30
"""What a node should hold for Init, deposits, increments, close, contests and the fanout."""


@dataclass(frozen=True, slots=True)
class Check:
    """`kind` says which exit status a failure has: 3 for config, 5 for head."""

    name: str
    verdict: Verdict
    text: str
    hint: str = ""
    kind: Literal["config", "head"] = "config"


@dataclass(frozen=True, slots=True)
class Own:
    """The own party's side of the opening."""

    party: PartyName
    funding: str
    """`txid#ix` or empty."""
    deposited: bool
    """The own deposit is signed, on layer 1, or in the head already."""


def unreachable(error: HeadError) -> Check:
    """The one check that can be made of a node that does not answer."""
    return Check("hydra-node", "failed", error.message, error.hint or "start it, or correct [head] url", "head")


def check(agreement: Agreement, own: Own, node: NodeFacts) -> tuple[Check, ...]:
    """Every check, in the order in which a person would mend them."""
    return (
        *_node(node),
        _peers(agreement, node),
        *_parameters(agreement, node),
        *_windows(agreement),
        *_money(agreement, own),
        _sync(node),
    )


def only_waits(checks: tuple[Check, ...]) -> bool:
    """Whether nothing but time is missing."""
    return [each.name for each in checks if each.verdict == "failed"] == [IN_SYNC]


def error_of(checks: tuple[Check, ...]) -> FednodeError | None:
    """The first failure as an error that names how many others there are; None where all is well."""
    failed = [each for each in checks if each.verdict == "failed"]
    if not failed:
        return None
    first, more = failed[0], len(failed) - 1
    others = f" (and {more} more: {', '.join(each.name for each in failed[1:])})" if more else ""
    kind = HeadError if first.kind == "head" else ConfigError
    return kind(f"{first.name}: {first.text}{others}", hint=first.hint or "see `fednode init-head --dry-run`")


def _node(node: NodeFacts) -> Iterator[Check]:
    yield Check("hydra-node", "ok", f"answers, release {node.version}, head {node.status}", kind="head")
    for finding in node.findings:
        text = finding.problem or "as in the agreement"
        yield Check(finding.name, "failed" if finding.problem else "ok", text, finding.hint, "head")
    if node.status in (HeadStatus.CLOSED, HeadStatus.FANOUT_POSSIBLE):
        yield Check("status", "failed", f"the head is {node.status}", "fednode close-head ends it", "head")


def _sync(node: NodeFacts) -> Check:
    """The one failure that time mends."""
    if node.in_sync:
        return Check(IN_SYNC, "ok", "with layer 1", kind="head")
    return Check(IN_SYNC, "failed", "not in sync with layer 1 yet", "wait for it", "head")


def _peers(agreement: Agreement, node: NodeFacts) -> Check:
    """etcd compares host:port letter by letter: another spelling is another cluster."""
    expected = {party.host: party.name for party in agreement.party if party.host}
    if node.peers is None:
        return Check("configured peers", "unknown", "the node does not say which nodes it was started with")
    found = ", ".join(node.peers) or "none"
    if node.peers and len(node.peers) != len(agreement.party):
        text = f"expected {len(agreement.party)} nodes, found {len(node.peers)}: {found}"
        return Check("configured peers", "failed", text, "start the node with one --peer for each peer", "head")
    missing = [f"{host} ({name})" for host, name in expected.items() if host not in node.peers]
    if missing and node.peers:
        text = f"expected {', '.join(missing)}, found {found}"
        hint = "write host:port in peers.toml, --peer and --advertise letter by letter alike at all parties"
        return Check("configured peers", "failed", text, hint, "head")
    if node.unconnected:
        text = f"no connection to {', '.join(node.unconnected)}: no snapshot is signed until there is one"
        return Check("configured peers", "warning", text, "are these nodes running?", "head")
    compared = "as in the agreement" if expected else "not compared, the agreement names no hosts"
    return Check("configured peers", "ok" if expected else "unknown", f"{found}; {compared}")


def _parameters(agreement: Agreement, node: NodeFacts) -> Iterator[Check]:
    name, wanted, found = "ledger parameters", agreement.head.ledger_parameters, node.parameters_hash
    if wanted and wanted != found:
        text = f"expected hash {wanted}, found {found}"
        yield Check(name, "failed", text, "give all nodes the same --ledger-protocol-parameters file", "head")
    elif wanted:
        yield Check(name, "ok", f"hash {found}")
    else:
        yield Check(name, "unknown", f"hash {found}, not compared: head.ledger_parameters of peers.toml is empty")
    fees = {key: node.parameters.get(key) for key in ("txFeeFixed", "txFeePerByte")}
    if any(fees.values()):
        text = f"expected no fees, found {fees}: a fee burned in the head keeps it from being closed"
        yield Check("fees in the head", "failed", text, "set both to 0 in the ledger parameters of all nodes", "head")
    elif node.parameters.get("utxoCostPerByte") == 0:
        text = "utxoCostPerByte is 0: anybody can make outputs too small to be paid out, and the fanout fails"
        yield Check("fees in the head", "warning", text, "set utxoCostPerByte to 4310 at all nodes", "head")
    else:
        yield Check("fees in the head", "ok", "none")


def _windows(agreement: Agreement) -> Iterator[Check]:
    head, count = agreement.head, len(agreement.party)
    window, block = deposit_window(head.network, head.deposit_period_s), _BLOCK_S[head.network]
    least = least_deposit_period(head.network, count)
    text = f"{head.deposit_period_s} s leave {window:.0f} s for {count} deposits, one after the other"
    hint = f"agree on head.deposit_period_s of at least {least} and start all nodes with it"
    if window < count * block:
        yield Check("deposit period", "failed", f"{text}, expected at least {count * block:.0f} s", hint)
    elif head.deposit_period_s < least:
        yield Check("deposit period", "warning", f"{text}; a late deposit expires", hint)
    else:
        yield Check("deposit period", "ok", text)
    period = head.contestation_period_s
    if head.network in _PUBLIC and period < _CONTESTATION_PUBLIC_S:
        text = f"{period} s: nodes fall out of sync between two blocks, and a short outage loses the right to contest"
        yield Check("contestation period", "warning", text, f"agree on at least {_CONTESTATION_PUBLIC_S} s")
    else:
        yield Check("contestation period", "ok", f"{period} s: no node may be away for longer while the head closes")


def deposit_window(network: str, period_s: int) -> float:
    """Seconds in which the head can take deposits in: from a draft's activation to its expiry (hydra-node 2.3)."""
    validity = math.floor(min(200, 3 * period_s) / 2) * _SLOT_S[network]
    return max(0.0, period_s - validity)


def _money(agreement: Agreement, own: Own) -> Iterator[Check]:
    party = next(each for each in agreement.party if each.name == own.party)
    if own.deposited:
        yield Check("funding output", "ok", "the own deposit is made")
    elif own.funding:
        yield Check("funding output", "ok", f"{own.funding}: must hold exactly {agreement.head.deposit} lovelace")
    else:
        text = f"not named, expected TXID#INDEX of an output of exactly {agreement.head.deposit} lovelace"
        hint = f"pay that sum to {party.address} in one output and name it in fednode.toml: [head] funding"
        yield Check("funding output", "failed", text, hint)
    address = enterprise_address(party.fuel_vkey, agreement.head.magic)
    text = f"hydra-node does not show its fuel: expected about {FUEL_ADA} ADA at {address}"
    hint = f"cardano-cli conway query utxo --address {address} (docs/operating-a-head.md, What a node does not show)"
    yield Check("fuel", "unknown", text, hint)
    text = "a node tells its own release only, and peers of another one drop each other's messages in silence"
    yield Check("peers' releases", "unknown", text, "compare the line `hydra-node` of this list at all parties")


def steps(agreement: Agreement, own: Own, status: HeadStatus | None) -> tuple[str, ...]:
    """What `init-head` will do at this party, in words; `status` is None where the node does not answer."""
    head, first = agreement.head, agreement.party[0].name
    low, high = (f"{fee / 1e6:g}" for fee in FEE)
    found: list[str] = []
    if status in (None, HeadStatus.IDLE, HeadStatus.UNKNOWN):
        if own.party == first:
            found.append(f"post Init with the fuel of the own node: about {low} to {high} ADA")
        else:
            found.append(f"wait until {first}, the first party of the agreement, posts Init")
    if not own.deposited:
        found += [
            f"deposit {head.deposit / 1e6:g} ADA from {own.funding or 'the funding output'}; the fuel of the own node "
            f"pays the fee, and for each deposit that it takes in about {low} to {high} ADA",
            f"that takes {head.deposit_period_s} s or more; a deposit that is not taken in expires after "
            f"{2 * head.deposit_period_s} s, and can be recovered after {3 * head.deposit_period_s} s",
        ]
    return (*found, f"wait until the deposits of all {len(agreement.party)} parties are final")
