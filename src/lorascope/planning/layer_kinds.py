"""Kinds of a model's layers: those that config.json names, and those that differ in their tensors,
such as dense layers before layers with experts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from transformers import PretrainedConfig

from lorascope.adapters.decoder import decoder_layers
from lorascope.bases.heads import auto_class
from lorascope.bases.transformers_config import text_config


def layer_kinds(config: Mapping[str, object]) -> tuple[int, list[str]]:
    """Number of layers, and the kind of each; no kinds where nothing is said of layers that are all
    alike."""
    layers, kinds = _layer_kinds(json.dumps(config, sort_keys=True, default=str))
    return layers, list(kinds)


@lru_cache(maxsize=8)
def _layer_kinds(config: str) -> tuple[int, tuple[str, ...]]:
    whole = text_config(json.loads(config))
    text = whole.get_text_config()
    layers, named = int(text.num_hidden_layers), tuple(getattr(text, "layer_types", None) or ())
    tensors = _tensors(whole)
    if len(set(tensors)) <= 1:
        return layers, named
    numbers = {of_layer: number for number, of_layer in enumerate(dict.fromkeys(tensors))}
    words = named or ("layer",) * layers
    return layers, tuple(
        f"{word} {numbers[each]}" for word, each in zip(words, tensors, strict=True)
    )


def _tensors(config: PretrainedConfig) -> list[tuple[tuple[str, torch.Size], ...]]:
    """Names and shapes of each layer's tensors; none where the model cannot be built, which whoever
    traces it will say."""
    try:
        with unset_fake_temporarily(), torch.device("meta"):
            model: nn.Module = auto_class(config).from_config(config)
        _, found = decoder_layers(model)
    except Exception:
        return []
    return [
        tuple((name, parameter.shape) for name, parameter in layer.named_parameters())
        for layer in found
    ]
