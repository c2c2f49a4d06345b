"""Vocabulary and configuration of the embedded tiny base, without torch.

Pre-training builds the model from these values, and `count` and `plan` read them without one.
"""

from __future__ import annotations

import math

from lorascope.data.biographies import vocabulary

PAD, EOS, UNKNOWN, SPACE_MARK = "<pad>", "<eos>", "<unk>", "▁"
CONTEXT_TOKENS = 64
LAYERS, HIDDEN_SIZE, INTERMEDIATE_SIZE, ATTENTION_HEADS = 3, 128, 384, 4
"""Widths are multiples of 64, NF4's block."""


def token_ids() -> dict[str, int]:
    """Token -> id. Punctuation stands without a space; every other token carries its mark."""
    marked = [SPACE_MARK + word if word.isalnum() else word for word in vocabulary()]
    return {token: index for index, token in enumerate([PAD, EOS, UNKNOWN, *marked])}


def tiny_config() -> dict[str, object]:
    """Arguments of the tiny base's LlamaConfig: tied embeddings, the vocabulary padded to 64."""
    ids = token_ids()
    return {
        "vocab_size": math.ceil(len(ids) / 64) * 64,
        "hidden_size": HIDDEN_SIZE,
        "intermediate_size": INTERMEDIATE_SIZE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": ATTENTION_HEADS,
        "num_key_value_heads": ATTENTION_HEADS,
        "max_position_embeddings": CONTEXT_TOKENS,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": ids[EOS],
        "pad_token_id": ids[PAD],
        "dtype": "float32",
    }
