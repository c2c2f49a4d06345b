"""IA3: counted and trained as PEFT does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from peft import IA3Config, PeftModel, get_peft_model
from safetensors.torch import load_file

from lorascope.adapters.attach import attach, detach
from lorascope.adapters.ia3 import IA3, Ia3Config
from lorascope.adapters.layers import linear_shapes, model_parts
from lorascope.adapters.targets import select
from lorascope.config import Config, Precision, Targets
from lorascope.data.rows import read_rows
from lorascope.data.tokenization import load_tokenizer
from lorascope.errors import LorascopeError
from lorascope.files.layout import Layout
from lorascope.objectives.completion import completion_loss
from lorascope.quantizers.loading import load_base
from lorascope.records import ModelParts
from lorascope.study.grid import expand
from lorascope.training.packed_linear import Unpackable
from lorascope.training.run import train_pack
from tests.conftest import BASE_OVERRIDES
from tests.counting.architecture_cases import config_values, meta_model, peft_count
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
TRAINED = ("adapter=ia3", "train.learning_rate=0.005", "seed=3")
DECODERS = (
    "llama", "mistral", "mixtral", "gemma3", "qwen2", "phi3", "gpt2", "gpt_neox", "opt",
    "falcon 40b", "bloom",
)  # fmt: skip
LAST_OF_MLP = ("down_proj", "fc2", "dense_4h_to_h", "mlp.c_proj")
IN_PAPER = {
    "llama": ["k_proj", "v_proj", "down_proj"],
    "gpt2": ["attn.c_attn", "mlp.c_proj"],
    "opt": ["k_proj", "v_proj", "fc2"],
    "falcon 40b": ["query_key_value", "dense_4h_to_h"],
}


@pytest.mark.parametrize("targets", [Targets.k_v_mlp, Targets.attention, Targets.all_linear])
@pytest.mark.parametrize("case", DECODERS)
def test_the_count_is_pefts(case: str, targets: Targets) -> None:
    values, config = config_values(case), Ia3Config(targets=targets)
    model = meta_model(values)
    chosen = select(model_parts(model), config)
    adapter = IA3.peft(config, model_parts(model), chosen)
    assert IA3.parameters(config, chosen) == peft_count(values, adapter)
    # Nothing but what was chosen, an MLP's last matrix by its inputs.
    inner = sum(layer.name.endswith(LAST_OF_MLP) for layer in chosen)
    scaled = [m for m in get_peft_model(model, adapter).modules() if hasattr(m, "is_feedforward")]
    assert len(scaled) == len(chosen)
    assert sum(layer.is_feedforward for layer in scaled) == inner


@pytest.mark.parametrize(("case", "names"), IN_PAPER.items())
def test_keys_values_and_the_last_matrix_of_mlps_are_the_default(
    case: str, names: list[str]
) -> None:
    shapes = linear_shapes(meta_model(config_values(case)))
    chosen = {layer.name for layer in select(ModelParts(shapes, []), Ia3Config())}
    assert chosen == {layer.name for layer in shapes if layer.name.endswith(tuple(names))}


def bare_model(project: Layout, config: Config) -> PeftModel:
    base = load_base(project.quantized("small", config.quant.name), config.quant, CPU)
    targets = ["k_proj", "v_proj", "down_proj"]
    adapter = IA3Config(
        target_modules=targets, feedforward_modules=["down_proj"], task_type="CAUSAL_LM"
    )
    return get_peft_model(base, adapter)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("mode", ["fp16", "nf4", "int8", "int4_sym"])
def test_training_follows_a_bare_trainer_with_peft(
    project: Layout, compose: Compose, tmp_path: Path, mode: str
) -> None:
    config = compose(
        *TRAINED, f"quant={mode}", "train.steps=12", "train.micro_batch_size=4",
        "train.log_every_steps=1", "train.max_gradient_norm=0.5", "train.weight_decay=0.01",
    )  # fmt: skip
    ours = train_alone(plan_for(project, config, tmp_path / "ours"))
    bare = bare_model(project, config)
    losses = bare_losses(project, config, bare, tmp_path / "bare")
    assert ours.trainable_parameters == bare.get_nb_trainable_parameters()[0]
    assert [point.loss_nats for point in ours.losses] == pytest.approx(losses, abs=1e-5)
    bare.save_pretrained(tmp_path / "bare")
    trained, theirs = (
        load_file(tmp_path / name / "adapter_model.safetensors") for name in ("ours", "bare")
    )
    assert trained.keys() == theirs.keys()
    for name, value in trained.items():
        assert (value - 1).abs().max() > 0.1
        assert (value - theirs[name]).abs().max() < 1e-5, name


@pytest.mark.usefixtures("one_thread")
def test_an_interrupted_trial_resumes_to_the_same_bits(
    project: Layout, compose: Compose, tmp_path: Path
) -> None:
    config = compose(
        *TRAINED, "quant=nf4", "train.checkpoint_every_steps=2", "train.validate_every_steps=1",
        "train.patience=2", "train.gradient_checkpointing=true",
    )  # fmt: skip
    whole = train_alone(plan_for(project, config, tmp_path / "a"))
    plan = replace(plan_for(project, config, tmp_path / "b"), checkpoints=tmp_path / "checkpoints")

    with pytest.raises(Interrupted):
        train_alone(plan, CPU, interrupted_at(4))
    resumed = train_alone(plan)
    assert resumed.resumed_at_step == 2
    assert resumed.losses == whole.losses
    assert resumed.validation_loss_nats == whole.validation_loss_nats
    assert resumed.adapter_sha256 == whole.adapter_sha256


@pytest.mark.parametrize("mode", ["fp16", "nf4", "int8", "int4_sym"])
def test_the_memory_plan_is_what_training_needs(
    project: Layout, compose: Compose, tmp_path: Path, mode: str
) -> None:
    config = compose(*TRAINED, f"quant={mode}", "train.steps=3")
    assert_close(*trained_and_predicted(plan_for(project, config, tmp_path / "adapter")))


def test_trials_are_trained_one_by_one(project: Layout, compose: Compose, tmp_path: Path) -> None:
    configs = [compose(*TRAINED, "quant=fp16", f"seed={seed}") for seed in (0, 1)]
    with pytest.raises(Unpackable, match="IA3 adapters are trained one by one"):
        train_pack(pack_plan(project, configs, [tmp_path / "a", tmp_path / "b"]), CPU)


def test_a_4_bit_base_that_computes_in_16_bits_can_be_validated(
    project: Layout, compose: Compose
) -> None:
    """PEFT's layers give float32 there, which attention refuses beside bfloat16."""
    config = compose(*TRAINED, "quant=nf4")
    config.quant.compute = Precision.bfloat16
    stored = project.quantized("small", "nf4")
    tokenizer, rows = load_tokenizer(stored), read_rows(project.data("small", "toy") / "test.jsonl")
    base = load_base(stored, config.quant, CPU)
    bare = completion_loss(base, tokenizer, rows, 8)
    model = attach(base, config.adapter, seed=0)
    # Factors of one change nothing.
    assert completion_loss(model, tokenizer, rows, 8) == bare
    assert completion_loss(detach(model), tokenizer, rows, 8) == bare
    assert not [name for name, _ in base.named_modules() if "ia3" in name]


REFUSED = (
    (["adapter=ia3", "lora.rank=8"], "lora.rank=8: a setting of adapter=lora, and adapter=ia3"),
    (["ia3.targets=q_v"], "ia3.targets=q_v: a setting of adapter=ia3, and adapter=lora"),
    (["adapter=ia3", "ia3.rank=8"], "there is no key 'ia3.rank'"),
    (["adapter=ia4"], "expected one of .lora, ia3, vera, oft, miss."),
    (["adapter=ia3", "ia3=modules"], "ia3.modules=.*goes with targets=modules"),
)


@pytest.mark.parametrize(("overrides", "message"), REFUSED)
def test_refusals_name_the_setting(project: Layout, overrides: list[str], message: str) -> None:
    with pytest.raises(LorascopeError, match=message):
        expand(project, [*BASE_OVERRIDES, "quant=nf4", *overrides])
