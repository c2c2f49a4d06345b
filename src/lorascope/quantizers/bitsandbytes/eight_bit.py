"""LLM.int8 as bitsandbytes computes it: 8-bit codes, a scale a row, outlier columns in 16 bits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorascope.adapters.kinds import kind_of
from lorascope.config import AdapterConfig, Precision, QuantConfig
from lorascope.errors import ConfigError
from lorascope.quantizers.bits import StoredBits

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from lorascope.quantizers.kinds import Kernel


@dataclass(frozen=True)
class EightBit:
    """INT8 weights, and inputs that evaluation rounds to 8 bits too."""

    compute: Precision = Precision.float16
    rounds_inputs: bool = True

    def settings(self, quant: QuantConfig) -> dict[str, object]:
        return {"int8_outlier_threshold": quant.int8_outlier_threshold}

    def bits(self, quant: QuantConfig) -> StoredBits:
        return StoredBits(8, row_bytes=4)

    def require_trainable(self, adapter: AdapterConfig, device_kind: str) -> None:
        """Whoever reads a weight (DoRA, for its norm) takes it apart; on a CPU bitsandbytes
        (0.50.2) then finds the weight's scales gone in the first backward pass."""
        setting = kind_of(adapter).reads_weights(adapter)
        if setting and device_kind == "cpu":
            noun = kind_of(adapter).method.dial(setting).noun
            raise ConfigError(
                f"{adapter.kind}.{setting}", "true",
                f"{noun} cannot be trained on an INT8 base on a CPU",
                f"Set {adapter.kind}.{setting}=false, take another mode (quant=nf4, fp16), or "
                "train on CUDA.",
            )  # fmt: skip

    def loading(self, quant: QuantConfig, compute: torch.dtype, kept: Sequence[str] = ()) -> Any:
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(
            load_in_8bit=True,
            llm_int8_threshold=quant.int8_outlier_threshold,
            llm_int8_skip_modules=list(kept) or None,
        )

    def prepare(self, model: nn.Module, compute: torch.dtype) -> None:
        """Let training steps compute in one way on every device."""
        from lorascope.quantizers.bitsandbytes.eight_bit_layer import EightBitLinear

        for layer in model.modules():
            if self.owns(layer):
                layer.__class__ = EightBitLinear

    def owns(self, layer: nn.Module) -> bool:
        from bitsandbytes.nn import Linear8bitLt

        return isinstance(layer, Linear8bitLt)

    def weight(self, layer: Any) -> Tensor:
        return self.backward_weight(layer).float()

    def backward_weight(self, layer: Any) -> Tensor:
        from bitsandbytes.functional import int8_vectorwise_dequant

        weight: Tensor = int8_vectorwise_dequant(layer.weight.data, *self.constants(layer))
        return weight

    def constants(self, layer: Any, shared: bool = True) -> Iterator[Tensor]:
        from lorascope.quantizers.bitsandbytes.eight_bit_layer import row_scales

        yield row_scales(layer)

    def require_evaluable(self, name: str, layer: Any) -> None:
        """An evaluation changes nothing."""

    def arithmetic(self, layer: Any) -> str:
        """As measured with bitsandbytes 0.50.2 on a CPU (tests/quantizers)."""
        return (
            "inputs are rounded to float16 and to 8 bits a token, outlier columns (from "
            f"{layer.state.threshold:g} on) apart, in evaluation, not in training steps"
        )

    def backward_dtype(
        self, device_kind: str, compute: torch.dtype, stored: torch.dtype
    ) -> torch.dtype:
        return compute

    def put_fake_layers(self, model: Any, quant: QuantConfig, compute: torch.dtype) -> None:
        from lorascope.quantizers.bitsandbytes.fake_layers import put_eight_bit_layers

        put_eight_bit_layers(model, quant)

    def fill_fake_layers(self, model: nn.Module, quant: QuantConfig, backward: torch.dtype) -> None:
        from lorascope.quantizers.bitsandbytes.fake_layers import fill_eight_bit_layers

        fill_eight_bit_layers(model)

    def kernels(self, device_kind: str) -> Mapping[Any, Kernel]:
        from lorascope.quantizers.bitsandbytes.kernels import EIGHT_BIT

        return EIGHT_BIT[device_kind]
