"""What adapters do not reach and modes do not quantize is left out, counted and named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from lorascope.adapters.attach import attach
from lorascope.adapters.layers import (
    all_linear_shapes,
    linear_shapes,
    model_parts,
    unadapted_weights,
)
from lorascope.adapters.lora.kind import LoraConfig
from lorascope.adapters.targets import select, unadapted_sentences
from lorascope.comparing.findings import compare
from lorascope.config import Targets
from lorascope.counting.parameters import lora_parameters, matrix_parameters
from lorascope.errors import ConfigError, DataError, ModelError
from lorascope.execution import sweep
from lorascope.files.layout import Layout
from lorascope.files.store import read_record
from lorascope.records import BaseRecord, FootprintRecord, ModelParts, Status, UnadaptedWeights
from lorascope.reporting.pages.recommendation import answer
from lorascope.stages import check, evaluate, prepare_base, prepare_data, quantize_base
from tests.conftest import compose_one, save_small_model
from tests.study_factory import example_study

SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "vocab_size": 111, "max_position_embeddings": 64, "head_dim": 16,
    "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
}  # fmt: skip
SHARED_EXPERTS = {
    "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1,
    "moe_intermediate_size": 16, "first_k_dense_replace": 1, "n_shared_experts": 1,
}  # fmt: skip
LATENT = {
    "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 16,
}  # fmt: skip
VISION = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 28, "patch_size": 14,
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "mixtral": {**SIZES, "num_local_experts": 3},
    "gpt_oss": {**SIZES, "num_local_experts": 3, "num_experts_per_tok": 2},
    "deepseek_v3": {**SIZES, **SHARED_EXPERTS, **LATENT, "head_dim": 8},
    "glm4_moe": {**SIZES, **SHARED_EXPERTS},
    # Its routers are linear layers, which give two tensors.
    "llama4_text": {**SIZES, "num_local_experts": 3, "intermediate_size_mlp": 48},
    "gemma3": {
        "text_config": SIZES, "vision_config": VISION, "mm_tokens_per_image": 4,
        "image_token_index": 110, "boi_token_index": 109, "eoi_token_index": 108,
    },
}  # fmt: skip
EXPERT = 3 * 32 * 48
"""Weights of one expert of Mixtral's: gate, up and down."""


def build(model_type: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[model_type](**MODELS[model_type]))
    model.requires_grad_(False)
    return model


@pytest.mark.parametrize("model_type", MODELS)
def test_every_adapter_lies_on_a_layer_that_text_reaches(model_type: str) -> None:
    """Adapters count as the shapes say, PEFT adds none of its own, and each learns from text."""
    model = build(model_type)
    shapes, lora = linear_shapes(model), LoraConfig(targets=Targets.all_linear, rank=3)
    unadapted = unadapted_weights(model)
    adapted = attach(model, lora, seed=0)
    config = adapted.peft_config["default"]
    assert not config.target_parameters
    assert adapted.get_nb_trainable_parameters()[0] == lora_parameters(
        select(ModelParts(shapes, []), lora), 3
    )
    ids = torch.tensor([[3, 4, 5, 6]])
    adapted(input_ids=ids, labels=ids).loss.backward()
    learnt = {n for n, p in adapted.named_parameters() if "lora_B" in n and p.grad.abs().max() > 0}
    assert len(learnt) == len(shapes)
    assert unadapted


def test_mixtrals_experts_and_routers_are_counted_and_named() -> None:
    (part,) = unadapted_weights(build("mixtral"))
    assert part.parameters == 2 * (3 * EXPERT + 3 * 32)
    assert part.names == [
        "model.layers.*.mlp.gate.weight",
        "model.layers.*.mlp.experts.gate_up_proj",
        "model.layers.*.mlp.experts.down_proj",
    ]


def test_layers_whose_names_peft_would_turn_into_experts_are_left_out_by_name() -> None:
    """PEFT's own attempt ends in a shape error (peft#3711)."""
    model = build("deepseek_v3")
    parts = {part.what.split()[0]: part for part in unadapted_weights(model)}
    names = parts["linear"].names
    assert "model.layers.*.mlp.shared_experts.down_proj" in names
    left = matrix_parameters(all_linear_shapes(model)) - matrix_parameters(linear_shapes(model))
    assert parts["linear"].parameters == left
    with pytest.raises(ConfigError, match="no layer that an adapter can train has such a name"):
        select(model_parts(model), LoraConfig(targets=Targets.modules, modules=["gate_proj"]))


def test_a_vision_tower_gets_no_adapters() -> None:
    model = build("gemma3")
    assert all(".language_model." in f".{shape.name}." for shape in linear_shapes(model))
    (part,) = unadapted_weights(model)
    assert any("vision_tower" in name for name in part.names)


