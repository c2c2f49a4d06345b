"""How transformers stores and loads a model with layers of ours: it is told at import."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.core_model_loading import ConversionOps
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from lorascope.config import OBSERVED, SERVED, QuantConfig, Storage
from lorascope.quantizers.linear_layers import quantizable_layers
from lorascope.quantizers.torchao.eight_bit_inputs_layer import EightBitInputsLinear
from lorascope.quantizers.torchao.grid import grid_of
from lorascope.quantizers.torchao.layer import GridLinear

METHOD = "lorascope_torchao"
"""The name in config.json."""
OwnLinear = GridLinear | EightBitInputsLinear


@register_quantization_config(METHOD)
class StoredConfig(QuantizationConfigMixin):  # type: ignore[misc]
    """What config.json says of such a model.

    Args:
        unquantized: name of the type of what is not quantized, such as float16, and of scales on a
            grid.
    """

    def __init__(
        self, storage: str, unquantized: str, group_size: int | None = None, **_: object
    ) -> None:
        self.quant_method = METHOD
        self.storage, self.unquantized, self.group_size = storage, unquantized, group_size


def stored_config(quant: QuantConfig, unquantized: torch.dtype) -> StoredConfig:
    """The same, of a mode."""
    dtype = str(unquantized).removeprefix("torch.")
    return StoredConfig(quant.storage.value, dtype, quant.group_size)


@register_quantizer(METHOD)
class StoredQuantizer(HfQuantizer):  # type: ignore[misc]
    """Puts layers in place, into which codes are loaded, or weights that become codes one by one:
    from the values of the files, not from what 16 bits leave of them."""

    requires_calibration = False
    is_trainable = True

    def is_serializable(self) -> bool:
        return True

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **_: object) -> None:
        own = self.quantization_config
        quant = QuantConfig(own.storage, Storage(own.storage), group_size=own.group_size)
        names = put_layers(model, quant, getattr(torch, own.unquantized))
        if not self.pre_quantized:
            # transformers would cast weights before it hands them over.
            model._keep_in_fp32_modules_strict.update(f"{name}.weight" for name in names)

    def param_needs_quantization(
        self, model: PreTrainedModel, param_name: str, **_: object
    ) -> bool:
        path = param_name.removesuffix(".weight")
        return path != param_name and isinstance(model.get_submodule(path), OwnLinear)

    def get_quantize_ops(self) -> ConversionOps:
        return StoreCodes()


class StoreCodes(ConversionOps):  # type: ignore[misc]
    """A weight as the codes and constants of its layer."""

    def convert(
        self,
        input_dict: dict[str, Any],
        model: PreTrainedModel,
        full_layer_name: str,
        missing_keys: set[str],
        **_: object,
    ) -> dict[str, Tensor]:
        """{name: weight [out, in]} -> {name: codes}; constants become the layer's. Those of inputs
        are put in afterwards, by `Ranges.put`."""
        (given,) = input_dict.values()
        path = full_layer_name.rpartition(".")[0]
        layer: Any = model.get_submodule(path)
        missing_keys.difference_update(f"{path}.{own}" for own, _ in layer.named_buffers())
        layer.store(given[0] if isinstance(given, list) else given)
        return {full_layer_name: layer.weight.data}


def put_layers(model: Any, quant: QuantConfig, unquantized: torch.dtype) -> list[str]:
    """Layers on the meta device, in place of all that are quantized; their names."""
    layers = quantizable_layers(model, quant, "torchao")
    for name, layer in layers.items():
        with torch.device("meta"):
            made = _like(layer, quant, unquantized)
            if layer.bias is not None:
                made.bias = nn.Parameter(torch.empty_like(layer.bias), requires_grad=False)
        model.set_submodule(name, made)
    return list(layers)


def _like(layer: nn.Linear, quant: QuantConfig, unquantized: torch.dtype) -> OwnLinear:
    """A layer of the same shape, without values."""
    size = layer.in_features, layer.out_features, layer.bias is not None
    if quant.storage in SERVED:
        return EightBitInputsLinear(*size, static=quant.storage in OBSERVED)
    return GridLinear(*size, grid_of(quant.storage, quant.group_size), unquantized)


def fill_layers(model: nn.Module) -> None:
    """Codes without data for these layers, on torch's default device; call it under FakeTensorMode.
    Their constants are buffers, which all layers get."""
    for layer in model.modules():
        if isinstance(layer, OwnLinear):
            weight = layer.weight
            codes = torch.empty(weight.shape, dtype=weight.dtype)
            layer.weight = nn.Parameter(codes, requires_grad=False)
