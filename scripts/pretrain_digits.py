"""Train the base of the `digits` task on its 100 images, and store it as safetensors.

OMP_NUM_THREADS=1 python scripts/pretrain_digits.py training/assets/digits-mlp
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from fednode.training.exact.tensors import write_tensors
from fednode.training.trainers.images import all_images
from fednode.training.trainers.perceptron import Network

SEED, STEPS = 1729, 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    base, held_out, _ = all_images()
    network = Network()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.1)
    for _ in range(STEPS):
        loss = torch.nn.functional.cross_entropy(
            network(torch.from_numpy(base.pixels)), torch.from_numpy(base.labels), label_smoothing=0.1
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    right = network(torch.from_numpy(held_out.pixels)).argmax(1) == torch.from_numpy(held_out.labels)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "model.safetensors", {k: tensor.numpy() for k, tensor in network.state_dict().items()})
    print(f"loss {loss.item():.3f}, held-out accuracy {right.double().mean().item():.3f}")


if __name__ == "__main__":
    main()