def test_shares_are_said_of_all_matrices() -> None:
    model = build("mixtral")
    shapes, parts = linear_shapes(model), unadapted_weights(model)
    share = parts[0].parameters / (parts[0].parameters + matrix_parameters(shapes))
    (sentence,) = unadapted_sentences(shapes, parts)
    assert f"{100 * share:.2g} % of the weights" in sentence
    assert "experts.down_proj" in sentence


def with_base(layout: Layout, model_type: str, sizes: dict[str, Any]) -> Layout:
    """The project with another architecture as its model, behind the small one's tokenizer."""
    folder = layout.root / "models/raw/small"
    save_small_model(folder)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(CONFIG_MAPPING[model_type](**sizes)).save_pretrained(folder)
    return layout


def test_a_mode_that_quantizes_nothing_is_refused_and_stores_nothing(bare_project: Layout) -> None:
    """Falcon's linear layers are a subclass of torch's, which bitsandbytes passes over."""
    sizes = {name: size for name, size in SIZES.items() if name != "head_dim"}
    layout = with_base(bare_project, "falcon", sizes)
    prepare_base.command([compose_one(layout, "quant=fp16")], layout)
    assert (
        quantize_base.command([compose_one(layout, "quant=fp16")], layout).quantized_share is None
    )
    for mode in ("nf4", "int8"):
        with pytest.raises(ModelError, match="quantizes no layer of FalconForCausalLM"):
            check.command([compose_one(layout, f"quant={mode}")], layout)
        with pytest.raises(ModelError, match=rf"quant={mode}: bitsandbytes quantizes no layer"):
            quantize_base.command([compose_one(layout, f"quant={mode}")], layout)
        assert not layout.quantized("small", mode).exists()


def test_a_mode_that_leaves_experts_in_16_bits_says_so_in_its_record(
    bare_project: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = with_base(bare_project, "mixtral", MODELS["mixtral"])
    prepare_base.command([compose_one(layout, "quant=nf4")], layout)
    made = quantize_base.command([compose_one(layout, "quant=nf4")], layout)
    attention, bare = 2 * 4 * 32 * 32, 2 * (3 * EXPERT + 3 * 32)
    assert made.quantized_parameters == attention
    share = attention / (attention + bare)
    assert made.quantized_share == pytest.approx(share)
    stored = read_record(layout.quantized("small", "nf4"), FootprintRecord)
    assert stored.matrix_parameters == attention + bare
    assert (
        sum(p.parameters for p in read_record(layout.base("small"), BaseRecord).unadapted) == bare
    )
    assert f"nf4 quantizes {100 * share:.2g} %" in capsys.readouterr().err


def test_what_is_not_covered_stands_in_the_headline() -> None:
    study = example_study()
    whole = answer(compare(study))
    experts = UnadaptedWeights("experts", ["mlp.experts.down_proj"], 1_000_000_000)
    base = replace(study.base, unadapted=[experts])
    modes = [replace(f, matrix_parameters=base.matrix_parameters) for f in study.footprints]
    found = answer(compare(replace(study, base=base, footprints=modes)))
    text = " ".join(str(part) for line in found.notes for part in line)
    assert "part of the model is neither quantized nor adapted" in found.state
    assert "The mode nf4 quantizes" in text
    assert "Adapters do not reach" in text
    assert "part of the model" not in whole.state


@pytest.mark.parametrize("where", ["prompt", "pad"])
def test_a_token_without_embedding_is_refused_where_a_row_uses_it_alone(
    bare_project: Layout, where: str
) -> None:
    layout = bare_project
    folder = layout.root / "models/raw/small"
    save_small_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    token = "<|im_start|>"
    tokenizer.add_special_tokens({"pad_token": token})
    tokenizer.save_pretrained(folder)
    if where == "prompt":
        rows = layout.root / "data/raw/toy.jsonl"
        rows.write_text(rows.read_text().replace('"thing 7 ', f'"{token} thing 7 '))
    config = compose_one(layout, "quant=fp16", "lora.rank=2", "lora.alpha=4")
    prepare_base.command([config], layout)
    if where == "prompt":
        known = r"token '<\|im_start\|>' has the id 111, .* knows 111 tokens"
        with pytest.raises(DataError, match=known):
            prepare_data.command([config], layout)
        return
    prepare_data.command([config], layout)
    quantize_base.command([config], layout)
    assert sweep.run(config, layout).status is Status.completed
    scored = evaluate.command([config], layout)[0]
    assert scored is not None
    assert scored.splits["test"].accuracy is not None
