"""Methods that PEFT lacks, against what anyone would write with torch alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedModel,
)

from lorascope.adapters.attach import attach, detach, load_adapter, save_adapter
from lorascope.adapters.bitfit.kind import BITFIT, BitfitConfig
from lorascope.adapters.bottleneck.kind import BOTTLENECK, BottleneckConfig
from lorascope.adapters.kinds import kind_of
from lorascope.adapters.layers import model_parts
from lorascope.adapters.ln import LnConfig
from lorascope.adapters.targets import select
from lorascope.config import Config
from lorascope.counting.architectures import table_shape
from lorascope.counting.parameters import houlsby_adapter_parameters
from lorascope.errors import ConfigError, LorascopeError
from lorascope.files.layout import Layout
from lorascope.quantizers.loading import load_base
from lorascope.study.grid import expand
from tests.conftest import BASE_OVERRIDES
from tests.counting.architecture_cases import config_values, meta_model
from tests.counting.test_architectures import DECODERS
from tests.devices import CPU
from tests.packs import bare_losses, plan_for, train_alone
from tests.planning.test_prediction import assert_close, trained_and_predicted

Compose = Callable[..., Config]
IDS = torch.arange(20).reshape(2, 10)
WITH_BIASES = ("gpt2", "opt", "gpt_neox", "phi3")


def trained(model: nn.Module, steps: int = 4) -> list[float]:
    """Losses of a few steps on the parameters that require gradients."""
    parameters = [own for own in model.parameters() if own.requires_grad]
    optimizer, losses = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.0), []
    for _ in range(steps):
        loss = model(input_ids=IDS, labels=IDS).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


class Houlsby(nn.Module):
    """Two layers whose output is added to what they get."""

    def __init__(self, features: int, size: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(features, size), nn.Linear(size, features)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def hook(self, layer: nn.Module, given: Any, result: Tensor) -> Tensor:
        """Added behind a layer."""
        added: Tensor = self.up(torch.relu(self.down(result)))
        return result + added


def with_houlsby(base: PreTrainedModel, size: int, seed: int) -> PreTrainedModel:
    """The base with such networks by forward hooks."""
    torch.manual_seed(seed)
    networks = nn.ModuleList()
    for name, layer in list(base.named_modules()):
        if name.endswith(("self_attn.o_proj", "mlp.down_proj")):
            networks.append(Houlsby(layer.out_features, size))
            layer.register_forward_hook(networks[-1].hook)
    base.networks = networks
    # A Trainer asks it before it trains anything beside a quantized base.
    base._hf_peft_config_loaded = True
    return base


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("mode", ["fp16", "nf4", "int8", "int4_sym"])
def test_adapter_h_is_two_layers_behind_each_attention_and_mlp(
    project: Layout, compose: Compose, tmp_path: Path, mode: str
) -> None:
    config = compose(
        "adapter=bottleneck", "bottleneck.size=8", f"quant={mode}", "train.steps=8", "seed=3",
        "train.micro_batch_size=4", "train.log_every_steps=1", "train.learning_rate=0.01",
    )  # fmt: skip
    plan = plan_for(project, config, tmp_path / "ours")
    ours = train_alone(plan)
    base = load_base(project.quantized("small", mode), config.quant, CPU)
    bare = with_houlsby(base, 8, seed=3)
    losses = bare_losses(project, config, bare, tmp_path / "bare")
    assert [point.loss_nats for point in ours.losses] == pytest.approx(losses, abs=2e-5)
    assert losses[-1] < losses[0] - 0.1
    assert ours.trainable_parameters == sum(own.numel() for own in bare.networks.parameters())
    # What is saved says alone what was trained.
    again = load_base(project.quantized("small", mode), config.quant, CPU)
    adapted = load_adapter(again, tmp_path / "ours").eval()
    with torch.no_grad():
        gap = adapted(input_ids=IDS).logits - bare.eval()(input_ids=IDS).logits
    assert gap.abs().max() < 1e-4
    assert_close(*trained_and_predicted(replace(plan, checkpoints=None)))


@pytest.mark.parametrize("case", ["llama", "gpt2", "opt", "gpt_neox", "bloom", "gemma3", "phi3"])
def test_adapter_h_has_the_papers_count(case: str) -> None:
    values, config = config_values(case), BottleneckConfig(size=5)
    chosen = select(model_parts(meta_model(values)), config)
    counted = BOTTLENECK.parameters(config, chosen)
    assert counted == houlsby_adapter_parameters(table_shape(values), 5)


def small(case: str) -> PreTrainedModel:
    """A random model."""
    torch.manual_seed(1)
    model = meta_model(config_values(case)).to_empty(device="cpu")
    model.init_weights()
    with torch.no_grad():
        for own in model.parameters():
            own.normal_(std=0.05)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("case", WITH_BIASES[:3])
def test_bitfit_trains_every_bias(case: str, tmp_path: Path) -> None:
    plain = small(case)
    biases = {name: own for name, own in plain.named_parameters() if name.endswith("bias")}
    for own in biases.values():
        own.requires_grad_(True)
    model = small(case)
    before = {name: own.clone() for name, own in model.named_parameters()}
    adapted = attach(model, BitfitConfig(), seed=0)
    assert adapted.get_nb_trainable_parameters()[0] == sum(own.numel() for own in biases.values())
    assert trained(adapted) == pytest.approx(trained(plain), abs=1e-5)
    save_adapter(adapted, tmp_path, "small")
    with torch.no_grad():
        expected = plain(input_ids=IDS).logits
        loaded = PeftModel.from_pretrained(small(case), tmp_path)
        assert (loaded(input_ids=IDS).logits - expected).abs().max() < 1e-4
        merged = loaded.merge_and_unload()
        for name, own in merged.named_parameters():
            wanted = biases.get(name, before[name])
            assert torch.allclose(own, wanted, atol=1e-5), name
    detach(adapted)
    assert all(torch.equal(own, before[name]) for name, own in model.named_parameters())


@pytest.mark.parametrize("case", DECODERS)
def test_norms_and_biases_are_counted_from_a_configuration(case: str) -> None:
    values = config_values(case)
    shape, model = table_shape(values), meta_model(values)
    assert sorted(shape.vectors, key=str) == sorted(model_parts(model).vectors or [], key=str)
    if shape.bias_parameters:
        chosen = select(shape.parts, BitfitConfig())
        assert BITFIT.parameters(BitfitConfig(), chosen) == shape.bias_parameters


def test_what_a_method_does_not_train_is_refused(project: Layout) -> None:
    for words, message in (
        (["lora=all_linear", "lora.targets=norms"], r"lora.targets='?norms.*does not train there"),
        (["adapter=ln", "ln.targets=all_linear"], r"ln.targets='?all_linear.*does not train there"),
    ):
        with pytest.raises(LorascopeError, match=message):
            expand(project, [*BASE_OVERRIDES, "quant=nf4", *words])
    with pytest.raises(ConfigError, match=r"bitfit.targets='biases': this model has none"):
        select(model_parts(meta_model(config_values("llama"))), BitfitConfig())


VISION = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 28, "patch_size": 14,
}  # fmt: skip
TEXT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "vocab_size": 111, "pad_token_id": 1,
}  # fmt: skip
BESIDE: dict[str, dict[str, object]] = {
    "llava_onevision": {
        "text_config": {**TEXT, "model_type": "qwen2"},
        "vision_config": {**VISION, "model_type": "siglip_vision_model"}, "image_token_index": 110,
    },
    "mistral3": {
        "text_config": {**TEXT, "model_type": "mistral", "head_dim": 16},
        "vision_config": {**VISION, "model_type": "pixtral", "head_dim": 8},
        "image_token_index": 110, "spatial_merge_size": 1,
    },
    # Its norms of queries and keys are a list's, with numbers for names.
    "stablelm": {**TEXT, "qk_layernorm": True},
}  # fmt: skip


@pytest.mark.parametrize("model_type", BESIDE)
@pytest.mark.parametrize("config", [LnConfig(), BitfitConfig()], ids=lambda config: config.kind)
def test_what_lies_beside_the_language_model_or_bears_a_number_is_told_apart(
    model_type: str, config: LnConfig | BitfitConfig
) -> None:
    made = CONFIG_MAPPING[model_type](**BESIDE[model_type])
    with torch.device("meta"):
        auto = AutoModelForImageTextToText if "vision_config" in BESIDE[model_type] else None
        model = (auto or AutoModelForCausalLM).from_config(made)
    try:
        chosen = select(model_parts(model), config)
    except ConfigError:
        # Mistral's language model has no biases; its vision tower is none of it.
        assert (model_type, config.kind) == ("mistral3", "bitfit")
        return
    adapted = attach(model, config, seed=0)
    declared = kind_of(config).parameters(config, chosen)
    assert adapted.get_nb_trainable_parameters()[0] == declared > 0


def test_adapter_h_stands_behind_transposed_layers_too(tmp_path: Path) -> None:
    model = small("gpt2")
    adapted = attach(model, BottleneckConfig(size=4), seed=0)
    losses = trained(adapted)
    assert losses[-1] < losses[0]
    save_adapter(adapted, tmp_path, "small")
    with torch.no_grad():
        loaded = PeftModel.from_pretrained(small("gpt2"), tmp_path)
        assert torch.equal(loaded(input_ids=IDS).logits, adapted.eval()(input_ids=IDS).logits)


def test_an_older_base_is_told_from_one_without_norms(project: Layout) -> None:
    parts = model_parts(meta_model(config_values("llama")))
    with pytest.raises(ConfigError, match=r"prepared by an older version.*prepare-base"):
        select(replace(parts, vectors=None), LnConfig())
    with pytest.raises(ConfigError, match="this model has none"):
        select(replace(parts, vectors=[]), LnConfig())
