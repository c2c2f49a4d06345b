"""Small, odd-shaped configurations of every architecture that has a table, and PEFT as the referee
on meta."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from peft import PeftConfig, get_peft_model
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForMaskedLM

ENCODERS = ("roberta", "deberta-v2")
SIZES: dict[str, object] = {
    "vocab_size": 103,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 44,
    "max_position_embeddings": 50,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
RELATIVE: dict[str, object] = {"relative_attention": True, "pos_att_type": "p2c|c2p"}
CASES: dict[str, tuple[str, dict[str, object]]] = {
    "llama": ("llama", {"num_key_value_heads": 2, "head_dim": 10}),
    "llama tied": ("llama", {"tie_word_embeddings": True}),
    "llama biased": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "mistral": ("mistral", {"num_key_value_heads": 2}),
    "mixtral": ("mixtral", {"num_key_value_heads": 2, "num_local_experts": 3}),
    "gemma": ("gemma", {"num_key_value_heads": 1, "head_dim": 10}),
    "gemma2": ("gemma2", {"num_key_value_heads": 2, "head_dim": 14}),
    "gemma3": ("gemma3_text", {"num_key_value_heads": 1, "head_dim": 14}),
    "qwen2": ("qwen2", {"num_key_value_heads": 2}),
    "qwen3": ("qwen3", {"num_key_value_heads": 2, "head_dim": 10}),
    "phi3": ("phi3", {"num_key_value_heads": 2}),
    "gpt2": ("gpt2", {"n_inner": 52}),
    "gpt2 untied": ("gpt2", {"tie_word_embeddings": False}),
    "gpt_neox": ("gpt_neox", {}),
    "gpt_neox tied": ("gpt_neox", {"attention_bias": False, "tie_word_embeddings": True}),
    "opt": ("opt", {"ffn_dim": 44}),
    "opt like 350m": (
        "opt",
        {"ffn_dim": 44, "word_embed_proj_dim": 12, "do_layer_norm_before": False},
    ),
    "opt plain": (
        "opt",
        {"ffn_dim": 44, "enable_bias": False, "layer_norm_elementwise_affine": False},
    ),
    "falcon 7b": ("falcon", {}),
    "falcon 40b": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon 11b": (
        "falcon",
        {"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1},
    ),
    "falcon rw": (
        "falcon",
        {"multi_query": False, "parallel_attn": False, "alibi": True, "bias": True},
    ),
    "bloom": ("bloom", {}),
    "roberta": ("roberta", {"type_vocab_size": 1}),
    "roberta untied": ("roberta", {"tie_word_embeddings": False}),
    "deberta xxlarge": (
        "deberta-v2",
        {
            **RELATIVE,
            "position_buckets": 16,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "position_biased_input": False,
            "conv_kernel_size": 3,
        },
    ),
    "deberta own positions": ("deberta-v2", {**RELATIVE, "embedding_size": 16}),
    "deberta plain": ("deberta-v2", {"type_vocab_size": 3, "tie_word_embeddings": False}),
    "deberta new head": ("deberta-v2", {"legacy": False, "attention_head_size": 6}),
}


def config_values(case: str) -> dict[str, object]:
    """The config.json of a case."""
    model_type, values = CASES[case]
    return {"model_type": model_type, **SIZES, **values}


def meta_model(values: dict[str, Any], device: str = "meta") -> Any:
    """The model that transformers builds from a config.json, on meta without memory for weights."""
    config = CONFIG_MAPPING[values["model_type"]](
        **{key: value for key, value in values.items() if key not in ("model_type", "torch_dtype")}
    )
    kind = AutoModelForMaskedLM if values["model_type"] in ENCODERS else AutoModelForCausalLM
    with torch.device(device):
        model = kind.from_config(config)
    model.tie_weights()
    return model


def peft_count(values: dict[str, Any], config: PeftConfig) -> int:
    """Number of parameters that PEFT trains."""
    with torch.device("meta"):
        return int(get_peft_model(meta_model(values), config).get_nb_trainable_parameters()[0])


def task_type(values: dict[str, Any]) -> str:
    """PEFT's task type, which prompt methods need; encoders get the one that adds no head."""
    return "FEATURE_EXTRACTION" if values["model_type"] in ENCODERS else "CAUSAL_LM"


@cache
def parameter_sizes(case: str) -> dict[str, int]:
    """Number of entries by tensor name, every tensor once."""
    model: nn.Module = meta_model(config_values(case))
    return {name: parameter.numel() for name, parameter in model.named_parameters()}
