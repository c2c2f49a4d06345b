"""How far below the top a name stands, on architectures that name their layers differently."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3TextConfig,
    LlamaConfig,
    SiglipVisionConfig,
)

from lorascope.adapters.decoder import decoder_layers, layers_below_top
from lorascope.errors import ModelError
from tests.counting.architecture_cases import config_values, meta_model

BELOW_TOP = {
    "llama": {
        "model.layers.0.self_attn.q_proj": 2, "model.layers.2.mlp.down_proj": 0,
        "model.embed_tokens.weight": 3, "model.norm": 0, "lm_head": 0,
    },
    "gpt2": {
        "transformer.h.1.attn.c_attn.lora_A.default.weight": 1, "transformer.wte": 3,
        "transformer.wpe.weight": 3, "transformer.ln_f.bias": 0,
    },
    "gpt_neox": {
        "gpt_neox.layers.0.attention.query_key_value": 2, "gpt_neox.embed_in.weight": 3,
        "gpt_neox.final_layer_norm.weight": 0, "embed_out": 0,
    },
    "opt like 350m": {
        "model.decoder.layers.1.fc1": 1, "model.decoder.embed_positions.weight": 3,
        "model.decoder.project_in": 3, "model.decoder.project_out": 0,
    },
    "bloom": {
        "transformer.h.2.mlp.dense_h_to_4h": 0, "transformer.word_embeddings_layernorm.bias": 3,
    },
}  # fmt: skip


@pytest.mark.parametrize("architecture", BELOW_TOP)
def test_layers_are_counted_from_the_top(architecture: str) -> None:
    below_top = layers_below_top(meta_model(config_values(architecture)))
    expected = BELOW_TOP[architecture]
    assert {name: below_top(name) for name in expected} == expected


def test_a_tower_beside_the_language_model_is_not_taken_for_it() -> None:
    vision = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    values = config_values("gemma3")
    config = Gemma3Config(
        text_config=Gemma3TextConfig(**values), vision_config=SiglipVisionConfig(**vision)
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    name, layers = decoder_layers(model)
    assert name == "model.language_model.layers"
    assert len(layers) == len(model.get_submodule("model.vision_tower.encoder.layers")) == 3


def test_a_model_without_such_a_list_is_refused() -> None:
    tiny = {"vocab_size": 10, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    model = AutoModelForCausalLM.from_config(LlamaConfig(**tiny, num_hidden_layers=2))
    model.config.num_hidden_layers = 5
    with pytest.raises(ModelError, match=r"llama: has no list of 5 layers"):
        decoder_layers(model)
