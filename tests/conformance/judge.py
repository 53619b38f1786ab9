"""The independent ledger: a Go program on gouroboros, built once, that judges many transactions in one run."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import tools
from .broken import Case
from .drafts import SLOT, Draft

FOLDER = tools.HERE / "ledger"


@dataclass(frozen=True)
class Verdict:
    """What the other ledger says. `failures`: the names of its rules that the transaction breaks."""

    decoded: bool
    id: str
    failures: tuple[str, ...]
    error: str

    @property
    def accepted(self) -> bool:
        return self.decoded and not self.failures


def build() -> Path:
    """The program. Skips where there is no Go, or the modules cannot be had."""
    tools.need("go")
    sources = [path for path in FOLDER.iterdir() if path.suffix in {".go", ".mod", ".sum"}]
    return tools.cached("ledgerjudge", sources, _make) / "ledgerjudge"


def _make(folder: Path) -> None:
    settings = {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "GOWORK": "off", "CGO_ENABLED": "0"}
    tools.succeed(tools.run(["go", "mod", "download"], FOLDER, **settings), "Go modules of the independent ledger")
    command = ["go", "build", "-trimpath", "-ldflags=-s -w", "-o", str(folder / "ledgerjudge"), "."]
    tools.succeed(tools.run(command, FOLDER, **settings), "the independent ledger")


def ask(program: Path, cases: Sequence[Case]) -> list[Verdict]:
    """Its verdict for every case."""
    lines = "".join(json.dumps(_question(case.draft, case.raw)) + "\n" for case in cases)
    done = subprocess.run(
        [str(program)], input=lines, capture_output=True, text=True, timeout=tools.SECONDS, check=True
    )
    answers = [_verdict(json.loads(line)) for line in done.stdout.splitlines()]
    assert len(answers) == len(cases), done.stderr
    return answers


def _question(draft: Draft, raw: bytes) -> dict[str, Any]:
    rules = draft.rules
    return {
        "tx": raw.hex(),
        "utxo": {f"{txid.hex()}#{index}": pay.encode(draft.style).hex() for (txid, index), pay in draft.utxo.items()},
        "slot": SLOT,
        "network": rules.network,
        "maxTxSize": rules.max_tx_size,
        "maxValueSize": rules.max_value_size,
        "utxoCostPerByte": rules.utxo_cost_per_byte,
        "feeFixed": rules.fee_fixed,
        "feePerByte": rules.fee_per_byte,
    }


def _verdict(answer: dict[str, Any]) -> Verdict:
    assert not answer.get("error", "").startswith("utxo"), answer
    # The decoder reads the first item and does not mind what follows: counting is left to the caller.
    decoded = answer["decoded"] and not answer["trailing"]
    assert not any("panic" in failure for failure in answer["failures"]), answer
    rules = tuple(failure.partition(":")[0] for failure in answer["failures"])
    return Verdict(decoded, answer["id"], rules, answer.get("error", ""))
