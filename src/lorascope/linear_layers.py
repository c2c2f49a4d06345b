"""The matrices of a model that can get an adapter, and their shapes."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from lorascope.records import LinearShape


def linear_shapes(model: Any) -> list[LinearShape]:
    """Every linear layer but the output head, in model order. Works on the meta device."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    shapes = []
    for name, module in model.named_modules():
        if module is head:
            continue
        if isinstance(module, nn.Linear):
            features = (module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            features = (module.weight.shape[0], module.weight.shape[1])
        else:
            continue
        shapes.append(LinearShape(name, name.rpartition(".")[2], *features))
    return shapes
