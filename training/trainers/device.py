"""What the torch tasks need of the device: arrays in and out, the same bits again, and memory errors in our words."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fednode.errors import ConfigError, TrainingError

untyped: Any = torch
"""torch leaves some of its functions without types."""


def device_of(wanted: str) -> torch.device:
    """`auto` = the GPU where there is one. Raises ConfigError for an unknown or absent device."""
    if wanted not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device is {wanted!r}, expected 'auto', 'cpu' or 'cuda'", hint="correct it in fednode.toml")
    present = wanted != "cpu" and torch.cuda.is_available()
    if wanted == "cuda" and not present:
        raise ConfigError("device is 'cuda', but torch finds no GPU here", hint="set device = 'cpu' in fednode.toml")
    return torch.device("cuda" if present else "cpu")


def deterministic(device: torch.device, threads: int) -> None:
    """Make this process compute the same bits again; on CUDA as far as the libraries can (they warn, we go on)."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    settings: Any = import_module("torch.utils.deterministic")
    settings.fill_uninitialized_memory = False  # costs a pass over every new tensor
    torch.backends.cudnn.benchmark = False


def seed_torch(random: np.random.Generator) -> None:
    """Seed torch's own generators (dropout) from `random`."""
    untyped.manual_seed(int(random.integers(1 << 62)))


def to_device(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """A tensor of the array's type; on a CPU it may share the array's memory."""
    tensor: torch.Tensor = untyped.from_numpy(array).to(device)
    return tensor


def to_numpy(tensor: torch.Tensor) -> NDArray[np.float32]:
    """A float32 copy on the host."""
    return np.array(tensor.detach().to("cpu", torch.float32).numpy(), dtype=np.float32)


@contextmanager
def out_of_memory(advice: str) -> Generator[None]:
    """Turn a memory error of torch into a TrainingError that says what to lower."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise TrainingError("the device ran out of memory while training", hint=advice) from error
    except RuntimeError as error:
        # torch has no class of its own for a failed allocation on the host
        if "can't allocate memory" not in str(error):
            raise
        raise TrainingError("the machine ran out of memory while training", hint=advice) from error
