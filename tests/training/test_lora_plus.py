"""LoRA+: B learns at a rate of its own, as PEFT's optimizer has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import load_file

from lorascope.adapters.attach import attach
from lorascope.config import Config
from lorascope.files.layout import Layout
from lorascope.quantizers.loading import load_base
from lorascope.records import TrainingResult
from lorascope.training.run import train_pack
from tests.devices import DEVICE, EXACT, LOSS_NATS, assert_same_training
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

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("fp16", ("train.schedule=cosine",)), ("int8", ("train.schedule=polynomial",)),
        ("nf4", ("lora.dora=true", "train.warmup_fraction=0.1")),
    ],
    ids=["fp16", "int8", "nf4-dora"],
)  # fmt: skip
def test_training_follows_a_bare_trainer_with_pefts_optimizer(
    project: Layout, compose: Compose, tmp_path: Path, mode: str, words: tuple[str, ...]
) -> None:
    config = compose(
        f"quant={mode}", "lora.rank=4", "lora.b_rate_ratio=8", "seed=3", "train.steps=16",
        "train.learning_rate=2e-3", "train.micro_batch_size=4", "train.weight_decay=0.1",
        "train.log_every_steps=1", "train.max_gradient_norm=0.5", *words,
    )  # fmt: skip
    ours = train_alone(plan_for(project, config, tmp_path / "ours"))
    base = load_base(project.quantized("small", mode), config.quant, DEVICE)
    bare = attach(base, config.adapter, config.seed)
    train = config.train
    optimizer = create_loraplus_optimizer(
        bare, torch.optim.AdamW, lr=train.learning_rate, loraplus_lr_ratio=8,
        loraplus_weight_decay=train.weight_decay, fused=True,
    )  # fmt: skip
    losses = bare_losses(project, config, bare, tmp_path / "bare", optimizer)
    close = 1e-5 if EXACT else LOSS_NATS
    assert [point.loss_nats for point in ours.losses] == pytest.approx(losses, abs=close)
    bare.save_pretrained(tmp_path / "bare")
    trained, theirs = (
        load_file(tmp_path / name / "adapter_model.safetensors") for name in ("ours", "bare")
    )
    assert trained.keys() == theirs.keys()
    if EXACT:
        assert all((trained[name] - theirs[name]).abs().max() < 2e-5 for name in theirs)


RATIOS = (
    ("lora.b_rate_ratio=16", "lora.rank=4"),
    ("lora.rank=4", "seed=1"),
    ("lora.b_rate_ratio=2", "lora.rank=4", "lora.dropout=0.1"),
    ("lora.b_rate_ratio=4", "lora.rank=12", "lora.init=gaussian"),
)


@pytest.mark.usefixtures("one_thread")
def test_ratios_share_packs_and_resume_to_the_same_bits(
    project: Layout, compose: Compose, tmp_path: Path
) -> None:
    shared = (
        "quant=nf4", "train.checkpoint_every_steps=2", "train.validate_every_steps=2",
        "train.patience=2", "train.steps=6", "lora.dora=true",
    )  # fmt: skip
    configs = [compose(*shared, *own) for own in RATIOS]
    folders = [tmp_path / str(index) for index in range(len(configs))]
    plan = replace(pack_plan(project, configs, folders), checkpoints=tmp_path / "checkpoints")
    with pytest.raises(Interrupted):
        train_pack(plan, DEVICE, interrupted_at(3))
    for config, packed in zip(configs, train_pack(plan, DEVICE), strict=True):
        assert isinstance(packed, TrainingResult)
        assert packed.resumed_at_step == 2
        alone = train_alone(plan_for(project, config, tmp_path / "alone"))
        assert_same_training(packed, alone)
        assert packed.optimizer_bytes == alone.optimizer_bytes


@pytest.mark.parametrize("ranks", [(8,), (8, 16)])
def test_the_memory_plan_is_what_training_needs(
    project: Layout, compose: Compose, tmp_path: Path, ranks: tuple[int, ...]
) -> None:
    shared = ("quant=nf4", "quant.compute=bfloat16", "train.steps=3", "lora.b_rate_ratio=16")
    configs = [compose(*shared, f"lora.rank={rank}") for rank in ranks]
    plan = pack_plan(project, configs, [tmp_path / str(rank) for rank in ranks])
    assert_close(*trained_and_predicted(plan))
