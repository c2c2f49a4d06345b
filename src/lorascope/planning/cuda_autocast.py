"""CUDA's automatic mixed precision on fake CPU tensors, as far as the CPU's differs.

The CPU's autocast runs products and attention in 16 bits too, but leaves the operations below in
the type of their input, where CUDA's runs them in float32 (torch/aten/src/ATen/autocast_mode.h,
2.13; those of them that language models use in training).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

IN_FLOAT32 = {
    functional.layer_norm,
    functional.group_norm,
    functional.softmax,
    functional.log_softmax,
    functional.softplus,
    torch.softmax,
    torch.log_softmax,
    torch.pow,
    torch.rsqrt,
    torch.exp,
    torch.log,
    torch.cumsum,
    Tensor.pow,
    Tensor.rsqrt,
    Tensor.softmax,
    Tensor.exp,
    Tensor.log,
    Tensor.cumsum,
    Tensor.norm,
}


class CudaAutocast(TorchFunctionMode):
    """While entered, the operations above see 16-bit inputs in float32."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in IN_FLOAT32:
            args, kwargs = tree_map_only(Tensor, _in_float32, (args, kwargs))
        return func(*args, **kwargs)


def _in_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
