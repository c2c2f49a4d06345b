"""8-bit weights whose inputs are rounded to 8 bits too, for serving: torchao's `Int8Tensor`.

Weights have a scale an output row. Inputs have a scale a token, found as they come, or one scale
and one zero point a layer, found by calibration. Either way the product is one of whole numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorascope.config import AdapterConfig, Observer, Precision, QuantConfig, Storage
from lorascope.errors import ConfigError
from lorascope.quantizers.bits import StoredBits
from lorascope.quantizers.torchao.kind import OwnLayers

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class EightBitInputs(OwnLayers):
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

    def owns(self, layer: nn.Module) -> bool:
        from lorascope.quantizers.torchao.eight_bit_inputs_layer import EightBitInputsLinear

        is_one = isinstance(layer, EightBitInputsLinear)
        return is_one and (layer.input_scale is not None) is self.is_static

    def constants(self, layer: Any, shared: bool = True) -> Iterator[Tensor]:
        yield layer.scales
        if layer.input_scale is not None:
            yield layer.input_scale
            yield layer.input_zero_point

    def arithmetic(self, layer: Any) -> str:
        inputs = "one calibrated scale and zero point" if self.is_static else "a scale a token"
        return f"inputs are rounded to 8 bits, with {inputs}, and products are of whole numbers"
