"""A decoder's layers on several devices, one after the other: a naive pipeline.

What stands outside the layers (embeddings, final norm, head) is on the first device, where batches
come and losses are made: a head that is tied to the embeddings stays one with them. accelerate's
hooks move what a layer gets to the layer's device, and autograd moves gradients back the same way.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from accelerate.hooks import (
    AlignDevicesHook,
    ModelHook,
    add_hook_to_module,
    remove_hook_from_module,
)
from accelerate.utils import send_to_device

from lorascope.adapters.decoder import decoder_layers

ATTRIBUTE = "placement"
"""Of a model whose layers are placed."""


@dataclass(frozen=True)
class Placement:
    """Which layers lie on which device."""

    layers: str
    """Name of the list of layers."""
    devices: tuple[str, ...]
    """As torch names them, by place. Several may be one device."""
    counts: tuple[int, ...]
    """Layers of each place."""

    def place_of(self, layer: int) -> int:
        """The place of a layer, by its number."""
        return sum(end <= layer for end in accumulate(self.counts))

    def place(self, name: str) -> int:
        """The place of a module or parameter; 0 for what stands outside the layers."""
        found = re.match(rf"{re.escape(self.layers)}\.(\d+)\b", name)
        return self.place_of(int(found[1])) if found else 0

    def device(self, name: str) -> torch.device:
        """The device of a module or parameter."""
        return torch.device(self.devices[self.place(name)])


def placement_of(model: Any) -> Placement | None:
    """Where a model's layers lie; None where one device has all of it."""
    found: Placement | None = getattr(model, ATTRIBUTE, None)
    return found


class _Return(ModelHook):  # type: ignore[misc]
    """Brings what the last layer gives back to the first device."""

    def __init__(self, device: str) -> None:
        self._device = device

    def post_forward(self, module: Any, output: Any) -> Any:
        return send_to_device(output, self._device)


def connect_layers(model: Any, placement: Placement) -> None:
    """Let a model compute whose layers lie where `placement` says."""
    # transformers puts hooks on every module, the model itself included: its copies, as
    # `objectives.logits` makes them, would then run the model that they are copies of.
    remove_hook_from_module(model, recurse=True)
    _, layers = decoder_layers(model)
    skipped = list(getattr(model, "_skip_keys_device_placement", None) or ())
    for number, layer in enumerate(layers):
        device = placement.devices[placement.place_of(number)]
        add_hook_to_module(layer, AlignDevicesHook(device, skip_keys=skipped))
    add_hook_to_module(layers[-1], _Return(placement.devices[0]), append=True)
    setattr(model, ATTRIBUTE, placement)


def balanced(layers: Sequence[int], outside: int, places: int) -> tuple[int, ...]:
    """How many neighbouring layers each place gets, at least one, so that the fullest has least.

    Args:
        layers: size of each layer.
        outside: size of what the first place has beside its layers.
    """
    low, high = 0, outside + sum(layers)
    while low < high:
        limit = (low + high) // 2
        if sum(_filled(layers, outside, places, limit)) < len(layers):
            low = limit + 1
        else:
            high = limit
    return _filled(layers, outside, places, low)


def _filled(layers: Sequence[int], outside: int, places: int, limit: int) -> tuple[int, ...]:
    """Layers of each place, which has one however large, and more up to `limit`; fewer than there
    are where the limit is too low."""
    counts, start = [], 0
    for place in range(places):
        last = len(layers) - (places - 1 - place)
        size, count = layers[start] + (outside if place == 0 else 0), 1
        while start + count < last and size + layers[start + count] <= limit:
            size, count = size + layers[start + count], count + 1
        counts.append(count)
        start += count
    return tuple(counts)
