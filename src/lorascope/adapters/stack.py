"""What training knows of the adapters of a pack, whatever their kind; and PEFT's own layers as a
pack of one."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from lorascope.records import LinearShape

Weights = Mapping[str, Tensor]
"""An adapter's values by the name that PEFT's parameter has in the base."""


@dataclass
class PackShape:
    """What all layers of a pack know of the current batch."""

    seeds: list[int]
    """Each trial's, in the pack's order."""
    batch: tuple[int, ...] = ()
    """[trials x samples, tokens]"""
    longest_tokens: int = 0
    """The longest sample's: dropout is drawn for so many, whatever this batch's padding."""
    draw: tuple[int, int] = (0, 0)
    """Optimizer step and micro-batch."""
    adapters: bool = True
    """Whether layers add what the adapters say."""

    @property
    def trials(self) -> int:
        """How many there are."""
        return len(self.seeds)


class Stack(Protocol):
    """The adapters of a pack. Optimizer, checkpoint and validation know no more of them."""

    rows: list[nn.Parameter]
    """Each trial's values as one vector, in the pack's order; padding included."""
    parameters: list[int]
    """Each trial's number of values, padding excluded."""

    def clear_gradients(self) -> None:
        """Zeros where gradients are added up, in their place: vectors and layers share it."""

    def read(self, index: int) -> Weights:
        """Copies of one trial's values, padding excluded."""

    def write(self, index: int, weights: Weights) -> None:
        """Set one trial's values."""


class LayeredStack(Stack, Protocol):
    """Adapters that training adds to what the base's layers give, those of several trials too."""

    def layer(self, name: str, shape: PackShape) -> StackedLayer:
        """What stands beside a layer of the base."""


class FrozenLayer(Protocol):
    """What a stacked layer may read of the base's layer beside its result."""

    @property
    def bias(self) -> Tensor | None:
        """[out]"""

    def weight(self, dtype: torch.dtype) -> Tensor:
        """What its weight stands for, [out, in]."""


class StackedLayer(nn.Module, ABC):
    """The adapters of a pack on one layer; its parameters are views of the stack's."""

    @abstractmethod
    def add(self, result: Tensor, x: Tensor, base: FrozenLayer) -> Tensor:
        """What the base's layer gives, with each trial's adapter in its own rows.

        Args:
            result: [trials x samples, tokens, out], which may be overwritten.
            x: [trials x samples, tokens, in].
        """


class PeftStack:
    """A pack of one on PEFT's own layers: whatever a method trains, as one vector."""

    def __init__(self, model: PeftModel) -> None:
        self._trained = trained_parameters(model)
        values = torch.cat([p.detach().flatten() for p in self._trained.values()])
        self._gradients = torch.zeros_like(values)
        self.rows = [nn.Parameter(values)]
        self.parameters = [len(values)]
        start = 0
        for parameter in self._trained.values():
            end = start + parameter.numel()
            parameter.data = values[start:end].view(parameter.shape)
            parameter.grad = self._gradients[start:end].view(parameter.shape)
            start = end
        self.clear_gradients()

    def clear_gradients(self) -> None:
        """Zeros in their place."""
        self._gradients.zero_()
        self.rows[0].grad = self._gradients

    def read(self, index: int) -> Weights:
        """Copies of the values."""
        return {name: value.detach().clone() for name, value in self._trained.items()}

    def write(self, index: int, weights: Weights) -> None:
        """Set the values."""
        for name, value in self._trained.items():
            value.data.copy_(weights[name])


def trained_parameters(model: PeftModel) -> dict[str, nn.Parameter]:
    """What the model's only adapter trains, by the name in the base."""
    named = model.get_base_model().named_parameters()
    return {name: parameter for name, parameter in named if parameter.requires_grad}


def put_weights(model: PeftModel, weights: Weights) -> None:
    """Let the model's adapter hold these very tensors."""
    for name, parameter in trained_parameters(model).items():
        parameter.data = weights[name]


def step_seed(seed: int, step: int, micro_batch: int, name: str = "") -> int:
    """A seed of its own for each trial's seed, optimizer step, micro-batch and layer."""
    text = f"{seed} {step} {micro_batch} {name}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")


def adapted_layers(base: nn.Module) -> list[LinearShape]:
    """The layers in whose place PEFT's stand."""
    return [
        LinearShape(
            name, name.rpartition(".")[2], int(module.in_features), int(module.out_features)
        )
        for name, module in base.named_modules()
        if isinstance(module, BaseTunerLayer)
    ]
