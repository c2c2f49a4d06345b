"""A config.json's values as transformers' own configuration, whole or with fewer layers."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig

from lorascope.errors import ModelError

UNLIMITED_CONTEXT_TOKENS = 2048
"""Context of models whose positions have no end, such as BLOOM's: lm-eval reads no more tokens."""

LAYER_KINDS = ("layer_types", "mlp_layer_types")
"""Settings with a word for each layer."""


def text_config(config: Mapping[str, object]) -> PretrainedConfig:
    """The transformers configuration of a config.json; ModelError where transformers does not know
    the architecture, or what it is given of it."""
    values = {name: value for name, value in config.items() if name != "quantization_config"}
    kind = values.pop("model_type", None)
    try:
        made = AutoConfig.for_model(str(kind), **values)
    except Exception as error:
        if str(kind) in CONFIG_MAPPING:
            raise unusable_config(kind, error) from error
        raise ModelError(
            f"config.json: model_type={kind!r} is not known to transformers, so its memory cannot "
            "be traced. Models with code of their own can only be measured."
        ) from error
    layers = getattr(made.get_text_config(), "num_hidden_layers", None)
    if not isinstance(layers, int) or layers < 1:
        raise ModelError(
            f"config.json: num_hidden_layers={layers!r}: must be 1 or more. Take the model's own "
            "config.json."
        )
    return made


def unusable_config(model_type: object, error: Exception) -> ModelError:
    """The error for a config.json from which transformers cannot build a model."""
    return ModelError(
        f"config.json: model_type={model_type!r}: transformers cannot build a model from these "
        f"values ({in_short(error)}). Take the model's own config.json."
    )


def in_short(error: Exception) -> str:
    """An error's type and text, on one short line."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:200]}" if words else type(error).__name__


def with_layers(config: PretrainedConfig, kept: Sequence[int]) -> PretrainedConfig:
    """`config` with only the layers whose numbers are in `kept`."""
    shallow = copy.deepcopy(config)
    inner = shallow.get_text_config()
    kinds = {name: getattr(inner, name, None) for name in LAYER_KINDS}
    inner.num_hidden_layers = len(kept)
    for name, listed in kinds.items():
        # Where they follow from other settings, such as Jamba's, they cannot be set.
        if listed and not isinstance(getattr(type(inner), name, None), property):
            setattr(inner, name, [listed[layer] for layer in kept])
    return shallow


def first_position(model: Any) -> int:
    """The number of a text's first position: RoBERTa and its like count from behind the padding
    token's, so that the table holds as many more rows than tokens can be read."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings"):
            padding = getattr(module, "padding_idx", None)
            return 0 if padding is None else int(padding) + 1
    return 0


def stored_dtype(config: Mapping[str, object]) -> torch.dtype:
    """The type that a config.json says its weights are in; float32 where it says nothing."""
    name = config.get("dtype") or config.get("torch_dtype") or "float32"
    dtype = getattr(torch, str(name).removeprefix("torch."), torch.float32)
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def context_tokens(config: PretrainedConfig) -> int:
    """The most tokens that a model reads; where it has no limit, lm-eval's limit."""
    for name in ("max_position_embeddings", "n_positions", "seq_length", "max_seq_len", "n_ctx"):
        limit = getattr(config.get_text_config(), name, None)
        if isinstance(limit, int) and limit > 0:
            return limit
    return UNLIMITED_CONTEXT_TOKENS
