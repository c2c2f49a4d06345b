"""What a stored base weighs, to the byte, and how far quantization moved its weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit, int8_vectorwise_dequant
from torch import nn

from lorascope.errors import ModelError
from lorascope.quantizers.loading import is_quantized
from lorascope.records import LayerError


@dataclass(frozen=True)
class Footprint:
    """Bytes of a model in memory, each storage counted once (tied tensors are one storage)."""

    quantized_parameters: int
    quantized_weight_bytes: int
    quantization_constant_bytes: int
    unquantized_bytes: int

    @property
    def total_bytes(self) -> int:
        return (
            self.quantized_weight_bytes + self.quantization_constant_bytes + self.unquantized_bytes
        )

    @property
    def bits_per_quantized_parameter(self) -> float | None:
        """Weights and constants of the quantized layers; None where nothing is quantized."""
        if not self.quantized_parameters:
            return None
        stored_bytes = self.quantized_weight_bytes + self.quantization_constant_bytes
        return 8 * stored_bytes / self.quantized_parameters


class _ByteCounter:
    """Sums tensors' bytes, each storage once."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def add(self, tensors: Iterator[torch.Tensor]) -> int:
        total = 0
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self._seen:
                self._seen.add(storage.data_ptr())
                total += tensor.numel() * tensor.element_size()
        return total


def measure_footprint(model: nn.Module) -> Footprint:
    """Walk every parameter, buffer and quantization state: `get_memory_footprint` leaves out the
    constants, so NF4 with and without double quantization would look the same."""
    counter = _ByteCounter()
    quantized: list[Any] = [module for module in model.modules() if is_quantized(module)]
    weights = counter.add(module.weight for module in quantized)
    constants = counter.add(t for module in quantized for t in quantization_constants(module))
    rest = counter.add(model.parameters()) + counter.add(model.buffers())
    parameters = sum(logical_shape(module).numel() for module in quantized)
    return Footprint(parameters, weights, constants, rest)


def quantization_constants(module: Any) -> Iterator[torch.Tensor]:
    """Scales, code tables and nested constants of one quantized layer."""
    weight = module.weight
    scales = int8_scales(module)
    if scales is not None:
        yield scales
    state = getattr(weight, "quant_state", None)
    while state is not None:
        yield from (t for t in (state.absmax, state.code) if t is not None)
        if isinstance(getattr(state, "offset", None), torch.Tensor):
            yield state.offset
        state = getattr(state, "state2", None)


def int8_scales(module: Any) -> torch.Tensor | None:
    """The row scales of an INT8 layer, None for others: the first forward pass moves them from the
    weight to the layer's state."""
    scales: torch.Tensor | None = getattr(module.weight, "SCB", None)
    if scales is None and hasattr(module, "state"):
        scales = getattr(module.state, "SCB", None)
    return scales


def logical_shape(module: Any) -> torch.Size:
    """[out, in] of a layer, whatever its weight is packed into."""
    state = getattr(module.weight, "quant_state", None)
    return torch.Size(module.weight.shape if state is None else state.shape)


def dequantized_weight(module: Any) -> torch.Tensor:
    """The weight that a layer stands for, [out, in], in float32."""
    weight = module.weight
    state = getattr(weight, "quant_state", None)
    exact: torch.Tensor = weight.data
    if state is not None:
        # In the stored 16 bits the product of code and scale would be rounded once more.
        state = copy.copy(state)
        state.dtype = torch.float32
        exact = dequantize_4bit(weight.data, state)
    elif (scales := int8_scales(module)) is not None:
        exact = int8_vectorwise_dequant(weight.data, scales)
    return exact.float()


def require_values_in_range(stored: nn.Module, quant: str, dtype: torch.dtype) -> None:
    """Raise ModelError where a value of the base, which was finite, is none in the stored mode.

    Args:
        dtype: of what is not quantized; weights in 4 bits are computed in it too.
    """
    limit = torch.finfo(dtype).max
    modules: list[tuple[str, Any]] = list(stored.named_modules())
    for name, module in modules:
        for own, tensor in (*module.named_parameters(recurse=False), *_own_buffers(module)):
            quantized = own == "weight" and is_quantized(module)
            if not quantized and not tensor.is_floating_point():
                continue
            values = dequantized_weight(module) if quantized else tensor
            fits = values.abs() <= limit if quantized else torch.isfinite(values)
            if lost := int((~fits).sum()):
                narrow = "float16" if quantized else str(tensor.dtype).removeprefix("torch.")
                raise ModelError(
                    f"quant={quant}: {lost:,} of {values.numel():,} values of {name}.{own} "
                    f"overflow {narrow}, whose largest is "
                    f"{torch.finfo(getattr(torch, narrow)).max:,.0f}. Use quant=bf16 or fp32, "
                    "or for 8 and 4 bits a base saved in bf16."
                )


def _own_buffers(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Those that a file holds: masks that are made anew may be infinite."""
    own = module.named_buffers(recurse=False)
    return ((n, b) for n, b in own if n not in module._non_persistent_buffers_set)


def layer_errors(reference: nn.Module, stored: nn.Module, names: list[str]) -> list[LayerError]:
    """Relative error and bits a parameter, layer by layer, against the full-precision base."""
    errors = []
    for name in names:
        original: Any = reference.get_submodule(name)
        exact: torch.Tensor = original.weight.detach().float()
        module: Any = stored.get_submodule(name)
        difference = dequantized_weight(module).to(exact.device) - exact
        size = float(exact.pow(2).mean().sqrt())
        # A matrix of zeros is stored as zeros in every mode.
        relative = float(difference.pow(2).mean().sqrt()) / size if size else 0.0
        counter = _ByteCounter()
        weight_bytes = counter.add(iter([module.weight]))
        scales = _scale_bytes(module) if is_quantized(module) else 0
        bits = 8 * (weight_bytes + scales) / exact.numel()
        errors.append(LayerError(name, relative, bits))
    return errors


def _scale_bytes(module: Any) -> int:
    """Constants of one layer without the code tables, which all layers share."""
    tables = set()
    state = getattr(module.weight, "quant_state", None)
    while state is not None:
        if state.code is not None:
            tables.add(state.code.data_ptr())
        state = getattr(state, "state2", None)
    constants = (t for t in quantization_constants(module) if t.data_ptr() not in tables)
    return _ByteCounter().add(constants)
