"""8-bit weights whose inputs are rounded to 8 bits too, for serving: torchao's `Int8Tensor`.

Weights have a scale an output row. Inputs have a scale a token, found as they come, or one scale
and one zero point a layer, found by calibration. Either way the product is one of whole numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorascope.config import AdapterConfig, Observer, Precision, QuantConfig, Storage
from lorascope.errors import ConfigError
from lorascope.quantizers.bits import StoredBits

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from lorascope.quantizers.kinds import Kernel


@dataclass(frozen=True)
class EightBitInputs:
    """Weights and inputs of 8 bits: w8a8."""

    storage: Storage
    compute: Precision = Precision.bfloat16
    rounds_inputs: bool = True

    @property
    def is_static(self) -> bool:
        """Whether the scale of inputs is stored."""
        return self.storage is Storage.w8a8_static

    def settings(self, quant: QuantConfig) -> dict[str, object]:
        if not self.is_static:
            return {}
        share = {"percentile": quant.percentile} if quant.observer is Observer.percentile else {}
        own = {"observer": quant.observer.value, "calibration_rows": quant.calibration_rows}
        return {**own, **share}

    def bits(self, quant: QuantConfig) -> StoredBits:
        """A float32 scale a row and, of a layer's inputs, a float32 scale and an 8-bit zero
        point."""
        return StoredBits(8, row_bytes=4, matrix_bytes=5 if self.is_static else 0)

    def require_trainable(self, adapter: AdapterConfig, device_kind: str) -> None:
        """No adapter can: rounding has no gradient, so that layers would learn from those above
        them by way of the residual alone."""
        raise ConfigError(
            "quant", self.storage.value,
            "it rounds the inputs of layers to 8 bits, which no gradient passes: it is for serving",
            "Train on quant=fp16 or int8_sym, and serve the merged model so: "
            f"serve={self.storage}.",
        )  # fmt: skip

    def loading(self, quant: QuantConfig, compute: torch.dtype) -> Any:
        from lorascope.quantizers.torchao.eight_bit_inputs_stored import EightBitInputsConfig

        return EightBitInputsConfig(quant.storage.value)

    def prepare(self, model: nn.Module, compute: torch.dtype) -> None:
        """Biases compute in `compute`, as all that is not quantized."""
        for layer in model.modules():
            own: Any = layer
            if self.owns(layer) and own.bias is not None:
                own.bias.data = own.bias.data.to(compute)

    def owns(self, layer: nn.Module) -> bool:
        from lorascope.quantizers.torchao.eight_bit_inputs_layer import EightBitInputsLinear

        is_one = isinstance(layer, EightBitInputsLinear)
        return is_one and (layer.input_scale is not None) is self.is_static

    def weight(self, layer: Any) -> Tensor:
        return self.backward_weight(layer)

    def backward_weight(self, layer: Any) -> Tensor:
        weight: Tensor = layer.dequantize()
        return weight

    def constants(self, layer: Any, shared: bool = True) -> Iterator[Tensor]:
        yield layer.scales
        if layer.input_scale is not None:
            yield layer.input_scale
            yield layer.input_zero_point

    def require_evaluable(self, name: str, layer: Any) -> None:
        """An evaluation changes nothing."""

    def arithmetic(self, layer: Any) -> str:
        inputs = "one calibrated scale and zero point" if self.is_static else "a scale a token"
        return f"inputs are rounded to 8 bits, with {inputs}, and products are of whole numbers"

    def backward_dtype(
        self, device_kind: str, compute: torch.dtype, stored: torch.dtype
    ) -> torch.dtype:
        return compute

    def put_fake_layers(self, model: Any, quant: QuantConfig, compute: torch.dtype) -> None:
        from lorascope.quantizers.torchao.eight_bit_inputs_stored import put_layers

        put_layers(model, quant)

    def fill_fake_layers(self, model: nn.Module, quant: QuantConfig, backward: torch.dtype) -> None:
        """Their constants are buffers, which all layers get."""
        from lorascope.quantizers.torchao.eight_bit_inputs_layer import fill_layers

        fill_layers(model)

    def kernels(self, device_kind: str) -> Mapping[Any, Kernel]:
        """torchao computes with torch's own operations, which a trace sees as a CPU runs them. On
        CUDA nothing of it was measured."""
        return {}
