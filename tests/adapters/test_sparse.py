"""Sparse tuning against what anyone would write with torch: whole gradients under a mask."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from lorascope.adapters.attach import attach, load_adapter, save_adapter
from lorascope.adapters.sparse.choosing import choose
from lorascope.adapters.sparse.kind import SparseConfig
from lorascope.adapters.sparse.layer import SparseLayer
from lorascope.config import Config
from lorascope.data.rows import read_rows
from lorascope.data.tokenization import load_tokenizer, tokenize_row
from lorascope.errors import LorascopeError
from lorascope.files.layout import Layout
from lorascope.meters.tracker import TensorTracker, persistent_tensors
from lorascope.quantizers.kinds import quantizer_of
from lorascope.quantizers.loading import load_base
from lorascope.study.grid import expand
from lorascope.training.batches import epoch_order
from lorascope.training.first_samples import first_samples
from lorascope.training.pack import pack_adapters
from lorascope.training.run import training_data
from tests.adapters.test_own_methods import small, trained
from tests.conftest import BASE_OVERRIDES
from tests.devices import CPU
from tests.packs import (
    Interrupted,
    bare_losses,
    interrupted_at,
    plan_for,
    train_alone,
)
from tests.planning.test_prediction import assert_close, trained_and_predicted

Compose = Callable[..., Config]
IDS = torch.arange(20).reshape(2, 10)
TRAINED = (
    "adapter=sparse", "sparse.share=0.02", "sparse.samples=12", "train.steps=8", "seed=3",
    "train.micro_batch_size=4", "train.log_every_steps=1", "train.learning_rate=0.005",
    "train.max_gradient_norm=0.5", "train.weight_decay=0", "sparse.learning_rate_factor=1",
)  # fmt: skip


class Difference(nn.Module):
    """A whole matrix that a forward hook adds the product with."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.zeros(layer.out_features, layer.in_features))
        layer.register_forward_hook(self.added)

    def added(self, layer: nn.Module, given: Any, result: Tensor) -> Tensor:
        """Behind a layer."""
        return result + functional.linear(given[0], self.matrix)


def whole_matrices(base: PreTrainedModel, plain: bool) -> dict[str, nn.Parameter]:
    """Each layer's weight where it is a plain one, else a difference to it, with gradients."""
    found = {}
    differences = nn.ModuleList()
    for name, layer in list(base.named_modules()):
        if name.endswith("_proj"):
            if plain:
                found[name] = layer.weight.requires_grad_(True)
                continue
            differences.append(Difference(layer))
            found[name] = differences[-1].matrix
    base.differences = differences
    # A Trainer asks it before it trains anything beside a quantized base.
    base._hf_peft_config_loaded = True
    return found


