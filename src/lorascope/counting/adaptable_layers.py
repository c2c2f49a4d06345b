"""A model's layers that can get an adapter, from its config.json instead of the model itself."""

from __future__ import annotations

from lorascope.counting.architectures import ModelShape
from lorascope.records import LinearShape


def adaptable_layers(shape: ModelShape) -> list[LinearShape]:
    """The same list as `linear_layers.linear_shapes` gives for the model, for `targets.select`."""
    return [
        LinearShape(m.name, m.name.rpartition(".")[2], m.in_features, m.out_features)
        for m in shape.matrices
    ]
