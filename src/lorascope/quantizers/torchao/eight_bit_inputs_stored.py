"""How transformers stores and loads layers that round their inputs: it is told at import."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.core_model_loading import ConversionOps
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from lorascope.config import CALIBRATED, QuantConfig, Storage
from lorascope.quantizers.linear_layers import quantizable_layers
from lorascope.quantizers.torchao.eight_bit_inputs_layer import EightBitInputsLinear
from lorascope.records import CalibrationRecord

METHOD = "lorascope_w8a8"
"""The name in config.json."""
LIBRARY = "torchao"
FOUND_ELSEWHERE = ("scales", "input_scale", "input_zero_point")
"""Constants that no file of a plain model holds."""


@register_quantization_config(METHOD)
class EightBitInputsConfig(QuantizationConfigMixin):  # type: ignore[misc]
    """What config.json says of such a model."""

    def __init__(self, storage: str, **_: object) -> None:
        self.quant_method, self.storage = METHOD, storage


@register_quantizer(METHOD)
class EightBitInputsQuantizer(HfQuantizer):  # type: ignore[misc]
    """Puts layers in place, into which codes are loaded, or weights that become codes one by one:
    from the values of the files, not from what 16 bits leave of them."""

    requires_calibration = False
    is_trainable = False

    def is_serializable(self) -> bool:
        return True

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **_: object) -> None:
        storage = self.quantization_config.storage
        names = put_layers(model, QuantConfig(storage, Storage(storage)))
        if not self.pre_quantized:
            # transformers would cast weights before it hands them over.
            model._keep_in_fp32_modules_strict.update(f"{name}.weight" for name in names)

    def param_needs_quantization(
        self, model: PreTrainedModel, param_name: str, **_: object
    ) -> bool:
        path = param_name.removesuffix(".weight")
        layer = model.get_submodule(path) if path != param_name else None
        return isinstance(layer, EightBitInputsLinear)

    def get_quantize_ops(self) -> ConversionOps:
        return StoreCodes()


class StoreCodes(ConversionOps):  # type: ignore[misc]
    """A weight as the codes and scales of its layer."""

    def convert(
        self,
        input_dict: dict[str, Any],
        model: PreTrainedModel,
        full_layer_name: str,
        missing_keys: set[str],
        **_: object,
    ) -> dict[str, Tensor]:
        """{name: weight [out, in]} -> {name: codes [out, in]}; scales become the layer's. Those of
        its inputs are put in afterwards, by `put_ranges`."""
        (given,) = input_dict.values()
        path = full_layer_name.rpartition(".")[0]
        layer: Any = model.get_submodule(path)
        layer.store(given[0] if isinstance(given, list) else given)
        missing_keys.difference_update(f"{path}.{own}" for own in FOUND_ELSEWHERE)
        return {full_layer_name: layer.weight.data}


def put_layers(model: Any, quant: QuantConfig) -> list[str]:
    """Layers on the meta device, in place of all that are quantized; their names."""
    layers = quantizable_layers(model, quant, LIBRARY)
    for name, layer in layers.items():
        with torch.device("meta"):
            made = EightBitInputsLinear(
                layer.in_features,
                layer.out_features,
                layer.bias is not None,
                static=quant.storage in CALIBRATED,
            )
            if layer.bias is not None:
                made.bias = nn.Parameter(torch.empty_like(layer.bias), requires_grad=False)
        model.set_submodule(name, made)
    return list(layers)


def put_ranges(model: nn.Module, record: CalibrationRecord) -> None:
    """Give each layer the scale and zero point of its inputs."""
    for own in record.layers:
        layer: Any = model.get_submodule(own.name)
        device = layer.weight.device
        layer.input_scale = torch.tensor([own.scale], device=device)
        layer.input_zero_point = torch.tensor([own.zero_point], dtype=torch.int8, device=device)
