"""What a model in training keeps between two batches, part by part."""

from __future__ import annotations

import torch
from torch import Tensor

from lorascope.counting.parameters import FLOAT32_BYTES
from lorascope.meters.tracker import TensorTracker, persistent_tensors, quantized_constants
from lorascope.quantizers.kinds import quantized_layers
from lorascope.training.pack import PackedModel


def persistent_parts(model: PackedModel, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """Bytes of base, constants, adapter, its best copy, gradients and optimizer, and counts of
    parameters."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    everything = TensorTracker()
    everything.add(persistent_tensors(model))
    adapter = sum(parameter.nbytes for parameter in trained)
    best = sum(row.nbytes for row in model.best_rows())
    quantized = TensorTracker()
    quantized.add(quantized_constants(model))
    states = [value for state in optimizer.state.values() for value in state.values()]
    return {
        "base": everything.live_bytes - 2 * adapter - best,
        "constants": quantized.live_bytes,
        "adapter": adapter,
        "best": best,
        "gradients": adapter,
        # As PEFT holds the largest one.
        "saved_adapter": FLOAT32_BYTES * max(model.stack.parameters),
        "optimizer": sum(value.nbytes for value in states if isinstance(value, Tensor)),
        **_parameter_counts(model),
    }


def _parameter_counts(model: PackedModel) -> dict[str, int]:
    """Of the frozen base, packed weights counted by what they stand for, tied ones once."""
    layers = list(quantized_layers(model))
    quantized = [quantizer.shape(layer).numel() for _, layer, quantizer in layers]
    packed = {id(layer.weight) for _, layer, _ in layers}
    adapted = [model.base.get_submodule(name) for name in model.layers]
    others = [
        parameter.numel()
        for parameter in model.parameters()
        if not parameter.requires_grad and id(parameter) not in packed
    ]
    return {
        "parameters": sum(quantized) + sum(others),
        "quantized_parameters": sum(quantized),
        "adapted_parameters": sum(m.in_features * m.out_features for m in adapted),
        "largest_quantized": max(quantized, default=0),
        "largest_other": max(others, default=0),
    }
