"""Counts from a configuration alone against transformers and PEFT, for every architecture."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import peft
import pytest
import torch

from lorascope.adapters.layers import linear_shapes
from lorascope.adapters.lora.kind import LoraConfig
from lorascope.adapters.targets import peft_targets, select
from lorascope.bases.known_configs import known_config, known_config_names
from lorascope.config import Targets
from lorascope.counting.architectures import ARCHITECTURES, ModelShape, table_shape
from lorascope.counting.parameters import (
    houlsby_adapter_parameters,
    ia3_parameters,
    lora_parameters,
    peft_all_linear_parameters,
    prefix_tuning_parameters,
    prompt_tuning_parameters,
    target_parameters_lora,
)
from lorascope.errors import ConfigError
from lorascope.records import ModelParts
from tests.counting.architecture_cases import (
    CASES,
    ENCODERS,
    config_values,
    meta_model,
    parameter_sizes,
    peft_count,
    task_type,
)

every_case = pytest.mark.parametrize("case", CASES)
FUSED = ("phi3", "gpt2", "gpt_neox", "falcon", "bloom")
DECODERS = [case for case in CASES if CASES[case][0] not in ENCODERS]


def shape_of(case: str) -> ModelShape:
    return table_shape(config_values(case))


def test_every_architecture_has_a_case() -> None:
    assert {model_type for model_type, _ in CASES.values()} == set(ARCHITECTURES)


@every_case
def test_full_fine_tuning_equals_the_model_that_transformers_builds(case: str) -> None:
    assert shape_of(case).total_parameters == sum(parameter_sizes(case).values())


@every_case
def test_bitfit_equals_the_biases_of_the_model(case: str) -> None:
    biases = sum(size for name, size in parameter_sizes(case).items() if name.endswith("bias"))
    assert shape_of(case).bias_parameters == biases


@every_case
def test_linear_shapes_equal_those_of_the_model_in_name_shape_and_order(case: str) -> None:
    values = config_values(case)
    assert table_shape(values).linear_shapes == linear_shapes(meta_model(values))


@every_case
def test_a_config_that_transformers_wrote_gives_the_same_shape(case: str) -> None:
    written = meta_model(config_values(case)).config.to_dict()
    assert table_shape(written) == shape_of(case)


@pytest.mark.parametrize(
    ("targets", "dora"),
    [(Targets.q_v, False), (Targets.attention, False), (Targets.all_linear, False),
     (Targets.all_linear, True)],
)  # fmt: skip
@every_case
def test_lora_equals_peft(case: str, targets: Targets, dora: bool) -> None:
    values = config_values(case)
    layers = table_shape(values).linear_shapes
    try:
        chosen = select(ModelParts(layers, []), LoraConfig(targets=targets))
    except ConfigError:
        # Query, key and value are one matrix there.
        assert targets is Targets.q_v
        assert CASES[case][0] in FUSED
        return
    # A masked-language-model head may have a "dense" too, which only full names leave out.
    encoder = CASES[case][0] in ENCODERS
    names = [layer.name for layer in chosen] if encoder else peft_targets(layers, chosen)
    adapter = peft.LoraConfig(r=3, target_modules=names, use_dora=dora, use_rslora=not dora)
    assert lora_parameters(chosen, 3, dora) == peft_count(values, adapter)


@pytest.mark.parametrize("rank", [1, 512])
@pytest.mark.parametrize("case", DECODERS)
def test_lora_equals_pefts_own_all_linear(case: str, rank: int) -> None:
    adapter = peft.LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM")
    counted = peft_count(config_values(case), adapter)
    assert peft_all_linear_parameters(shape_of(case), rank) == counted


@pytest.mark.parametrize("modules", [["o_proj"], ["k_proj", "down_proj"]], ids="+".join)
def test_lora_on_listed_modules_equals_peft(modules: list[str]) -> None:
    values = config_values("llama")
    lora = LoraConfig(targets=Targets.modules, modules=modules)
    chosen = select(table_shape(values).parts, lora)
    adapter = peft.LoraConfig(r=5, target_modules=modules)
    assert lora_parameters(chosen, 5) == peft_count(values, adapter)


@pytest.mark.parametrize(
    "names",
    [["mlp.experts.gate_up_proj", "mlp.experts.down_proj"], ["mlp.gate.weight"]],
    ids=["experts", "router"],
)
def test_lora_on_mixtrals_bare_parameters_equals_peft(names: list[str]) -> None:
    shape = shape_of("mixtral")
    chosen = [m for m in shape.expert_matrices if m.name.endswith(tuple(names))]
    adapter = peft.LoraConfig(r=3, target_modules=[], target_parameters=names)
    counted = peft_count(config_values("mixtral"), adapter)
    assert target_parameters_lora(chosen, 3) == counted


@every_case
def test_ia3_equals_peft_on_its_default_targets(case: str) -> None:
    values = config_values(case)
    shape = table_shape(values)
    # PEFT has no defaults for Phi-3, and its feed-forward default for Mixtral names no layer.
    own = {"phi3": [*shape.peft.ia3_targets[0], *shape.peft.ia3_targets[1]]}.get(shape.model_type)
    feedforward = list(shape.peft.ia3_targets[1]) if own else None
    adapter = peft.IA3Config(target_modules=own, feedforward_modules=feedforward)
    assert ia3_parameters(shape) == peft_count(values, adapter)


@every_case
def test_prompt_and_prefix_tuning_equal_peft_where_the_model_runs_with_them(case: str) -> None:
    values, tokens = config_values(case), torch.ones((1, 2), dtype=torch.long)
    for count, config in (
        (prompt_tuning_parameters, peft.PromptTuningConfig),
        (prefix_tuning_parameters, peft.PrefixTuningConfig),
    ):
        adapter = config(num_virtual_tokens=7, task_type=task_type(values))
        adapted = peft.get_peft_model(meta_model(values, "cpu"), adapter).eval()
        counted = count(table_shape(values), 7)
        if counted is None:
            with pytest.raises(RuntimeError, match="size"):
                adapted(input_ids=tokens, attention_mask=torch.ones_like(tokens))
        else:
            adapted(input_ids=tokens, attention_mask=torch.ones_like(tokens))
            assert counted == adapted.get_nb_trainable_parameters()[0]


def test_houlsby_adapters_equal_two_bottlenecks_with_biases_a_layer() -> None:
    from torch import nn

    one = nn.Sequential(nn.Linear(24, 5), nn.ReLU(), nn.Linear(5, 24))
    size = sum(parameter.numel() for parameter in one.parameters())
    assert houlsby_adapter_parameters(shape_of("llama"), bottleneck=5) == 3 * 2 * size


PUBLISHED_TOTALS = {
    "bloom-7b1": 7_069_016_064,
    "falcon-7b": 6_921_720_704,
    "gemma-2-9b": 9_241_705_984,
    "gemma-2b": 2_506_172_416,
    "gemma-3-1b": 999_885_952,
    "gemma-7b": 8_537_680_896,
    "gpt-neox-20b": 20_554_567_680,
    "gpt2": 124_439_808,
    "gpt2-large": 774_030_080,
    "gpt2-medium": 354_823_168,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-2-7b": 6_738_415_616,
    "llama-3.2-3b": 3_212_749_824,
    "mistral-7b": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704,
    "opt-6.7b": 6_658_473_984,
    "phi-3-mini": 3_821_079_552,
    "qwen2-7b": 7_615_616_512,
    "qwen3-8b": 8_190_735_360,
    "smollm2-135m": 134_515_008,
    "tinyllama-1.1b": 1_100_048_384,
}
"""As the models' pages and safetensors headers say."""


