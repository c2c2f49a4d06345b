"""A model that is measured, not trained: its mode, its forward pass, and its loss on a split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from lorascope.objectives.kinds import Forward, Objective, Sample, TokenBatch
from lorascope.objectives.masks import unread_masks
from lorascope.quantizers.kinds import quantized_layers


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluate without gradients and without traces: every module's training flag comes back.

    Raises:
        ModelError: an evaluation would change what a layer of the base stores.
    """
    for name, layer, quantizer in quantized_layers(model):
        quantizer.require_evaluable(name, layer)
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in flags:
            module.training = training


def forward_of(model: Any) -> Forward:
    """The forward pass of a base, or of a base with PEFT's adapter on it."""

    def forward(batch: TokenBatch, adapters: bool = True) -> Tensor:
        kind = batch.input_ids.device.type
        with unread_masks(kind), nullcontext() if adapters else model.disable_adapter():
            logits: Tensor = model(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
            ).logits
        return logits

    return forward


def summed_loss(
    objective: Objective, model: nn.Module, samples: Sequence[Sample], batch_size: int
) -> tuple[float, int]:
    """Loss of all samples, and what to divide it by for a mean: (sum, weight).

    The host waits for the device after the last batch.

    Raises:
        ModelError: an evaluation would change what a layer of the base stores.
    """
    device, forward = next(model.parameters()).device, forward_of(model)
    total, weight = torch.zeros((), dtype=torch.float64, device=device), 0
    with evaluation_mode(model):
        for start in range(0, len(samples), batch_size):
            batch = objective.collate(samples[start : start + batch_size], 1, 0)
            weight += int(batch.weights.sum())
            total += objective.validation_loss(forward, batch.to(device))
    return float(total), weight
