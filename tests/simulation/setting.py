"""What does not change between seeds: agreements, keys, and the shipped tensor code on a tiny schema.

Pure functions of bytes (reading and judging transactions, training, aggregating) are remembered across seeds, with
all their inputs as key: with `exact` a world computes every one of them anew.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any, NoReturn

import cbor2
import numpy as np

from fednode.errors import ObjectRefused
from fednode.hydra.addresses import address_bytes, enterprise_address
from fednode.hydra.keys import SigningKey
from fednode.hydra.transactions import SET_TAG, blake2b_256
from fednode.node.agreement import Agreement, parse_agreement
from fednode.node.protocol.state import Rules
from fednode.training.exact.aggregator import AggregatorSettings, ExactAggregator
from fednode.training.local_phase import LocalTrainer
from fednode.training.tasks import Evaluation, Trained
from fednode.types import (
    AggregateResult,
    Digest,
    Lovelace,
    Member,
    ModelFacts,
    PartyName,
    Phase,
    RunId,
    TrainerSetup,
    TrainRequest,
    TrainResult,
)

NAMES = tuple(PartyName(n) for n in ("anna", "bert", "cleo", "dora", "emil"))
TENSORS = tuple(sorted((f"m.{i}.lora_{f}.weight", (4, 16) if f == "A" else (16, 4)) for i in range(2) for f in "AB"))
FACTS = ModelFacts(TENSORS, {"model.safetensors": "0" * 64})


@cache
def key(kind: str, name: str) -> SigningKey:
    return SigningKey(blake2b_256(f"{kind} of {name}".encode()))


def _party(name: str) -> dict[str, object]:
    funds = key("funds", name).vkey
    return {
        "name": name,
        "hydra_vkey": key("hydra", name).vkey,
        "cardano_vkey": funds,
        "fuel_vkey": key("fuel", name).vkey,
        "address": enterprise_address(funds, 42),
        "bucket": name,
    }


@dataclass(frozen=True)
class Terms:
    """The part of an agreement that seeds vary."""

    parties: int
    rounds: int
    settle_s: float = 3.0
    takeover_s: float = 20.0
    deadline_s: float = 86400.0
    on_deadline: str = "wait"
    on_fault: str = "halt"


def scratch() -> Path:
    """A folder in memory for the code that wants real files; gone when the process ends."""
    return Path(tempfile.mkdtemp(dir=_folder(os.getpid())))


class TinyTask:
    """A trainer without data: noise from party, round and `variant`, as an adapter that another machine would give."""

    def __init__(self, party: str, variant: int) -> None:
        self._party, self._variant = party, variant

    def facts(self) -> ModelFacts:
        return FACTS

    def train(self, start: Mapping[str, Any], *, round_number: int, phase: Phase, **_: Any) -> Trained:
        seed = int.from_bytes(blake2b_256(f"{self._party} {round_number} {self._variant}".encode())[:8], "little")
        rng = np.random.default_rng(seed)
        moved = {
            name: value + rng.standard_normal(value.shape, np.float32) * np.float32(0.01)
            if name.split(".")[2][-1] in phase
            else value
            for name, value in start.items()
        }
        return Trained(moved, {f"{phase[0]}/t": np.array([round_number], np.int64)}, 0.5)

    def evaluate(self, state: Mapping[str, Any], path: str) -> Evaluation:
        raise NotImplementedError


@dataclass
class Setting:
    """One agreement with everything that follows from it."""

    terms: Terms
    agreement: Agreement
    aggregator: ExactAggregator
    folder: Path
    sections: Mapping[str, str]
    memory: dict[Any, Any] = field(default_factory=dict)

    @cached_property
    def run(self) -> RunId:
        return self.agreement.run_id

    @cached_property
    def members(self) -> tuple[Member, ...]:
        return self.agreement.members

    @cached_property
    def first_object(self) -> bytes:
        return self.agreement.object_json(self.aggregator.schema())

    def rules(self, me: PartyName) -> Rules:
        """As `fednode.node.site` makes them."""
        return replace(self._rules, me=me)

    @cached_property
    def _rules(self) -> Rules:
        a = self.agreement
        return Rules(
            me=NAMES[0],
            parties=tuple(m.name for m in a.members),
            rounds=a.run.rounds,
            run=a.run_id,
            binding=a.binding_hash,
            sections=self.sections,
            deposit=Lovelace(a.head.deposit),
            deadline_s=a.run.deadline_s,
            on_deadline=a.run.on_deadline,
            on_fault=a.run.on_fault,
            settle_s=a.head.settle_s,
            takeover_s=a.head.takeover_s,
        )

    def remembered(self, what: tuple[Any, ...], make: Callable[[], Any], *, exact: bool) -> Any:
        """`make()`, or what it gave before for the same `what`."""
        if exact or what not in self.memory:
            if len(self.memory) > 4_000:
                self.memory.clear()
            self.memory[what] = make()
        return self.memory[what]

    # The shipped tensor code on bytes ---------------------------------------------------------------------------------

    def initial(self) -> tuple[bytes, Digest]:
        path = self.folder / "initial"
        return self.remembered(("initial",), lambda: _out(lambda: self.aggregator.initial(path), path), exact=False)

    def digest(self, state: bytes, momentum: bytes | None) -> Digest:
        def make() -> Digest:
            read, speed = self.folder / "read", self.folder / "read-speed"
            read.write_bytes(state)
            if momentum is not None:
                speed.write_bytes(momentum)
            return self.aggregator.digest(read, None if momentum is None else speed)

        return self.remembered(("digest", state, momentum), make, exact=False)

    def momentum_digest(self, momentum: bytes) -> Digest | None:
        def make() -> Digest | None:
            path = self.folder / "read-speed"
            path.write_bytes(momentum)
            return self.aggregator.momentum_digest(path)

        return self.remembered(("momentum", momentum), make, exact=False)

    def check(self, data: bytes, who: tuple[Any, ...], *, exact: bool) -> ObjectRefused | None:
        def make() -> ObjectRefused | None:
            path = self.folder / "checked"
            path.write_bytes(data)
            run, number, party, phase, base = who
            try:
                self.aggregator.check(path, run=run, round_number=number, party=party, phase=phase, base=base)
            except ObjectRefused as refused:
                return refused
            return None

        return self.remembered(("check", data, who), make, exact=exact)

    def aggregate(
        self,
        number: int,
        objects: tuple[tuple[PartyName, bytes], ...],
        state: bytes,
        momentum: bytes | None,
        *,
        exact: bool,
    ) -> tuple[bytes, bytes, AggregateResult] | Exception:
        def make() -> tuple[bytes, bytes, AggregateResult] | Exception:
            old, speed, new, faster = (self.folder / n for n in ("old", "speed", "new", "faster"))
            old.write_bytes(state)
            if momentum is not None:
                speed.write_bytes(momentum)
            paths: dict[PartyName, Path] = {}
            for party, data in objects:
                paths[party] = self.folder / f"object-{party}"
                paths[party].write_bytes(data)
            try:
                done = self.aggregator.aggregate(
                    number,
                    paths,
                    state=old,
                    momentum=None if momentum is None else speed,
                    new_state=new,
                    new_momentum=faster,
                )
            except Exception as error:
                return error
            return new.read_bytes(), faster.read_bytes(), done

        return self.remembered(("aggregate", number, objects, state, momentum), make, exact=exact)

    def train(
        self,
        party: PartyName,
        index: int,
        request: TrainRequest,
        state: bytes,
        bundle: bytes | None,
        variant: int,
        *,
        exact: bool,
    ) -> tuple[bytes, bytes, TrainResult]:
        """(object, bundle, result) of the shipped trainer round a task of noise."""

        def make() -> tuple[bytes, bytes, TrainResult]:
            start, before = self.folder / "start", self.folder / "before"
            start.write_bytes(state)
            if bundle is not None:
                before.write_bytes(bundle)
            objects, bundles = self.folder / "objects", self.folder / "bundles"
            for folder in (objects, bundles):
                folder.mkdir(exist_ok=True)
            here = TrainRequest(
                request.round,
                request.phase,
                request.base,
                str(start),
                None if bundle is None else str(before),
                str(objects),
                str(bundles),
                request.schema,
            )
            done = LocalTrainer(self._setup(party, index), TinyTask(party, variant)).train(here, lambda *_: None)
            made = objects / f"{done.object}.safetensors"
            data, kept = made.read_bytes(), (bundles / f"{request.round:06d}.safetensors").read_bytes()
            made.unlink()
            return data, kept, done

        what = ("train", party, request.round, request.base, state, bundle, variant)
        return self.remembered(what, make, exact=exact)

    def _setup(self, party: PartyName, index: int) -> TrainerSetup:
        a = self.agreement
        return TrainerSetup(
            "tiny",
            a.model_table(self.folder),
            a.training_table(),
            a.aggregation.codec,
            a.run.seed,
            party,
            index,
            self.run,
            {},
            "cpu",
            1,
        )


def _out(make: Callable[[], Digest], path: Path) -> tuple[bytes, Digest]:
    digest = make()
    return path.read_bytes(), digest


@cache
def _folder(pid: int) -> Path:
    import atexit

    base = "/dev/shm" if os.path.isdir("/dev/shm") else None
    folder = Path(tempfile.mkdtemp(prefix="fednode-simulation-", dir=base))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def leave(status: int) -> NoReturn:
    """End at once, and leave no file behind."""
    shutil.rmtree(_folder(os.getpid()), ignore_errors=True)
    os._exit(status)


@cache
def setting_of(terms: Terms) -> Setting:
    agreement = parse_agreement(
        {
            "run": {
                "name": "simulation",
                "rounds": terms.rounds,
                "deadline_s": terms.deadline_s,
                "on_deadline": terms.on_deadline,
                "on_fault": terms.on_fault,
            },
            "model": {"name": "builtin:tiny", "rank": 4, "quantisation": "none"},
            "training": {"task": "linear", "steps": 1},
            "head": {
                "network": "devnet",
                "settle_s": terms.settle_s,
                "takeover_s": terms.takeover_s,
                "contestation_period_s": 60,
                "deposit_period_s": 10,
            },
            "party": [_party(name) for name in NAMES[: terms.parties]],
        }
    )
    folder = scratch()
    settings = AggregatorSettings(
        facts=FACTS,
        rank=agreement.model.rank,
        alpha=agreement.model.alpha,
        quantisation=agreement.model.quantisation,
        codec=agreement.aggregation.codec,
        seed=agreement.run.seed,
        phase_policy=agreement.training.phase,
        rule=agreement.aggregation.rule,
        clip=agreement.aggregation.clip,
        outer=agreement.aggregation.outer,
        outer_lr=agreement.aggregation.outer_lr,
        outer_momentum=agreement.aggregation.outer_momentum,
        members=tuple((m.name, m.weight) for m in agreement.members),
    )
    return Setting(terms, agreement, ExactAggregator(settings, threads=1), folder, agreement.sections)


@lru_cache(maxsize=4096)
def draft(index: int, reference: str, lovelace: int, ttl: int) -> bytes:
    """The deposit that a node drafts and signs with its fuel key."""
    txid, _, ix = reference.partition("#")
    inputs = cbor2.CBORTag(SET_TAG, [[bytes.fromhex(txid), int(ix)]])
    body = cbor2.dumps({0: inputs, 1: [[bytes([0x70]) + bytes(28), lovelace]], 2: 0, 3: ttl})
    fuel = key("fuel", NAMES[index])
    witness = cbor2.CBORTag(SET_TAG, [[bytes.fromhex(fuel.vkey), fuel.sign(blake2b_256(body))]])
    return b"\x84" + body + cbor2.dumps({0: witness}) + b"\xf5\xf6"


address = lru_cache(maxsize=64)(address_bytes)