@pytest.mark.parametrize("name", PUBLISHED_TOTALS)
def test_total_parameters_of_published_models(name: str) -> None:
    assert table_shape(known_config(name)).total_parameters == PUBLISHED_TOTALS[name]


@pytest.mark.parametrize("name", known_config_names())
def test_known_configurations_equal_transformers_at_their_real_size(name: str) -> None:
    # Three layers of the real widths say all; the depth only repeats them.
    depth = "n_layer" if "n_layer" in known_config(name) else "num_hidden_layers"
    values = {**known_config(name), depth: 3}
    shape, model = table_shape(values), meta_model(values)
    assert shape.total_parameters == model.num_parameters()
    assert shape.linear_shapes == linear_shapes(model)


def test_an_unknown_architecture_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"model_type='mamba'.*bloom, deberta-v2.*qwen3"):
        table_shape({"model_type": "mamba"})


@pytest.mark.parametrize(
    ("case", "key"),
    [("llama", "intermediate_size"), ("opt", "ffn_dim"), ("gpt2", "max_position_embeddings"),
     ("bloom", "hidden_size"), ("qwen3", "vocab_size")],
)  # fmt: skip
def test_a_missing_setting_is_named(case: str, key: str) -> None:
    values = {name: value for name, value in config_values(case).items() if name != key}
    with pytest.raises(ConfigError, match=f"config.json: {key}=None: is missing"):
        table_shape(values)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [("num_attention_heads", 0, "must be 1 or more"), ("num_hidden_layers", -2, "must be 1 or"),
     ("vocab_size", 0, "must be 1 or more"), ("num_attention_heads", "4", "is not a whole number"),
     ("num_attention_heads", 5, "hidden_size=24 is not a multiple of it")],
)  # fmt: skip
def test_an_impossible_size_is_named(key: str, value: object, problem: str) -> None:
    values = {**config_values("mistral"), key: value}
    with pytest.raises(ConfigError, match=f"config.json: {key}={value!r}: {problem}"):
        table_shape(values)


