"""Adapter counts against the LoRA paper, against PEFT on the meta device, and against the rule."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, GemmaConfig, LlamaConfig, PretrainedConfig

from lorascope.maths.parameters import (
    adamw_bytes,
    adapter_bytes,
    lora_parameters,
    matrix_parameters,
    square_matrix_rule,
)
from lorascope.maths.shapes import (
    GEMMA_2B,
    LLAMA_2_7B,
    LLAMA_2_13B,
    LLAMA_2_70B,
    REFERENCE_SHAPES,
    DecoderShape,
    LinearMatrix,
)

Q_V = (".q_proj", ".v_proj")
TARGETS: dict[str, str | tuple[str, ...]] = {"all_linear": "", "q_v": Q_V}


def adapted(shape: DecoderShape, suffix: str | tuple[str, ...]) -> list[LinearMatrix]:
    return [matrix for matrix in shape.linear_matrices() if matrix.name.endswith(suffix)]


def transformers_config(shape: DecoderShape) -> PretrainedConfig:
    config_type = GemmaConfig if shape is GEMMA_2B else LlamaConfig
    return config_type(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        tie_word_embeddings=shape.tied_head,
    )


# Table 15 of the LoRA paper: (rank, adapted d x d matrices a layer, millions as printed, exact).
# The paper cuts 18.87, 301.99 and 603.98 off after the first decimal.
LORA_PAPER_GPT3 = [
    (2, 1, 4.7, 4_718_592),
    (1, 2, 4.7, 4_718_592),
    (2, 2, 9.4, 9_437_184),
    (1, 4, 9.4, 9_437_184),
    (4, 2, 18.8, 18_874_368),
    (2, 4, 18.8, 18_874_368),
    (8, 2, 37.7, 37_748_736),
    (4, 4, 37.7, 37_748_736),
    (64, 2, 301.9, 301_989_888),
    (64, 4, 603.8, 603_979_776),
]


@pytest.mark.parametrize(("rank", "matrices", "printed_millions", "exact"), LORA_PAPER_GPT3)
def test_lora_parameters_of_gpt3_match_the_papers_table(
    rank: int, matrices: int, printed_millions: float, exact: int
) -> None:
    layer = [LinearMatrix("square", 12288, 12288)] * matrices
    count = lora_parameters(layer * 96, rank)
    assert count == exact
    assert count / 1e6 == pytest.approx(printed_millions, abs=0.2)


CLASSROOM = {
    7e9: {1: 167e3, 2: 334e3, 8: 1e6, 16: 3e6, 512: 86e6},
    13e9: {1: 228e3, 2: 456e3, 8: 2e6, 16: 4e6, 512: 117e6},
    70e9: {1: 529e3, 2: 1e6, 8: 4e6, 16: 8e6, 512: 270e6},
    180e9: {1: 849e3, 2: 2e6, 8: 7e6, 16: 14e6, 512: 434e6},
}


@pytest.mark.parametrize("base_parameters", CLASSROOM)
def test_square_matrix_rule_gives_the_classroom_table(base_parameters: float) -> None:
    for rank, printed in CLASSROOM[base_parameters].items():
        unit = 1e3 if printed < 1e6 else 1e6
        # The table rounds most cells and cuts 70B at rank 512 (270.9) off.
        assert abs(square_matrix_rule(base_parameters, rank) - printed) < unit


def test_square_matrix_rule_at_rank_one_of_7b_is_167332() -> None:
    assert round(square_matrix_rule(7e9, 1)) == 167_332


KNOWN_COUNTS = [
    (LLAMA_2_7B, "", 1, 2_498_560),
    (LLAMA_2_7B, "", 8, 19_988_480),
    (LLAMA_2_7B, "", 64, 159_907_840),
    (LLAMA_2_7B, "", 512, 1_279_262_720),
    (LLAMA_2_7B, Q_V, 1, 524_288),
    (GEMMA_2B, "", 8, 9_805_824),
    (GEMMA_2B, "", 64, 78_446_592),
]


@pytest.mark.parametrize(("shape", "suffix", "rank", "expected"), KNOWN_COUNTS)
def test_lora_parameters_of_known_models(
    shape: DecoderShape, suffix: str | tuple[str, ...], rank: int, expected: int
) -> None:
    assert lora_parameters(adapted(shape, suffix), rank) == expected


def test_lora_parameters_of_llama_3_2_3b_on_q_and_v_match_pefts_logged_value() -> None:
    shape = DecoderShape("Llama-3.2-3B", 28, 3072, 24, 8, 128, 8192, 128256, tied_head=True)
    assert lora_parameters(adapted(shape, Q_V), 32) == 9_175_040


@pytest.mark.parametrize(("layers", "hidden", "rank", "expected"), [
    (12, 768, 8, 294_912), (24, 1024, 8, 786_432), (48, 1536, 16, 4_718_592),
])  # fmt: skip
def test_lora_parameters_of_encoders_on_q_and_v(
    layers: int, hidden: int, rank: int, expected: int
) -> None:
    assert lora_parameters([LinearMatrix("q", hidden, hidden)] * 2 * layers, rank) == expected


@pytest.mark.parametrize(("rank", "dora"), [(8, False), (512, False), (8, True)])
@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("shape", [LLAMA_2_7B, GEMMA_2B], ids=lambda shape: shape.name)
def test_lora_parameters_equal_pefts_count_on_the_meta_device(
    shape: DecoderShape, targets: str, rank: int, dora: bool
) -> None:
    modules = "all-linear" if targets == "all_linear" else ["q_proj", "v_proj"]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(transformers_config(shape))
        config = LoraConfig(
            r=rank, target_modules=modules, use_dora=dora, task_type="CAUSAL_LM"
        )  # fmt: skip
        trainable, _ = get_peft_model(model, config).get_nb_trainable_parameters()
    assert lora_parameters(adapted(shape, TARGETS[targets]), rank, dora) == trainable


@pytest.mark.parametrize("shape", REFERENCE_SHAPES, ids=lambda shape: shape.name)
def test_total_parameters_and_names_equal_the_model_that_transformers_builds(
    shape: DecoderShape,
) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(transformers_config(shape))
    assert shape.total_parameters == model.num_parameters()
    linear = [
        LinearMatrix(name, module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    ]
    assert list(shape.linear_matrices()) == linear


@pytest.mark.parametrize(("shape", "expected"), [
    (LLAMA_2_7B, 6_738_415_616), (LLAMA_2_13B, 13_015_864_320),
    (LLAMA_2_70B, 68_976_648_192), (GEMMA_2B, 2_506_172_416),
])  # fmt: skip
def test_total_parameters_of_published_models(shape: DecoderShape, expected: int) -> None:
    assert shape.total_parameters == expected


def test_ungated_mlp_has_no_gate() -> None:
    shape = DecoderShape("plain", 2, 8, 2, 2, 4, 32, 100, tied_head=True, gated=False)
    assert matrix_parameters(shape.linear_matrices()) == 2 * (4 * 8 * 8 + 2 * 8 * 32)


def test_bytes_of_a_rank_8_adapter_on_7b_are_0_32_gb_with_weights_and_optimizer() -> None:
    count = lora_parameters(LLAMA_2_7B.linear_matrices(), 8)
    assert adapter_bytes(count) == 4 * count
    assert adamw_bytes(count) == 8 * count
    gradients = adapter_bytes(count)
    assert (adapter_bytes(count) + gradients + adamw_bytes(count)) / 1e9 == pytest.approx(
        0.32, abs=0.005
    )


def test_lora_parameters_with_rank_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="rank=0"):
        lora_parameters([LinearMatrix("q", 4, 4)], 0)
