"""The LoRA adapters of a pack: trials whose ranks are padded to the same one share a matrix."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lorascope.adapters.lora.kind import LORA, LoraConfig, scale_on
from lorascope.adapters.lora.layer import LoraLayer
from lorascope.adapters.lora.product import LayerStack
from lorascope.adapters.rate import PLAIN, Rate
from lorascope.adapters.stack import PackShape, VectorPart, Weights
from lorascope.counting.parameters import padded_rank
from lorascope.records import LinearShape

PARTS = ("lora_A.default.weight", "lora_B.default.weight", "lora_magnitude_vector.default.weight")
"""PEFT's names of A [rank, in], B [out, rank] and, for DoRA, the magnitude [out] of a layer."""


class LoraStack:
    """All LoRA adapters of a pack, by rank.

    Ranks are padded with zeros to 8, 16, 32, 64 and so on, and trials of one such rank share a
    matrix: a rank of 512 does not tax a rank of 1. The zeros stay, as their gradients, moments and
    decay are zero. A trial alone is padded in the same way: in another shape its products would be
    rounded in another order.
    """

    def __init__(
        self,
        configs: Sequence[LoraConfig],
        shapes: Sequence[LinearShape],
        device: torch.device | str,
        beside: int = 0,
    ) -> None:
        self.stacks = list(_rank_stacks(configs, shapes, device, beside))
        self.rows = [row for stack in self.stacks for row in stack.rows]
        self.parameters = [LORA.parameters(config, shapes) for config in configs]
        self.parts = [parts for stack in self.stacks for parts in stack.parts()]
        self.constants = [own.initial for own in self.stacks if own.initial is not None]
        self.memory = [
            both for own in self.stacks for both in zip(own.values, own.gradients, strict=True)
        ]

    def layer(self, name: str, shape: PackShape) -> LoraLayer:
        return LoraLayer([stack.layers[name] for stack in self.stacks], shape, name)

    def clear_gradients(self) -> None:
        for stack in self.stacks:
            stack.clear_gradients()

    def read(self, index: int) -> Weights:
        stack = self._stack_of(index)
        own, initial = index - stack.start, dict(stack.initial_of(index - stack.start))
        return {
            name: torch.cat((value, initial[name]), dim=0 if PARTS[0] in name else 1)
            if name in initial
            else value.clone(memory_format=torch.contiguous_format)
            for name, value in stack.values_of(own)
        }

    def write(self, index: int, weights: Weights) -> None:
        stack = self._stack_of(index)
        for name, value in stack.values_of(index - stack.start):
            value.copy_(weights[name].detach())
        for name, value in stack.initial_of(index - stack.start):
            value.copy_(weights[name].detach())
            if PARTS[1] in name:
                value.neg_()

    def _stack_of(self, index: int) -> RankStack:
        return next(stack for stack in reversed(self.stacks) if stack.start <= index)


class Block(NamedTuple):
    """One matrix or vector of a layer, in a trial's vector."""

    layer: str
    is_a: bool
    size: tuple[int, ...]


