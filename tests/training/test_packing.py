"""Packs: each trial computes what it computes alone, and what plain PEFT computes."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.data_loader import SeedableRandomSampler
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config

from lorascope.adapters.attach import attach
from lorascope.adapters.lora.kind import LoraConfig
from lorascope.adapters.lora.layer import dora_norms, squared_norms
from lorascope.adapters.lora.stack import LoraStack
from lorascope.adapters.stack import PackShape
from lorascope.config import Config, TrainConfig
from lorascope.config.objectives import OWN_SETTINGS
from lorascope.data.rows import Segment, read_rows, write_rows
from lorascope.files.layout import Layout
from lorascope.objectives.completion import Completion
from lorascope.objectives.evaluation import forward_of
from lorascope.objectives.kinds import OBJECTIVES
from lorascope.quantizers.loading import load_base
from lorascope.records import LinearShape, TrainingResult
from lorascope.training.batches import PackData
from lorascope.training.log import Diverged
from lorascope.training.optimizer import LossScales, adamw, clip, rows_of
from lorascope.training.pack import pack_adapters, refuse_unpackable
from lorascope.training.packed_linear import PackedLinear, Unpackable
from lorascope.training.run import train_pack
from lorascope.training.validation import Unsaved
from tests.conftest import MODES
from tests.devices import DEVICE, EXACT, LOSS_NATS, assert_same_training, computing
from tests.packs import bare_losses, pack_plan, plan_for, train_alone

Compose = Callable[..., Config]

EQUAL_RANKS = (
    ("lora.rank=4", "seed=0"),
    ("lora.rank=4", "seed=1", "train.learning_rate=3e-3", "lora.alpha=16"),
    ("lora.rank=4", "seed=2", "train.weight_decay=0.1", "lora.dropout=0.1"),
    ("lora.rank=4", "seed=0", "train.max_gradient_norm=0.05", "lora.rslora=true"),
)
MIXED_RANKS = (
    ("lora.rank=64", "seed=0"),
    ("lora.rank=1", "seed=1", "lora.alpha=16"),
    ("lora.rank=5", "seed=2", "lora.dropout=0.1"),
    ("lora.rank=16", "seed=0", "train.learning_rate=3e-3"),
)


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def shape(wide: int, high: int) -> LinearShape:
    return LinearShape("l", "l", wide, high)


def lora_stack(trials: int, wide: int, high: int) -> LoraStack:
    return LoraStack([LoraConfig(rank=8)] * trials, [shape(wide, high)], DEVICE.kind)


def trained(outcomes: Sequence[TrainingResult | Diverged | Unsaved]) -> list[TrainingResult]:
    results = [outcome for outcome in outcomes if isinstance(outcome, TrainingResult)]
    assert len(results) == len(outcomes)
    return results


def test_every_objective_can_be_chosen() -> None:
    assert set(OWN_SETTINGS) == set(OBJECTIVES)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("mode", "trials"),
    [
        ("fp16", MIXED_RANKS), ("int8", MIXED_RANKS), ("nf4", EQUAL_RANKS), ("nf4_dq", MIXED_RANKS),
    ],
    ids=["fp16-mixed", "int8-mixed", "nf4-equal", "nf4_dq-mixed"],
)  # fmt: skip
def test_packed_and_alone_are_equal_to_the_bit_on_one_thread(
    project: Layout,
    compose: Compose,
    tmp_path: Path,
    mode: str,
    trials: Sequence[Sequence[str]],
) -> None:
    configs = [compose(f"quant={mode}", *own, "train.micro_batch_size=4") for own in trials]
    folders = [tmp_path / f"packed{index}" for index in range(len(configs))]
    packed = trained(train_pack(pack_plan(project, configs, folders), DEVICE))
    for config, folder, result in zip(configs, folders, packed, strict=True):
        alone = train_alone(plan_for(project, config, tmp_path / "alone"))
        assert_same_training(result, alone)
        if EXACT:
            assert result.validation_loss_nats == alone.validation_loss_nats
            ours, theirs = weights(folder), weights(tmp_path / "alone")
            assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_dora_and_checkpointed_layers_are_packed_to_the_bit(
    project: Layout, compose: Compose, tmp_path: Path
) -> None:
    shared = ("quant=nf4", "lora.dora=true", "train.gradient_checkpointing=true")
    configs = [compose(*shared, *own) for own in MIXED_RANKS]
    folders = [tmp_path / f"packed{index}" for index in range(len(configs))]
    packed = trained(train_pack(pack_plan(project, configs, folders), DEVICE))
    for config, result in zip(configs, packed, strict=True):
        assert_same_training(result, train_alone(plan_for(project, config, tmp_path / "alone")))


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dora", [False, True])
def test_a_pack_of_one_follows_a_bare_trainer_with_peft(
    project: Layout, compose: Compose, tmp_path: Path, mode: str, dora: bool
) -> None:
    if dora and mode == "int8" and DEVICE.kind == "cpu":
        pytest.skip("bitsandbytes cannot train DoRA on INT8 on a CPU")
    config = compose(
        f"quant={mode}", "lora.rank=8", f"lora.dora={dora}", "seed=3", "train.steps=20",
        "train.micro_batch_size=4", "train.schedule=cosine", "train.warmup_fraction=0.1",
        "train.weight_decay=0.01", "train.log_every_steps=1", "train.max_gradient_norm=0.5",
    )  # fmt: skip
    ours = train_alone(plan_for(project, config, tmp_path / "ours"))
    base = load_base(project.quantized("small", mode), config.quant, DEVICE)
    bare = attach(base, config.adapter, config.seed)
    losses = bare_losses(project, config, bare, tmp_path / "bare")
    assert len(ours.losses) == len(losses) == 20
    for point, loss in zip(ours.losses, losses, strict=True):
        assert abs(point.loss_nats - loss) < (1e-5 if EXACT else LOSS_NATS), point.step


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("mode", ["fp16", "nf4"])
def test_longer_samples_of_another_seed_change_rounding_alone(
    project: Layout, compose: Compose, tmp_path: Path, mode: str
) -> None:
    """A batch is padded to the longest sample of all trials."""
    shutil.copytree(project.data("small", "toy"), tmp_path / "data")
    rows = read_rows(tmp_path / "data/train.jsonl")
    longer = [
        replace(row, segments=[Segment(" has the color" * (index % 5), False), *row.segments])
        for index, row in enumerate(rows)
    ]
    write_rows(tmp_path / "data/train.jsonl", longer)
    configs = [compose(f"quant={mode}", f"seed={seed}") for seed in range(3)]
    folders = [tmp_path / f"packed{seed}" for seed in range(3)]
    plan = replace(pack_plan(project, configs, folders), data=tmp_path / "data")
    for trial, result in zip(plan.trials, trained(train_pack(plan, DEVICE)), strict=True):
        alone = train_alone(replace(plan, trials=[replace(trial, adapter=tmp_path / "alone")]))
        for together, by_itself in zip(result.losses, alone.losses, strict=True):
            gap = abs(together.loss_nats - by_itself.loss_nats)
            assert gap < (1e-6 * by_itself.loss_nats if EXACT else LOSS_NATS)
        assert result.processed_tokens == alone.processed_tokens


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["fp16", "int8"])
def test_a_trial_that_diverges_leaves_the_others_as_they_are(
    project: Layout, compose: Compose, tmp_path: Path, mode: str
) -> None:
    good = [compose(f"quant={mode}", "lora.rank=4", f"seed={seed}") for seed in (0, 1)]
    wild = ("train.learning_rate=1e30", "train.max_gradient_norm=1e30", "lora.rank=4")
    configs = [good[0], compose(f"quant={mode}", *wild), good[1]]
    first, lost, last = train_pack(
        pack_plan(project, configs, [tmp_path / name for name in "abc"]), DEVICE
    )
    assert isinstance(lost, Diverged)
    assert not (tmp_path / "b").exists()
    for config, result in zip(good, (first, last), strict=True):
        assert isinstance(result, TrainingResult)
        alone = train_alone(plan_for(project, config, tmp_path / "alone"))
        assert_same_training(result, alone)


@pytest.mark.gpu
def test_padded_ranks_stay_zero_and_are_not_saved(
    project: Layout, compose: Compose, tmp_path: Path
) -> None:
    config = compose("quant=fp16", "lora.rank=3", "train.weight_decay=0.1")
    train_alone(plan_for(project, config, tmp_path / "a"))
    shapes = {min(value.shape) for value in weights(tmp_path / "a").values()}
    assert shapes == {3}
    base = load_base(project.quantized("small", "fp16"), config.quant, DEVICE)
    pack = pack_adapters(base, [config.adapter], [0])
    optimizer = adamw(pack.stack.rows, [config.train])
    rows = torch.randint(3, 50, (2, 5))
    batch = Completion().collate([(row, row) for row in rows], 1, 0).to(torch.device(DEVICE.kind))
    for _ in range(3):
        pack.zero_grad()
        with computing(config.quant):
            losses = Completion().losses(pack, batch).summed
        losses.sum().backward()  # type: ignore[no-untyped-call]
        clip(rows_of(optimizer), [1.0])
        optimizer.step()
    assert isinstance(pack.stack, LoraStack)
    for layer in pack.stack.stacks[0].layers.values():
        assert layer.a[:, :3].abs().sum() > 0
        assert not layer.a[:, 3:].any()
        assert not layer.b[:, 3:].any()


@pytest.mark.gpu
def test_an_interrupted_pack_resumes_to_the_same_bits(
    project: Layout, compose: Compose, tmp_path: Path
) -> None:
    shared = ("quant=nf4", "train.checkpoint_every_steps=2", "train.log_every_steps=1")
    configs = [compose(*shared, *own) for own in MIXED_RANKS]

    def plan(name: str) -> list[Path]:
        return [tmp_path / f"{name}{index}" for index in range(len(configs))]

    whole = trained(train_pack(pack_plan(project, configs, plan("whole")), DEVICE))
    interrupted = replace(
        pack_plan(project, configs, plan("resumed")), checkpoints=tmp_path / "checkpoints"
    )

    def stop(report: object) -> bool:
        if (tmp_path / "checkpoints/checkpoint-4").exists():
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        train_pack(interrupted, DEVICE, stop)
    names = sorted(path.name for path in (tmp_path / "checkpoints").rglob("*") if path.is_file())
    assert names == ["pack.json", "pack.safetensors", "sha256"]
    resumed = trained(train_pack(interrupted, DEVICE))
    for before, after in zip(whole, resumed, strict=True):
        assert after.resumed_at_step == 4
        assert_same_training(after, before)


def test_each_trial_reads_in_the_order_in_which_accelerate_shuffles_for_its_seed() -> None:
    """Steps of 4 rows over 10, in micro-batches of 2: the last of an epoch has two rows left."""
    samples = [([row], [row]) for row in range(10)]
    train = TrainConfig(steps=None, epochs=2.5, batch_size=4, micro_batch_size=2)
    data = PackData(samples, [0, 7], train, Completion(), pad_token_id=0)
    assert (data.steps_an_epoch, data.steps) == (3, 8)
    samplers = [SeedableRandomSampler(range(10), data_seed=seed) for seed in (0, 7)]
    # Asked for in any order, as after a resume.
    for epoch in (2, 0, 1):
        steps = [data.micro_batches(epoch * 3 + step) for step in range(3)]
        assert [len(step) for step in steps] == [2, 2, 1]
        for trial, sampler in enumerate(samplers):
            sampler.set_epoch(epoch)
            batches = [batch.input_ids.view(2, -1)[trial] for step in steps for batch in step]
            assert torch.cat(batches).tolist() == list(sampler)


def test_a_batch_holds_trial_after_trial_and_is_padded_on_the_right() -> None:
    samples = [([1, 2, 3], [-100, 2, 3]), ([5, 6], [5, 6]), ([4], [4]), ([4], [4])]
    batch = Completion().collate(samples, trials=2, pad_token_id=9)
    assert batch.input_ids.tolist() == [[1, 2, 3], [5, 6, 9], [4, 9, 9], [4, 9, 9]]
    assert batch.labels.tolist()[:2] == [[-100, 2, 3], [5, 6, -100]]
    assert batch.attention_mask.sum(1).tolist() == [3, 2, 1, 1]
    # A first token is predicted from nothing: one of two labels counts in the second sample.
    assert batch.weights.tolist() == [3, 0]
    assert (batch.tokens, batch.padded) == ([5, 2], True)
    assert not Completion().collate(samples[2:], trials=2, pad_token_id=9).padded


@pytest.mark.gpu
@pytest.mark.parametrize(("kind", "trials"), [("lora", 2), ("ia3", 1)])
def test_without_adapters_a_pack_gives_what_the_bare_base_gives(
    project: Layout, compose: Compose, kind: str, trials: int
) -> None:
    """The shared reference of several trials, in every mode to the bit."""
    for mode in MODES:
        config = compose(f"quant={mode}", f"adapter={kind}")
        base = load_base(project.quantized("small", mode), config.quant, DEVICE)
        rows = torch.randint(3, 50, (4, 5))
        batch = Completion().collate([(row, row) for row in rows], trials, 0)
        batch = batch.to(torch.device(DEVICE.kind))
        with computing(config.quant):
            bare = forward_of(base)(batch, batch.places).all()
        pack = pack_adapters(base, [config.adapter] * trials, list(range(trials)))
        for row in pack.stack.rows:
            row.data.normal_(std=0.1)
        with computing(config.quant):
            assert torch.equal(pack(batch, batch.places, adapters=False).all(), bare)
            adapted = pack(batch, batch.places).all()
        assert not torch.equal(adapted, bare)
        adapted.sum().backward()
        assert all(row.grad is not None and row.grad.any() for row in pack.stack.rows)


def test_stacks_share_padded_ranks_and_keep_the_order() -> None:
    loras = [LoraConfig(rank=rank) for rank in (1, 8, 9, 16, 64, 512)]
    stacks = LoraStack(loras, [shape(6, 4)], "cpu").stacks
    assert [(stack.start, stack.ranks["l"], len(stack.configs)) for stack in stacks] == [
        (0, 8, 2), (2, 16, 2), (4, 64, 1), (5, 512, 1),
    ]  # fmt: skip
    assert stacks[0].values.shape == (2, 8 * (6 + 4))


def test_norms_for_dora_equal_those_of_the_whole_sum() -> None:
    torch.manual_seed(0)
    layer = (
        LoraStack([LoraConfig(rank=8, dora=True)] * 2, [shape(20, 12)], "cpu").stacks[0].layers["l"]
    )
    with torch.no_grad():
        layer.a.normal_()
        layer.b.normal_()
    weight = torch.randn(12, 20)
    expected = torch.linalg.norm(weight + layer.scale * (layer.b.mT @ layer.a), dim=2)
    assert torch.allclose(dora_norms(weight, squared_norms(weight), layer), expected, rtol=1e-5)


def test_a_layer_that_sees_rows_in_another_order_is_refused() -> None:
    stack, batch = lora_stack(2, 5, 3), PackShape(seeds=[0, 1], batch=(4, 7))
    layer = PackedLinear(nn.Linear(5, 3), stack.layer("l", batch), shape(5, 3), batch)
    assert layer(torch.zeros(4, 7, 5)).shape == (4, 7, 3)
    with pytest.raises(Unpackable, match="no row tells its trial"):
        layer(torch.zeros(28, 5))


def test_a_base_with_dropout_of_its_own_trains_one_trial_only() -> None:
    config = GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=16)
    base = AutoModelForCausalLM.from_config(config)
    refuse_unpackable(base, 1)
    with pytest.raises(Unpackable, match=r"dropout of its own"):
        refuse_unpackable(base, 2)
    for name in ("attn_pdrop", "embd_pdrop", "resid_pdrop"):
        setattr(config, name, 0.0)
    refuse_unpackable(AutoModelForCausalLM.from_config(config), 2)


@pytest.mark.gpu
def test_a_trial_whose_gradient_overflows_skips_its_step_alone() -> None:
    stack = lora_stack(2, 4, 4)
    optimizer = adamw(stack.rows, [TrainConfig(learning_rate=0.1)] * 2)
    rows, scales = rows_of(optimizer), LossScales(2, DEVICE.kind)
    gradients = stack.stacks[0].gradients
    gradients[0], gradients[1] = 2.0**16, math.inf
    scales.unscale(rows)
    norms = clip(rows, [0, 0])
    optimizer.step()
    assert scales.scales.tolist() == [2.0**16, 2.0**15]
    # 64 gradients of one.
    assert norms[0] == 8.0
    assert norms[1].isnan()
    assert (stack.rows[0] < 0).all()
    assert not stack.rows[1].any()
    stack.clear_gradients()
    assert rows[1].grad is not None


@pytest.mark.gpu
def test_loss_scales_double_after_two_thousand_good_steps() -> None:
    rows = rows_of(adamw(lora_stack(1, 4, 4).rows, [TrainConfig()]))
    scales = LossScales(1, DEVICE.kind)
    for _ in range(2000):
        scales.unscale(rows)
    assert scales.scales.tolist() == [2.0**17]
    assert scales.good_steps.tolist() == [0.0]


@pytest.mark.gpu
def test_clipping_scales_each_trial_to_its_own_limit() -> None:
    stack = lora_stack(3, 4, 4)
    rows = rows_of(adamw(stack.rows, [TrainConfig()] * 3))
    stack.stacks[0].gradients.fill_(1.0)
    assert clip(rows, [4.0, 100.0, 0.0]).tolist() == [8.0, 8.0, 8.0]
    assert [float(row.grad.norm()) for row in rows if row.grad is not None] == pytest.approx(
        [4.0, 8.0, 8.0], rel=1e-6
    )
