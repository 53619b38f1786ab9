"""What others load: the peft folder and the merged model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fednode.errors import ConfigError
from fednode.node.demo.corpus import Shares
from fednode.training.exact.tensors import write_tensors
from fednode.training.tasks import Task, load
from fednode.training.trainers import data
from fednode.training.trainers.builtin import TINY_BYTE_LLAMA, builtin_folder
from fednode.training.trainers.export import export
from fednode.training.trainers.model import guard, quantiser
from fednode.types import TrainerSetup
from tests.training.torch.conftest import State, make_setup, start_of, train

pytestmark = pytest.mark.torch


def held_out_loss(model: Any, file: Path) -> float:
    """As Task.evaluate does it, but written down again: mean over all tokens, windows of 64."""
    tokens = data.read_tokens(file, "text", "", data.BYTES)
    total = 0.0
    with torch.no_grad():
        for windows in data.all_windows(tokens, 64, 4):
            batch = torch.from_numpy(windows)
            logits = model(input_ids=batch[:, :-1]).logits.float()
            total += float(
                torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="sum")
            )
    return total / (len(tokens) - 1)


@pytest.fixture(scope="module")
def trained(lm: Task, tmp_path_factory: pytest.TempPathFactory) -> tuple[State, Path]:
    """An adapter after one phase, and its state file."""
    state = dict(train(lm, start_of(lm)).weights)
    path = tmp_path_factory.mktemp("state") / "000001.safetensors"
    write_tensors(path, state)
    return state, path


def test_peft_loads_the_adapter_and_finds_the_same_loss(
    lm: Task, lm_setup: TrainerSetup, shares: Shares, trained: tuple[State, Path], folder: Path
) -> None:
    import transformers
    from peft import PeftModel

    export(trained[1], folder, lm_setup, merge=False)
    assert sorted(path.name for path in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    base: Any = transformers.AutoModelForCausalLM.from_pretrained(
        str(builtin_folder(TINY_BYTE_LLAMA)),
        dtype=torch.bfloat16,
        quantization_config=quantiser(transformers, "nf4", torch.bfloat16),
        device_map={"": "cpu"},
        attn_implementation="eager",
    )
    guard(base)
    model: Any = PeftModel.from_pretrained(base, str(folder))
    expected = lm.evaluate(trained[0], str(shares.held_out)).loss
    assert held_out_loss(model.eval(), shares.held_out) == pytest.approx(expected, rel=1e-6)
    assert expected != lm.evaluate({}, str(shares.held_out)).loss


def test_the_merged_model_answers_like_base_and_adapter(
    shares: Shares, lm_setup: TrainerSetup, trained: tuple[State, Path], folder: Path
) -> None:
    import transformers

    export(trained[1], folder, lm_setup, merge=True)
    assert not list(folder.glob("adapter*"))
    merged: Any = transformers.AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    exact = load(make_setup(data={"path": str(shares.parties[0])}, model={"quantisation": "none"}))
    expected = exact.evaluate(trained[0], str(shares.held_out)).loss
    base = exact.evaluate({}, str(shares.held_out)).loss
    found = held_out_loss(merged.eval(), shares.held_out)
    assert abs(found - expected) < 0.1 * abs(base - expected)  # the merged weights are stored as bfloat16
    assert merged.config.fednode_tokenizer == "bytes"


def test_export_refuses_what_it_cannot_do(lm_setup: TrainerSetup, trained: tuple[State, Path], folder: Path) -> None:
    folder.mkdir()
    (folder / "kept").touch()
    with pytest.raises(ConfigError, match="not an empty folder"):
        export(trained[1], folder, lm_setup, merge=False)
    with pytest.raises(ConfigError, match="no adapter at"):
        export(folder / "none", folder / "new", lm_setup, merge=False)
    with pytest.raises(ConfigError, match="no language model"):
        export(trained[1], folder / "new", replace(lm_setup, task="digits"), merge=False)