class RankStack:
    """Neighbouring trials of a pack whose ranks are padded to the same one, as one matrix [trials,
    parameters of a padded adapter].

    Args:
        start: place of the first trial in the pack.
        beside: further values of each trial, behind its adapter's.
    """

    def __init__(
        self,
        start: int,
        configs: Sequence[LoraConfig],
        shapes: Sequence[LinearShape],
        device: torch.device | str,
        beside: int = 0,
    ) -> None:
        self.start, self.configs, self.shapes = start, configs, shapes
        self.dora, self.ranks = configs[0].dora, _padded_ranks(configs[0], shapes)
        self.a_first = configs[0].b_rate_ratio != 1
        """Whether all A stand before all B: what learns at one rate is then one part."""
        self.values = torch.zeros((len(configs), self._size(self.dora) + beside), device=device)
        self.gradients = torch.zeros_like(self.values)
        self.initial: Tensor | None = None
        """A and -B^T of each layer as they began [trials, their parameters], padded too, where they
        were taken out of the base's weights."""
        if configs[0].subtracts():
            self.initial = torch.zeros((len(configs), self._size(dora=False)), device=device)
        dropouts = [config.dropout for config in configs]
        scales: dict[tuple[float, ...], Tensor] = {}
        self.layers: dict[str, LayerStack] = {}
        for name, (a, b, *magnitude) in self._views(self.values).items():
            factors = tuple(scale_on(config, name) for config in configs)
            if factors not in scales:
                scales[factors] = torch.tensor(factors, device=device)[:, None, None]
            layer = LayerStack(scales[factors], dropouts, nn.Parameter(a), nn.Parameter(b))
            layer.ranks = [config.rank_of(name) for config in configs]
            layer.magnitude = nn.Parameter(magnitude[0]) if magnitude else None
            layer.both = None if self.a_first else self._side_by_side(a, b)
            self.layers[name] = layer
        if self.initial is not None:
            for name, (a, b) in self._views(self.initial, magnitudes=False).items():
                self.layers[name].initial = (a, b)
        self.rows = [nn.Parameter(row) for row in self.values]
        # Each layer's gradients are added up in the one matrix that the optimizer reads.
        gradients = self._views(self.gradients)
        for name, layer in self.layers.items():
            for parameter, gradient in zip(layer.parameters(), gradients[name], strict=True):
                parameter.grad = gradient
        self.clear_gradients()

    def _views(self, matrix: Tensor, magnitudes: bool = True) -> dict[str, list[Tensor]]:
        """A [trials, rank, in], B^T [trials, rank, out] and magnitude [trials, out] by layer."""
        trials, start = len(self.configs), 0
        found: dict[str, list[Tensor]] = {layer.name: [] for layer in self.shapes}
        for block in self._blocks(magnitudes):
            end = start + math.prod(block.size)
            found[block.layer].append(matrix[:, start:end].view(trials, *block.size))
            start = end
        return found

    def _blocks(self, magnitudes: bool) -> list[Block]:
        """Each matrix or vector, in the order of memory."""
        blocks = []
        for layer in self.shapes:
            rank = self.ranks[layer.name]
            blocks += [Block(layer.name, True, (rank, layer.in_features))]
            blocks += [Block(layer.name, False, (rank, layer.out_features))]
            if self.dora and magnitudes:
                blocks += [Block(layer.name, False, (layer.out_features,))]
        return sorted(blocks, key=lambda block: not block.is_a) if self.a_first else blocks

    def _size(self, dora: bool) -> int:
        """Parameters of a padded adapter."""
        return sum(math.prod(block.size) for block in self._blocks(dora))

    def parts(self) -> Iterator[list[VectorPart]]:
        """The parts of each trial's vector: a layer's A learns at the trial's rate, and its B and
        magnitude at B's."""
        blocks = self._blocks(self.dora)
        ends = list(accumulate(math.prod(block.size) for block in blocks))
        places = list(zip([0, *ends[:-1]], ends, blocks, strict=True))
        for config in self.configs:
            yield [
                VectorPart(
                    start, end, block.layer, PLAIN if block.is_a else Rate(config.b_rate_ratio)
                )
                for start, end, block in places
            ]

    def _side_by_side(self, a: Tensor, b: Tensor) -> Tensor:
        """A and B^T of one layer as one view [trials, rank (in + out)]: B follows A."""
        size = (len(a), a[0].numel() + b[0].numel())
        return self.values.as_strided(size, self.values.stride(), a.storage_offset())

    def values_of(self, index: int) -> Iterator[tuple[str, Tensor]]:
        """Views of one trial's values as PEFT has them, padding excluded."""
        for name, (a, b, *magnitude) in self._views(self.values).items():
            rank = self.configs[index].rank_of(name)
            parts = (a[index, :rank], b[index, :rank].T, *(m[index] for m in magnitude))
            yield from ((f"{name}.{part}", v) for part, v in zip(PARTS, parts, strict=False))

    def initial_of(self, index: int) -> Iterator[tuple[str, Tensor]]:
        """Views of A and -B of one trial as they began, padding excluded, by PEFT's names; nothing
        where the base stays whole."""
        if self.initial is None:
            return
        for name, (a, b) in self._views(self.initial, magnitudes=False).items():
            rank = self.configs[index].rank_of(name)
            parts = (a[index, :rank], b[index, :rank].T)
            yield from ((f"{name}.{part}", v) for part, v in zip(PARTS, parts, strict=False))

    def clear_gradients(self) -> None:
        """Set all gradients to zero, in place; rows that a step passed over get theirs back."""
        self.gradients.zero_()
        for row, gradient in zip(self.rows, self.gradients, strict=True):
            row.grad = gradient


def _padded_ranks(config: LoraConfig, shapes: Sequence[LinearShape]) -> dict[str, int]:
    """Layer's name -> the rank that it is padded to."""
    return {layer.name: padded_rank(config.rank_of(layer.name)) for layer in shapes}


def _rank_stacks(
    configs: Sequence[LoraConfig],
    shapes: Sequence[LinearShape],
    device: torch.device | str,
    beside: int,
) -> Iterator[RankStack]:
    """A matrix for each run of neighbours with one padded rank on each layer; DoRA with dropout
    computes in another way, and LoRA+ has its values in another order: they have matrices to
    themselves."""
    kinds = [
        (_padded_ranks(own, shapes), own.dora and own.dropout > 0, own.b_rate_ratio != 1)
        for own in configs
    ]
    starts = [i for i, kind in enumerate(kinds) if i == 0 or kind != kinds[i - 1]]
    for start, end in zip(starts, [*starts[1:], len(configs)], strict=True):
        yield RankStack(start, configs[start:end], shapes, device, beside)
