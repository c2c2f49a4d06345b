"""How A and B begin: as plain PEFT begins them, in packs and alone."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedModel

from lorascope.adapters.attach import attach_trained, new_values, save_adapter
from lorascope.adapters.lora.kind import LoraConfig
from lorascope.adapters.lora.stack import LoraStack
from lorascope.config import Config
from lorascope.errors import ConfigError, LorascopeError
from lorascope.execution import sweep
from lorascope.files.layout import Layout
from lorascope.quantizers.loading import load_base
from lorascope.records import Status, TrainingResult
from lorascope.scoring.evaluation import LoadedBase
from lorascope.stages import evaluate, merge, report
from lorascope.study.declared import declare_trial
from lorascope.study.grid import expand
from lorascope.training.pack import pack_adapters
from lorascope.training.run import train_pack
from tests.conftest import BASE_OVERRIDES
from tests.devices import CPU
from tests.packs import (
    Interrupted,
    bare_losses,
    interrupted_at,
    pack_plan,
    plan_for,
    train_alone,
)
from tests.planning.test_prediction import assert_close, trained_and_predicted

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


@pytest.mark.parametrize(
    ("init", "settings"),
    [
        ("pissa", {}), ("pissa_niter_4", {}), ("olora", {}), ("pissa", {"use_rslora": True}),
        ("pissa", {"use_dora": True}), ("olora", {"lora_dropout": 0.1}),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("one_thread")
def test_what_is_taken_out_of_the_base_is_what_peft_takes_out(
    project: Layout, compose: Compose, tmp_path: Path, init: str, settings: dict[str, object]
) -> None:
    words = [
        f"lora.{name.removeprefix('use_').removeprefix('lora_')}={value}"
        for name, value in settings.items()
    ]
    config = compose(*TRAINED, f"lora.init={init}", "seed=3", *words)
    bare = plain_peft(project, config, init, **settings)
    first = named_values(bare)
    base = load_base(project.quantized("small", "fp16"), config.quant, CPU)
    stored = {name: value.clone() for name, value in base.state_dict().items()}
    drawn = new_values(base, config.adapter, 3)
    assert all(torch.equal(drawn[name], first[name]) for name in first)
    assert all(torch.equal(value, stored[name]) for name, value in base.state_dict().items())
    assert base.state_dict().keys() == stored.keys()
    if "lora_dropout" in settings:
        # Dropout is drawn in another way than PEFT's.
        return
    result = train_alone(plan_for(project, config, tmp_path / "ours"))
    bare.peft_config["default"].init_lora_weights = True
    bare.save_pretrained(tmp_path / "first")
    losses = bare_losses(project, config, bare, tmp_path / "bare")
    assert [point.loss_nats for point in result.losses] == pytest.approx(losses, abs=1e-5)
    if "use_dora" in settings:
        # PEFT (0.21) loses the magnitudes.
        return
    bare.save_pretrained(
        tmp_path / "bare", path_initial_model_for_weight_conversion=str(tmp_path / "first")
    )
    ours, theirs = (load_file(tmp_path / n / "adapter_model.safetensors") for n in ("ours", "bare"))
    assert ours.keys() == theirs.keys()
    gaps = {name: float((ours[name] - theirs[name]).abs().max()) for name in theirs}
    # Their base lacks what was taken out, rounded; ours has it, and takes it out of every result.
    assert max(gaps.values()) < 2e-5, gaps
    named = [
        json.loads((tmp_path / n / "adapter_config.json").read_text()) for n in ("ours", "bare")
    ]
    for key in ("r", "lora_alpha", "init_lora_weights", "use_rslora"):
        assert named[0][key] == pytest.approx(named[1][key]), key
    assert result.trainable_parameters == sum(value.numel() for value in first.values())
    assert result.adapter_bytes > 8 * result.trainable_parameters


@pytest.mark.usefixtures("one_thread")
def test_one_that_was_taken_out_begins_as_the_bare_base_and_loads_in_plain_peft_on_it(
    project: Layout, compose: Compose, tmp_path: Path
) -> None:
    config = compose(*TRAINED, "lora.init=pissa", "lora.alpha=32")
    tokens = torch.randint(3, 50, (2, 7), generator=torch.Generator().manual_seed(0))

    def fresh() -> PreTrainedModel:
        return load_base(project.quantized("small", "fp16"), config.quant, CPU)

    pack = pack_adapters(fresh(), [config.adapter], [0])
    pack.shape.batch = tuple(tokens.shape)
    with torch.no_grad():
        bare = fresh()(input_ids=tokens).logits
        assert torch.allclose(pack.base(input_ids=tokens).logits, bare, atol=1e-5)
        for row in pack.stack.rows:
            row.mul_(0.9)
        trained = pack.base(input_ids=tokens).logits
    assert (trained - bare).abs().max() > 0.1
    values = pack.stack.read(0)
    save_adapter(
        attach_trained(fresh(), config.adapter, values, seed=0), tmp_path / "saved", "small"
    )
    loaded = peft.PeftModel.from_pretrained(fresh(), tmp_path / "saved").eval()
    with torch.no_grad():
        assert torch.allclose(loaded(input_ids=tokens).logits, trained, atol=1e-5)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_layers_whose_weights_stand_on_their_side_begin_as_the_bare_base_too(init: str) -> None:
    gpt2 = GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=16)
    base = AutoModelForCausalLM.from_config(gpt2).eval()
    tokens = torch.arange(10)[None]
    with torch.no_grad():
        bare = base(input_ids=tokens).logits
        pack = pack_adapters(base, [LoraConfig(rank=4, alpha=4, init=init)], [0])
        pack.shape.batch = (1, 10)
        assert torch.allclose(pack.base(input_ids=tokens).logits, bare, atol=1e-5)
    stack = pack.stack
    assert isinstance(stack, LoraStack)
    for layer in pack.layers:
        # The sizes that PiSSA's paper and OLoRA's give: singular vectors, orthonormal columns.
        a, b = (stack.stacks[0].layers[layer].joined()[index][0, :4] for index in (0, 1))
        weight = pack.base.get_submodule(layer).base_layer.weight.T
        product = b.T @ a
        left, values, right = torch.linalg.svd(weight)
        if init == "pissa":
            assert torch.allclose(product, left[:, :4] * values[:4] @ right[:4], atol=1e-5)
        else:
            assert torch.allclose(b @ b.T, torch.eye(4), atol=1e-5)
            assert torch.allclose(a, b @ weight, atol=1e-5)


TAKEN_OUT = (
    ("lora.init=pissa", "lora.rank=4"),
    ("lora.init=olora", "lora.rank=10", "seed=1", "lora.alpha=4"),
    ("lora.init=pissa_niter_2", "lora.rank=3", "lora.dropout=0.1", "seed=2"),
)


@pytest.mark.usefixtures("one_thread")
def test_those_taken_out_share_packs_too_and_resume_to_the_same_bits(
    project: Layout, compose: Compose, tmp_path: Path
) -> None:
    """With DoRA; without it tests/adapters/test_inits_that_read.py has such packs."""
    shared = (
        *TRAINED, "lora.dora=true", "train.validate_every_steps=2", "train.patience=2",
        "train.gradient_checkpointing=true", "train.checkpoint_every_steps=2", "train.steps=6",
    )  # fmt: skip
    configs = [compose(*shared, *own) for own in TAKEN_OUT]
    folders = [tmp_path / str(index) for index in range(len(configs))]
    plan = replace(pack_plan(project, configs, folders), checkpoints=tmp_path / "checkpoints")
    with pytest.raises(Interrupted):
        train_pack(plan, CPU, interrupted_at(3))
    (checkpoint,) = (tmp_path / "checkpoints").glob("*/pack.safetensors")
    assert "0.constant" in load_file(checkpoint)
    for config, packed in zip(configs, train_pack(plan, CPU), strict=True):
        assert isinstance(packed, TrainingResult)
        assert packed.resumed_at_step == 2
        alone = train_alone(plan_for(project, config, tmp_path / "alone"))
        assert packed.losses == alone.losses
        assert packed.validation_loss_nats == alone.validation_loss_nats
        assert packed.adapter_sha256 == alone.adapter_sha256


def test_a_resumed_training_goes_on_with_what_it_began_with_whatever_is_drawn_again(
    project: Layout, compose: Compose, tmp_path: Path
) -> None:
    """Another machine, or another number of threads, would round the decomposition otherwise."""
    config = compose(*TRAINED, "lora.init=pissa_niter_0", "train.checkpoint_every_steps=2")
    plan = replace(plan_for(project, config, tmp_path / "a"), checkpoints=tmp_path / "checkpoints")
    with pytest.raises(Interrupted):
        train_alone(plan, CPU, interrupted_at(3))
    (trial,) = plan.trials
    train_alone(replace(plan, trials=[replace(trial, seed=7)]))
    saved = load_file(tmp_path / "a/adapter_model.safetensors")
    base = load_base(project.quantized("small", "fp16"), config.quant, CPU)
    for seed in (trial.seed, 7):
        began = new_values(base, config.adapter, seed)
        found = [
            torch.equal(saved[f"base_model.model.{name.replace('.default', '')}"][4:], value)
            for name, value in began.items()
            if "lora_A" in name
        ]
        assert set(found) == {seed == trial.seed}


@pytest.mark.parametrize(
    ("words", "ranks"),
    [
        (("lora.init=pissa", "train.validate_every_steps=2"), (8, 16)),
        (("lora.init=olora", "lora.dora=true", "lora.dropout=0.1"), (8,)),
    ],
    ids=["pissa", "olora-dora"],
)
def test_the_memory_plan_is_what_training_needs(
    project: Layout, compose: Compose, tmp_path: Path, words: tuple[str, ...], ranks: tuple[int]
) -> None:
    shared = ("quant=fp16", *words, "train.steps=4")
    configs = [compose(*shared, f"lora.rank={rank}") for rank in ranks]
    plan = pack_plan(project, configs, [tmp_path / str(rank) for rank in ranks])
    assert_close(*trained_and_predicted(plan))


def test_a_study_of_beginnings_is_trained_scored_merged_and_reported(
    project: Layout, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "a project")
    shutil.copytree(project.root, layout.root)
    shutil.rmtree(layout.root / "experiments", ignore_errors=True)
    words = ("quant=fp16", "lora.init=kaiming,pissa", "lora.rank=4", "decide.cost=adapter_bytes")
    points = expand(layout, [*BASE_OVERRIDES, *words])
    LoadedBase.key = None
    records = [sweep.run(point, layout) for point in points]
    assert [record.status for record in records] == [Status.completed] * 2
    for point in points:
        evaluate.command([point], layout)
    shipped = [*BASE_OVERRIDES, *words, f"ship={records[1].trial}"]
    merged = merge.command(expand(layout, shipped), layout)
    assert merged is not None
    assert merged.passed
    assert merged.trial == records[1].trial
    report.command(points, layout)
    with (layout.root / "reports/accuracy.csv").open() as file:
        rows = {row["trial"]: row for row in csv.DictReader(file) if row["trial"]}
    kaiming, pissa = (rows[record.trial] for record in records)
    assert (kaiming["variant"], pissa["variant"]) == ("init=kaiming", "init=pissa")
    assert kaiming["trainable_parameters"] == pissa["trainable_parameters"]
    page = (layout.root / "reports/report.md").read_text()
    assert "lora.init kaiming against pissa" in page


REFUSED = (
    (["lora.init=true"], "no such initialisation"),
    (["lora.init=pissa_niter_"], "Choose one of kaiming, .*pissa_niter_16"),
    (["lora.init=orthogonal", "lora.rank=3"], "lora.rank=3: .*half of the rank"),
)


@pytest.mark.parametrize(("overrides", "message"), REFUSED)
def test_refusals_name_the_setting(project: Layout, overrides: list[str], message: str) -> None:
    with pytest.raises(LorascopeError, match=message):
        expand(project, [*BASE_OVERRIDES, "quant=fp16", *overrides])


@pytest.mark.parametrize("init", ["orthogonal", "pissa", "olora"])
@pytest.mark.parametrize("mode", ["nf4", "int8"])
def test_what_reads_weights_is_refused_on_a_quantized_base_before_it_is_loaded(
    project: Layout, compose: Compose, mode: str, init: str
) -> None:
    config = compose(f"quant={mode}", f"lora.init={init}", "lora.rank=4")
    with pytest.raises(ConfigError, match=f"lora.init='{init}': .*quant={mode} .*Take quant=fp16"):
        declare_trial(config, project)


def test_more_directions_than_a_layer_has_are_refused(project: Layout, compose: Compose) -> None:
    config = compose("quant=fp16", "lora.init=pissa", "lora.rank=512")
    with pytest.raises(ConfigError, match=r"lora.rank=512: .*Take \d+ or less"):
        declare_trial(config, project)
