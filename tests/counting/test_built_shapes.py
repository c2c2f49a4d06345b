"""Counts of architectures without a table, against PEFT on the models that transformers builds."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
)

from lorascope.adapters.layers import all_linear_shapes
from lorascope.adapters.lora.kind import LoraConfig
from lorascope.adapters.targets import peft_targets, select
from lorascope.bases.built_shape import built_shape
from lorascope.bases.shapes import model_shape, refused_by_peft
from lorascope.config import Targets
from lorascope.counting.architectures import ARCHITECTURES, ModelShape, table_shape
from lorascope.counting.parameters import (
    ia3_parameters,
    lora_parameters,
    peft_all_linear_parameters,
    prefix_tuning_parameters,
    prompt_tuning_parameters,
    target_parameters_lora,
)
from lorascope.errors import ConfigError, ModelError
from tests.counting.architecture_cases import config_values
from tests.counting.built_cases import BUILT, built_values
from tests.counting.published_models import PUBLISHED

every_case = pytest.mark.parametrize("case", BUILT)
CLASSES: dict[str, tuple[Any, str]] = {
    "bert": (AutoModelForMaskedLM, "FEATURE_EXTRACTION"),
    "electra": (AutoModelForMaskedLM, "FEATURE_EXTRACTION"),
    "t5": (AutoModelForSeq2SeqLM, "SEQ_2_SEQ_LM"),
    "bart": (AutoModelForSeq2SeqLM, "SEQ_2_SEQ_LM"),
    "qwen2_vl": (AutoModelForImageTextToText, "CAUSAL_LM"),
}
EXPERTS = [case for case in BUILT if case.split()[0] in {
    "qwen2_moe", "qwen3_moe", "qwen3_next", "deepseek_v2", "deepseek_v3", "glm4_moe", "olmoe",
    "granitemoe", "gpt_oss", "llama4_text", "ernie4_5_moe", "jamba",
}]  # fmt: skip
UNFIT = {
    "qwen3_next": "linear attention", "deepseek_v2": "latent keys", "deepseek_v2 lite": "the same",
    "deepseek_v3": "the same", "minicpm3": "the same", "jamba": "states", "mamba": "states",
    "lfm2": "convolutions",
}  # fmt: skip
"""Case -> what its layers have in place of one key and value a head."""
WITHOUT_QUERY_AND_VALUE = (
    "deepseek_v2", "deepseek_v3", "minicpm3", "gpt_bigcode", "mpt",
)  # fmt: skip
"""Cases in which they are one matrix, or latent."""
OWN_CODE = """
from torch import nn, zeros
from transformers import OlmoConfig, OlmoForCausalLM

class OwnConfig(OlmoConfig):
    model_type = "own"

