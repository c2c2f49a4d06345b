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
from transformers import PreTrainedModel

from lorascope.adapters.attach import attach, detach, load_adapter, save_adapter
from lorascope.adapters.bitfit.kind import BITFIT, BitfitConfig
from lorascope.adapters.bottleneck.kind import BOTTLENECK, BottleneckConfig
from lorascope.adapters.layers import model_parts
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
@pytest.mark.parametrize("mode", ["fp16", "nf4", "int8"])
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
    assert sorted(shape.vectors, key=str) == sorted(model_parts(model).vectors, key=str)
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
