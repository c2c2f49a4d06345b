"""LoRA that begins with what its layers read, against PEFT's own functions on the same samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import peft
import pytest
import torch
from peft.tuners.lora.config import CordaConfig
from peft.tuners.lora.corda import preprocess_corda
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedModel

from lorascope.adapters.attach import attach_trained, save_adapter
from lorascope.adapters.lora.kind import LoraConfig
from lorascope.adapters.lora.stack import LoraStack
from lorascope.config import Config
from lorascope.data.rows import read_rows
from lorascope.data.tokenization import load_tokenizer, tokenize_row
from lorascope.errors import ConfigError, LorascopeError
from lorascope.execution.packs import shared_settings
from lorascope.files.layout import Layout
from lorascope.meters.tracker import TensorTracker, persistent_tensors
from lorascope.objectives.completion import Completion
from lorascope.objectives.evaluation import evaluation_mode, forward_of
from lorascope.objectives.kinds import TokenBatch
from lorascope.quantizers.loading import load_base
from lorascope.records import TrainingResult
from lorascope.study.declared import declare_trial
from lorascope.study.grid import expand
from lorascope.training.batches import epoch_order
from lorascope.training.first_samples import first_samples
from lorascope.training.pack import PackedModel, pack_adapters
from lorascope.training.run import train_pack, training_data
from lorascope.training.trial_plan import PackPlan
from tests.adapters.test_inits import TARGETS, named_values
from tests.conftest import BASE_OVERRIDES
from tests.devices import CPU
from tests.packs import bare_collator, bare_losses, pack_plan, plan_for, train_alone
from tests.planning.test_prediction import assert_close, trained_and_predicted

Compose = Callable[..., Config]
TRAINED = (
    "lora.rank=4", "lora.alpha=8", "lora.init_samples=12", "train.steps=12", "seed=3",
    "train.micro_batch_size=8", "train.batch_size=8", "train.log_every_steps=1",
    "train.max_gradient_norm=0.5", "train.weight_decay=0.01",
)  # fmt: skip


def fresh(project: Layout, config: Config) -> PreTrainedModel:
    return load_base(project.quantized("small", config.quant.name), config.quant, CPU)


def reading_pack(project: Layout, config: Config) -> tuple[PackedModel, PackPlan]:
    """A trial's pack before its first step."""
    plan, base = plan_for(project, config, Path()), fresh(project, config)
    data = training_data(plan, load_tokenizer(plan.base), base)
    read = first_samples(plan, data, CPU)
    return pack_adapters(base, [config.adapter], [config.seed], read), plan


def batches(project: Layout, config: Config, size: int) -> Iterator[dict[str, Tensor]]:
    """The first samples in the trial's order, as one would hand them to PEFT."""
    plan = plan_for(project, config, Path())
    tokenizer = load_tokenizer(plan.base)
    rows = [tokenize_row(row, tokenizer) for row in read_rows(plan.data / "train.jsonl")]
    samples = [(torch.tensor(ids), torch.tensor(labels)) for ids, labels in rows]
    first = epoch_order(len(rows), config.seed, 0)[:12]
    for start in range(0, len(first), size):
        yield bare_collator([samples[place] for place in first[start : start + size]])


def with_eva(project: Layout, config: Config) -> peft.PeftModel:
    """What anyone would write with PEFT."""
    made = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=TARGETS, task_type="CAUSAL_LM", init_lora_weights="eva",
        eva_config=peft.EvaConfig(rho=1.0),
    )  # fmt: skip
    model = peft.get_peft_model(fresh(project, config), made)
    given = list(batches(project, config, 8))
    peft.initialize_lora_eva_weights(model, given, show_progress_bar=False)
    model.base_model.peft_config["default"].target_modules = set(TARGETS)
    return model


def with_corda(project: Layout, config: Config, method: str) -> peft.PeftModel:
    """The same."""
    made = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=TARGETS, task_type="CAUSAL_LM", init_lora_weights="corda",
        corda_config=CordaConfig(corda_method=method),
    )  # fmt: skip
    base = fresh(project, config)

    def run() -> None:
        for batch in batches(project, config, 1):
            base(input_ids=batch["input_ids"])

    preprocess_corda(base, made, run)
    return peft.get_peft_model(base, made)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("mode", ["nf4", "int8"])
