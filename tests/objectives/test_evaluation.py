"""What an evaluation changes of a model while it lasts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from lorascope.machine.devices import autocast
from lorascope.objectives.evaluation import evaluation_mode

IDS = torch.arange(24).view(2, 12)
LLAMA = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
GPT2 = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}


def base_of(name: str, dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    models = {"llama": (LlamaForCausalLM, LlamaConfig(**LLAMA))}
    models["gpt2"] = (GPT2LMHeadModel, GPT2Config(**GPT2))
    made, config = models[name]
    return made(config).to(dtype)


def adapted(name: str, dtype: torch.dtype, **settings: Any) -> PeftModel:
    """LoRA that says something, on the head too."""
    every = {"r": 4, "target_modules": "all-linear", **settings}
    model = get_peft_model(base_of(name, dtype), LoraConfig(**every))
    for own, parameter in model.named_parameters():
        if "lora_B" in own:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def input_types(model: PeftModel) -> set[torch.dtype]:
    """Types that A gets its inputs in, while they are kept."""
    found = set()
    for name, own in model.named_modules():
        if name.endswith("lora_A.default"):
            own.register_forward_pre_hook(lambda _, given: found.add(given[0].dtype))
    return found


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("llama", {}),
        ("llama", {"target_modules": ["q_proj", "lm_head"], "use_rslora": True}),
        ("gpt2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
    ],
)
def test_lora_gives_the_bits_that_inputs_in_float32_give(
    name: str, settings: dict[str, Any], dtype: torch.dtype
) -> None:
    model = adapted(name, dtype, **settings).eval()
    with torch.no_grad(), autocast("cpu", dtype, keep_casts=False):
        expected: Tensor = model(IDS).logits
    types = input_types(model)
    with evaluation_mode(model), evaluation_mode(model):
        torch.testing.assert_close(model(IDS).logits, expected, rtol=0, atol=0)
    assert types == {dtype}


def test_dora_gets_its_inputs_as_peft_has_them() -> None:
    model = adapted("llama", torch.bfloat16, use_dora=True)
    layers = [own for own in model.modules() if isinstance(own, BaseTunerLayer)]
    with evaluation_mode(model):
        assert all(own.cast_input_dtype_enabled for own in layers)


def test_layers_cast_again_after_an_error() -> None:
    model = adapted("llama", torch.bfloat16)
    layers = [own for own in model.modules() if isinstance(own, BaseTunerLayer)]

    def fail() -> None:
        with evaluation_mode(model):
            assert not any(own.cast_input_dtype_enabled for own in layers)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert all(own.cast_input_dtype_enabled for own in layers)
