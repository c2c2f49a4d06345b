"""Full fine-tuning against a bare model that a bare Trainer trains."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, DogeConfig, DogeForCausalLM

from lorascope.adapters.attach import attach, detach, load_adapter, save_adapter
from lorascope.adapters.full.kind import FULL, FullConfig
from lorascope.adapters.layers import model_parts
from lorascope.adapters.targets import select
from lorascope.config import Config
from lorascope.counting.architectures import table_shape
from lorascope.errors import ConfigError, LorascopeError
from lorascope.execution import sweep
from lorascope.files.layout import Layout
from lorascope.quantizers.loading import load_base
from lorascope.records import Status
from lorascope.scoring.evaluation import LoadedBase
from lorascope.stages import check, evaluate, merge, report
from lorascope.study.declared import declare_trial, read_trial
from lorascope.study.grid import expand
from tests.adapters.test_own_methods import IDS, small, trained
from tests.conftest import BASE_OVERRIDES
from tests.counting.architecture_cases import config_values, meta_model
from tests.counting.test_architectures import DECODERS
from tests.devices import CPU
from tests.packs import Interrupted, bare_losses, interrupted_at, plan_for, train_alone
from tests.planning.test_prediction import assert_close, trained_and_predicted

Compose = Callable[..., Config]
STEPS = (
    "adapter=full", "quant=fp16", "train.steps=8", "train.micro_batch_size=4", "seed=3",
    "train.log_every_steps=1", "train.learning_rate=0.01", "train.weight_decay=0.1",
    "train.max_gradient_norm=0.5",
)  # fmt: skip


@pytest.mark.usefixtures("one_thread")
def test_training_follows_a_bare_trainer_of_the_bare_model(
    project: Layout, compose: Compose, tmp_path: Path
) -> None:
    config = compose(*STEPS)
    ours = train_alone(plan_for(project, config, tmp_path / "ours"))
    bare = load_base(project.quantized("small", "fp16"), config.quant, CPU).requires_grad_(True)
    losses = bare_losses(project, config, bare, tmp_path / "bare")
    assert [point.loss_nats for point in ours.losses] == pytest.approx(losses, abs=2e-5)
    assert losses[-1] < losses[0] - 0.1
    assert ours.trainable_parameters == sum(own.numel() for own in bare.parameters())
    values = load_file(tmp_path / "ours/adapter_model.safetensors")
    theirs = dict(bare.named_parameters())
    assert len(values) == len(theirs)
    for name, value in values.items():
        own = name.removeprefix("base_model.model.").replace("full_", "")
        assert (value - theirs[own]).abs().max() < 1e-4, name


@pytest.mark.parametrize(
    "overrides", [(), ("train.gradient_checkpointing=true", "quant.compute=bfloat16")]
)
def test_the_memory_plan_is_what_training_needs(
    project: Layout, compose: Compose, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    early = ("train.validate_every_steps=2", "train.patience=2")
    config = compose("adapter=full", "quant=fp16", "train.steps=3", *early, *overrides)
    assert_close(*trained_and_predicted(plan_for(project, config, tmp_path / "adapter")))
    # What is saved loads in plain PEFT, and says there what it says here.
    base = load_base(project.quantized("small", "fp16"), config.quant, CPU)
    with torch.no_grad():
        ours = load_adapter(base, tmp_path / "adapter")(input_ids=IDS).logits
        base = load_base(project.quantized("small", "fp16"), config.quant, CPU)
        theirs = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
        theirs.tie_weights()
        assert torch.equal(ours, theirs(input_ids=IDS).logits)
        assert ours.dtype is base.dtype


@pytest.mark.usefixtures("one_thread")
def test_an_interrupted_trial_resumes_to_the_same_bits(
    project: Layout, compose: Compose, tmp_path: Path
) -> None:
    config = compose(
        *STEPS, "train.checkpoint_every_steps=2", "train.validate_every_steps=2",
        "train.patience=2", "train.steps=6",
    )  # fmt: skip
    whole = train_alone(plan_for(project, config, tmp_path / "a"))
    plan = replace(plan_for(project, config, tmp_path / "b"), checkpoints=tmp_path / "checkpoints")
    with pytest.raises(Interrupted):
        train_alone(plan, CPU, interrupted_at(4))
    resumed = train_alone(plan)
    assert resumed.resumed_at_step == 2
    assert resumed.losses == whole.losses
    assert resumed.adapter_sha256 == whole.adapter_sha256


def test_a_tied_model_is_trained_scored_merged_and_reported(
    project: Layout, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "a project")
    shutil.copytree(project.root, layout.root)
    shutil.rmtree(layout.root / "experiments", ignore_errors=True)
    points = expand(layout, [*BASE_OVERRIDES, "quant=fp16", "adapter=lora,full", "ship=fp16-full"])
    LoadedBase.key = None
    for point in points:
        assert sweep.run(point, layout).status is Status.completed
        evaluate.command([point], layout)
    merged = merge.command(points, layout)
    assert merged is not None
    assert (merged.passed, merged.untied_head, merged.foreign_names) == (True, False, [])
    assert merged.largest_logit_difference == 0
    plain = AutoModelForCausalLM.from_pretrained(layout.merged("small"), dtype=torch.float32)
    base = load_base(layout.quantized("small", "fp16"), points[1].quant, CPU)
    declared = declare_trial(points[1], layout)
    with torch.no_grad():
        said = load_adapter(base, declared.folder / "adapter")(input_ids=IDS).logits
        assert torch.equal(plain.eval()(input_ids=IDS).logits, said)
    assert plain.lm_head.weight is plain.model.embed_tokens.weight
    result = read_trial(declared, declared.folder).result
    assert result is not None
    total = sum(own.numel() for own in plain.parameters())
    assert (result.trainable_parameters, result.total_parameters) == (total, total)
    report.command(points, layout)
    page = (layout.root / "reports/report.md").read_text()
    assert "full fine-tuning" in page


def test_quantized_modes_are_refused_before_anything_is_loaded(project: Layout) -> None:
    for mode in ("int8", "nf4"):
        (point,) = expand(project, [*BASE_OVERRIDES, f"quant={mode}", "adapter=full"])
        for judge in (declare_trial, lambda config, layout: check.command([config], layout)):
            with pytest.raises(
                LorascopeError, match=rf"adapter='full': .* quant={mode} stores codes.*quant=fp16"
            ):
                judge(point, project)


@pytest.mark.parametrize("case", DECODERS)
def test_every_parameter_is_counted_from_a_configuration(case: str) -> None:
    values = config_values(case)
    model = meta_model(values)
    config, total = FullConfig(), sum(own.numel() for own in model.parameters())
    assert FULL.parameters(config, select(model_parts(model), config)) == total
    assert FULL.parameters(config, select(table_shape(values).parts, config)) == total
    assert attach(model, config, seed=0).get_nb_trainable_parameters()[0] == total


@pytest.mark.parametrize("case", ["gpt2", "opt", "mixtral", "llama tied"])
def test_steps_are_those_of_the_bare_model_to_the_bit(case: str, tmp_path: Path) -> None:
    plain, model = small(case).requires_grad_(True), small(case)
    before = {name: own.clone() for name, own in model.named_parameters()}
    adapted = attach(model, FullConfig(), seed=0)
    assert trained(adapted) == trained(plain)
    save_adapter(adapted, tmp_path, "small")
    with torch.no_grad():
        loaded = PeftModel.from_pretrained(small(case), tmp_path).eval()
        expected = plain(input_ids=IDS).logits
        assert torch.equal(loaded(input_ids=IDS).logits, expected)
        with loaded.disable_adapter():
            assert torch.equal(loaded(input_ids=IDS).logits, small(case)(input_ids=IDS).logits)
        merged = loaded.merge_and_unload()
        assert torch.equal(merged(input_ids=IDS).logits, expected)
    detach(adapted)
    assert all(torch.equal(own, before[name]) for name, own in model.named_parameters())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_layers_with_values_of_their_own_have_the_bare_models_gradients(
    checkpointing: bool,
) -> None:
    config = DogeConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = DogeForCausalLM(config).train()
    model(input_ids=IDS, labels=IDS).loss.backward()
    expected = [own.grad for own in model.parameters()]
    model.zero_grad()
    adapted = attach(model.requires_grad_(False), FullConfig(), seed=0).train()
    if checkpointing:
        model.activation_checkpointing_enable()
    model(input_ids=IDS, labels=IDS).loss.backward()
    found = [own.grad for own in adapted.parameters() if own.requires_grad]
    norms = [sorted(own.norm().item() for own in grads) for grads in (found, expected)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


def test_an_older_base_does_not_say_its_parameters(project: Layout) -> None:
    parts = model_parts(meta_model(config_values("llama")))
    with pytest.raises(ConfigError, match=r"full.targets='all'.*older version.*prepare-base"):
        select(replace(parts, owners=None), FullConfig())
