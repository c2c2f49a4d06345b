"""Models with LayerNorm and biases: GPT-2, GPT-NeoX, OPT, Falcon, BLOOM, and the encoders RoBERTa
and DeBERTa-v2 with their masked-language-model head."""

from __future__ import annotations

from lorascope.counting.architectures.rows import (
    Architecture,
    Row,
    Settings,
    Sizes,
    conv1d,
    embedding,
    head,
    linear,
    norm,
    vector,
)


def layer_norm(name: str, when: str | int = 1) -> Row:
    """LayerNorm: weight and bias."""
    return norm(name, bias=1, when=when)


def fused_layer(attention: str, bias: str | int, mlp_bias: str | int) -> tuple[Row, ...]:
    """Query, key and value as one matrix, and a plain two-matrix MLP."""
    return (
        linear(f"{attention}.query_key_value", "hidden", "fused", bias),
        linear(f"{attention}.dense", "hidden", "hidden", bias),
        linear("mlp.dense_h_to_4h", "hidden", "intermediate", mlp_bias),
        linear("mlp.dense_4h_to_h", "intermediate", "hidden", mlp_bias),
    )


def gpt2_sizes(settings: Settings, usual: Sizes) -> Sizes:
    """MLP of n_inner features, or of four times the hidden size."""
    return {"intermediate": settings.whole("n_inner", 4 * usual["hidden"])}


def bloom_sizes(settings: Settings, usual: Sizes) -> Sizes:
    """MLP of four times the hidden size, always."""
    return {"intermediate": 4 * usual["hidden"]}


def falcon_sizes(settings: Settings, usual: Sizes) -> Sizes:
    """Key heads and norms depend on the generation: 7B multi-query, 40B and 180B grouped-query."""
    newer = settings.whole("new_decoder_architecture", 0)
    heads = settings.whole("num_attention_heads")
    old_key_heads = 1 if settings.whole("multi_query", 1) else heads
    key_heads = settings.whole("num_kv_heads", heads) if newer else old_key_heads
    parallel = settings.whole("parallel_attn", 1)
    two_norms = parallel and settings.whole("num_ln_in_parallel_attn", 2 if newer else 1) == 2
    return {
        "fused": usual["hidden"] + 2 * key_heads * usual["head"],
        "intermediate": settings.whole("ffn_hidden_size", 4 * usual["hidden"]),
        "bias": settings.whole("bias", 0),
        # PEFT takes as many key heads as query heads, and the newer ones repeat theirs.
        "takes_prefix": int(bool(newer) or key_heads == heads),
        "two_norms": int(two_norms),
        "input_norm": int(not two_norms),
        "sequential": int(not parallel),
    }


def opt_sizes(settings: Settings, usual: Sizes) -> Sizes:
    """OPT-350m embeds into fewer features than it works with, and lacks the last norm."""
    embedded = settings.whole("word_embed_proj_dim", usual["hidden"])
    last_norm = settings.whole("do_layer_norm_before", 1) and not settings.whole(
        "_remove_final_layer_norm", 0
    )
    affine = settings.whole("layer_norm_elementwise_affine", 1)
    return {
        "intermediate": settings.whole("ffn_dim"),
        "embedded": embedded,
        "projected": int(embedded != usual["hidden"]),
        # The first two rows of OPT's positions stand for padding.
        "positions": usual["context"] + 2,
        "bias": settings.whole("enable_bias", 1),
        "affine": affine,
        "last_norm": int(bool(affine and last_norm)),
    }


