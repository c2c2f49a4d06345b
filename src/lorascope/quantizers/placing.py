"""Which of a base's layers goes to which device, by the bytes that its mode stores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from lorascope.adapters.decoder import decoder_layers
from lorascope.adapters.placement import Placement, balanced
from lorascope.config import QuantConfig
from lorascope.errors import ConfigError
from lorascope.machine.devices import TORCH_DTYPES
from lorascope.quantizers.bits import weight_bytes
from lorascope.quantizers.kinds import QUANTIZERS


def placement_over(empty: Any, quant: QuantConfig, devices: Sequence[str]) -> Placement:
    """Neighbouring layers for each device, so that the fullest has least to store.

    Args:
        empty: the bare model in full precision, as on the meta device.

    Raises:
        ConfigError: there are more devices than layers.
        ModelError: the model has no list of layers.
    """
    name, layers = decoder_layers(empty)
    if len(layers) < len(devices):
        raise ConfigError(
            "runtime.place", len(devices),
            f"the model has {len(layers)} layers, and each device takes one at least",
            f"Set runtime.place={len(layers)} or less.",
        )  # fmt: skip
    sizes = [_bytes(layer, quant) for layer in layers]
    inside = {id(own) for layer in layers for own in layer.parameters()}
    others = sum(own.numel() for own in empty.parameters() if id(own) not in inside)
    outside = _other_bytes(quant) * others
    return Placement(name, tuple(devices), balanced(sizes, outside, len(devices)))


def _bytes(layer: nn.Module, quant: QuantConfig) -> int:
    bits = QUANTIZERS[quant.storage].bits(quant)
    linear = {id(own.weight) for own in layer.modules() if isinstance(own, nn.Linear)}
    quantized = sum(own.numel() for own in layer.parameters() if id(own) in linear)
    others = sum(own.numel() for own in layer.parameters() if id(own) not in linear)
    return weight_bytes(quantized, bits) + _other_bytes(quant) * others


def _other_bytes(quant: QuantConfig) -> int:
    """Of a parameter that is not quantized: two beside quantized ones."""
    return TORCH_DTYPES.get(quant.storage.value, torch.float16).itemsize


def device_map(empty: nn.Module, placement: Placement) -> dict[str, str]:
    """The device of every module, as transformers' loading takes it: by name, without a rest, which
    accelerate would move to one device."""
    found: dict[str, str] = {}

    def walk(module: nn.Module, prefix: str) -> None:
        own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        found.update({f"{prefix}{name}": placement.devices[0] for name, _ in own})
        for name, child in module.named_children():
            path = f"{prefix}{name}"
            if path == placement.layers:
                for number in range(sum(placement.counts)):
                    of_layer = f"{path}.{number}"
                    found[of_layer] = placement.devices[placement.place(of_layer)]
            elif placement.layers.startswith(f"{path}."):
                walk(child, f"{path}.")
            else:
                found[path] = placement.devices[0]

    walk(empty, "")
    return found