class OwnModel(OlmoForCausalLM):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.extra = nn.Parameter(zeros(7))
"""


@cache
def shape_of(case: str) -> ModelShape:
    return model_shape(built_values(case))


def model(case: str, device: str = "meta") -> Any:
    """The model as transformers builds it from the same config.json."""
    values = built_values(case)
    config = CONFIG_MAPPING[str(values.pop("model_type"))](**values)
    with torch.device(device):
        made = CLASSES.get(case, (AutoModelForCausalLM, ""))[0].from_config(config)
    made.tie_weights()
    return made


def task(case: str) -> str:
    return CLASSES.get(case, (None, "CAUSAL_LM"))[1]


def trained(case: str, config: peft.PeftConfig, part: str = "") -> int:
    """Number of parameters that PEFT trains in modules whose name holds `part`."""
    with torch.device("meta"):
        adapted = peft.get_peft_model(model(case), config)
    named = adapted.named_parameters()
    return sum(p.numel() for name, p in named if p.requires_grad and part in name)


def test_forty_architectures_and_more_are_counted() -> None:
    built = {model_type for model_type, _ in BUILT.values()}
    assert len(built | set(ARCHITECTURES)) >= 48
    assert not built & set(ARCHITECTURES)


@every_case
def test_totals_and_biases_equal_the_model_that_transformers_builds(case: str) -> None:
    text = {name: p for name, p in model(case).named_parameters() if "visual" not in name}
    shape = shape_of(case)
    assert shape.total_parameters == sum(p.numel() for p in text.values())
    frozen = sum(p.numel() for p in text.values() if not p.requires_grad)
    assert shape.frozen_parameters == frozen
    biases = sum(p.numel() for n, p in text.items() if n.endswith("bias") and p.requires_grad)
    assert shape.bias_parameters == biases


@pytest.mark.parametrize("targets", [Targets.q_v, Targets.all_linear])
@pytest.mark.parametrize("case", [case for case in BUILT if case != "mamba"])
def test_lora_equals_peft(case: str, targets: Targets) -> None:
    try:
        chosen = select(shape_of(case).parts, LoraConfig(targets=targets))
    except ConfigError:
        assert targets is Targets.q_v
        assert case in WITHOUT_QUERY_AND_VALUE
        return
    names = peft_targets(all_linear_shapes(model(case)), chosen)
    if case in CLASSES:
        # The head may have a "dense" too, which only full names leave out.
        names = [layer.name for layer in chosen]
    dora = targets is Targets.all_linear
    adapter = peft.LoraConfig(r=3, target_modules=names, use_dora=dora)
    assert lora_parameters(chosen, 3, dora) == trained(case, adapter)


@pytest.mark.parametrize("case", ["mamba", "olmo", "deepseek_v3", "bert", "t5"])
def test_peft_refuses_what_it_does_not_put_on_a_model(case: str) -> None:
    reason = refused_by_peft(built_values(case), LoraConfig(targets=Targets.all_linear))
    assert ("incompatible with Mamba" in str(reason)) if case == "mamba" else reason is None


@pytest.mark.parametrize("case", [case for case in BUILT if case != "mamba"])
def test_pefts_own_choice_of_layers_equals_peft(case: str) -> None:
    shape, part = shape_of(case), "language_model" if case == "qwen2_vl" else ""
    everything = peft.LoraConfig(r=3, target_modules="all-linear", task_type=task(case))
    # PEFT puts it on Llama 4's routers too, and the model does not run then.
    counted = None if case == "llama4_text" else trained(case, everything, part)
    assert peft_all_linear_parameters(shape, 3) == counted
    if shape.peft.ia3_is_ours:
        with pytest.raises(ValueError, match="target_modules"):
            trained(case, peft.IA3Config())
        outputs, inputs = map(list, shape.peft.ia3_targets)
        ia3 = peft.IA3Config(target_modules=[*outputs, *inputs], feedforward_modules=inputs)
    else:
        ia3 = peft.IA3Config()
    if any(shape.peft.ia3_targets):
        assert ia3_parameters(shape) == trained(case, ia3)


@pytest.mark.parametrize("case", EXPERTS)
def test_lora_on_bare_parameters_equals_peft(case: str) -> None:
    shape = shape_of(case)
    names = sorted({".".join(m.name.split(".")[-3:]) for m in shape.expert_matrices})
    lora = peft.LoraConfig(r=3, target_modules=[], target_parameters=names)
    assert target_parameters_lora(shape.expert_matrices, 3) == trained(case, lora)
    assert {m.kind for m in shape.expert_matrices} >= {"experts"}


@pytest.mark.parametrize(
    "case", [case for case in BUILT if case not in ("t5", "bart", "electra", "qwen2_vl", "mpt")]
)
def test_virtual_tokens_equal_peft_where_the_model_runs_with_them(case: str) -> None:
    """On a real model: the count is None where its layers and PEFT's prefix do not fit."""
    shape, tokens = shape_of(case), torch.ones((1, 2), dtype=torch.long)
    prompt = peft.PromptTuningConfig(num_virtual_tokens=7, task_type=task(case))
    prefix = peft.PrefixTuningConfig(num_virtual_tokens=7, task_type=task(case))
    if case == "mamba":
        prompt.num_attention_heads = 1
    assert prompt_tuning_parameters(shape, 7) == trained(case, prompt)
    if case in UNFIT:
        assert prefix_tuning_parameters(shape, 7) is None
        return
    adapted = peft.get_peft_model(model(case, "cpu"), prefix).eval()
    with torch.no_grad():
        adapted(input_ids=tokens, attention_mask=torch.ones_like(tokens))
    assert prefix_tuning_parameters(shape, 7) == adapted.get_nb_trainable_parameters()[0]