BIASED_DECODERS = {
    "gpt2": Architecture(
        "transformer.h.{}",
        (
            embedding("transformer.wte", "vocabulary", "hidden"),
            embedding("transformer.wpe", "context", "hidden"),
        ),
        (
            layer_norm("ln_1"),
            conv1d("attn.c_attn", "hidden", "fused"),
            conv1d("attn.c_proj", "hidden", "hidden"),
            layer_norm("ln_2"),
            conv1d("mlp.c_fc", "hidden", "intermediate"),
            conv1d("mlp.c_proj", "intermediate", "hidden"),
        ),
        (layer_norm("transformer.ln_f"), head("lm_head")),
        {"tie_word_embeddings": True},
        gpt2_sizes,
        ia3=(("attn.c_attn",), ("mlp.c_proj",)),
        refuses=("add_cross_attention",),
    ),
    "gpt_neox": Architecture(
        "gpt_neox.layers.{}",
        (embedding("gpt_neox.embed_in", "vocabulary", "hidden"),),
        (
            layer_norm("input_layernorm"),
            layer_norm("post_attention_layernorm"),
            *fused_layer("attention", "attention_bias", 1),
        ),
        (layer_norm("gpt_neox.final_layer_norm"), head("lm_head")),
        {"attention_bias": True},
        ia3=(("attention.query_key_value",), ("mlp.dense_4h_to_h",)),
    ),
    "opt": Architecture(
        "model.decoder.layers.{}",
        (
            embedding("model.decoder.embed_tokens", "vocabulary", "embedded"),
            embedding("model.decoder.embed_positions", "positions", "hidden"),
            linear("model.decoder.project_out", "hidden", "embedded", when="projected"),
            linear("model.decoder.project_in", "embedded", "hidden", when="projected"),
            layer_norm("model.decoder.final_layer_norm", "last_norm"),
        ),
        (
            linear("self_attn.k_proj", "hidden", "hidden", "bias"),
            linear("self_attn.v_proj", "hidden", "hidden", "bias"),
            linear("self_attn.q_proj", "hidden", "hidden", "bias"),
            linear("self_attn.out_proj", "hidden", "hidden", "bias"),
            layer_norm("self_attn_layer_norm", "affine"),
            linear("fc1", "hidden", "intermediate", "bias"),
            linear("fc2", "intermediate", "hidden", "bias"),
            layer_norm("final_layer_norm", "affine"),
        ),
        (head("lm_head", "embedded"),),
        {"tie_word_embeddings": True},
        opt_sizes,
        ia3=(("self_attn.q_proj", "self_attn.k_proj"), ("fc2",)),
    ),
    "falcon": Architecture(
        "transformer.h.{}",
        (embedding("transformer.word_embeddings", "vocabulary", "hidden"),),
        (
            *fused_layer("self_attention", "bias", "bias"),
            layer_norm("ln_attn", "two_norms"),
            layer_norm("ln_mlp", "two_norms"),
            layer_norm("input_layernorm", "input_norm"),
            layer_norm("post_attention_layernorm", "sequential"),
        ),
        (layer_norm("transformer.ln_f"), head("lm_head")),
        {"tie_word_embeddings": True},
        falcon_sizes,
        ia3=(("self_attention.query_key_value",), ("mlp.dense_4h_to_h",)),
        takes_prefix="takes_prefix",
    ),
    "bloom": Architecture(
        "transformer.h.{}",
        (
            embedding("transformer.word_embeddings", "vocabulary", "hidden"),
            layer_norm("transformer.word_embeddings_layernorm"),
        ),
        (
            layer_norm("input_layernorm"),
            layer_norm("post_attention_layernorm"),
            *fused_layer("self_attention", 1, 1),
        ),
        (layer_norm("transformer.ln_f"), head("lm_head")),
        {"tie_word_embeddings": True},
        bloom_sizes,
        ia3=(("self_attention.query_key_value",), ("mlp.dense_4h_to_h",)),
    ),
}


def deberta_sizes(settings: Settings, usual: Sizes) -> Sizes:
    """Sizes of relative positions, and whether keys and queries have matrices for them."""
    relative = settings.whole("relative_attention", 0)
    reach = settings.whole("max_relative_positions", -1)
    reach = reach if reach > 0 else usual["context"]
    buckets = settings.whole("position_buckets", -1)
    kinds = str(settings.find("pos_att_type") or "")
    with_matrices = relative and not settings.whole("share_att_key", 0)
    kernel = settings.whole("conv_kernel_size", 0)
    embedded = settings.whole("embedding_size", usual["hidden"])
    legacy = settings.whole("legacy", 1)
    return {
        "query": settings.whole("num_attention_heads")
        * settings.whole("attention_head_size", usual["head"]),
        "embedded": embedded,
        "projected": int(embedded != usual["hidden"]),
        "absolute": settings.whole("position_biased_input", 1),
        "relative": relative,
        "relative_rows": 2 * (buckets if buckets > 0 else reach),
        "relative_norm": int(
            bool(relative) and "layer_norm" in str(settings.find("norm_rel_ebd")).lower()
        ),
        "key_positions": int(bool(with_matrices) and "c2p" in kinds),
        "query_positions": int(bool(with_matrices) and "p2c" in kinds),
        "kernel": kernel,
        "convolution": int(kernel > 0),
        "group_inputs": usual["hidden"] // settings.whole("conv_groups", 1),
        "legacy": legacy,
        "modern": int(not legacy),
        "untied_head": int(bool(legacy and usual["untied"])),
    }


