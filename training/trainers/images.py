"""The digits of scikit-learn (1,797 images of 8 x 8, BSD licence) and how the parties share them. No torch.

The order is fixed: 100 images train the base that comes with fednode, 360 are held out, the rest is dealt to the
parties, each class by a Dirichlet(0.3) draw: parties see very different digits.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from fednode.errors import TrainingError

BASE, HELD_OUT, CLASSES = 100, 360, 10
CONCENTRATION = 0.3
ORDER_SEED = 1729
LEAST = 20
"""Images that every party gets at least."""


class Images(NamedTuple):
    """Pixels float32 [n, 64] in 0..1 and labels int64 [n]."""

    pixels: NDArray[np.float32]
    labels: NDArray[np.int64]


def all_images() -> tuple[Images, Images, Images]:
    """(base, held-out, to be shared), the same everywhere."""
    datasets: Any = import_module("sklearn.datasets")
    found = cast("tuple[NDArray[np.float64], NDArray[np.int64]]", datasets.load_digits(return_X_y=True))
    pixels, labels = (found[0] / 16.0).astype(np.float32), found[1].astype(np.int64)
    order = np.random.Generator(np.random.PCG64(ORDER_SEED)).permutation(len(labels))
    cuts = np.split(order, [BASE, BASE + HELD_OUT])
    base, held_out, shared = (Images(pixels[cut], labels[cut]) for cut in cuts)
    return base, held_out, shared


def share(images: Images, *, seed: int, parties: int, index: int) -> Images:
    """Party `index`'s own images. Every party computes the whole deal and takes its own; no image has two owners.

    Raises TrainingError for an index outside the parties.
    """
    if not 0 <= index < parties:
        raise TrainingError(
            f"party number {index} has no share of the digits, which are dealt to {parties} parties",
            hint="set data.parties in fednode.toml to the number of parties, the same at every party",
        )
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, parties])))
    hands: list[list[int]] = [[] for _ in range(parties)]
    for digit in range(CLASSES):
        members = random.permutation(np.flatnonzero(images.labels == digit))
        portions = np.cumsum(random.dirichlet(np.full(parties, CONCENTRATION)))[:-1]
        for hand, part in zip(hands, np.split(members, (portions * len(members)).astype(np.int64)), strict=True):
            hand.extend(int(item) for item in part)
    for hand in hands:
        while len(hand) < LEAST:
            hand.append(max(hands, key=len).pop())
    own = np.array(sorted(hands[index]), dtype=np.int64)
    return Images(images.pixels[own], images.labels[own])


def epochs(count: int, wanted: int, random: np.random.Generator) -> NDArray[np.int64]:
    """`wanted` indices into `count` images: one random order after the other, int64 [wanted]."""
    orders = [random.permutation(count) for _ in range(-(-wanted // count))]
    return np.concatenate(orders)[:wanted].astype(np.int64)
