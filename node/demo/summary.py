"""The demo's result: from the homes' journals, as every user could read them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fednode.errors import Diverged
from fednode.node import app
from fednode.node.demo.lone import Judge
from fednode.node.demo.prepare import Federation
from fednode.node.site import read_history
from fednode.node.views import History

PHASES = ("train", "publish", "signal", "wait", "fetch", "aggregate")


@dataclass(slots=True)
class Timing:
    """Seconds by part; `run_began` and `run_ended` are Unix times."""

    setup: float = 0.0
    alone: float = 0.0
    open: float = 0.0
    run_began: float = 0.0
    run_ended: float = 0.0
    total: float = 0.0


def summary(federation: Federation, judge: Judge, federated: Mapping[str, Any], timing: Timing) -> dict[str, Any]:
    """The JSON of `fednode demo --json`. Diverged unless all parties hold the same adapter after every round."""
    views = {name: _history(federation, name) for name in federation.parties}
    first = next(iter(views.values()))
    chains = {name: [entry.digest for entry in view.rounds] for name, view in views.items()}
    if any(chain != chains[next(iter(chains))] for chain in chains.values()):
        raise Diverged(
            "the parties' journals name different adapters", hint=f"compare `fednode rounds` in {federation.dir}"
        )
    certified = max(view.state.certified_at or timing.run_ended for view in views.values())
    data: dict[str, Any] = {
        "task": federation.task,
        "parties": len(views),
        "rounds": len(first.rounds),
        "seed": federation.seed,
        "dir": str(federation.dir),
        "run_id": first.state.rules.run,
        "digest": first.state.digests[-1],
        "digests": {name: view.state.digests[-1] for name, view in views.items()},
        "round_digests": [entry.digest for entry in first.rounds],
        "loss": _quality(judge, federated, "loss"),
        "bytes_up": {name: [entry.signals[name]["size"] for entry in view.rounds] for name, view in views.items()},
        "seconds": {
            "setup": round(timing.setup, 3),
            "alone": round(timing.alone, 3),
            "open": round(timing.open, 3),
            "rounds": round(max(0.0, certified - timing.run_began), 3),
            "close": round(max(0.0, timing.run_ended - certified), 3),
            "total": round(timing.total, 3),
        },
        "phase_seconds": {
            phase: round(statistics.median(e.seconds[phase] for view in views.values() for e in view.rounds), 6)
            for phase in PHASES
        },
        "head": {
            "id": first.state.head.id,
            "status": str(first.state.head.status),
            "snapshots": first.state.head.snapshot,
        },
        "lovelace": {name: _money(view, name) for name, view in views.items()},
    }
    if judge.base.get("accuracy") is not None:
        data["accuracy"] = _quality(judge, federated, "accuracy")
    return data


def _history(federation: Federation, name: str) -> History:
    return read_history(app.open_site(federation.home(name), peers=federation.dir / "peers.toml", epochs=None))


def _quality(judge: Judge, federated: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {
        "base": judge.base[key],
        "alone": {name: judge.alone[name][key] for name in judge.federation.parties},
        "federated": federated[key],
    }


def _money(view: History, name: str) -> dict[str, int]:
    paid = dict(view.state.paid.paid) if view.state.paid else {}
    head = view.state.head
    deposited = sum(d.lovelace for d in head.deposits.values() if d.party == name and d.stage == "final")
    return {"deposited": deposited, "paid_out": next((v for p, v in paid.items() if p == name), 0)}
