"""Linear layers whose weights are packed codes on a grid."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from lorascope.machine.devices import compute_type
from lorascope.quantizers.readable import Readable
from lorascope.quantizers.torchao.codes import Coded, coded, decoded, packed, unpacked
from lorascope.quantizers.torchao.grid import Grid


class GridLinear(Readable, nn.Linear):
    """A product with the weight that packed codes, scales and zero points stand for.

    torchao's own layers keep a byte a code, and the whole decoded weight for the backward pass.

    Args:
        scale_dtype: the type of scales, 16 bits or float32.
    """

    scales: Tensor
    """[out, groups]"""
    zero_points: Tensor | None
    """[out, groups], uint8; None of a symmetric grid."""

    def __init__(
        self, in_features: int, out_features: int, bias: bool, grid: Grid, scale_dtype: torch.dtype
    ) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.grid = in_features, out_features, grid
        groups = -(-in_features // (grid.group_size or in_features))
        code_bytes = -(-in_features * out_features * grid.bits // 8)
        codes = torch.empty(code_bytes, dtype=torch.uint8)
        # PEFT looks for a layer's weight, and transformers for its buffers' types.
        self.weight = nn.Parameter(codes, requires_grad=False)
        self.register_buffer("scales", torch.empty((out_features, groups), dtype=scale_dtype))
        zeros = None if grid.symmetric else torch.empty((out_features, groups), dtype=torch.uint8)
        self.register_buffer("zero_points", zeros)
        own_bias = nn.Parameter(torch.empty(out_features), requires_grad=False) if bias else None
        self.register_parameter("bias", own_bias)

    @property
    def codes(self) -> Tensor:
        """[out, in]"""
        return unpacked(self.weight.data, self.grid, (self.out_features, self.in_features))

    def store(self, weight: Tensor) -> None:
        """Hold `weight` [out, in] on the grid, each value as the nearest code."""
        self.hold(coded(weight, self.grid, self.scales.dtype))

    def hold(self, on: Coded) -> None:
        """Hold codes that were chosen."""
        self.weight = nn.Parameter(packed(on.codes, self.grid), requires_grad=False)
        self.scales, self.zero_points = on.scales, on.zero_points

    def decoded(self, dtype: torch.dtype) -> Tensor:
        """The weight [out, in]."""
        return decoded(self.codes, self.scales, self.zero_points, self.grid, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out] in the type that products of x are computed in."""
        compute = compute_type(x)
        bias = None if self.bias is None else self.bias.to(compute)
        result: Tensor = DecodedProduct.apply(x.to(compute), bias, self)  # type: ignore[no-untyped-call]
        return result

    def read_weight(self) -> Tensor:
        """The weight [out, in], float32."""
        return self.decoded(torch.float32)


class DecodedProduct(torch.autograd.Function):
    """x W^T + bias, with W made of codes in each pass: nothing waits for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, layer: GridLinear) -> Tensor:
        """x [..., in] -> [..., out] in x's type."""
        ctx.layer = layer
        return functional.linear(x, layer.decoded(x.dtype), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient [..., out] -> gradient [..., in]."""
        weight = ctx.layer.decoded(gradient.dtype)
        rows = gradient.reshape(-1, gradient.shape[-1]).contiguous()
        of_x = torch.matmul(rows, weight)
        return of_x.view(*gradient.shape[:-1], weight.shape[1]), None, None