def test_eva_begins_and_trains_as_pefts(
    project: Layout, compose: Compose, tmp_path: Path, mode: str
) -> None:
    config = compose(*TRAINED, f"quant={mode}", "lora.init=eva")
    bare = with_eva(project, config)
    first = named_values(bare)
    ours = reading_pack(project, config)[0].stack.read(0)
    assert ours.keys() == first.keys()
    for name, value in ours.items():
        # Rows stand at right angles; only logits at labels were computed here.
        assert torch.allclose(value, first[name], atol=1e-4), name
        if "lora_A" in name:
            assert torch.allclose(value @ value.T, torch.eye(4), atol=1e-4)
    result = train_alone(plan_for(project, config, tmp_path / "ours"))
    losses = bare_losses(project, config, bare, tmp_path / "bare")
    assert [point.loss_nats for point in result.losses] == pytest.approx(losses, abs=1e-4)
    assert result.trainable_parameters == bare.get_nb_trainable_parameters()[0]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("init", "method"), [("corda", "ipm"), ("corda_kpm", "kpm")])
def test_corda_takes_out_and_trains_what_pefts_does(
    project: Layout, compose: Compose, tmp_path: Path, init: str, method: str
) -> None:
    config = compose(*TRAINED, "quant=fp16", f"lora.init={init}")
    bare = with_corda(project, config, method)
    first = named_values(bare)
    pack, _ = reading_pack(project, config)
    stack = pack.stack
    assert isinstance(stack, LoraStack)
    for name in pack.layers:
        a, b = stack.stacks[0].layers[name].joined()
        begun = (first[f"{name}.lora_{part}.default.weight"] for part in "AB")
        for ours, theirs in zip((a[0, :4], b[0, :4].T), begun, strict=True):
            # Singular vectors of a sum of products: what rounds differently stands out.
            assert (ours - theirs).abs().max() < 1e-3 * theirs.abs().max(), name
        kept = vars(pack.base.get_submodule(name).base_layer)
        assert not {"covariance_matrix", "sample_count", "eigens"} & kept.keys()
    result = train_alone(plan_for(project, config, tmp_path / "ours"))
    losses = bare_losses(project, config, bare, tmp_path / "bare")
    assert [point.loss_nats for point in result.losses] == pytest.approx(losses, abs=2e-4)
    assert result.trainable_parameters == bare.get_nb_trainable_parameters()[0]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("init", ["eva", "corda"])
def test_they_begin_as_the_bare_base_and_load_in_plain_peft_on_it(
    project: Layout, compose: Compose, tmp_path: Path, init: str
) -> None:
    config = compose(*TRAINED, "quant=fp16", f"lora.init={init}")
    pack, _ = reading_pack(project, config)
    tokens = torch.randint(3, 50, (2, 7), generator=torch.Generator().manual_seed(0))
    pack.shape.batch = (2, 7)
    with torch.no_grad():
        bare = fresh(project, config)(input_ids=tokens).logits
        assert torch.allclose(pack.base(input_ids=tokens).logits, bare, atol=2e-5)
        assert isinstance(pack.stack, LoraStack)
        if init == "eva":
            began = {name: value + 0.02 for name, value in pack.stack.read(0).items()}
            pack.stack.write(0, began)
        else:
            pack.stack.rows[0].mul_(0.9)
        trained = pack.base(input_ids=tokens).logits
    assert (trained - bare).abs().max() > 0.1
    values = pack.stack.read(0)
    adapted = attach_trained(fresh(project, config), config.adapter, values, seed=0)
    save_adapter(adapted, tmp_path, "small")
    text = (tmp_path / "adapter_config.json").read_text()
    assert '"init_lora_weights": true' in text
    loaded = peft.PeftModel.from_pretrained(fresh(project, config), tmp_path).eval()
    with torch.no_grad():
        assert torch.allclose(loaded(input_ids=tokens).logits, trained, atol=2e-5)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("inits", [("kaiming", "eva", "gaussian"), ("pissa", "corda", "corda_kpm")])
