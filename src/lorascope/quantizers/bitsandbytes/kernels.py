"""What bitsandbytes' Python kernels allocate inside, as runs on tensors without data.

They follow `bitsandbytes/backends/{default,cuda}/ops.py` (0.50.2) line by line; only shapes and
types matter. Activations are assumed to have no outliers beyond the INT8 threshold: how many
columns have some is known only with data. Each would add one 16-bit number a row, and a column of
the weight. Only evaluation meets them: training steps dequantize the weight.
"""

from __future__ import annotations

from typing import Any

import torch
from bitsandbytes.backends.default.ops import _gemm_4bit_default_impl
from torch import Tensor

from lorascope.quantizers.kinds import Kernel

HAS_AVX512 = torch.backends.cpu.get_cpu_capability() == "AVX512"


def gemm_4bit(*args: Any, **kwargs: Any) -> Tensor:
    """A 4-bit product: constants and weight dequantized whole, then a product (CUDA has a fused
    kernel for a few rows only). Real tensors give bitsandbytes' own result: it is its kernel."""
    result: Tensor = _gemm_4bit_default_impl(*args, **kwargs)
    return result


def int8_vectorwise_quant(inputs: Tensor, threshold: float = 0.0) -> tuple[Tensor, ...]:
    """[rows, in] float16 -> (int8 [rows, in], scales [rows], no outlier columns), on a CPU."""
    outliers = inputs.abs() >= threshold
    scales = torch.max(inputs.abs(), dim=1).values.float()
    rounded = torch.round(inputs * (127.0 / scales.unsqueeze(-1))).to(torch.int8)
    del outliers
    return rounded, scales, inputs.new_empty(0, dtype=torch.int64)


def int8_vectorwise_quant_cuda(inputs: Tensor, threshold: float = 0.0) -> tuple[Tensor, ...]:
    """The same on CUDA, where rounding is one compiled kernel."""
    scales = inputs.new_empty(inputs.numel() // inputs.shape[-1], dtype=torch.float32)
    rounded = torch.empty_like(inputs, dtype=torch.int8)
    outliers = inputs.abs() >= threshold
    del outliers
    return rounded, scales, inputs.new_empty(0, dtype=torch.int64)


def int8_mixed_scaled_mm(
    inputs: Tensor,
    codes: Tensor,
    weight: Tensor,
    input_scales: Tensor,
    weight_scales: Tensor,
    outlier_columns: Tensor | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """int8 [rows, in] x [out, in] -> [rows, out] in the inputs' type, on a CPU."""
    if HAS_AVX512:
        product = torch._int_mm(codes, weight.t())
    else:
        product = torch.matmul(codes.float(), weight.float().t()).to(torch.int32)
    result = product * (input_scales.unsqueeze(-1) * weight_scales.unsqueeze(0)) * 6.2e-05
    if bias is not None:
        result += bias
    return result.to(inputs.dtype), inputs.new_empty(0)


def int8_mixed_scaled_mm_cuda(
    inputs: Tensor, codes: Tensor, weight: Tensor, *_: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The same on CUDA: a 32-bit integer product, float16, and the inputs' type."""
    product = inputs.new_empty((codes.shape[0], weight.shape[0]), dtype=torch.int32)
    half = torch.empty_like(product, dtype=torch.float16)
    return half.to(inputs.dtype), inputs.new_empty(0)


OPERATIONS = torch.ops.bitsandbytes
FOUR_BIT = {OPERATIONS.gemm_4bit.default: Kernel(gemm_4bit, exact=True)}
EIGHT_BIT = {
    "cpu": {
        OPERATIONS.int8_vectorwise_quant.default: Kernel(int8_vectorwise_quant),
        OPERATIONS.int8_mixed_scaled_mm.default: Kernel(int8_mixed_scaled_mm),
    },
    "cuda": {
        OPERATIONS.int8_vectorwise_quant.default: Kernel(int8_vectorwise_quant_cuda),
        OPERATIONS.int8_mixed_scaled_mm.default: Kernel(int8_mixed_scaled_mm_cuda),
    },
}
"""By kind of device."""
