"""Layer drop: rows that pass over a layer are as if it were not there; all others keep their
bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig

from lorascope.adapters.attach import attach
from lorascope.adapters.decoder import decoder_layers
from lorascope.adapters.stack import PackShape, step_seed
from lorascope.config import Config
from lorascope.errors import ModelError
from lorascope.execution.packs import shared_settings
from lorascope.files.layout import Layout
from lorascope.objectives.completion import Completion
from lorascope.quantizers.loading import load_base
from lorascope.records import TrainingResult
from lorascope.training.layer_drop import LayerDrop
from lorascope.training.pack import pack_adapters
from lorascope.training.run import train_pack
from tests.counting.architecture_cases import config_values, meta_model
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

RATE, SEED = 0.4, 3
AN_EPOCH = 13
"""Micro-batches of 4 samples in 52, two a step: the seventh step has one."""


def drop_by_hand(model: PeftModel) -> list[list[bool]]:
    """Let the two layers of the small model pass by as SEED draws; which did, is noted in the
    list."""
    layers, passes = model.get_base_model().model.layers, list[list[bool]]()

    def before(module: nn.Module, args: Any) -> None:
        if module.training:
            epoch, place = divmod(len(passes), AN_EPOCH)
            draw = (7 * epoch + place // 2, place % 2)
            seeds = [step_seed(SEED, *draw, f"model.layers.{layer}") for layer in range(2)]
            passes.append([seed / 2**56 < RATE for seed in seeds])

    def after(index: int, module: nn.Module, args: Any, output: torch.Tensor) -> Any:
        # Where both are dropped there is no gradient but zero.
        return args[0] + 0 * output if module.training and passes[-1][index] else None

    model.register_forward_pre_hook(before)
    for index, layer in enumerate(layers):
        layer.register_forward_hook(partial(after, index))
    return passes


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("fp16", ("lora.rank=4",)), ("int8", ("lora.rank=4", "train.layer_rate_decay=1")),
        ("nf4", ("lora.rank=4", "train.gradient_checkpointing=true")),
        ("fp16", ("adapter=vera", "vera.rank=16")),
    ],
    ids=["fp16-lora", "int8-lora", "nf4-lora-checkpointed", "fp16-vera"],
)  # fmt: skip
def test_training_follows_a_bare_trainer_whose_layers_are_passed_over(
    project: Layout, compose: Compose, tmp_path: Path, mode: str, words: tuple[str, ...]
) -> None:
    config = compose(
        f"quant={mode}", f"train.layer_drop={RATE}", f"seed={SEED}", "train.steps=12",
        "train.micro_batch_size=4", "train.log_every_steps=1", *words,
    )  # fmt: skip
    ours = train_alone(plan_for(project, config, tmp_path / "ours"))
    base = load_base(project.quantized("small", mode), config.quant, DEVICE)
    bare = attach(base, config.adapter, config.seed)
    passes = drop_by_hand(bare)
    losses = bare_losses(project, config, bare, tmp_path / "bare")
    assert {tuple(own) for own in passes} == {
        (False, False), (False, True), (True, False), (True, True),
    }  # fmt: skip
    close = 1e-5 if EXACT else LOSS_NATS
    assert [point.loss_nats for point in ours.losses] == pytest.approx(losses, abs=close)


DROPS = (
    ("train.layer_drop=0.1", "lora.rank=4"),
    ("train.layer_drop=0.5", "lora.rank=4", "seed=1"),
    ("train.layer_drop=0.9", "lora.rank=12", "seed=2", "lora.dropout=0.1"),
    ("train.layer_drop=0.5", "lora.rank=4", "train.layer_rate_decay=0.5"),
)


@pytest.mark.gpu
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("mode", "checkpointing"), [("nf4", True), ("int8", False)])
def test_trials_drop_by_their_own_seeds_whatever_their_company(
    project: Layout, compose: Compose, tmp_path: Path, mode: str, checkpointing: bool
) -> None:
    """Interrupted and resumed, too; and validation runs through all layers."""
    shared = (
        f"quant={mode}", "train.checkpoint_every_steps=2", "train.validate_every_steps=3",
        "train.micro_batch_size=4", f"train.gradient_checkpointing={checkpointing}",
    )  # fmt: skip
    configs = [compose(*shared, *own) for own in DROPS]
    folders = [tmp_path / str(index) for index in range(len(configs))]
    plan = replace(pack_plan(project, configs, folders), checkpoints=tmp_path / "checkpoints")
    with pytest.raises(Interrupted):
        train_pack(plan, DEVICE, interrupted_at(3))
    for config, packed in zip(configs, train_pack(plan, DEVICE), strict=True):
        assert isinstance(packed, TrainingResult)
        assert packed.resumed_at_step == 2
        assert_same_training(packed, train_alone(plan_for(project, config, tmp_path / "alone")))
        assert packed.validations[-1].loss_nats == pytest.approx(packed.validation_loss_nats)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("mode", "checkpointing", "ranks"),
    [("fp16", False, (8,)), ("nf4", True, (8,)), ("fp16", False, (1, 8, 16)),
     ("int8", True, (8, 8))],
)  # fmt: skip
def test_the_memory_plan_is_what_training_needs(
    project: Layout,
    compose: Compose,
    tmp_path: Path,
    mode: str,
    checkpointing: bool,
    ranks: tuple[int, ...],
) -> None:
    shared = (
        f"quant={mode}", "train.steps=3", "train.layer_drop=0.1",
        f"train.gradient_checkpointing={checkpointing}",
    )  # fmt: skip
    configs = [compose(*shared, f"lora.rank={rank}") for rank in ranks]
    folders = [tmp_path / str(index) for index in range(len(configs))]
    assert_close(*trained_and_predicted(pack_plan(project, configs, folders)))


OWN_DROPOUT = ("dropout", "attn_pdrop", "resid_pdrop", "embd_pdrop")


@pytest.mark.parametrize(
    ("architecture", "trials"),
    # OPT's layers lose sight of samples, so that its trials are trained alone.
    [("gpt2", 2), ("gpt_neox", 2), ("falcon 7b", 2), ("bloom", 2), ("opt", 1)],
)
def test_what_drops_all_layers_goes_from_embeddings_to_the_final_norm(
    compose: Compose, architecture: str, trials: int
) -> None:
    torch.manual_seed(0)
    config, none = compose("lora.rank=4"), dict.fromkeys(OWN_DROPOUT, 0.0)
    model = meta_model({**config_values(architecture), **none}, "cpu")
    pack = pack_adapters(model, [config.adapter] * trials, list(range(trials))).train()
    rows = torch.randint(3, 50, (4, 5))
    batch = Completion().collate([(row, row) for row in rows], trials, 0)
    whole = pack(batch, batch.places).all()
    pack.drop_layers([0.0, 1.0][-trials:])
    _, layers = decoder_layers(pack.base)
    states: list[torch.Tensor] = []
    layers[0].register_forward_pre_hook(lambda _, args: states.append(args[0]))
    layers[-1].register_forward_hook(
        lambda _, args, output: states.append(output[0] if isinstance(output, tuple) else output)
    )
    dropped = pack(batch, batch.places).all()
    first, kept = len(rows) - len(rows) // trials, len(whole) - len(whole) // trials
    assert torch.equal(dropped[:kept], whole[:kept])
    assert torch.equal(states[0][first:], states[1][first:])
    assert not torch.equal(dropped[kept:], whole[kept:])
    for undropped in (pack(batch, batch.places, adapters=False), pack.eval()(batch, batch.places)):
        assert torch.equal(undropped.all(), whole)


def test_each_layer_micro_batch_and_seed_draws_by_itself() -> None:
    shape = PackShape(seeds=[0, 1])
    tiny = {"vocab_size": 10, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    base = AutoModelForCausalLM.from_config(LlamaConfig(**tiny, num_hidden_layers=2))
    drop = LayerDrop(base, [0.1, 0.25], shape)
    drawn = []
    for step in range(500):
        for micro_batch in range(2):
            shape.draw = (step, micro_batch)
            drawn.append([drop.kept(f"model.layers.{layer}") for layer in range(2)])
    dropped = 1 - torch.tensor(drawn, dtype=torch.float)
    # Within 4 standard deviations of what is asked for, and uncorrelated.
    assert dropped.mean(0).flatten().tolist() == pytest.approx([0.1, 0.25, 0.1, 0.25], abs=0.055)
    together = torch.corrcoef(dropped.flatten(1).T) - torch.eye(4)
    assert together.abs().max() < 0.13


def test_a_layer_that_gives_something_else_is_refused() -> None:
    tiny = {"vocab_size": 10, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    base = AutoModelForCausalLM.from_config(LlamaConfig(**tiny, num_hidden_layers=1)).train()
    LayerDrop(base, [0.1], PackShape([0], batch=(3, 4)))
    with pytest.raises(ModelError, match=r"layers.0: gets .2, 4, 8. .* Set train.layer_drop=0"):
        base(torch.zeros(2, 4, dtype=torch.long))


def test_trials_that_drop_layers_share_packs_with_each_other_alone(compose: Compose) -> None:
    never, little, much = (compose(f"train.layer_drop={rate}") for rate in (0, 0.1, 0.5))
    assert shared_settings(little) == shared_settings(much) != shared_settings(never)