def test_they_share_packs_and_compute_what_they_compute_alone(
    project: Layout, compose: Compose, tmp_path: Path, inits: tuple[str, ...]
) -> None:
    configs = [
        compose(*TRAINED, "train.steps=4", "quant=fp16", f"lora.init={init}", f"seed={seed}")
        for seed, init in enumerate(inits)
    ]
    assert len({shared_settings(config) for config in configs}) == 1
    plan = pack_plan(project, configs, [tmp_path / init for init in inits])
    for config, packed in zip(configs, train_pack(plan, CPU), strict=True):
        assert isinstance(packed, TrainingResult)
        alone = train_alone(plan_for(project, config, tmp_path / "alone"))
        assert packed.adapter_sha256 == alone.adapter_sha256


@pytest.mark.parametrize(("init", "checkpointing"), [("eva", True), ("corda", False)])
def test_the_memory_plan_is_what_reading_and_training_need(
    project: Layout, compose: Compose, tmp_path: Path, init: str, checkpointing: bool
) -> None:
    words = (f"lora.init={init}", f"train.gradient_checkpointing={checkpointing}")
    config = compose(*TRAINED, "quant=fp16", *words, "train.steps=3")
    plan = plan_for(project, config, tmp_path)
    result, predicted = trained_and_predicted(plan)
    assert_close(result, predicted)
    base = fresh(project, config)
    read = first_samples(plan, training_data(plan, load_tokenizer(plan.base), base), CPU)
    with TensorTracker() as tracker:
        tracker.add(persistent_tensors(base))
        pack_adapters(base, [config.adapter], [3], read)
    print(init, tracker.peak_bytes / predicted.peak_bytes["load"])
    assert 0.7 < tracker.peak_bytes / predicted.peak_bytes["load"] <= 1


@pytest.mark.parametrize("init", ["eva", "corda"])
def test_transposed_layers_begin_as_the_bare_base_too(init: str) -> None:
    gpt2 = GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=16)
    base = AutoModelForCausalLM.from_config(gpt2).eval()
    tokens = torch.arange(10)[None]
    with torch.no_grad():
        bare = base(input_ids=tokens).logits
        pack = pack_adapters(base, [LoraConfig(rank=4, alpha=4, init=init)], [0], [Given(gpt2)])
        pack.shape.batch = (1, 10)
        assert torch.allclose(pack.base(input_ids=tokens).logits, bare, atol=1e-5)


class Given:
    """Random samples, all of them trained."""

    def __init__(self, config: GPT2Config) -> None:
        generator = torch.Generator().manual_seed(0)
        self.ids = torch.randint(config.vocab_size, (6, 12), generator=generator)

    def batches(self, at_once: int | None = None) -> Iterator[TokenBatch]:
        for start in range(0, 6, at_once or 3):
            ids = self.ids[start : start + (at_once or 3)]
            yield Completion().collate([(own, own) for own in ids], 1, 0)

    def loss(self, model: nn.Module, batch: TokenBatch) -> Tensor:
        raise NotImplementedError

    def read(self, model: nn.Module, batch: TokenBatch) -> None:
        with evaluation_mode(model):
            forward_of(model)(batch, batch.places)


def test_more_directions_than_inputs_and_tokens_give_are_refused(
    project: Layout, compose: Compose
) -> None:
    config = compose("quant=fp16", "lora.init=eva", "lora.rank=400")
    with pytest.raises(ConfigError, match=r"lora.rank=400: .*Take \d+ or less"):
        declare_trial(config, project)
    config = compose(*TRAINED, "quant=fp16", "lora.init=eva", "lora.rank=12")
    with pytest.raises(ConfigError, match=r"lora.rank=12: .*first micro-batch has 16"):
        reading_pack(project, config)
    with pytest.raises(LorascopeError, match=r"lora.init_samples=0: must be 1 or more"):
        expand(project, [*BASE_OVERRIDES, "quant=fp16", "lora.init_samples=0"])
