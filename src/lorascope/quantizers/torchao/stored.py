"""How transformers stores and loads a model on a grid: it is told at import."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.core_model_loading import ConversionOps
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from lorascope.config import QuantConfig, Storage
from lorascope.quantizers.linear_layers import quantizable_layers
from lorascope.quantizers.torchao.grid import grid_of
from lorascope.quantizers.torchao.layer import GridLinear

METHOD = "lorascope_grid"
"""The name in config.json."""
LIBRARY = "torchao"


@register_quantization_config(METHOD)
class GridConfig(QuantizationConfigMixin):  # type: ignore[misc]
    """What config.json says of a model on a grid.

    Args:
        scale_dtype: name of the type of scales and of what is not quantized, such as float16.
    """

    def __init__(
        self, storage: str, scale_dtype: str, group_size: int | None = None, **_: object
    ) -> None:
        self.quant_method = METHOD
        self.storage, self.scale_dtype, self.group_size = storage, scale_dtype, group_size


@register_quantizer(METHOD)
class GridQuantizer(HfQuantizer):  # type: ignore[misc]
    """Puts layers in place, into which codes are loaded, or weights that are put on the grid one by
    one: from the values of the files, not from what 16 bits leave of them."""

    requires_calibration = False
    is_trainable = True

    def is_serializable(self) -> bool:
        return True

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **_: object) -> None:
        own = self.quantization_config
        quant = QuantConfig(own.storage, Storage(own.storage), group_size=own.group_size)
        names = put_grid_layers(model, quant, getattr(torch, own.scale_dtype))
        if not self.pre_quantized:
            # transformers would cast weights before it hands them over.
            model._keep_in_fp32_modules_strict.update(f"{name}.weight" for name in names)

    def param_needs_quantization(
        self, model: PreTrainedModel, param_name: str, **_: object
    ) -> bool:
        path = param_name.removesuffix(".weight")
        return path != param_name and isinstance(model.get_submodule(path), GridLinear)

    def get_quantize_ops(self) -> ConversionOps:
        return StoreOnGrid()


class StoreOnGrid(ConversionOps):  # type: ignore[misc]
    """A weight as the codes and constants of its layer."""

    def convert(
        self,
        input_dict: dict[str, Any],
        model: PreTrainedModel,
        full_layer_name: str,
        missing_keys: set[str],
        **_: object,
    ) -> dict[str, Tensor]:
        """{name: weight [out, in]} -> {name: packed codes}; scales and zero points become the
        layer's."""
        (given,) = input_dict.values()
        path = full_layer_name.rpartition(".")[0]
        layer: Any = model.get_submodule(path)
        layer.store(given[0] if isinstance(given, list) else given)
        missing_keys.difference_update((f"{path}.scales", f"{path}.zero_points"))
        return {full_layer_name: layer.weight.data}


def put_grid_layers(model: Any, quant: QuantConfig, scale_dtype: torch.dtype) -> list[str]:
    """Layers on the meta device, in place of all that are quantized; their names."""
    grid, layers = (
        grid_of(quant.storage, quant.group_size),
        quantizable_layers(model, quant, LIBRARY),
    )
    for name, layer in layers.items():
        with torch.device("meta"):
            made = GridLinear(
                layer.in_features, layer.out_features, layer.bias is not None, grid, scale_dtype
            )
            if layer.bias is not None:
                made.bias = nn.Parameter(torch.empty_like(layer.bias), requires_grad=False)
        model.set_submodule(name, made)
    return list(layers)
