"""Training through the merge: what is trained is what is served, by torchao's numbers and ours."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchao.quantization import quantize_
from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig
from torchao.quantization.qat.fake_quantizer import IntxFakeQuantizer
from transformers import AutoModelForCausalLM, GPT2Config

from lorascope.adapters.attach import save_adapter
from lorascope.adapters.kinds import KINDS
from lorascope.adapters.lora.kind import LoraConfig
from lorascope.adapters.lora.product import LayerStack
from lorascope.adapters.lora.stack import LoraStack
from lorascope.adapters.stack import PackShape
from lorascope.config import GROUPED, Config, QuantConfig, Storage, TrainConfig
from lorascope.config.rules import validate
from lorascope.data.rows import read_rows
from lorascope.data.tokenization import load_tokenizer
from lorascope.errors import ConfigError
from lorascope.files.layout import Layout
from lorascope.objectives.completion import Completion
from lorascope.objectives.evaluation import forward_of, summed_loss
from lorascope.quantizers.loading import base_dtype, load_base, load_stored, quantize_base
from lorascope.quantizers.torchao.codes import coded, decoded
from lorascope.quantizers.torchao.grid import Grid
from lorascope.quantizers.torchao.rounding import Rounding, require_grid, rounding_of
from lorascope.records import LinearShape, TrainingResult
from lorascope.scoring.merging import merge
from lorascope.scoring.served_form import store_served
from lorascope.study.declared import declare_trial
from lorascope.training.optimizer import adamw, clip, rows_of
from lorascope.training.pack import pack_adapters
from lorascope.training.packed_linear import PackedLinear
from lorascope.training.rounded_merge import round_merged
from lorascope.training.run import served_rounding, train_pack
from lorascope.training.validation import adapted, as_served
from tests.devices import CPU, assert_same_training
from tests.packs import pack_plan, plan_for, train_alone
from tests.planning.test_prediction import assert_close, trained_and_predicted

Compose = Callable[..., Config]
INT4 = ("train.qat=int4_sym", "train.qat_group_size=32")
ROWS = torch.arange(3, 43).view(4, 10)


@contextmanager
def trained_through_the_merge(project: Layout, config: Config, adapter: Path) -> Iterator[Tensor]:
    """Logits of a trial in training, after a few steps, and its adapter in a folder."""
    plan = plan_for(project, config, adapter)
    base = load_base(plan.base, plan.quant, CPU)
    rounding = served_rounding(plan, base)
    assert rounding is not None
    pack = pack_adapters(base, [config.adapter], [0])
    pack.round_merged(rounding)
    batch = Completion().collate([(row, row) for row in ROWS], 1, 0)
    optimizer = adamw(pack.stack.rows, [replace(config.train, learning_rate=0.03)])
    before = pack(batch, batch.places).all().detach()
    for _ in range(4):
        pack.zero_grad()
        Completion().losses(pack, batch).summed.sum().backward()  # type: ignore[no-untyped-call]
        clip(rows_of(optimizer), [1.0])
        optimizer.step()
    logits = pack(batch, batch.places).all().detach()
    assert (logits - before).abs().max() > 0.1
    weights = pack.stack.read(0)
    with adapted(pack.unpack(), plan.trials[0], weights) as model:
        save_adapter(model, adapter, "small")
        with as_served(model, plan.trials[0], weights, rounding), torch.no_grad():
            validated = forward_of(model)(batch, batch.places).all()
    assert torch.equal(validated, logits)
    yield logits


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "overrides",
    [
        ("quant=fp16", *INT4),
        ("quant=fp16", "train.qat=int8_sym", "lora.rslora=true", "lora.rank_pattern={v_proj: 3}"),
        ("quant=nf4", "lora=q_v", "train.qat=uint2_asym", "train.qat_group_size=32"),
        ("quant=int8", "train.qat=uint8_asym", "train.qat_group_size=64"),
        ("quant=nf4_dq", "lora.dora=true", *INT4),
        ("quant=int4_sym", "lora=q_v", *INT4),
        ("quant=fp16", "lora.init=pissa", "lora=attention", *INT4),
        ("quant=fp16", "adapter=full", *INT4),
    ],
)  # fmt: skip
def test_the_merged_model_on_the_grid_is_the_model_in_training(
    project: Layout, compose: Compose, tmp_path: Path, overrides: Sequence[str]
) -> None:
    """Merged in float32 by PEFT, every linear layer but the head put on the grid, and decoded."""
    config = compose(*overrides)
    stored = project.quantized("small", config.quant.name)
    with trained_through_the_merge(project, config, tmp_path / "adapter") as logits:
        base = load_stored(stored, config.quant)
        merged = merge(base, tmp_path / "adapter", torch.float32)
        values = {name: value for layer in merged.layers for name, value in layer.items()}
        served = AutoModelForCausalLM.from_config(merged.plain.config).eval()
        assert not served.load_state_dict(values, strict=False).unexpected_keys
        served.tie_weights()
        rounding = rounding_of(config.train, base_dtype(stored))
        assert rounding is not None
        grid, head = rounding.grid, served.get_output_embeddings()
        for layer in served.modules():
            if type(layer) is nn.Linear and layer is not head:
                on = coded(layer.weight, grid, rounding.scale_dtype)
                decoding = (on.codes, on.scales, on.zero_points, grid, torch.float32)
                layer.weight.data = decoded(*decoding)
        with torch.no_grad():
            theirs = served(ROWS).logits[:, :-1].flatten(0, 1)
        assert (theirs - logits.view(theirs.shape)).abs().max() < 1e-5


@pytest.mark.parametrize(("mode", "dtype", "compute"), [
    ("fp16", "float32", "auto"), ("bf16", "bfloat16", "auto"), ("bf16", "bfloat16", "bfloat16"),
])  # fmt: skip
def test_the_form_that_is_served_from_disk_has_the_loss_that_training_ends_with(
    project: Layout, compose: Compose, tmp_path: Path, mode: str, dtype: str, compute: str
) -> None:
    """Scales are of the base's own kind of 16 bits, as the mode stores them."""
    small, base, stored = project.base("small"), tmp_path / "base", tmp_path / "stored"
    shutil.copytree(small, base)
    AutoModelForCausalLM.from_pretrained(small, dtype=getattr(torch, dtype)).save_pretrained(base)
    config = compose(f"quant={mode}", f"quant.compute={compute}", *INT4)
    quantize_base(base, config.quant, CPU, stored)
    for file in small.glob("*token*"):
        shutil.copy(file, stored)
    plan = plan_for(project, config, tmp_path / "adapter")
    plan = replace(plan, base=stored, full_base=base)
    trained = train_alone(plan)
    served = QuantConfig("int4_sym", Storage.int4_sym, compute=config.quant.compute, group_size=32)
    rows = project.data("small", "toy")
    store_served(
        stored, config.quant, base, tmp_path / "adapter", served, CPU, tmp_path / "served",
        rows / "train.jsonl",
    )  # fmt: skip
    loaded = load_base(tmp_path / "served", served, CPU)
    samples = Completion().validation_samples(
        read_rows(rows / "validation.jsonl"), load_tokenizer(stored)
    )
    loss_sum, tokens = summed_loss(Completion(), loaded, samples, 8)
    assert loss_sum / tokens == pytest.approx(trained.validation_loss_nats, abs=1e-6)


