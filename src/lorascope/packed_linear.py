"""A linear layer of the frozen base with the adapters of a pack around it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from bitsandbytes.nn import Linear8bitLt
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


class Unpackable(Exception):
    """A base on which trials can only be trained one at a time."""


@dataclass
class PackShape:
    """What all layers of a pack know of the batch at hand."""

    seeds: list[int]
    """Of each trial, in the pack's order."""
    batch: tuple[int, ...] = ()
    """[trials x samples, tokens]"""
    longest_tokens: int = 0
    """Of all samples: dropout draws for that many, whatever this batch's padding."""
    draw: tuple[int, int] = (0, 0)
    """Optimizer step and micro-batch."""

    @property
    def trials(self) -> int:
        """How many there are."""
        return len(self.seeds)


@dataclass
class LayerStack:
    """One layer's adapters of neighbouring trials."""

    scale: Tensor
    """[trials, 1, 1]"""
    dropouts: list[float]
    a: nn.Parameter
    """[trials, rank, in]"""
    b: nn.Parameter
    """[trials, out, rank]"""
    magnitude: nn.Parameter | None = None
    """[trials, out] for DoRA."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """A, B and, for DoRA, the magnitude."""
        yield self.a
        yield self.b
        if self.magnitude is not None:
            yield self.magnitude


class PackedLinear(nn.Module):
    """Adds each trial's adapter to its own rows of what the base's layer gives."""

    def __init__(
        self, base_layer: nn.Module, stacks: list[LayerStack], shape: PackShape, name: str
    ) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.in_features = stacks[0].a.shape[2]
        self.out_features = stacks[0].b.shape[1]
        self._stacks = stacks
        self._shape = shape
        self._name = name
        for index, stack in enumerate(stacks):
            for part, parameter in zip("abm", stack.parameters(), strict=False):
                self.register_parameter(f"{part}{index}", parameter)

    def forward(self, x: Tensor) -> Tensor:
        """[trials x samples, tokens, in] -> [trials x samples, tokens, out]."""
        trials = self._shape.trials
        if trials > 1 and x.shape[:-1] != self._shape.batch:
            raise Unpackable(
                f"{self._name}: this layer gets {tuple(x.shape)} for a batch {self._shape.batch}, "
                "so that no row tells its trial"
            )
        result = self._base(x)
        rows = x.reshape(trials, -1, self.in_features)
        out = result.reshape(trials, -1, self.out_features)
        if len(self._stacks) == 1:
            return self._adapted(self._stacks[0], 0, rows, out).view(result.shape)
        sizes = [len(stack.a) for stack in self._stacks]
        parts = zip(self._stacks, torch.split(rows, sizes), torch.split(out, sizes), strict=True)
        starts = [sum(sizes[:index]) for index in range(len(sizes))]
        adapted = [
            self._adapted(stack, start, its_rows, its_out)
            for start, (stack, its_rows, its_out) in zip(starts, parts, strict=True)
        ]
        return torch.cat(adapted).view(result.shape)

    def _base(self, x: Tensor) -> Tensor:
        """The base's own result. LLM.int8 computes a feature in 16 bits for all rows of a batch as
        soon as one row has an outlier there, so that trials with outliers go one by one."""
        if self._shape.trials > 1 and isinstance(self.base_layer, Linear8bitLt):
            threshold = self.base_layer.state.threshold
            if threshold > 0 and has_outliers(x, self._shape.trials, threshold):
                return torch.cat([self.base_layer(own) for own in x.chunk(self._shape.trials)])
        result: Tensor = self.base_layer(x)
        return result

    def _adapted(self, stack: LayerStack, start: int, rows: Tensor, out: Tensor) -> Tensor:
        """rows [trials, n, in], out [trials, n, out] -> [trials, n, out]."""
        dropped = any(stack.dropouts)
        if dropped:
            rows = rows * self._masks(stack, start, rows)
        hidden = torch.bmm(rows, stack.a.mT) * stack.scale
        if stack.magnitude is None:
            return torch.baddbmm(out, hidden, stack.b.mT)
        weight = dequantized(self.base_layer, rows.dtype)
        bare = rows @ weight.T if dropped else out
        bias = getattr(self.base_layer, "bias", None)
        if bias is not None and not dropped:
            bare = bare - bias
        ratio = (stack.magnitude / dora_norms(weight, stack))[:, None]
        return out + (ratio - 1) * bare + ratio * torch.bmm(hidden, stack.b.mT)

    def _masks(self, stack: LayerStack, start: int, rows: Tensor) -> Tensor:
        """Dropout's factors [trials, n, in]: 0, or 1 / (1 - p).

        Drawn from the trial's seed, the step and the layer alone, for as many tokens as the longest
        sample has: neither other trials nor a pass run again change them.
        """
        count, tokens = self._shape.batch
        samples, longest = count // self._shape.trials, max(self._shape.longest_tokens, tokens)
        masks = torch.ones_like(rows)
        for index, rate in enumerate(stack.dropouts):
            if rate > 0:
                seed = step_seed(self._shape.seeds[start + index], *self._shape.draw, self._name)
                generator = torch.Generator(rows.device).manual_seed(seed)
                size = (samples, longest, rows.shape[2])
                drawn = torch.rand(size, generator=generator, device=rows.device)
                kept = (drawn[:, :tokens] >= rate).to(rows.dtype).reshape(rows.shape[1:])
                masks[index] = kept / (1 - rate)
        return masks


def step_seed(seed: int, step: int, micro_batch: int, name: str = "") -> int:
    """A seed of its own for each trial's seed, optimizer step, micro-batch and layer."""
    text = f"{seed} {step} {micro_batch} {name}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")


def has_outliers(x: Tensor, trials: int, threshold: float) -> bool:
    """Whether some trial's rows hold a value that LLM.int8 takes for an outlier. A trial whose
    values are not numbers must not hide another's."""
    peaks = torch.linalg.vector_norm(x.detach().reshape(trials, -1), ord=torch.inf, dim=1)
    return not bool((peaks < threshold).all())


def dequantized(layer: Any, dtype: torch.dtype) -> Tensor:
    """The weight [out, in] that a layer stands for."""
    weight: Tensor = dequantize_module_weight(layer).detach().to(dtype)
    return weight.T if isinstance(layer, Conv1D) else weight


@torch.no_grad()
def dora_norms(weight: Tensor, stack: LayerStack) -> Tensor:
    """Norms [trials, out] of the rows of W + s B A, as constants (DoRA, section 4.3).

    |w + s b A|^2 = |w|^2 + 2 s (w A^T) b + s^2 b (A A^T) b, so that no trial's sum is built.
    """
    norms = []
    for a, b, scale in zip(stack.a, stack.b, stack.scale.flatten(), strict=True):
        own = weight.float()
        cross = 2 * scale * ((own @ a.T) * b).sum(1)
        square = scale**2 * ((b @ (a @ a.T)) * b).sum(1)
        norms.append((own.pow(2).sum(1) + cross + square).clamp_min(0).sqrt())
    return torch.stack(norms)
