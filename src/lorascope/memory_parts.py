"""What a model in training keeps between two batches, part by part."""

from __future__ import annotations

import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor

from lorascope.tensor_tracker import TensorTracker, persistent_tensors, quantized_constants


def persistent_parts(model: PeftModel, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """Bytes of base, constants, adapter, gradients and optimizer, and counts of parameters."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    everything = TensorTracker()
    everything.add(persistent_tensors(model))
    adapter = sum(parameter.nbytes for parameter in trained)
    given = sum(parameter.grad.nbytes for parameter in trained if parameter.grad is not None)
    quantized = TensorTracker()
    quantized.add(quantized_constants(model))
    states = [value for state in optimizer.state.values() for value in state.values()]
    return {
        "base": everything.live_bytes - adapter - given,
        "constants": quantized.live_bytes,
        "adapter": adapter,
        "gradients": adapter,
        "optimizer": sum(value.nbytes for value in states if isinstance(value, Tensor)),
        **_parameter_counts(model),
    }


def _parameter_counts(model: PeftModel) -> dict[str, int]:
    """Of the frozen base, packed weights counted by what they stand for, tied ones once."""
    quantized = [
        module.in_features * module.out_features
        for module in model.modules()
        if isinstance(module, (Linear4bit, Linear8bitLt))
    ]
    packed = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, (Linear4bit, Linear8bitLt))
    }
    adapted = [m for m in model.modules() if isinstance(m, LoraLayer)]
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
