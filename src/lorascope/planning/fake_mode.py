"""Fake tensors, and where libraries need another way for them than for real ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only
from transformers.masking_utils import sdpa_mask

from lorascope.meters.tracker import TensorTracker
from lorascope.objectives.masks import made_by, unread_masks

CUDA_IN_FLOAT32 = {
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
"""Operations that CUDA's autocast runs in float32, where a CPU's leaves them in the type of their
input (torch/aten/src/ATen/autocast_mode.h, 2.13; those of them that language models use in
training). Both run products and attention in 16 bits."""


@contextmanager
def fake_tensors() -> Iterator[None]:
    """Tensors that are made inside have shapes and types, and no data."""
    log, was_disabled = fake_tensor.log, fake_tensor.log.disabled
    # It logs each of its own failures with a stack, before raising it.
    log.disabled = True
    try:
        with FakeTensorMode():
            yield
    finally:
        log.disabled = was_disabled


@contextmanager
def attention_masks(padded: bool, device_kind: str) -> Iterator[None]:
    """The masks that real tensors get on a device. transformers looks whether anything is padded,
    which fake tensors cannot say: it makes a mask for them, where without padding it often needs
    none."""
    unpadded = nullcontext() if padded else made_by("sdpa", _unpadded_mask)
    with unpadded if device_kind == "cpu" else unread_masks(device_kind):
        yield


def _unpadded_mask(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Any:
    if sdpa_mask(*args, attention_mask=None, **kwargs) is None:
        return None
    return sdpa_mask(*args, attention_mask=attention_mask, **kwargs)


class FakeTracker(TensorTracker):  # type: ignore[no-untyped-call]
    """The tracker without its part in the lookups of a tensor's device, which make nothing and are
    two thirds of what it sees of fake tensors.

    Products of experts [rows, in] x [experts, in, out] -> [rows, out] are made of one expert's
    weight: torch (2.13) refuses its own in types other than bfloat16 where tensors have no data.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.prim.device.default:
            return func(*args)
        if func is torch.ops.aten._grouped_mm.default:
            rows, weight = args[:2]
            func, args, kwargs = torch.ops.aten.mm.default, (rows, weight[0]), {}
        return super().__torch_dispatch__(func, types, args, kwargs)


class CudaAutocast(TorchFunctionMode):
    """CUDA's automatic mixed precision on fake CPU tensors, as far as the CPU's differs."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in CUDA_IN_FLOAT32:
            args, kwargs = tree_map_only(Tensor, _in_float32, (args, kwargs))
        return func(*args, **kwargs)


class NumberedDevices(TorchFunctionMode):
    """Has `torch.tensor` make a tensor where it is asked to: of a CPU with a number, another device
    to fake tensors, it forgets the number. Caches of keys and values begin with one."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        made, device = func(*args, **kwargs), kwargs.get("device")
        if func is not torch.tensor or device is None:
            return made
        # Not by `to`: fake tensors that know their values stay where they are.
        return torch.empty(made.shape, dtype=made.dtype, device=device)


def _in_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
