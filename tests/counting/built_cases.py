"""Small configurations of architectures without a table, which transformers builds on meta."""

from __future__ import annotations

from tests.counting.architecture_cases import SIZES

MOE: dict[str, object] = {
    "num_key_value_heads": 2,
    "num_experts": 3,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 20,
}
MLA: dict[str, object] = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 10,
    "q_lora_rank": 14,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
}
ROUTED: dict[str, object] = {
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 20,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
LOCAL: dict[str, object] = {
    "num_key_value_heads": 2,
    "num_local_experts": 3,
    "num_experts_per_tok": 2,
}
T5: dict[str, object] = {
    "d_model": 24,
    "d_kv": 6,
    "d_ff": 44,
    "num_heads": 4,
    "num_layers": 1,
    "num_decoder_layers": 2,
    "vocab_size": 103,
    "is_encoder_decoder": True,
}
BART: dict[str, object] = {
    "d_model": 24,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 44,
    "decoder_ffn_dim": 40,
    "vocab_size": 103,
    "max_position_embeddings": 50,
    "is_encoder_decoder": True,
    "forced_eos_token_id": 2,
}
MAMBA: dict[str, object] = {"state_size": 4, "time_step_rank": 3, "expand": 2}
JAMBA: dict[str, object] = {
    **MOE,
    "attn_layer_offset": 1,
    "attn_layer_period": 2,
    "expert_layer_offset": 1,
    "expert_layer_period": 2,
    "mamba_d_state": 4,
    "mamba_dt_rank": 3,
    "use_mamba_kernels": False,
}
TOWER: dict[str, object] = {
    "vision_config": {"depth": 2, "embed_dim": 16, "hidden_size": 24, "num_heads": 2}
}

BUILT: dict[str, tuple[str, dict[str, object]]] = {
    "qwen2_moe": (
        "qwen2_moe",
        {**MOE, "shared_expert_intermediate_size": 28, "mlp_only_layers": [1]},
    ),
    "qwen3_moe": ("qwen3_moe", {**MOE, "head_dim": 10}),
    "qwen3_next": (
        "qwen3_next",
        {
            **MOE,
            "head_dim": 8,
            "shared_expert_intermediate_size": 28,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 6,
            "linear_value_head_dim": 6,
            "layer_types": ["linear_attention", "full_attention"],
        },
    ),
    "deepseek_v2": ("deepseek_v2", {**MLA, **ROUTED}),
    "deepseek_v2 lite": ("deepseek_v2", {**MLA, **ROUTED, "q_lora_rank": None}),
    "deepseek_v3": ("deepseek_v3", {**MLA, **ROUTED}),
    "minicpm3": ("minicpm3", MLA),
    "glm4_moe": ("glm4_moe", {**ROUTED, "num_key_value_heads": 2, "head_dim": 10}),
    "olmo": ("olmo", {"num_key_value_heads": 2}),
    "olmo2": ("olmo2", {"num_key_value_heads": 2}),
    "olmo3": ("olmo3", {"num_key_value_heads": 2}),
    "olmoe": ("olmoe", MOE),
    "granite": ("granite", {"num_key_value_heads": 2, "attention_bias": True}),
    "granitemoe": ("granitemoe", LOCAL),
    "gpt_oss": ("gpt_oss", {**LOCAL, "head_dim": 10}),
    "llama4_text": (
        "llama4_text",
        {**LOCAL, "head_dim": 10, "intermediate_size_mlp": 52, "interleave_moe_layer_step": 2},
    ),
    "ernie4_5_moe": (
        "ernie4_5_moe",
        {**MOE, "moe_num_experts": 3, "moe_k": 2, "moe_num_shared_experts": 1},
    ),
    "jamba": ("jamba", JAMBA),
    "mamba": ("mamba", MAMBA),
    "cohere": ("cohere", {"num_key_value_heads": 2, "use_qk_norm": True}),
    "cohere2": ("cohere2", {"num_key_value_heads": 2}),
    "stablelm": (
        "stablelm",
        {
            "num_key_value_heads": 2,
            "use_qkv_bias": True,
            "qk_layernorm": True,
            "partial_rotary_factor": 0.67,
        },
    ),
    "starcoder2": ("starcoder2", {"num_key_value_heads": 2}),
    "smollm3": ("smollm3", {"num_key_value_heads": 2}),
    "glm": ("glm", {"num_key_value_heads": 2, "head_dim": 10, "attention_bias": True}),
    "phi": ("phi", {"partial_rotary_factor": 0.67, "qk_layernorm": True}),
    "gptj": ("gptj", {"rotary_dim": 4}),
    "gpt_bigcode": ("gpt_bigcode", {"n_inner": 52}),
    "mpt": (
        "mpt",
        {"d_model": 24, "n_heads": 4, "n_layers": 2, "max_seq_len": 50, "vocab_size": 103},
    ),
    "lfm2": (
        "lfm2",
        {"num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]},
    ),
    "bert": ("bert", {}),
    "electra": ("electra", {"embedding_size": 16}),
    "t5": ("t5", T5),
    "bart": ("bart", BART),
    "qwen2_vl": (
        "qwen2_vl",
        {
            **TOWER,
            "num_key_value_heads": 2,
            "tie_word_embeddings": False,
            "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 1]},
        },
    ),
}


def built_values(case: str) -> dict[str, object]:
    """The config.json of a case."""
    model_type, values = BUILT[case]
    if "d_model" in values:
        return {"model_type": model_type, "pad_token_id": 0, "bos_token_id": 0,
                "eos_token_id": 0, **values}  # fmt: skip
    return {"model_type": model_type, **SIZES, "num_hidden_layers": 2, **values}
