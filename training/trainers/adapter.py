"""The LoRA adapter on a base model, by peft; its tensors in and out as numpy float32 under their state-dict names."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fednode.errors import ConfigError, TrainingError
from fednode.training.exact.schema import factor_of
from fednode.training.trainers.device import to_device, to_numpy
from fednode.training.trainers.recipe import Lora
from fednode.types import Phase

NAME = "default"
"""peft's name of its first adapter; it stands in parameter names, not in state-dict names."""


class Adapter:
    """A peft model and its LoRA parameters by state-dict name, sorted by the names' UTF-8 bytes."""

    def __init__(self, model: Any) -> None:
        self.model: Any = model
        found = {
            name.replace(f".{NAME}.", "."): parameter
            for name, parameter in model.named_parameters()
            if ".lora_A." in name or ".lora_B." in name
        }
        self.parameters: dict[str, torch.nn.Parameter] = {
            name: found[name] for name in sorted(found, key=lambda name: name.encode())
        }
        for parameter in self.parameters.values():
            if parameter.dtype != torch.float32:
                parameter.data = parameter.data.to(torch.float32)

    def shapes(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Name and shape of every LoRA tensor."""
        return tuple((name, tuple(parameter.shape)) for name, parameter in self.parameters.items())

    def moving(self, phase: Phase) -> dict[str, torch.nn.Parameter]:
        """Let only the factors of `phase` have gradients, and return them."""
        for name, parameter in self.parameters.items():
            parameter.requires_grad_(factor_of(name) in phase)
            parameter.grad = None
        return {name: parameter for name, parameter in self.parameters.items() if parameter.requires_grad}

    def put(self, state: Mapping[str, NDArray[np.float32]]) -> None:
        """Load every tensor. Raises TrainingError where names or shapes differ from the adapter's."""
        check_shapes(state, self.shapes())
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(to_device(np.array(state[name], dtype=np.float32), parameter.device))

    def take(self) -> dict[str, NDArray[np.float32]]:
        """Copies of every tensor."""
        return {name: to_numpy(parameter) for name, parameter in self.parameters.items()}


def attach(base: Any, lora: Lora, target_modules: str | list[str], task_type: str | None) -> Adapter:
    """Put a fresh LoRA adapter on `base`. Raises ConfigError where peft finds no such modules."""
    peft: Any = import_module("peft")
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=target_modules,
        bias="none",
        task_type=task_type,
    )
    try:
        adapter = Adapter(peft.get_peft_model(base, config, adapter_name=NAME))
    except ValueError as error:
        raise ConfigError(
            f"model.target_modules {target_modules!r} does not fit the model: {error}",
            hint="use target_modules = 'all-linear', or names of the model's linear modules",
        ) from error
    if not adapter.parameters:
        raise ConfigError(f"model.target_modules {target_modules!r} matches no linear module of the model")
    return adapter


def check_shapes(state: Mapping[str, NDArray[np.float32]], shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> None:
    """Raise TrainingError unless `state` has exactly the tensors in `shapes`."""
    wanted = dict(shapes)
    if state.keys() != wanted.keys():
        odd = sorted(state.keys() ^ wanted.keys())
        raise TrainingError(f"the adapter state and the model differ in {len(odd)} tensor names, first {odd[0]}")
    for name, shape in wanted.items():
        if state[name].shape != shape:
            raise TrainingError(f"adapter tensor {name} has shape {state[name].shape}, the model expects {shape}")