@pytest.mark.parametrize("name", PUBLISHED)
def test_total_parameters_of_published_models(name: str) -> None:
    total, values = PUBLISHED[name]
    assert model_shape(values).total_parameters == total


def test_a_language_model_inside_another_takes_the_defaults_of_its_class() -> None:
    _, values = PUBLISHED["llava-1.5-7b"]
    shape = model_shape(values)
    assert (shape.model_type, shape.layers, shape.hidden) == ("llama", 32, 4096)
    with pytest.raises(ConfigError, match="hidden_size=None: is missing"):
        model_shape({"model_type": "llama", "vocab_size": 32064})


@pytest.mark.parametrize("case", ["llama", "mixtral", "gpt2", "opt", "falcon 40b", "roberta"])
def test_what_is_built_equals_the_table(case: str) -> None:
    built, table = built_shape(config_values(case)), table_shape(config_values(case))
    assert model_shape(config_values(case)) == table
    assert built.linear_shapes == table.linear_shapes
    for name in ("layers", "hidden", "total_parameters", "bias_parameters", "frozen_parameters"):
        assert getattr(built, name) == getattr(table, name)
    for name in ("prompt_parameters", "prefix_parameters", "all_linear_parameters",
                 "all_linear_has_experts", "ia3_is_ours"):  # fmt: skip
        assert getattr(built.peft, name) == getattr(table.peft, name)
    assert ia3_parameters(built) == ia3_parameters(table)
    sizes = [[m.parameters for m in shape.expert_matrices] for shape in (built, table)]
    assert sizes[0] == sizes[1]


def test_a_setting_that_no_table_has_is_built() -> None:
    values = {**config_values("gpt2"), "add_cross_attention": True}
    plain = model_shape(config_values("gpt2")).total_parameters
    # In each layer its norm; queries, keys and values, and output with a bias.
    added = 2 * 24 + 24 * 25 + 48 * 25 + 24 * 25
    assert model_shape(values).total_parameters == plain + 3 * added


def test_a_model_with_code_of_its_own_is_counted_where_it_is_trusted(tmp_path: Path) -> None:
    code = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    values = {**built_values("olmo"), "model_type": "own", "auto_map": code}
    (tmp_path / "config.json").write_text(json.dumps(values))
    (tmp_path / "own.py").write_text(OWN_CODE)
    with pytest.raises(ConfigError, match=r"model_type='own'.*auto_map.*trust_remote_code=true"):
        model_shape(values)
    assert model_shape(values, tmp_path).total_parameters == shape_of("olmo").total_parameters + 7


def test_an_architecture_that_nobody_knows_is_refused_with_a_remedy() -> None:
    with pytest.raises(ConfigError, match=r"model_type='lama': transformers .* does not know"):
        model_shape({**config_values("llama"), "model_type": "lama"})
    with pytest.raises(ConfigError, match=r"model_type='vit'.*no language model"):
        model_shape({"model_type": "vit"})


def test_values_that_transformers_cannot_use_are_named() -> None:
    with pytest.raises(ModelError, match="model_type='olmo2': transformers cannot build"):
        model_shape({**built_values("olmo2"), "hidden_size": "24"})
