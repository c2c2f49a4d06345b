"""How A and B begin: as plain PEFT begins them, in packs and alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lorascope.config import Config
from lorascope.errors import ConfigError, LorascopeError
from lorascope.files.layout import Layout
from lorascope.quantizers.loading import load_base
from lorascope.records import TrainingResult
from lorascope.study.declared import declare_trial
from lorascope.study.grid import expand
from lorascope.training.pack import pack_adapters
from lorascope.training.run import train_pack
from tests.conftest import BASE_OVERRIDES
from tests.devices import CPU
from tests.packs import bare_losses, pack_plan, plan_for, train_alone

Compose = Callable[..., Config]
TARGETS = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
TRAINED = (
    "quant=fp16", "lora.rank=4", "lora.alpha=8", "train.steps=12", "train.micro_batch_size=4",
    "train.log_every_steps=1", "train.max_gradient_norm=0.5", "train.weight_decay=0.01",
)  # fmt: skip


def plain_peft(project: Layout, config: Config, init: str, **settings: object) -> peft.PeftModel:
    """What anyone would write with PEFT."""
    base = load_base(project.quantized("small", config.quant.name), config.quant, CPU)
    adapter = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=TARGETS, task_type="CAUSAL_LM",
        init_lora_weights=init, **settings,
    )  # fmt: skip
    torch.manual_seed(config.seed)
    return peft.get_peft_model(base, adapter)


def named_values(model: peft.PeftModel) -> dict[str, Tensor]:
    """Trained values by their names in the base."""
    named = model.get_base_model().named_parameters()
    return {name: value.detach().clone() for name, value in named if value.requires_grad}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("init", ["gaussian", "orthogonal"])
def test_training_follows_a_bare_trainer_from_the_same_first_values(
    project: Layout, compose: Compose, tmp_path: Path, init: str
) -> None:
    config = compose(*TRAINED, f"lora.init={init}", "seed=3")
    bare = plain_peft(project, config, init)
    base = load_base(project.quantized("small", "fp16"), config.quant, CPU)
    ours = pack_adapters(base, [config.adapter], [3]).stack.read(0)
    first = named_values(bare)
    assert ours.keys() == first.keys()
    assert all(torch.equal(ours[name], first[name]) for name in first)
    result = train_alone(plan_for(project, config, tmp_path / "ours"))
    losses = bare_losses(project, config, bare, tmp_path / "bare")
    assert [point.loss_nats for point in result.losses] == pytest.approx(losses, abs=1e-5)
    saved = load_file(tmp_path / "ours/adapter_model.safetensors")
    bare.save_pretrained(tmp_path / "bare")
    theirs = load_file(tmp_path / "bare/adapter_model.safetensors")
    assert saved.keys() == theirs.keys()
    assert all((saved[name] - theirs[name]).abs().max() < 1e-5 for name in theirs)


@pytest.mark.usefixtures("one_thread")
def test_all_share_a_pack_and_compute_what_they_compute_alone(
    project: Layout, compose: Compose, tmp_path: Path
) -> None:
    inits = ("kaiming", "gaussian", "orthogonal")
    configs = [compose(*TRAINED, f"lora.init={init}") for init in inits]
    plan = pack_plan(project, configs, [tmp_path / init for init in inits])
    digests = set()
    for config, packed in zip(configs, train_pack(plan, CPU), strict=True):
        assert isinstance(packed, TrainingResult)
        alone = train_alone(plan_for(project, config, tmp_path / "alone"))
        assert packed.adapter_sha256 == alone.adapter_sha256
        digests.add(packed.adapter_sha256)
    assert len(digests) == len(inits)


REFUSED = (
    (["lora.init=true"], "no such initialisation"),
    (["lora.init=orthogonal", "lora.rank=3"], "lora.rank=3: .*half of the rank"),
)


@pytest.mark.parametrize(("overrides", "message"), REFUSED)
def test_refusals_name_the_setting(project: Layout, overrides: list[str], message: str) -> None:
    with pytest.raises(LorascopeError, match=message):
        expand(project, [*BASE_OVERRIDES, "quant=fp16", *overrides])


@pytest.mark.parametrize("init", ["orthogonal"])
@pytest.mark.parametrize("mode", ["nf4", "int8"])
def test_what_reads_weights_is_refused_on_a_quantized_base_before_it_is_loaded(
    project: Layout, compose: Compose, mode: str, init: str
) -> None:
    config = compose(f"quant={mode}", f"lora.init={init}", "lora.rank=4")
    with pytest.raises(ConfigError, match=f"lora.init='{init}': .*quant={mode} .*Take quant=fp16"):
        declare_trial(config, project)