def fake_quantizer(bits: int, symmetric: bool = True) -> IntxFakeQuantizer:
    dtype = getattr(torch, f"int{bits}")
    config = IntxFakeQuantizeConfig(
        dtype, group_size=32, is_symmetric=symmetric, scale_precision=torch.float32
    )
    return IntxFakeQuantizer(config)


def adapted_layer(weight: Tensor, config: LoraConfig) -> tuple[PackedLinear, LayerStack]:
    """A linear layer of this weight with LoRA of random values, for a batch of 7 tokens."""
    shape, pack = LinearShape("l", "l", weight.shape[1], weight.shape[0]), PackShape([0], (1, 7))
    stack, own = LoraStack([config], [shape], "cpu"), nn.Linear(weight.shape[1], weight.shape[0])
    own.weight.data = weight
    own.requires_grad_(False)
    values = stack.stacks[0].layers["l"]
    for part in (values.a, values.b):
        part.data[:, : config.rank].normal_(std=0.02)
    if values.magnitude is not None:
        values.magnitude.data.uniform_(1, 2)
    return PackedLinear(own, stack.layer("l", pack), shape, pack), values


def gradient(value: Tensor) -> Tensor:
    assert value.grad is not None
    return value.grad


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_gradients_are_torchaos_where_no_weight_is_cut(bits: int) -> None:
    """The largest weight of each group is negative, as the lowest code reaches further."""
    torch.manual_seed(0)
    weight = (torch.rand(48, 64) - 0.5).view(48, 2, 32)
    weight[:, :, 5] = -1.0
    layer, own = adapted_layer(weight.view(48, 64), LoraConfig(rank=5, alpha=10))
    layer.rounding = Rounding(Grid(bits, symmetric=True, group_size=32), torch.float32)
    x = torch.randn(1, 7, 64, requires_grad=True)
    ours, seen = layer(x), torch.randn(1, 7, 48)
    (ours * seen).sum().backward()
    theirs_a = own.a[0, :5].detach().requires_grad_()
    theirs_b = own.b[0, :5].T.detach().requires_grad_()
    theirs_x = x.detach().requires_grad_()
    rounded = fake_quantizer(bits)(layer.exact_weight() + 2 * theirs_b @ theirs_a)
    expected = nn.functional.linear(theirs_x, rounded, layer.bias)
    (expected * seen).sum().backward()  # type: ignore[no-untyped-call]
    assert torch.allclose(ours, expected, atol=1e-5)
    of_a, of_b = gradient(own.a)[0], gradient(own.b)[0]
    for mine, theirs in ((gradient(x), theirs_x), (of_a[:5], theirs_a), (of_b[:5].T, theirs_b)):
        assert torch.allclose(mine, gradient(theirs), rtol=1e-4, atol=1e-5)
    assert not of_a[5:].any()


