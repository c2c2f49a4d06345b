"""Bytes of a stored base, and how far quantization moved its weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lorascope.bases.folder import runs_own_code
from lorascope.bases.heads import class_of
from lorascope.bases.weights import dtype_of_matrices
from lorascope.config import QuantConfig
from lorascope.errors import ModelError
from lorascope.quantizers.kinds import PLAIN, quantized_layers, quantizer_of
from lorascope.quantizers.loading import base_dtype, load_stored, unquantized_dtype
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


def _unseen_bytes(tensors: Iterable[torch.Tensor], seen: set[int]) -> int:
    """Bytes of tensors whose storages are not `seen` yet; now they are."""
    total = 0
    for tensor in tensors:
        storage = tensor.untyped_storage().data_ptr()
        if storage not in seen:
            seen.add(storage)
            total += tensor.nbytes
    return total


def measure_footprint(model: nn.Module) -> Footprint:
    """Walk every parameter, buffer and quantization state: `get_memory_footprint` leaves out the
    constants, so NF4 with and without double quantization would look the same."""
    seen: set[int] = set()
    quantized = list(quantized_layers(model))
    weights = _unseen_bytes((layer.weight for _, layer, _ in quantized), seen)
    constants = [t for _, layer, own in quantized for t in own.constants(layer)]
    constant_bytes = _unseen_bytes(constants, seen)
    rest = _unseen_bytes((*model.parameters(), *model.buffers()), seen)
    parameters = sum(layer.in_features * layer.out_features for _, layer, _ in quantized)
    return Footprint(parameters, weights, constant_bytes, rest)


def require_values_in_range(stored: nn.Module, quant: str, dtype: torch.dtype) -> None:
    """Raise ModelError where a value of the base, which was finite, is none in the stored mode.

    Args:
        dtype: of what is not quantized; weights in 4 bits are computed in it too.
    """
    limit = torch.finfo(dtype).max
    modules: list[tuple[str, Any]] = list(stored.named_modules())
    for name, module in modules:
        quantizer = quantizer_of(module)
        for own, tensor in (*module.named_parameters(recurse=False), *_own_buffers(module)):
            quantized = own == "weight" and quantizer is not PLAIN
            if not quantized and not tensor.is_floating_point():
                continue
            values = quantizer.weight(module) if quantized else tensor
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
    """Buffers that a file holds: masks that are made anew may be infinite."""
    own = module.named_buffers(recurse=False)
    return ((n, b) for n, b in own if n not in module._non_persistent_buffers_set)


def layer_errors(reference: nn.Module, stored: nn.Module, names: list[str]) -> list[LayerError]:
    """Relative error and bits a parameter, layer by layer, against the full-precision base."""
    errors = []
    for name in names:
        exact = PLAIN.weight(reference.get_submodule(name))
        layer: Any = stored.get_submodule(name)
        quantizer = quantizer_of(layer)
        difference = quantizer.weight(layer).to(exact.device) - exact
        size = float(exact.pow(2).mean().sqrt())
        # A matrix of zeros is stored as zeros in every mode.
        relative = float(difference.pow(2).mean().sqrt()) / size if size else 0.0
        constants = quantizer.constants(layer, shared=False)
        stored_bytes = _unseen_bytes([layer.weight, *constants], set())
        errors.append(LayerError(name, relative, 8 * stored_bytes / exact.numel()))
    return errors


def compared(
    source: Path, folder: Path, quant: QuantConfig, names: list[str]
) -> tuple[nn.Module, list[LayerError]]:
    """The stored model as it is on disk, and the errors of the layers `names` against the exact
    base in `source`.

    Both are read in the types of their files, so that their values stay there until a layer is
    looked at.
    """
    exact = class_of(source).from_pretrained(
        source,
        dtype=dtype_of_matrices(source),
        use_safetensors=True,
        trust_remote_code=runs_own_code(source),
    )
    stored = load_stored(folder, quant)
    require_values_in_range(stored, quant.name, unquantized_dtype(quant, base_dtype(source)))
    return stored, layer_errors(exact, stored, names)