def scores_by_hand(
    project: Layout, config: Config, base: PreTrainedModel, matrices: dict[str, nn.Parameter]
) -> dict[str, Tensor]:
    """Gradients of the first samples' summed losses, or sums of their squares, one by one."""
    plan = plan_for(project, config, Path())
    tokenizer = load_tokenizer(plan.base)
    rows = [tokenize_row(row, tokenizer) for row in read_rows(plan.data / "train.jsonl")]
    assert isinstance(config.adapter, SparseConfig)
    base.train()
    scores = {name: torch.zeros_like(own) for name, own in matrices.items()}
    for place in epoch_order(len(rows), config.seed, 0)[: config.adapter.samples]:
        ids, labels = (torch.tensor(values)[None] for values in rows[place])
        logits = base(input_ids=ids).logits[0, :-1].float()
        loss = functional.cross_entropy(logits, labels[0, 1:], reduction="sum")
        gradients = torch.autograd.grad(loss, list(matrices.values()))
        for name, own in zip(matrices, gradients, strict=True):
            scores[name] += own**2 if config.adapter.choice == "fisher" else own
    return {name: own.abs() for name, own in scores.items()}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("mode", "choice"),
    [("fp16", "fisher"), ("nf4", "gradient"), ("int8", "fisher")],
)
def test_the_choice_and_the_training_are_those_of_whole_gradients_under_a_mask(
    project: Layout, compose: Compose, tmp_path: Path, mode: str, choice: str
) -> None:
    config = compose(*TRAINED, f"quant={mode}", f"sparse.choice={choice}")
    ours = train_alone(plan_for(project, config, tmp_path / "ours"))
    base = load_base(project.quantized("small", mode), config.quant, CPU)
    matrices = whole_matrices(base, plain=mode == "fp16")
    began = {name: own.detach().clone() for name, own in matrices.items()}
    scores = scores_by_hand(project, config, base, matrices)
    saved = load_file(tmp_path / "ours/adapter_model.safetensors")
    count = 0
    for name, own in matrices.items():
        places = saved[f"base_model.model.{name}.sparse_places"].long()
        count += len(places)
        assert len(places) == len(set(places.tolist())) == round(0.02 * own.numel())
        lowest = scores[name].flatten()[places].min()
        left = scores[name].flatten().index_fill(0, places, 0).max()
        # Equal but for rounding may stand on either side.
        assert lowest >= left * (1 - 1e-4), name
        mask = torch.zeros(own.numel()).index_fill(0, places, 1).view(own.shape)
        own.register_hook(partial(torch.mul, mask))  # type: ignore[no-untyped-call]
    losses = bare_losses(project, config, base, tmp_path / "bare")
    assert ours.trainable_parameters == count
    assert [point.loss_nats for point in ours.losses] == pytest.approx(losses, abs=2e-5)
    assert losses[-1] < losses[0] - 0.1
    for name, own in matrices.items():
        places = saved[f"base_model.model.{name}.sparse_places"].long()
        values = saved[f"base_model.model.{name}.sparse_values"]
        moved = (own - began[name]).detach().flatten()
        assert (moved[places] - values).abs().max() < 1e-4, name
        assert moved.index_fill(0, places, 0).abs().max() == 0


def test_an_interrupted_trial_goes_on_with_the_weights_that_were_chosen(
    project: Layout, compose: Compose, tmp_path: Path
) -> None:
    """Whatever would be chosen when it goes on."""
    words = ("quant=nf4", "sparse.choice=random", "train.checkpoint_every_steps=2")
    config = compose(*TRAINED, *words, "train.validate_every_steps=2", "train.patience=2")
    whole = train_alone(plan_for(project, config, tmp_path / "a"))
    plan = replace(plan_for(project, config, tmp_path / "b"), checkpoints=tmp_path / "checkpoints")
    with pytest.raises(Interrupted):
        train_alone(plan, CPU, interrupted_at(4))
    (trial,) = plan.trials
    train_alone(replace(plan, trials=[replace(trial, seed=7)]))
    places = [
        {name: own for name, own in load_file(tmp_path / f).items() if "places" in name}
        for f in ("a/adapter_model.safetensors", "b/adapter_model.safetensors")
    ]
    assert all(torch.equal(places[0][name], places[1][name]) for name in places[0])
    shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)
    with pytest.raises(Interrupted):
        train_alone(plan, CPU, interrupted_at(4))
    resumed = train_alone(plan)
    assert resumed.resumed_at_step == 2
    assert (resumed.losses, resumed.adapter_sha256) == (whole.losses, whole.adapter_sha256)


