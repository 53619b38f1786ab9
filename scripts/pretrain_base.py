"""Train the demo's base model: a byte-level Llama of 0.9 M parameters, on the standard library's docstrings.

    OMP_NUM_THREADS=1 python scripts/pretrain_base.py training/assets/tiny-byte-llama

Seeded: the same interpreter version, torch version and kind of processor give the same file. About four minutes on
one core. The help topics (`pydoc_data`), which the demo fine-tunes on, are not in this text.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import math
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

SEED = 1729
STEPS, BATCH, LENGTH = 1200, 16, 128
PEAK_RATE, WARM_UP, CLIP = 3e-3, 50, 1.0
LEFT_OUT = {"pydoc_data", "site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3", "__pycache__"}


def docstrings(root: Path) -> Iterator[str]:
    """Every docstring of the modules under `root`, in path order, each text once."""
    seen: set[str] = set()
    for path in sorted(root.rglob("*.py")):
        if LEFT_OUT.intersection(path.relative_to(root).parts):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = inspect.cleandoc(ast.get_docstring(node, clean=False) or "").strip()
                if text and text not in seen:
                    seen.add(text)
                    yield text


def config() -> LlamaConfig:
    """Every width is a multiple of 64, the block of NF4; the vocabulary is the 256 bytes."""
    return LlamaConfig(
        vocab_size=256,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        fednode_tokenizer="bytes",
    )


def rate(step: int) -> float:
    """Linear warm-up, then a cosine to a tenth of the peak."""
    if step < WARM_UP:
        return PEAK_RATE * (step + 1) / WARM_UP
    along = (step - WARM_UP) / (STEPS - WARM_UP)
    return PEAK_RATE * (0.1 + 0.45 * (1 + math.cos(math.pi * along)))


def pretrain(text: bytes) -> LlamaForCausalLM:
    """STEPS steps of AdamW on random windows of `text`."""
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(config())
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    tokens = torch.from_numpy(np.frombuffer(text, dtype=np.uint8).astype(np.int64))
    random = np.random.Generator(np.random.PCG64(SEED))
    started = time.monotonic()
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = rate(step)
        starts = random.integers(0, len(tokens) - LENGTH - 1, size=BATCH)
        windows = torch.stack([tokens[i : i + LENGTH + 1] for i in starts])
        logits = model(input_ids=windows[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if step % 100 == 99:
            print(f"step {step + 1:5d}  loss {loss.item():.3f}  {time.monotonic() - started:.0f} s", flush=True)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    text = "\n\n".join(docstrings(Path(sysconfig.get_path("stdlib")))).encode()
    print(f"{len(text)} bytes of docstrings")
    model = pretrain(text).to(torch.bfloat16)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    print(json.dumps({path.name: path.stat().st_size for path in sorted(folder.iterdir())}))


if __name__ == "__main__":
    main()
