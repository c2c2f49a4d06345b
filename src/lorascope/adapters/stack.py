"""Adapters of a pack as training sees them, whatever their kind: a vector of values a trial.

A kind of adapter has a stack for several trials, or is trained by PEFT's own layers (`PeftStack`).
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from lorascope.adapters.rate import PLAIN, Rate
from lorascope.machine.ranks import Share
from lorascope.records import LinearShape

Weights = Mapping[str, Tensor]
"""An adapter's values by the name that PEFT's parameter has in the base."""


@dataclass
class PositionTurns:
    """While attention reads positions that all samples share, trial after trial."""

    by_length: bool = False
    """Whether a longer batch has more of them, on both sides of the middle."""
    trial: int = 0
    """Whose turn it is."""
    results: dict[str, list[Tensor]] = field(default_factory=dict)
    """Of each layer that was asked, by its name: every trial's [1, positions, out]."""


@dataclass
class PackShape:
    """Seeds of the trials and shape of the current batch, which all layers of a pack share."""

    seeds: list[int]
    """Seed of each trial, in the pack's order."""
    batch: tuple[int, ...] = ()
    """[trials x samples, tokens], or [trials, tokens of all samples] without padding."""
    lengths: list[list[int]] | None = None
    """Tokens of each sample of each trial, where these stand one behind the other; None where each
    has a row."""
    share: Share | None = None
    """Which samples of a micro-batch these are, where other processes compute the rest."""
    longest_tokens: int = 0
    """Tokens of the longest training sample: dropout is drawn for so many, however few this batch
    has."""
    draw: tuple[int, int] = (0, 0)
    """Optimizer step and micro-batch, both from 0: dropout is drawn anew for each."""
    adapters: bool = True
    """Whether adapters are on; off, layers give the bare base's results."""
    positions: PositionTurns | None = None
    """Set while layers get positions in place of samples."""

    @property
    def trials(self) -> int:
        """Number of trials."""
        return len(self.seeds)


@dataclass(frozen=True)
class VectorPart:
    """A part of a trial's vector: whose values it holds, and how fast the method has them learn."""

    start: int
    end: int
    name: str
    """Of the base's layer, or of a parameter there."""
    rate: Rate = PLAIN


class Stack(Protocol):
    """Values of a pack's adapters: all that optimizer, checkpoint and validation know of them."""

    rows: list[nn.Parameter]
    """Values of each trial as one vector, padding included, in the pack's order."""
    parameters: list[int]
    """Number of values of each trial, padding excluded."""
    parts: list[list[VectorPart]]
    """The parts of each trial's vector, from its beginning to its end."""
    constants: list[Tensor]
    """What was drawn or chosen for the trials and is not trained: a resumed training must find it
    again."""

    def clear_gradients(self) -> None:
        """Set all gradients to zero, in place: the vectors and the layers share their memory."""

    def read(self, index: int) -> Weights:
        """One trial's values as they are saved, padding excluded: copies, or the very ones that the
        next step changes."""


class LayeredStack(Stack, Protocol):
    """A stack with layers of its own beside the base's, for several trials at once."""

    memory: list[tuple[Tensor, Tensor]]
    """Values and gradients of each trial, each as one vector; what was asked for beside the
    adapter's own stands at its end, and `parts` of a kind's stack leave it out."""

    def write(self, index: int, weights: Weights) -> None:
        """Let one trial begin with these values."""

    def layer(self, name: str, shape: PackShape) -> StackedLayer:
        """The adapters of all trials on the base's layer `name`."""


class FrozenLayer(Protocol):
    """The base's layer, as far as adapters read it beside its result."""

    @property
    def bias(self) -> Tensor | None:
        """[out]"""

    def weight(self, dtype: torch.dtype) -> Tensor:
        """The dequantized weight [out, in]."""


