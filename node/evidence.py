"""Evidence of a fault: one JSON file that a person can read and a program can check, with the exact bytes in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from fednode.durable import make_folders, publish, write_atomic
from fednode.node.protocol.state import State
from fednode.types import TxId


def write(folder: Path, state: State, index: int, confirmed: Callable[[], Iterable[tuple[TxId, str]]]) -> Path:
    """Write the evidence of fault `index` durably; returns the file. Writing it again gives the same file.

    The signal that vouched for the faulty object, or the first of two equivocal signals, is added from the journal.
    """
    make_folders(folder)
    fault = state.faults[index]
    stem = f"{index:03d}-round{fault.round:06d}-{fault.party}-{fault.kind}"
    raw = list(fault.raw)
    signal = state.transcript.signals(fault.round).get(fault.party)
    if signal is not None:
        raw = [cbor for tx, cbor in confirmed() if tx == signal.tx] + raw
    kept = None
    if fault.file and Path(fault.file).is_file():
        kept = folder / f"{stem}.object"
        temporary = folder / f".{stem}.object.part"
        shutil.copyfile(fault.file, temporary)
        publish(temporary, kept)
    document = {
        "evidence": "fednode/1",
        "run": state.rules.run,
        "head": state.head.id,
        "witnessed_by": state.rules.me,
        "accused": fault.party,
        "round": fault.round,
        "kind": fault.kind,
        "message": fault.message,
        "found_at": fault.at,
        "transactions": list(dict.fromkeys(raw)),
        "object_file": kept.name if kept else None,
    }
    path = folder / f"{stem}.json"
    write_atomic(path, json.dumps(document, indent=2).encode())
    return path
