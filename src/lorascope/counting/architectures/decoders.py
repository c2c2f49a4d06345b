"""Decoders without biases: the Llama family, Mixtral's experts, Gemma, Qwen and Phi-3."""

from __future__ import annotations

from dataclasses import replace

from lorascope.counting.architectures.rows import (
    NARROWING,
    Architecture,
    Row,
    Size,
    embedding,
    head,
    linear,
    norm,
)

EMBEDDING = (embedding("model.embed_tokens", "vocabulary", "hidden"),)
NORM_AND_HEAD = (norm("model.norm"), head("lm_head"))
KEY_VALUE = (("self_attn.k_proj", "self_attn.v_proj"), ("mlp.down_proj",))
QUERY_VALUE = (("self_attn.q_proj", "self_attn.v_proj"), ("mlp.down_proj",))
NORMS = (norm("input_layernorm"), norm("post_attention_layernorm"))
GEMMA_NORMS = (*NORMS, norm("pre_feedforward_layernorm"), norm("post_feedforward_layernorm"))
HEAD_NORMS = (norm("self_attn.q_norm", "head"), norm("self_attn.k_norm", "head"))
GEMMA_DEFAULTS = {"tie_word_embeddings": True, "num_key_value_heads": 4, "head_dim": 256}


def attention(bias: Size = 0, output_bias: Size = 0) -> tuple[Row, ...]:
    """Query, key, value and output; fewer key heads make k and v narrower."""
    return (
        linear("self_attn.q_proj", "hidden", "query", bias),
        linear("self_attn.k_proj", "hidden", "key_value", bias),
        linear("self_attn.v_proj", "hidden", "key_value", bias),
        linear("self_attn.o_proj", "query", "hidden", output_bias),
    )


def gated_mlp(bias: Size = 0) -> tuple[Row, ...]:
    """SwiGLU and its kin."""
    return (
        linear("mlp.gate_proj", "hidden", "intermediate", bias),
        linear("mlp.up_proj", "hidden", "intermediate", bias),
        linear("mlp.down_proj", "intermediate", "hidden", bias),
    )


EXPERTS = (
    Row("mlp.gate.weight", "router", ("hidden", "experts")),
    Row(
        "mlp.experts.gate_up_proj", "experts", ("experts", "hidden", "twice_intermediate"), fused=2
    ),
    Row("mlp.experts.down_proj", "experts", ("experts", "intermediate", "hidden")),
)
"""A layer's experts in transformers 5: gate and up in one tensor, an expert a slice."""


def family(
    *each: Row,
    ia3: tuple[tuple[str, ...], tuple[str, ...]] = KEY_VALUE,
    **defaults: object,
) -> Architecture:
    """A member of the Llama family: its layer, and what its config class takes by default."""
    return Architecture(
        "model.layers.{}", EMBEDDING, each, NORM_AND_HEAD, defaults, ia3=ia3, narrowing=NARROWING
    )


DECODERS = {
    "llama": family(
        *attention("attention_bias", "attention_bias"), *gated_mlp("mlp_bias"), *NORMS
    ),
    "mistral": family(*attention(), *gated_mlp(), *NORMS, num_key_value_heads=8),
    "mixtral": family(
        *attention(), *EXPERTS, *NORMS,
        ia3=(KEY_VALUE[0], ()), num_key_value_heads=8, num_local_experts=8,
    ),
    "gemma": family(
        *attention("attention_bias", "attention_bias"), *gated_mlp(), *NORMS,
        ia3=QUERY_VALUE, **{**GEMMA_DEFAULTS, "num_key_value_heads": 16},
    ),
    "gemma2": family(
        *attention("attention_bias", "attention_bias"), *gated_mlp(), *GEMMA_NORMS,
        ia3=QUERY_VALUE, **GEMMA_DEFAULTS,
    ),
    "gemma3_text": family(
        *attention("attention_bias", "attention_bias"), *HEAD_NORMS, *gated_mlp(), *GEMMA_NORMS,
        ia3=QUERY_VALUE, **GEMMA_DEFAULTS, vocab_size=262_208, num_attention_heads=8,
    ),
    "qwen2": family(*attention(1), *gated_mlp(), *NORMS, ia3=QUERY_VALUE, num_key_value_heads=32),
    "qwen3": family(
        *attention("attention_bias", "attention_bias"), *HEAD_NORMS, *gated_mlp(), *NORMS,
        ia3=QUERY_VALUE, num_key_value_heads=32, head_dim=128,
    ),
    "phi3": replace(
        family(
            linear("self_attn.o_proj", "query", "hidden"),
            linear("self_attn.qkv_proj", "hidden", "fused"),
            linear("mlp.gate_up_proj", "hidden", "twice_intermediate"),
            linear("mlp.down_proj", "intermediate", "hidden"),
            *NORMS,
            ia3=(("self_attn.qkv_proj",), ("mlp.down_proj",)),
        ),
        ia3_is_ours=True,
    ),
}  # fmt: skip