def test_gemma_3_with_a_vision_tower_is_counted_as_its_language_model() -> None:
    from transformers import Gemma3Config

    # As google/gemma-3-4b-it has it: the rest is what the config class takes by default.
    text = {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
            "num_hidden_layers": 34, "sliding_window": 1024}  # fmt: skip
    values: dict[str, object] = {"model_type": "gemma3", "text_config": text}
    language = meta_model(Gemma3Config(text_config=text).text_config.to_dict())
    assert table_shape(values).total_parameters == language.num_parameters()
    assert table_shape(values).linear_shapes == linear_shapes(language)


def test_experts_go_by_either_name() -> None:
    values = config_values("mixtral")
    experts = values.pop("num_local_experts")
    assert table_shape({**values, "num_experts": experts}) == shape_of("mixtral")


def test_a_setting_that_adds_uncounted_matrices_is_refused() -> None:
    with pytest.raises(ConfigError, match="add_cross_attention"):
        table_shape({**config_values("gpt2"), "add_cross_attention": True})


def test_a_setting_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(ConfigError, match="hidden_size='24'"):
        table_shape({**config_values("llama"), "hidden_size": "24"})


def test_target_parameters_with_rank_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="rank=0"):
        target_parameters_lora(shape_of("mixtral").expert_matrices, 0)


def test_matrices_of_a_mixture_hold_every_expert() -> None:
    shape = shape_of("mixtral")
    bare = sum(matrix.parameters for matrix in shape.expert_matrices)
    assert bare == 3 * 3 * (3 * 24 * 44 + 24)
    assert replace(shape, expert_matrices=()).total_parameters > bare


def test_counting_loads_no_torch() -> None:
    code = (
        "import sys; from lorascope.bases.known_configs import known_config;"
        "from lorascope.counting import printed_tables;"
        "from lorascope.counting.architectures import table_shape;"
        "table_shape(known_config('llama-2-7b'));"
        "print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.strip() == "set()", answer.stderr


STRAYS: dict[str, object] = {
    "num_key_value_heads": 1, "head_dim": 10, "num_local_experts": 5, "n_inner": 50, "ffn_dim": 50,
    "mlp_bias": True, "attention_bias": True, "num_kv_heads": 1, "multi_query": False,
    "word_embed_proj_dim": 8, "embedding_size": 8, "attention_head_size": 10, "bias": True,
    "conv_kernel_size": 3, "type_vocab_size": 4, "ffn_hidden_size": 50, "enable_bias": False,
    "parallel_attn": False, "new_decoder_architecture": True, "relative_attention": True,
}  # fmt: skip
"""Settings of one architecture or another, each with a value that would change a size."""
MISREAD = {"falcon": "head_dim"}
"""transformers cannot build a model with such a key at all."""


@every_case
def test_settings_that_an_architecture_does_not_have_are_ignored(case: str) -> None:
    """Those that it has count, and transformers' own model says which these are."""
    values = config_values(case)
    strays = {k: v for k, v in STRAYS.items() if k not in {*values, MISREAD.get(CASES[case][0])}}
    values |= strays
    shape, model = table_shape(values), meta_model(values)
    assert shape.linear_shapes == linear_shapes(model)
    assert shape.total_parameters == sum(p.numel() for p in model.parameters())
    names = [layer.name for layer in shape.linear_shapes]
    adapter = peft.LoraConfig(r=3, target_modules=names)
    assert lora_parameters(shape.linear_shapes, 3) == peft_count(values, adapter)


def test_gpt_neox_with_stray_key_value_heads_counts_as_peft_does() -> None:
    sizes = {"hidden_size": 60, "intermediate_size": 120, "num_hidden_layers": 2}
    values = {**config_values("gpt_neox"), **sizes, "num_attention_heads": 6}
    plain = lora_parameters(table_shape(values).linear_shapes, 8)
    layers = table_shape({**values, "num_key_value_heads": 2}).linear_shapes
    assert lora_parameters(layers, 8) == plain == 2 * 8 * (4 * 60 + 2 * 60 + 2 * 180)
