"""Adapters of trials whose ranks are padded to the same one, as one matrix that training reads."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from lorascope.adapters.lora.product import LayerStack
from lorascope.config import LoraConfig
from lorascope.counting.parameters import padded_rank


@dataclass(frozen=True)
class AdapterWeights:
    """One trial's values by layer: A [rank, in], B [out, rank]; for DoRA the magnitude [out]."""

    a: dict[str, Tensor]
    b: dict[str, Tensor]
    magnitude: dict[str, Tensor]

    def tensors(self) -> Iterator[Tensor]:
        """All of them."""
        for part in (self.a, self.b, self.magnitude):
            yield from part.values()


def adapter_weights(model: PeftModel) -> AdapterWeights:
    """The values of a model's only adapter, by the adapted layer's name in the base."""
    layers = dict(_lora_layers(model))
    return AdapterWeights(
        a={name: layer.lora_A["default"].weight for name, layer in layers.items()},
        b={name: layer.lora_B["default"].weight for name, layer in layers.items()},
        magnitude={
            name: layer.lora_magnitude_vector["default"].weight
            for name, layer in layers.items()
            if layer.lora_magnitude_vector
        },
    )


def put_weights(model: PeftModel, weights: AdapterWeights) -> None:
    """Let the model's adapter hold these very tensors."""
    own = adapter_weights(model)
    for part in ("a", "b", "magnitude"):
        for name, parameter in getattr(own, part).items():
            parameter.data = getattr(weights, part)[name]


def _lora_layers(model: PeftModel) -> Iterator[tuple[str, Any]]:
    for name, module in model.base_model.model.named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


@dataclass(frozen=True)
class AdapterShapes:
    """What decides a stack's layout."""

    layers: Mapping[str, tuple[int, int]]
    """(in, out) of each adapted layer."""
    dora: bool

    def parameters(self, rank: int) -> int:
        """Of one adapter."""
        extra = 1 if self.dora else 0
        return sum(rank * (wide + high) + extra * high for wide, high in self.layers.values())


@dataclass
class AdapterStack:
    """Neighbouring trials of a pack whose ranks are padded to the same one, as one matrix [trials,
    parameters of a padded adapter]."""

    start: int
    """The first one's place in the pack."""
    loras: list[LoraConfig]
    shapes: AdapterShapes
    device: torch.device | str
    rank: int = field(init=False)
    values: Tensor = field(init=False)
    gradients: Tensor = field(init=False)
    layers: dict[str, LayerStack] = field(init=False)
    rows: list[nn.Parameter] = field(init=False)
    """Each trial's parameters as one vector."""
    best: Tensor | None = field(init=False, default=None)
    """Room for each trial's best values, where `PackedModel.keep_best` made it."""

    def __post_init__(self) -> None:
        self.rank = padded_rank(self.loras[0].rank)
        size = (len(self.loras), self.shapes.parameters(self.rank))
        self.values = torch.zeros(size, device=self.device)
        self.gradients = torch.zeros(size, device=self.device)
        scale = torch.tensor([scaling(lora) for lora in self.loras], device=self.device)
        dropouts = [lora.dropout for lora in self.loras]
        views = self._views(self.values)
        self.layers = {
            name: LayerStack(scale[:, None, None], dropouts, *(nn.Parameter(v) for v in parts))
            for name, parts in views.items()
        }
        self.rows = [nn.Parameter(row) for row in self.values]
        # Each layer's gradients are added up in the one matrix that the optimizer reads.
        gradients = self._views(self.gradients)
        for name, layer in self.layers.items():
            for parameter, gradient in zip(layer.parameters(), gradients[name], strict=True):
                parameter.grad = gradient
        self.clear_gradients()

    def _views(self, matrix: Tensor) -> dict[str, list[Tensor]]:
        """A [trials, rank, in], B^T [trials, rank, out] and magnitude [trials, out] by layer."""
        trials, start = len(self.loras), 0
        found: dict[str, list[Tensor]] = {}
        for name, (wide, high) in self.shapes.layers.items():
            shapes = [
                (self.rank, wide),
                (self.rank, high),
                *([(high,)] if self.shapes.dora else []),
            ]
            found[name] = []
            for shape in shapes:
                size = math.prod(shape)
                found[name].append(matrix[:, start : start + size].view(trials, *shape))
                start += size
        return found

    def clear_gradients(self) -> None:
        """Zeros in their place, for rows too that a step passed over."""
        self.gradients.zero_()
        for row, gradient in zip(self.rows, self.gradients, strict=True):
            row.grad = gradient

    def read(self, index: int) -> AdapterWeights:
        """Copies of one trial's values, padding apart."""
        rank = self.loras[index].rank
        weights = AdapterWeights({}, {}, {})
        for name, parts in self._views(self.values).items():
            weights.a[name] = parts[0][index, :rank].clone()
            weights.b[name] = parts[1][index, :rank].clone().T.contiguous()
            if self.shapes.dora:
                weights.magnitude[name] = parts[2][index].clone()
        return weights

    def write(self, index: int, weights: AdapterWeights) -> None:
        """Set one trial's values."""
        rank = self.loras[index].rank
        for name, parts in self._views(self.values).items():
            parts[0][index, :rank] = weights.a[name].detach()
            parts[1][index, :rank] = weights.b[name].detach().T
            if self.shapes.dora:
                parts[2][index] = weights.magnitude[name].detach()


def scaling(lora: LoraConfig) -> float:
    """What the adapter's product is multiplied with: alpha / r, or alpha / sqrt(r) for rsLoRA."""
    return lora.alpha / (math.sqrt(lora.rank) if lora.rslora else lora.rank)


def stacks_of(
    loras: Sequence[LoraConfig], shapes: AdapterShapes, device: torch.device | str
) -> list[AdapterStack]:
    """Stacks for the trials of a pack in their order, which is by rank. With dropout DoRA computes
    in another way, so that such trials have a stack of their own."""
    kinds = [(padded_rank(lora.rank), lora.dora and lora.dropout > 0) for lora in loras]
    starts = [i for i, kind in enumerate(kinds) if i == 0 or kind != kinds[i - 1]]
    return [
        AdapterStack(start, list(loras[start:end]), shapes, device)
        for start, end in zip(starts, [*starts[1:], len(loras)], strict=True)
    ]