def encoder_layer(query: str, key: str, value: str, *positions: Row) -> tuple[Row, ...]:
    """BERT's layer; the models name its attention matrices differently."""
    return (
        linear(f"attention.self.{query}", "hidden", "query", 1),
        linear(f"attention.self.{key}", "hidden", "query", 1),
        linear(f"attention.self.{value}", "hidden", "query", 1),
        *positions,
        linear("attention.output.dense", "hidden", "hidden", 1),
        layer_norm("attention.output.LayerNorm"),
        linear("intermediate.dense", "hidden", "intermediate", 1),
        linear("output.dense", "intermediate", "hidden", 1),
        layer_norm("output.LayerNorm"),
    )


CONVOLUTION = ("kernel", "group_inputs", "hidden")
ENCODERS = {
    "roberta": Architecture(
        "roberta.encoder.layer.{}",
        (
            embedding("roberta.embeddings.word_embeddings", "vocabulary", "hidden"),
            embedding("roberta.embeddings.token_type_embeddings", "token_types", "hidden"),
            embedding("roberta.embeddings.position_embeddings", "context", "hidden"),
            layer_norm("roberta.embeddings.LayerNorm"),
        ),
        encoder_layer("query", "key", "value"),
        (
            vector("lm_head.bias", "vocabulary"),
            linear("lm_head.dense", "hidden", "hidden", 1),
            layer_norm("lm_head.layer_norm"),
            head("lm_head.decoder", bias=1),
        ),
        {"tie_word_embeddings": True, "type_vocab_size": 2},
        ia3=(("key", "value"), ("output.dense",)),
        refuses=("add_cross_attention",),
    ),
    "deberta-v2": Architecture(
        "deberta.encoder.layer.{}",
        (
            embedding("deberta.embeddings.word_embeddings", "vocabulary", "embedded"),
            embedding("deberta.embeddings.position_embeddings", "context", "embedded", "absolute"),
            embedding("deberta.embeddings.token_type_embeddings", "token_types", "embedded"),
            linear("deberta.embeddings.embed_proj", "embedded", "hidden", when="projected"),
            layer_norm("deberta.embeddings.LayerNorm"),
        ),
        encoder_layer(
            "query_proj",
            "key_proj",
            "value_proj",
            linear("attention.self.pos_key_proj", "hidden", "query", 1, "key_positions"),
            linear("attention.self.pos_query_proj", "hidden", "query", 1, "query_positions"),
        ),
        (
            embedding("deberta.encoder.rel_embeddings", "relative_rows", "hidden", "relative"),
            layer_norm("deberta.encoder.LayerNorm", "relative_norm"),
            Row("deberta.encoder.conv.conv", "plain", CONVOLUTION, 1, "convolution"),
            layer_norm("deberta.encoder.conv.LayerNorm", "convolution"),
            vector("cls.predictions.bias", "vocabulary"),
            linear("cls.predictions.transform.dense", "hidden", "embedded", 1, "legacy"),
            norm("cls.predictions.transform.LayerNorm", "embedded", 1, "legacy"),
            # transformers names this one the output head, which gets no adapter.
            Row("lm_predictions.lm_head.dense", "plain", ("hidden", "hidden"), 1, "modern"),
            norm("lm_predictions.lm_head.LayerNorm", "hidden", 1, "modern"),
            head("cls.predictions.decoder", "embedded", 1, "untied_head"),
        ),
        {"tie_word_embeddings": True},
        deberta_sizes,
        ia3=(("key_proj", "value_proj"), ("output.dense",)),
        takes_prefix=0,
    ),
}
