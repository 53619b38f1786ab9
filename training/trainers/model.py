"""The frozen base: a causal language model from a local folder, the model hub or our own assets, quantised.

Guard: bitsandbytes' `Linear4bit` on a processor with AVX512-BF16 repacks its weights in place in the first
evaluation pass, and training passes after it no longer send gradients through the base layer: LoRA trains on wrong
gradients without a word. `support_avx512bf16_for_cpu = False`, set right after loading, keeps the one correct path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch

from fednode.errors import ConfigError, TrainingError
from fednode.training.settings import Table
from fednode.training.trainers.builtin import PREFIX, builtin_folder
from fednode.training.trainers.data import BYTES, Encoder
from fednode.training.trainers.device import device_of
from fednode.training.trainers.recipe import Quantisation, quantisation_of, recipe_of
from fednode.training.trainers.weight_files import checked_digests
from fednode.types import TrainerSetup

HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.txt", "*.jinja"]
"""What is downloaded of a hub model: weights, settings, tokenizer; never pickles, never code."""
SHORT_SEQUENCE = 256


@dataclass(frozen=True, slots=True)
class Base:
    """A loaded base model."""

    model: Any
    encoder: Encoder
    device: torch.device
    digests: Mapping[str, str]
    """Weight file -> sha256 hex."""


def load_base(setup: TrainerSetup, *, as_stored: bool = False) -> Base:
    """Load and quantise the base on the wanted device, frozen and guarded. Raises ConfigError, TrainingError.

    `as_stored`: not quantised, in the number type of the weight files (for merging).
    """
    folder = model_folder(setup)
    digests = checked_digests(folder, expected_digests(setup))
    device = device_of(setup.device)
    attention = attention_for(device, recipe_of(setup).sequence)
    model = load_model(folder, device, None if as_stored else quantisation_of(setup), attention)
    return Base(model, encoder_of(folder, model.config), device, digests)


def expected_digests(setup: TrainerSetup) -> Mapping[str, str]:
    """`model.sha256`: weight file -> hex sha256; empty where the agreement gives none."""
    return cast("Mapping[str, str]", setup.model.get("sha256") or {})


def model_folder(setup: TrainerSetup) -> Path:
    """The folder of `model.path`, of a base that comes with fednode, or of the hub's snapshot."""
    table = Table("model", setup.model)
    path, name = table.text("path", ""), table.text("name", "")
    if path:
        return Path(path)
    if name.startswith(PREFIX):
        return builtin_folder(name)
    if not name:
        raise ConfigError("model.name and model.path are both empty", hint="name the base model in peers.toml")
    return hub_snapshot(name, table.text("revision", "") or None)


def hub_snapshot(name: str, revision: str | None) -> Path:
    """Folder of a hub model at a revision: from the local cache where it is complete, else downloaded."""
    hub: Any = import_module("huggingface_hub")
    wanted = {"repo_id": name, "revision": revision, "allow_patterns": HUB_FILES}
    try:
        return Path(hub.snapshot_download(**wanted))
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"model {name!r} at revision {revision!r} could not be had from the model hub: {type(error).__name__}",
            hint="check name, revision and network, or download the model and set model.path",
        ) from error


def attention_for(device: torch.device, sequence: int) -> str:
    """torch's fused attention, except for short sequences on a CPU: its backward pass there costs a fifth of a step."""
    return "eager" if device.type == "cpu" and sequence <= SHORT_SEQUENCE else "sdpa"


def load_model(folder: Path, device: torch.device, quantisation: Quantisation | None, attention: str) -> Any:
    """The frozen model in evaluation mode, every Linear4bit guarded.

    `none` computes in float32 on a CPU, as QLoRA's base does elsewhere in bfloat16; None = in the stored type.
    """
    transformers: Any = import_module("transformers")
    transformers.utils.logging.disable_progress_bar()
    compute = compute_type(device)
    plain = torch.float32 if quantisation == "none" and device.type == "cpu" else compute
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype="auto" if quantisation is None else plain,
            quantization_config=quantiser(transformers, quantisation, compute),
            device_map={"": str(device)},
            attn_implementation=attention,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(
            f"the model in {folder} could not be loaded: {error}",
            hint="expected a causal language model that this version of transformers knows without remote code",
        ) from error
    model.requires_grad_(False)
    model.config.use_cache = False
    guard(model)
    return model.eval()


def compute_type(device: torch.device) -> torch.dtype:
    """bfloat16 where the device has it; float16 would need loss scaling, so an old GPU computes in float32."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return torch.float32
    return torch.bfloat16


def quantiser(transformers: Any, quantisation: Quantisation | None, compute: torch.dtype) -> Any:
    """NF4 with double quantisation (QLoRA, arXiv 2305.14314), LLM.int8, or None."""
    if quantisation == "nf4":
        return transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
        )
    if quantisation == "int8":
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    return None


def guard(model: torch.nn.Module) -> int:
    """Keep every Linear4bit of `model` on the path that backpropagates (see above); how many there are."""
    linear4bit: Any = import_module("bitsandbytes").nn.Linear4bit
    layers: list[Any] = [module for module in model.modules() if isinstance(module, linear4bit)]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
    return len(layers)


def encoder_of(folder: Path, config: Any) -> Encoder:
    """Text to tokens: bytes where config.json says `"fednode_tokenizer": "bytes"`, else the model's own tokenizer."""
    kind = getattr(config, "fednode_tokenizer", None)
    if kind == "bytes":
        if config.vocab_size < 256:
            raise TrainingError(f"the byte-level model in {folder} has vocab_size {config.vocab_size}, expected >= 256")
        return BYTES
    transformers: Any = import_module("transformers")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(
            f"the tokenizer in {folder} could not be loaded: {error}",
            hint='a byte-level model without tokenizer needs "fednode_tokenizer": "bytes" in its config.json',
        ) from error
    end = tokenizer.eos_token_id

    def encode(text: str) -> Sequence[int]:
        tokens: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return tokens

    return Encoder(encode, () if end is None else (end,))
