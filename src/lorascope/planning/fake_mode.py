"""Fake tensors, and where libraries need another way for them than for real ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from bitsandbytes.functional import dequantize_4bit, int8_vectorwise_dequant
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from peft.tuners.lora import dora
from torch import Tensor
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import masking_utils
from transformers.integrations import moe

from lorascope.meters.tracker import TensorTracker
from lorascope.training import linear as packed_linear


@contextmanager
def fake_tensors() -> Iterator[None]:
    """Tensors that are made inside have shapes and types, and no data."""
    # It logs each of its own failures with a stack, before raising it.
    silenced = patch.object(fake_tensor.log, "disabled", True)
    experts = patch.object(moe, "_grouped_mm", _experts_product)
    # What values would be outliers of LLM.int8 cannot be known.
    outliers = patch.object(packed_linear, "has_outliers", _never)
    with silenced, FakeTensorMode(), experts, outliers, dequantizing():
        yield


@contextmanager
def dequantizing() -> Iterator[None]:
    """Let DoRA, which takes the norms of whole weights, dequantize those of layers without data."""
    modules = (dora, packed_linear)
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(patch.object(module, "dequantize_module_weight", _dequantized))
        yield


def _dequantized(layer: Any) -> Tensor:
    """The weight [out, in], by the operations with which PEFT dequantizes it."""
    weight: Tensor = layer.weight
    if not isinstance(layer, (Linear4bit, Linear8bitLt)):
        return weight
    if weight.is_meta:
        return torch.empty(layer.out_features, layer.in_features)
    if isinstance(layer, Linear4bit):
        weight = dequantize_4bit(weight.data, layer.quant_state)
    else:
        weight = int8_vectorwise_dequant(weight.data, layer.state.SCB)
    return weight


def _experts_product(inputs: Tensor, weight: Tensor, offs: Tensor) -> Tensor:
    """[rows, in] x [experts, in, out] -> [rows, out], saving what the grouped kernel saves.

    torch (2.13) refuses its own in types other than bfloat16 where tensors have no data.
    """
    return inputs.to(weight.dtype) @ weight[0]


@contextmanager
def attention_masks(padded: bool) -> Iterator[None]:
    """transformers looks whether anything is padded, which fake tensors cannot say: without
    padding it needs no mask; for fake tensors it makes one."""
    with ExitStack() as stack:
        if not padded:
            for name, stand_in in (("is_tracing", _never), ("fast_all", _always)):
                stack.enter_context(patch.object(masking_utils, name, stand_in))
        yield


def _never(*_: object) -> bool:
    return False


def _always(*_: object) -> bool:
    return True


class FakeTracker(TensorTracker):  # type: ignore[no-untyped-call]
    """The tracker without its part in the lookups of a tensor's device, which make nothing and are
    two thirds of what it sees of fake tensors."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.prim.device.default:
            return func(*args)
        return super().__torch_dispatch__(func, types, args, kwargs)
