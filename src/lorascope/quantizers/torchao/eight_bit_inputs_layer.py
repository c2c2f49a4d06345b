"""Linear layers that round their inputs to 8 bits, by torchao's own product."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchao.quantization import Int8Tensor
from torchao.quantization.granularity import PerRow, PerTensor
from torchao.quantization.quant_primitives import MappingType
from torchao.quantization.quantize_.workflows import QuantizeTensorToInt8Kwargs

from lorascope.errors import ModelError
from lorascope.machine.devices import compute_type
from lorascope.quantizers.readable import Readable

BY_TOKEN = QuantizeTensorToInt8Kwargs(PerRow(), MappingType.SYMMETRIC)
BY_LAYER = QuantizeTensorToInt8Kwargs(PerTensor(), MappingType.ASYMMETRIC)


class EightBitInputsLinear(Readable, nn.Linear):
    """What torchao makes of a layer by `Int8DynamicActivationInt8WeightConfig` or, with calibrated
    inputs, `Int8StaticActivationInt8WeightConfig`: the same product, from tensors that
    transformers saves and loads as they are.

    Args:
        static: whether the constants of its inputs are stored.
    """

    scales: Tensor
    """Of weights [out, 1], float32."""
    input_scale: Tensor | None
    """[1], float32; None where each token has its own."""
    input_zero_point: Tensor | None
    """[1], int8."""

    def __init__(self, in_features: int, out_features: int, bias: bool, static: bool) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = in_features, out_features
        codes = torch.empty((out_features, in_features), dtype=torch.int8)
        self.weight = nn.Parameter(codes, requires_grad=False)
        # In transformers' hands the default type is that of what is not quantized.
        self.register_buffer("scales", torch.empty(out_features, 1, dtype=torch.float32))
        scale = torch.empty(1, dtype=torch.float32) if static else None
        self.register_buffer("input_scale", scale)
        zero_point = torch.empty(1, dtype=torch.int8) if static else None
        self.register_buffer("input_zero_point", zero_point)
        own_bias = nn.Parameter(torch.empty(out_features), requires_grad=False) if bias else None
        self.register_parameter("bias", own_bias)

    def store(self, weight: Tensor) -> None:
        """Hold `weight` [out, in] as codes, chosen in float32."""
        coded = coded_weight(weight)
        self.weight = nn.Parameter(coded.qdata, requires_grad=False)
        self.scales = coded.scale

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out] in the type that products of x are computed in.

        Raises:
            ModelError: a gradient is asked for: rounding has none.
        """
        if x.requires_grad and torch.is_grad_enabled():
            raise ModelError(
                "this model rounds the inputs of its layers to 8 bits, which no gradient passes: "
                "it is for serving. Train on quant=fp16 or int8_sym."
            )
        compute = compute_type(x)
        bias = None if self.bias is None else self.bias.to(compute)
        return functional.linear(x.to(compute), self._weight(compute, x.dim()), bias)

    def _weight(self, compute: torch.dtype, dims: int) -> Tensor:
        """torchao's tensor of the same memory, for inputs with so many dimensions."""
        inputs: dict[str, Any] = {"act_quant_kwargs": BY_TOKEN}
        if self.input_scale is not None and self.input_zero_point is not None:
            inputs = {
                "act_quant_kwargs": BY_LAYER,
                "act_quant_scale": self.input_scale.view([1] * dims),
                "act_quant_zero_point": self.input_zero_point.view([1] * dims),
            }
        block = [1, self.in_features]
        weight: Tensor = Int8Tensor(self.weight.data, self.scales, block, compute, **inputs)
        return weight

    def read_weight(self) -> Tensor:
        """The weight [out, in], float32."""
        return self.weight.data.float() * self.scales


def coded_weight(weight: Tensor) -> Any:
    """torchao's tensor of a weight [out, in]: int8 codes, and a float32 scale a row."""
    return Int8Tensor.from_hp(weight.detach().float(), PerRow())
