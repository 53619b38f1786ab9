"""The files of one run under a home: `runs/<run_id>/`. Everything here can be recomputed or fetched again, except the
bundles (their loss costs the residual and the optimiser state of the own party only)."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from fednode.durable import make_folders
from fednode.types import Digest


@dataclass(frozen=True, slots=True)
class RunFolder:
    root: Path

    @property
    def objects(self) -> Path:
        """Cache of own and peers' objects, named by digest."""
        return self.root / "objects"

    @property
    def bundles(self) -> Path:
        return self.root / "bundles"

    @property
    def signals(self) -> Path:
        return self.root / "signals"

    @property
    def agreement(self) -> Path:
        """The object of round 0, kept to notice a model that changed under a run."""
        return self.root / "agreement.json"

    @property
    def transcript(self) -> Path:
        return self.root / "transcript.cborseq"

    def state(self, round_number: int) -> Path:
        """S_r."""
        return self.root / "state" / f"{round_number:06d}.safetensors"

    def momentum(self, round_number: int) -> Path:
        return self.root / "momentum" / f"{round_number:06d}.safetensors"

    def bundle(self, round_number: int) -> Path:
        return self.bundles / f"{round_number:06d}.safetensors"

    def object(self, digest: Digest) -> Path:
        return self.objects / f"{digest}.safetensors"

    def signal(self, round_number: int) -> Path:
        return self.signals / f"{round_number:06d}.cbor"

    def create(self) -> None:
        for folder in (self.objects, self.bundles, self.signals, self.state(0).parent, self.momentum(0).parent):
            make_folders(folder)

    def tidy(self, round_number: int, needed: Collection[Digest]) -> None:
        """Drop what a round no longer needs: adapters and bundles older than the previous round's, and objects other
        than `needed` (they stay in the buckets). Called only once the previous round is in the journal."""
        for folder in (self.state(0).parent, self.momentum(0).parent, self.bundles, self.signals):
            for path in folder.iterdir():
                if path.stem.isdigit() and int(path.stem) < round_number - 1:
                    path.unlink(missing_ok=True)
        for path in self.objects.iterdir():
            if path.suffix == ".safetensors" and path.stem not in needed:
                with contextlib.suppress(OSError):
                    path.unlink()
