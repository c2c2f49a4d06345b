"""A model that is measured, not trained: its mode, its forward pass, its loss on a split, and the
log-probabilities that it gives tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional

from lorascope.machine.devices import autocast
from lorascope.machine.ranks import ALONE, Ranks
from lorascope.objectives.kinds import (
    Forward,
    Objective,
    Places,
    Sample,
    TokenBatch,
    longest_tokens,
)
from lorascope.objectives.logits import Logits, forward_at
from lorascope.objectives.padding_free import can_do_without, without_padding
from lorascope.objectives.shares import own_batch
from lorascope.quantizers.kinds import quantized_layers

TOKENS_AT_ONCE = 4096
"""Tokens of one forward pass, padding included, more of which keep no device busier."""


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluate in the precision of training, without gradients and without traces: every module's
    training flag comes back. ModelError where that would change what a layer of the base stores."""
    for name, layer, quantizer in quantized_layers(model):
        quantizer.require_evaluable(name, layer)
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        casts = autocast(*_computing(model), keep_casts=False)
        with torch.no_grad(), casts, lora_under_autocast(model):
            yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def lora_under_autocast(model: nn.Module) -> Iterator[None]:
    """While inside, PEFT's LoRA layers leave their inputs as they are. PEFT (0.21) brings them to
    the adapter's float32, which autocast brings back before it multiplies: the same bits, for a
    seventh of a forward pass at 135 million parameters in bfloat16."""
    layers = [
        layer
        for layer in model.modules()
        # Variants, such as DoRA, compute with inputs in other ways too.
        if isinstance(layer, LoraLayer) and not layer.lora_variant
    ]
    before = [layer.cast_input_dtype_enabled for layer in layers]
    try:
        for layer in layers:
            layer.cast_input_dtype_enabled = False
        yield
    finally:
        for layer, casts in zip(layers, before, strict=True):
            layer.cast_input_dtype_enabled = casts


def _computing(model: Any) -> tuple[str, torch.dtype]:
    """Kind of device and type that a model computes in: loading brings its embeddings to that type,
    whatever they are stored in."""
    weight = model.get_input_embeddings().weight
    return weight.device.type, weight.dtype


def forward_of(model: Any) -> Forward:
    """The forward pass of a base, or of a base with PEFT's adapter on it."""
    base = _base_of(model)

    def forward(batch: TokenBatch, places: Places, adapters: bool = True) -> Logits:
        with nullcontext() if adapters else model.disable_adapter():
            return forward_at(
                base, batch.input_ids, batch.attention_mask, places, batch.token_types, batch.rows
            )

    return forward


def _base_of(model: Any) -> Any:
    return model.get_base_model() if isinstance(model, PeftModel) else model


def samples_at_once(batch_size: int, longest: int) -> int:
    """Samples of one forward pass, of a batch whose longest sample has so many tokens, those of all
    its sequences."""
    return min(batch_size, max(1, TOKENS_AT_ONCE // longest))


def summed_loss(
    objective: Objective,
    model: nn.Module,
    samples: Sequence[Sample],
    batch_size: int,
    before_batch: Callable[[TokenBatch], None] = lambda batch: None,
    ranks: Ranks = ALONE,
) -> tuple[float, int]:
    """Loss of all samples, and what to divide it by for a mean: (sum, weight).

    Samples are padded to the longest of their batch, also where memory asks for smaller ones, so
    that nothing changes but the order of a sum in FP64; without padding nothing but rounding. The
    host waits for the device after the last one. It raises what `evaluation_mode` does.

    Args:
        ranks: the processes that divide each batch; the sums are those of all.
    """
    device, forward, base = next(model.parameters()).device, forward_of(model), _base_of(model)
    padding_free = can_do_without(base)
    total, weight = torch.zeros((), dtype=torch.float64, device=device), 0
    with evaluation_mode(model):
        for start in range(0, len(samples), batch_size):
            together = samples[start : start + batch_size]
            longest = longest_tokens(together)
            size = samples_at_once(batch_size, objective.sequences * longest)
            for first in range(0, len(together), size):
                rows = together[first : first + size]
                part = (
                    objective.collate(rows, 1, 0, longest)
                    if ranks.count == 1
                    else own_batch(objective, [rows], 0, ranks)
                )
                if padding_free:
                    part = without_padding(part, base.config, trains=False)
                weight += int(part.weights.sum())
                before_batch(part)
                loss = objective.validation_loss(forward, part.to(device))
                total += 0 * loss if part.is_idle else loss
    (weight,) = ranks.add_counts([weight])
    return float(ranks.summed(total)), weight


def log_probabilities(
    model: Any, ids: Tensor, positions: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Log-probabilities [positions, vocabulary] of the tokens behind `positions`, softmax in FP32.

    Args:
        ids: [samples, tokens], padded on the right.
        positions: [positions], counted through all samples.
        mask: [samples, tokens], 1 where a token is. Causal attention needs none.
    """
    places = Places(positions, [len(positions)])
    logits = forward_at(_base_of(model), ids, mask, places).all()
    # A 16-bit log-softmax would cost three digits of every log-likelihood.
    return functional.log_softmax(logits, dim=-1, dtype=torch.float32)