@pytest.mark.parametrize(
    ("mode", "choice", "passes"),
    [("fp16", "gradient", 1), ("nf4", "gradient", 3), ("nf4", "fisher", 1)],
)
def test_the_memory_plan_is_what_choosing_and_training_need(
    project: Layout, compose: Compose, tmp_path: Path, mode: str, choice: str, passes: int
) -> None:
    words = (
        f"quant={mode}", f"sparse.passes={passes}", f"sparse.choice={choice}",
        f"train.gradient_checkpointing={passes == 3}",
    )  # fmt: skip
    config = compose(*TRAINED, *words, "train.steps=3")
    plan = plan_for(project, config, tmp_path / "adapter")
    result, predicted = trained_and_predicted(plan)
    assert_close(result, predicted)
    base = load_base(plan.base, plan.quant, CPU)
    data = training_data(plan, load_tokenizer(plan.base), base)
    with TensorTracker() as tracker:
        tracker.add(persistent_tensors(base))
        pack_adapters(base, [config.adapter], [3], first_samples(plan, data, CPU))
    # Fisher reads a sample at a time, and a step several.
    least = 0.9 if choice == "gradient" else 0.5
    assert least < tracker.peak_bytes / predicted.peak_bytes["load"] <= 1
    # What is saved loads in plain PEFT, and says there what it says here.
    logits = []
    for load in (load_adapter, PeftModel.from_pretrained):
        again = load_base(plan.base, config.quant, CPU)
        with torch.no_grad():
            logits.append(load(again, tmp_path / "adapter").eval()(input_ids=IDS).logits)
            assert not torch.equal(logits[-1], base(input_ids=IDS).logits)
    assert torch.equal(*logits)


@pytest.mark.parametrize("mode", ["fp16", "nf4", "int8"])
def test_the_largest_are_those_of_the_weights_that_are_stored(
    project: Layout, compose: Compose, mode: str
) -> None:
    config = compose("adapter=sparse", "sparse.choice=magnitude", f"quant={mode}")
    base = load_base(project.quantized("small", mode), config.quant, CPU)
    stored = {
        name: quantizer_of(layer).weight(layer).abs().flatten()
        for name, layer in base.named_modules()
        if name.endswith("_proj")
    }
    model = attach(base, config.adapter, seed=0)
    choose(SparseConfig(choice="magnitude"), model, 0, None)
    for name, weight in stored.items():
        places = base.get_submodule(name).sparse_places["default"].long()
        assert weight[places].min() >= weight.index_fill(0, places, 0).max()
    ids = torch.arange(20).reshape(2, 10)
    model.train()(input_ids=ids, labels=ids).loss.backward()


def test_transposed_layers_are_trained_saved_and_merged(tmp_path: Path) -> None:
    config = SparseConfig(share=0.05, choice="random")
    model = small("gpt2")
    adapted = attach(model, config, seed=0)
    choose(config, adapted, 5, None)
    names = [name for name, own in model.named_modules() if isinstance(own, SparseLayer)]
    losses = trained(adapted)
    assert losses[-1] < losses[0]
    save_adapter(adapted, tmp_path, "small")
    with torch.no_grad():
        expected = adapted.eval()(input_ids=IDS).logits
        loaded = PeftModel.from_pretrained(small("gpt2"), tmp_path)
        assert torch.equal(loaded(input_ids=IDS).logits, expected)
        merged = loaded.merge_and_unload()
        assert torch.allclose(merged(input_ids=IDS).logits, expected, atol=1e-4)
        whole = small("gpt2")
        for name in names:
            before, after = (m.get_submodule(name).weight for m in (whole, merged))
            share = (before != after).float().mean()
            assert 0.04 < share < 0.06


def test_random_choices_differ_by_seed_and_layer_and_not_by_run() -> None:
    config, found = SparseConfig(choice="random"), []
    for seed in (0, 0, 1):
        model = attach(small("llama"), config, seed=0)
        choose(config, model, seed, None)
        found.append([own for name, own in model.named_buffers() if "sparse_places" in name])
    first, again, other = found
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert not any(torch.equal(*pair) for pair in zip(first, other, strict=True))
    equal = [own for own in first if own.shape == first[0].shape]
    assert not torch.equal(equal[0], equal[1])


def test_a_share_beyond_all_is_refused(project: Layout) -> None:
    for words, message in (
        ("sparse.share=1.5", r"sparse.share=1.5: must lie in \(0, 1\]"),
        ("sparse.choice=best", r"no such choice.*fisher, magnitude, random"),
    ):
        with pytest.raises(LorascopeError, match=message):
            expand(project, [*BASE_OVERRIDES, "quant=nf4", "adapter=sparse", words])