class StackedLayer(nn.Module, ABC):
    """The adapters of a pack on one layer; its parameters are views of the stack's vectors."""

    @abstractmethod
    def add(self, result: Tensor, x: Tensor, base: FrozenLayer) -> Tensor:
        """The result of the base's layer, with each trial's adapter added to that trial's rows.

        Args:
            result: [trials x samples, tokens, out], which may be overwritten.
            x: [trials x samples, tokens, in].
        """

    @abstractmethod
    def moved(self, device: torch.device) -> StackedLayer:
        """The same on another device: parameters and buffers in the same order, with values and
        gradients of their own."""


class RoundableLayer(StackedLayer):
    """A stacked layer that has a merged weight a trial, of a kind whose `unrounded` is None."""

    @abstractmethod
    def merged(self, trial: int, weight: Tensor) -> Tensor:
        """What merging makes of the base's weight [out, in] for one trial, both in float32."""

    @abstractmethod
    def add_merged_gradients(
        self, trial: int, rows: Tensor, gradient: Tensor, weight: Tensor
    ) -> None:
        """Add the gradients of one trial's values to where they are kept, where `merged` was
        multiplied with.

        Args:
            rows: [samples x tokens, in], what the layer got of this trial.
            gradient: [samples x tokens, out], of what it gave.
            weight: as `merged` gets it.
        """


class PeftStack:
    """The stack of a single trial that PEFT's own layers train: all its values as one vector, those
    of one rate side by side.

    Args:
        rate_of: the rate of a parameter, by its name in the base.
    """

    def __init__(
        self,
        model: PeftModel,
        rate_of: Callable[[str, nn.Parameter], Rate] = lambda name, parameter: PLAIN,
    ) -> None:
        trained = trained_parameters(model)
        rated = {name: rate_of(name, parameter) for name, parameter in trained.items()}
        # Sorting keeps the model's order among parameters of one rate.
        self._trained = {name: trained[name] for name in sorted(trained, key=rated.__getitem__)}
        values = torch.cat([p.detach().flatten() for p in self._trained.values()])
        self._gradients = torch.zeros_like(values)
        self.rows = [nn.Parameter(values)]
        self.parameters = [len(values)]
        self.parts: list[list[VectorPart]] = [[]]
        self._chosen = chosen_buffers(model)
        self.constants = list(self._chosen.values())
        start = 0
        for name, parameter in self._trained.items():
            end = start + parameter.numel()
            self.parts[0].append(VectorPart(start, end, name, rated[name]))
            parameter.data = values[start:end].view(parameter.shape)
            parameter.grad = self._gradients[start:end].view(parameter.shape)
            start = end
        self.clear_gradients()

    def clear_gradients(self) -> None:
        self._gradients.zero_()
        self.rows[0].grad = self._gradients

    def read(self, index: int) -> Weights:
        both = {**self._trained, **self._chosen}
        return {name: value.detach() for name, value in both.items()}


def trained_parameters(model: PeftModel) -> dict[str, nn.Parameter]:
    """Parameters of the model's only adapter, by their name in the base."""
    named = model.get_base_model().named_parameters()
    return {name: parameter for name, parameter in named if parameter.requires_grad}


def chosen_buffers(model: PeftModel) -> dict[str, Tensor]:
    """What a method of our own chose before the first step and is saved with what is trained, by
    its name in the base."""
    base = model.get_base_model()
    return {
        f"{name}.{own}.{adapter}": buffer
        for name, layer in base.named_modules()
        for own in getattr(layer, "chosen_names", ())
        for adapter, buffer in layer.get_submodule(own).named_buffers()
    }


def step_seed(seed: int, step: int, micro_batch: int, name: str = "") -> int:
    """A seed for one trial's dropout in one micro-batch of one layer."""
    text = f"{seed} {step} {micro_batch} {name}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")


def adapted_names(base: nn.Module) -> list[str]:
    """Names of the layers that PEFT has replaced."""
    return [name for name, own in base.named_modules() if isinstance(own, BaseTunerLayer)]


def adapted_layers(base: nn.Module) -> list[LinearShape]:
    """Shapes of the linear layers that PEFT has replaced."""
    return [
        LinearShape(name, name.rpartition(".")[2], int(own.in_features), int(own.out_features))
        for name, own in base.named_modules()
        if isinstance(own, BaseTunerLayer)
    ]
