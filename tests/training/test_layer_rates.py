"""Rates that fall from layer to layer, as parameter groups made by hand have them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from lorascope.adapters.attach import attach
from lorascope.adapters.rate import PLAIN, Rate
from lorascope.adapters.stack import VectorPart
from lorascope.config import Config
from lorascope.errors import ConfigError
from lorascope.files.layout import Layout
from lorascope.quantizers.loading import load_base
from lorascope.records import TrainingResult
from lorascope.training.rates import RatedPart, stretches
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

DECAY, RATIO = 0.5, 8


def groups_by_hand(model: PeftModel, train_rate: float) -> list[dict[str, object]]:
    """One group a parameter of the small model, which has two layers above its embeddings; B
    learns faster."""
    groups = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            layer = re.search(r"layers\.0\.|embed_tokens", name)
            below_top = {"layers.0.": 1, "embed_tokens": 2}[layer[0]] if layer else 0
            rate = train_rate * (RATIO if re.search(r"lora_(embedding_)?B", name) else 1)
            groups.append({"params": [parameter], "lr": rate * DECAY**below_top})
    return groups


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("fp16", ("lora.rank=4", f"lora.b_rate_ratio={RATIO}", "train.schedule=cosine")),
        ("nf4", ("lora.rank=4", f"lora.b_rate_ratio={RATIO}", "train.warmup_fraction=0.1")),
        ("fp16", ("adapter=vera", "vera.rank=16", "train.schedule=polynomial")),
        ("int8", ("adapter=ln",)),
        ("fp16", ("adapter=full",)),
        ("nf4", ("lora.head=true", "lora.embeddings=true", f"lora.b_rate_ratio={RATIO}")),
    ],
    ids=["fp16-lora", "nf4-lora", "fp16-vera", "int8-ln", "fp16-full", "nf4-lora-ends"],
)
def test_training_follows_a_bare_trainer_with_groups_made_by_hand(
    project: Layout, compose: Compose, tmp_path: Path, mode: str, words: tuple[str, ...]
) -> None:
    config = compose(
        f"quant={mode}", f"train.layer_rate_decay={DECAY}", "seed=3", "train.steps=16",
        "train.learning_rate=2e-3", "train.micro_batch_size=4", "train.log_every_steps=1",
        "train.max_gradient_norm=0.5", *words,
    )  # fmt: skip
    plan = plan_for(project, config, tmp_path / "ours")
    ours = train_alone(plan)
    base = load_base(project.quantized("small", mode), config.quant, DEVICE)
    bare = attach(base, config.adapter, config.seed)
    rate = plan.trials[0].train.learning_rate
    optimizer = torch.optim.AdamW(groups_by_hand(bare, rate), lr=rate, weight_decay=0.0, fused=True)
    losses = bare_losses(project, config, bare, tmp_path / "bare", optimizer)
    close = 1e-5 if EXACT else LOSS_NATS
    assert [point.loss_nats for point in ours.losses] == pytest.approx(losses, abs=close)
    bare.save_pretrained(tmp_path / "bare", save_embedding_layers=False)
    trained, theirs = (
        load_file(tmp_path / name / "adapter_model.safetensors") for name in ("ours", "bare")
    )
    assert trained.keys() == theirs.keys()
    if EXACT:
        assert all((trained[name] - theirs[name]).abs().max() < 2e-5 for name in theirs)


DECAYS = (
    ("train.layer_rate_decay=0.9", "lora.rank=4"),
    ("lora.rank=4", "seed=1"),
    ("train.layer_rate_decay=0.5", "lora.rank=4", "lora.b_rate_ratio=4", "lora.dropout=0.1"),
    ("train.layer_rate_decay=0.7", "lora.rank=12", "train.weight_decay=0.1"),
)


@pytest.mark.gpu
@pytest.mark.usefixtures("one_thread")
def test_decays_share_packs_and_resume_to_the_same_bits(
    project: Layout, compose: Compose, tmp_path: Path
) -> None:
    shared = ("quant=nf4", "train.checkpoint_every_steps=2", "train.log_every_steps=1")
    configs = [compose(*shared, *own) for own in DECAYS]
    folders = [tmp_path / str(index) for index in range(len(configs))]
    plan = replace(pack_plan(project, configs, folders), checkpoints=tmp_path / "checkpoints")
    with pytest.raises(Interrupted):
        train_pack(plan, DEVICE, interrupted_at(3))
    results = train_pack(plan, DEVICE)
    for config, packed in zip(configs, results, strict=True):
        assert isinstance(packed, TrainingResult)
        assert packed.resumed_at_step == 2
        assert_same_training(packed, train_alone(plan_for(project, config, tmp_path / "alone")))
        # What the record calls the rate is the trial's, which the last layer has.
        assert packed.losses[0].learning_rate == pytest.approx(config.train.learning_rate)


@pytest.mark.gpu
@pytest.mark.parametrize("words", [("lora.rank=8",), ("adapter=ln",)], ids=["lora", "ln"])
def test_the_memory_plan_is_what_training_needs(
    project: Layout, compose: Compose, tmp_path: Path, words: tuple[str, ...]
) -> None:
    config = compose("quant=nf4", "train.steps=3", "train.layer_rate_decay=0.9", *words)
    assert_close(*trained_and_predicted(plan_for(project, config, tmp_path / "a")))


def test_a_decay_between_no_layers_is_refused(
    project: Layout, compose: Compose, tmp_path: Path
) -> None:
    config = compose("quant=fp16", "adapter=prompt", "train.layer_rate_decay=0.9")
    with pytest.raises(ConfigError, match=r"layer_rate_decay=0.9: .* Leave it at 1"):
        train_alone(plan_for(project, config, tmp_path / "a"))


def test_neighbours_of_one_rate_are_one_stretch() -> None:
    """Four layers in the order of memory: A of all of them, then B, which learns twice as fast."""
    blocks = [(layer, rate) for rate in (PLAIN, Rate(2.0)) for layer in (0, 0, 1, 2, 3)]
    parts = [
        VectorPart(10 * place, 10 * place + 10, f"layers.{layer}.x", rate)
        for place, (layer, rate) in enumerate(blocks)
    ]
    assert stretches(parts) == [RatedPart(0, 50, PLAIN), RatedPart(50, 100, Rate(2.0))]
    found = stretches(parts, 0.5, lambda name: 3 - int(name.split(".")[1]))
    assert [(part.start, part.end, part.rate.times) for part in found] == [
        (0, 20, 0.125), (20, 30, 0.25), (30, 40, 0.5), (40, 50, 1.0),
        (50, 70, 0.25), (70, 80, 0.5), (80, 90, 1.0), (90, 100, 2.0),
    ]  # fmt: skip
    assert stretches([replace(part, rate=PLAIN) for part in parts]) == []
