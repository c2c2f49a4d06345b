"""What of a traced model stays between two steps: bytes of its parts, counts of parameters."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lorascope.adapters.kinds import kind_of
from lorascope.counting.parameters import FLOAT32_BYTES
from lorascope.meters.tracker import TensorTracker, persistent_tensors, quantized_constants
from lorascope.planning.arithmetic import block_bytes
from lorascope.planning.fake_model import ELSEWHERE, FakeModelSpec
from lorascope.quantizers.kinds import quantized_layers
from lorascope.records import LinearShape
from lorascope.training.pack import PackedModel


def persistent_parts(
    model: PackedModel, optimizer: torch.optim.Optimizer, spec: FakeModelSpec
) -> dict[str, int]:
    """Bytes of base, constants, adapter, its best copy, gradients and optimizer, and counts of
    parameters, of what `spec` counts."""
    present = partial(_present, spec)
    trained = present(p for p in model.parameters() if p.requires_grad)
    everything, quantized = TensorTracker(), TensorTracker()
    everything.add(present(persistent_tensors(model)))
    quantized.add(present(quantized_constants(model)))
    adapter = sum(parameter.nbytes for parameter in trained)
    best = sum(row.nbytes for row in present(model.best_rows))
    frozen = frozen_beside(model)
    states = [value for state in optimizer.state.values() for value in state.values()]
    return {
        "base": everything.live_bytes - 2 * adapter - best - frozen,
        "constants": quantized.live_bytes,
        "adapter": adapter + frozen,
        "best": best,
        "gradients": adapter,
        # As PEFT holds the largest one.
        "saved_adapter": FLOAT32_BYTES * _saved_parameters(model, spec),
        "reading": _reading(model, spec),
        "optimizer": sum(value.nbytes for value in present(states)),
        # Of a base that is whole on each device; see `planning.shards`.
        "spared": 0,
        "gathered": 0,
        **_parameter_counts(model, spec),
    }


def _present(spec: FakeModelSpec, values: Iterable[Any]) -> list[Any]:
    """The tensors among `values` that are counted: of a model whose layers lie elsewhere, those
    there."""
    counted = torch.device(ELSEWHERE)
    return [
        own
        for own in values
        if isinstance(own, Tensor) and (not spec.elsewhere or own.device == counted)
    ]


def _saved_parameters(model: PackedModel, spec: FakeModelSpec) -> int:
    """Parameters of the largest adapter as it is saved."""
    if not spec.adapter.subtracts():
        return max(model.stack.parameters)
    layers = _adapted_shapes(model)
    return max(kind_of(own).parameters(own.saved(), layers) for own in spec.pack)


def _reading(model: PackedModel, spec: FakeModelSpec) -> int:
    """Bytes that a trial's method holds while it reads before the first step."""
    layers = _adapted_shapes(model) if any(own.reads_samples() for own in spec.pack) else []
    return max(kind_of(own).reading_bytes(own, layers) for own in spec.pack)


def _adapted_shapes(model: PackedModel) -> list[LinearShape]:
    named = [(name, model.base.get_submodule(name)) for name in model.layers]
    return [
        LinearShape(name, name.rpartition(".")[2], int(own.in_features), int(own.out_features))
        for name, own in named
    ]


def frozen_beside(model: PackedModel, device: str = "cpu") -> int:
    """Bytes of what a method keeps beside the base's layers without training it, shared tensors
    once: VeRA's matrices, DoRA's norms of the base."""
    kept = TensorTracker(block_bytes(device))
    for name in model.layers:
        buffers = model.base.get_submodule(name).named_buffers()
        kept.add(tensor for own, tensor in buffers if not own.startswith("base_layer."))
    return kept.live_bytes


def _parameter_counts(model: PackedModel, spec: FakeModelSpec) -> dict[str, int]:
    """Parameters of the frozen base, before any packing into bytes; tied ones count once."""
    layers = [layer for _, layer, _ in quantized_layers(model)]
    quantized = [layer.in_features * layer.out_features for layer in layers]
    packed = {id(layer.weight) for layer in layers}
    others = [
        parameter.numel()
        for parameter in _present(spec, model.parameters())
        if not parameter.requires_grad and id(parameter) not in packed
    ]
    return {
        "parameters": sum(quantized) + sum(others),
        "quantized_parameters": sum(quantized),
        "largest_quantized": max(quantized, default=0),
        "largest_other": max(others, default=0),
    }