def test_doras_gradients_are_autograds_with_the_norm_as_a_constant() -> None:
    torch.manual_seed(0)
    layer, own = adapted_layer(torch.randn(16, 32), LoraConfig(rank=8, alpha=16, dora=True))
    layer.rounding = rounding = Rounding(Grid(4, symmetric=False, group_size=32), torch.float16)
    x, seen = torch.randn(1, 7, 32), torch.randn(1, 7, 16)
    (layer(x) * seen).sum().backward()
    a, b, m = (part.detach()[0].requires_grad_() for part in own.parameters())
    merged = layer.exact_weight() + 2 * b.T @ a
    merged = (m / torch.linalg.norm(merged, dim=1).detach())[:, None] * merged
    straight = merged + (rounding(merged.detach()) - merged).detach()
    expected = nn.functional.linear(x, straight, layer.bias)
    (expected * seen).sum().backward()  # type: ignore[no-untyped-call]
    for mine, theirs in zip(own.parameters(), (a, b, m), strict=True):
        assert torch.allclose(gradient(mine)[0], gradient(theirs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bits", [2, 4])
def test_a_small_model_is_trained_as_torchao_trains_it_but_for_cut_weights(
    project: Layout, compose: Compose, bits: int
) -> None:
    """Torchao's QATConfig on all linear layers but the head: the same logits, and the same
    gradients, which torchao sets to zero where a weight is cut."""
    config = compose("quant=fp16", "adapter=full", f"train.qat=int{bits}_sym")
    folder = project.quantized("small", "fp16")
    theirs = load_base(folder, config.quant, CPU).requires_grad_(True)
    head = theirs.get_output_embeddings()
    weight_config = fake_quantizer(bits).config
    quantize_(
        theirs, QATConfig(weight_config=weight_config, step="prepare"),
        lambda module, _: type(module) is nn.Linear and module is not head,
    )  # fmt: skip
    assert "FakeQuantizedLinear" in str(theirs)
    pack = pack_adapters(load_base(folder, config.quant, CPU), [config.adapter], [0])
    grid = Grid(bits, symmetric=True, group_size=32)
    round_merged(pack.base, pack.layers, Rounding(grid, torch.float32))
    losses = [model(input_ids=ROWS, labels=ROWS) for model in (pack.base, theirs)]
    assert torch.allclose(losses[0].logits, losses[1].logits, atol=1e-5)
    for one in losses:
        one.loss.backward()
    cut, compared = 0, 0
    expected = dict(theirs.named_parameters())
    for name, value in pack.base.named_parameters():
        if not value.requires_grad:
            continue
        own = gradient(value)
        other = gradient(expected[name.replace(".full_weight.default", ".weight")])
        masked = (other == 0) & (own != 0)
        assert torch.allclose(own[~masked], other[~masked], rtol=1e-3, atol=1e-6), name
        cut, compared = cut + int(masked.sum()), compared + masked.numel()
    # At most one a group, where its largest weight is positive.
    assert 0 < cut < compared / 32


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "shared",
    [
        ("quant=fp16", "train.qat=int2_sym", "train.qat_group_size=32"),
        ("quant=nf4", "lora.dora=true", "train.gradient_checkpointing=true", *INT4),
        ("quant=int8", "lora=q_v", "train.qat=uint4_asym"),
    ],
)
def test_a_pack_equals_lone_trials_to_the_bit(
    project: Layout, compose: Compose, tmp_path: Path, shared: Sequence[str]
) -> None:
    own = [
        ("lora.rank=64", "seed=0"), ("lora.rank=1", "seed=1", "lora.alpha=16"),
        ("lora.rank=5", "seed=2", "train.learning_rate=3e-3"),
        ("lora.rank=4", "seed=0", "train.max_gradient_norm=0.05", "lora.rslora=true"),
    ]  # fmt: skip
    early = ("train.validate_every_steps=2", "train.patience=2")
    configs = [compose(*shared, *early, *one) for one in own]
    folders = [tmp_path / f"packed{index}" for index in range(len(configs))]
    packed = train_pack(pack_plan(project, configs, folders), CPU)
    for config, result in zip(configs, packed, strict=True):
        assert isinstance(result, TrainingResult)
        alone = train_alone(plan_for(project, config, tmp_path / "alone"))
        assert_same_training(result, alone)
        assert result.validations == alone.validations
        assert result.validation_loss_nats == alone.validation_loss_nats
        # What early stopping saw of the step that was saved is what its record ends with.
        seen = [(point.step, point.loss_nats) for point in result.validations]
        assert (result.saved_step, result.validation_loss_nats) in seen


def test_an_interrupted_training_resumes_to_the_same_bits(
    project: Layout, compose: Compose, tmp_path: Path
) -> None:
    config = compose("quant=nf4", "train.checkpoint_every_steps=2", *INT4)
    whole = train_alone(plan_for(project, config, tmp_path / "whole"))
    plan = replace(plan_for(project, config, tmp_path / "a"), checkpoints=tmp_path / "checkpoints")

    def stop(report: object) -> bool:
        if (tmp_path / "checkpoints/checkpoint-4").exists():
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        train_pack(plan, CPU, stop)
    resumed = train_alone(plan)
    assert resumed.resumed_at_step == 4
    assert_same_training(resumed, whole)


@pytest.mark.parametrize(
    ("overrides", "ranks"),
    [
        (("quant=nf4", "lora=q_v"), (8,)),
        (("quant=int8",), (1, 64, 5)),
        (("quant=fp16", "lora.dora=true", "train.gradient_checkpointing=true"), (8,)),
        (("quant=fp16", "adapter=full"), (0,)),
        (("train.validate_every_steps=2", "train.patience=1", "train.steps=4"), (1, 64)),
    ],
)
def test_the_plan_is_what_a_training_through_the_merge_needs(
    project: Layout,
    compose: Compose,
    tmp_path: Path,
    overrides: Sequence[str],
    ranks: Sequence[int],
) -> None:
    every = [(f"lora.rank={rank}",) if rank else () for rank in ranks]
    configs = [compose(*INT4, *overrides, *rank) for rank in every]
    result, predicted = trained_and_predicted(
        pack_plan(project, configs, [tmp_path / str(rank) for rank in ranks])
    )
    assert_close(result, predicted)


def test_what_cannot_be_trained_through_the_merge_says_why(
    project: Layout, compose: Compose
) -> None:
    able = {name for name, kind in KINDS.items() if kind.unrounded(kind.config()) is None}
    assert able == {"lora", "full"}
    refused = {
        "adapter=ia3": "no step has their merged weight",
        "lora.dropout=0.1": "reads other inputs",
        "lora.head=true": "head and embeddings",
    }
    for override, words in refused.items():
        config = compose("quant=fp16", "train.qat=int4_sym", override)
        with pytest.raises(ConfigError, match=f"train.qat='int4_sym'.*{words}"):
            declare_trial(config, project)
    small = GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=9, eos_token_id=0)
    model = AutoModelForCausalLM.from_config(small)
    with pytest.raises(ConfigError, match="Conv1D"):
        require_grid(model, TrainConfig(qat=Storage.int4_sym))


def test_the_setting_is_one_of_the_grids_and_makes_a_trial_of_its_own(
    project: Layout, compose: Compose
) -> None:
    plain = compose("quant=fp16", "lora.rank=4")
    identities = {declare_trial(plain, project).identity}
    for storage in GROUPED:
        for size in ("null", 32):
            grid = (f"train.qat={storage}", f"train.qat_group_size={size}")
            config = compose("quant=fp16", "lora.rank=4", *grid)
            identities.add(declare_trial(config, project).identity)
    assert len(identities) == 1 + 2 * len(GROUPED)
    wrong: dict[Storage, int | None] = {Storage.float16: None, Storage.int4_sym: 48}
    for other, groups in wrong.items():
        train = replace(plain.train, qat=other, qat_group_size=groups)
        with pytest.raises(ConfigError, match=r"train\.qat"):
            validate(replace(plain, train=train))
    alone = replace(plain, train=replace(plain.train, qat_group_size=32))
    with pytest.raises(ConfigError, match=r"train\.qat_group_size=32: it is the group size of"):
        validate(alone)
