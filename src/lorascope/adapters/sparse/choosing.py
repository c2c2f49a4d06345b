"""Which weights of each layer sparse tuning trains."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from peft import PeftModel
from torch import Tensor

from lorascope.adapters.first_samples import FirstSamples
from lorascope.adapters.sparse.kind import BY_READING, SparseConfig
from lorascope.adapters.sparse.layer import SparseLayer
from lorascope.adapters.stack import step_seed


def choose(config: SparseConfig, model: PeftModel, seed: int, samples: FirstSamples | None) -> None:
    """Give each layer the places of its trained weights: those with the highest scores.

    Args:
        samples: what is read for a choice of BY_READING.
    """
    named = model.get_base_model().named_modules()
    layers = {name: layer for name, layer in named if isinstance(layer, SparseLayer)}
    if config.choice in BY_READING:
        assert samples is not None, f"sparse.choice={config.choice} reads samples"
        for start in range(config.passes):
            part = list(layers.values())[start :: config.passes]
            _choose_by_reading(model, part, samples, squared=config.choice == "fisher")
        return
    for name, layer in layers.items():
        scores = _random(layer, seed, name) if config.choice == "random" else _magnitude(layer)
        _take_highest(layer, scores)


def _choose_by_reading(
    model: PeftModel, layers: Sequence[SparseLayer], samples: FirstSamples, squared: bool
) -> None:
    """By the gradients of the base's own weights, as the differences are zero still. Squares are
    those of single samples; without them all samples' gradients add up first."""
    for layer in layers:
        (places,) = layer.sparse_places.values()
        shape = layer.out_features, layer.in_features
        layer.scores, layer.squared = torch.zeros(shape, device=places.device), squared
    for batch in samples.batches(1 if squared else None):
        samples.loss(model, batch).backward()  # type: ignore[no-untyped-call]
    model.zero_grad()
    model.eval()
    for layer in layers:
        assert layer.scores is not None
        scores, layer.scores = layer.scores, None
        _take_highest(layer, scores.abs_())


def _random(layer: SparseLayer, seed: int, name: str) -> Tensor:
    """Drawn on the CPU, so that every device draws alike."""
    generator = torch.Generator().manual_seed(step_seed(seed, 0, 0, name))
    return torch.rand(layer.out_features, layer.in_features, generator=generator)


def _magnitude(layer: SparseLayer) -> Tensor:
    return layer.base_weight().detach().float().abs()


def _take_highest(layer: SparseLayer, scores: Tensor) -> None:
    """Rising places of the highest of scores [out, in]."""
    (places,) = layer.sparse_places.values()
    highest = scores.flatten().topk(len(places), sorted=False).indices
    places.copy_(highest.sort().values)
