"""INT8 layers whose training steps read dequantized weights, on every device.

bitsandbytes (0.50.2) has two ways to train. On a CPU it computes as these layers do. On CUDA it
rounds activations to 8 bits, and an outlier of one row changes how all rows are computed. Both keep
their inputs for the backward pass, where a checkpoint cannot drop them.
"""

from __future__ import annotations

from typing import Any

import torch
from bitsandbytes.nn import Linear8bitLt
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from lorascope.machine.devices import compute_type


class EightBitLinear(Linear8bitLt):  # type: ignore[misc]
    """LLM.int8 in evaluation; in training a product with the dequantized weight."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]: in training in the type that products of x are computed in."""
        if not self.training:
            return super().forward(x)  # type: ignore[no-any-return]
        compute = compute_type(x)
        if self.bias is not None and self.bias.dtype is not compute:
            self.bias.data = self.bias.data.to(compute)
        result: Tensor = DequantizedProduct.apply(  # type: ignore[no-untyped-call]
            x.to(compute), self.weight.data, row_scales(self), self.bias
        )
        return result


class DequantizedProduct(torch.autograd.Function):
    """x W^T + bias, with W made of codes and scales in each pass: codes and scales are all that
    waits for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, codes: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
        """x [..., in], int8 codes [out, in], float32 scales [out] -> [..., out] in x's type."""
        ctx.save_for_backward(codes, scales)
        return functional.linear(x, _dequantized(codes, scales, x.dtype), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient [..., out] -> gradient [..., in]."""
        codes, scales = ctx.saved_tensors
        weight = _dequantized(codes, scales, gradient.dtype)
        rows = gradient.reshape(-1, gradient.shape[-1]).contiguous()
        of_x = torch.matmul(rows, weight)
        return of_x.view(*gradient.shape[:-1], weight.shape[1]), None, None, None


def row_scales(layer: Any) -> Tensor:
    """Scales [out]: the first evaluation moves them from the weight to the layer's state."""
    scales: Tensor | None = getattr(layer.weight, "SCB", None)
    return layer.state.SCB if scales is None else scales


def _dequantized(codes: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """[out, in], as bitsandbytes rounds it: the scale over 127 first."""
    return codes.to(dtype).mul_(scales.unsqueeze(1).mul(1.0 / 127.0))
