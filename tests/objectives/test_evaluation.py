"""What an evaluation changes of a model while it lasts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from lorascope.machine.devices import autocast
from lorascope.objectives.evaluation import evaluation_mode

IDS = torch.arange(24).view(2, 12)
SHAPE = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip


def adapted(dtype: torch.dtype, **settings: Any) -> PeftModel:
    torch.manual_seed(0)
    base = LlamaForCausalLM(LlamaConfig(**SHAPE)).to(dtype)
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", **settings))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def matrix_types(model: PeftModel) -> set[torch.dtype]:
    return {own.dtype for name, own in model.named_parameters() if "lora_A" in name}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lora_in_16_bits_gives_the_bits_that_autocast_gives(dtype: torch.dtype) -> None:
    model = adapted(dtype).eval()
    before = dict(model.named_parameters())
    with torch.no_grad(), autocast("cpu", dtype, keep_casts=False):
        expected: Tensor = model(IDS).logits
    with evaluation_mode(model):
        assert matrix_types(model) == {dtype}
        torch.testing.assert_close(model(IDS).logits, expected, rtol=0, atol=0)
    after = dict(model.named_parameters())
    assert all(after[name] is own for name, own in before.items())


@pytest.mark.parametrize(
    ("dtype", "settings"), [(torch.float32, {}), (torch.bfloat16, {"use_dora": True})]
)
def test_lora_keeps_its_type_where_it_is_computed_with_in_another_way(
    dtype: torch.dtype, settings: dict[str, Any]
) -> None:
    model = adapted(dtype, **settings)
    with evaluation_mode(model):
        assert matrix_types(model) == {torch.float32}


def test_lora_has_its_values_again_after_an_error() -> None:
    model = adapted(torch.bfloat16)
    with pytest.raises(ZeroDivisionError), evaluation_mode(model):
        _ = 1 // 0
    assert matrix_types(model) == {torch.float32}
