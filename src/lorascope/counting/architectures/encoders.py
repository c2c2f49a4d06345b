"""Encoders with their masked-language-model head: RoBERTa and DeBERTa-v2."""

from __future__ import annotations

from lorascope.counting.architectures.biased_decoders import layer_norm
from lorascope.counting.architectures.rows import (
    Architecture,
    Row,
    Settings,
    Sizes,
    embedding,
    head,
    linear,
    norm,
    vector,
)


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
        prefix="hidden",
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
        prefix="hidden",
    ),
}
