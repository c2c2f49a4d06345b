"""A config.json's values as transformers' own configuration, whole or with fewer layers."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from transformers import AutoConfig, PretrainedConfig

from lorascope.errors import ModelError


def text_config(config: Mapping[str, object]) -> PretrainedConfig:
    """The transformers configuration of a config.json.

    Raises:
        ModelError: transformers does not know the architecture.
    """
    values = {name: value for name, value in config.items() if name != "quantization_config"}
    kind = values.pop("model_type", None)
    try:
        return AutoConfig.for_model(str(kind), **values)
    except ValueError as error:
        raise ModelError(
            f"config.json: model_type={kind!r} is not known to transformers, so its memory cannot "
            "be traced. Models with code of their own can only be measured."
        ) from error


def with_depth(config: PretrainedConfig, layers: int) -> PretrainedConfig:
    """The same with the first `layers` layers."""
    shallow = copy.deepcopy(config)
    inner = shallow.get_text_config()
    inner.num_hidden_layers = layers
    if getattr(inner, "layer_types", None):
        inner.layer_types = inner.layer_types[:layers]
    return shallow


def stored_dtype(config: Mapping[str, object]) -> torch.dtype:
    """The type that a config.json says its weights are in; float32 where it says nothing."""
    name = config.get("dtype") or config.get("torch_dtype") or "float32"
    dtype = getattr(torch, str(name).removeprefix("torch."), torch.float32)
    return dtype if isinstance(dtype, torch.dtype) else torch.float32
