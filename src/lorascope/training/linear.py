"""A linear layer of the frozen base with the adapters of a pack around it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lorascope.adapters.lora.product import AddAdapters, LayerStack
from lorascope.quantizers.kinds import quantizer_of


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
    adapters: bool = True
    """Whether layers add what the adapters say."""

    @property
    def trials(self) -> int:
        """How many there are."""
        return len(self.seeds)


class PackedLinear(nn.Module):
    """Adds each trial's adapter to its own rows of what the base's layer gives."""

    def __init__(
        self, base_layer: nn.Module, stacks: list[LayerStack], shape: PackShape, name: str
    ) -> None:
        super().__init__()
        self.base_layer = base_layer
        self._quantizer = quantizer_of(base_layer)
        self.in_features = stacks[0].a.shape[2]
        self.out_features = stacks[0].b.shape[2]
        self._stacks, self._sizes = stacks, [len(stack.a) for stack in stacks]
        self._trained = [own for stack in stacks for own in stack.parameters()]
        rates = [rate for stack in stacks for rate in stack.dropouts]
        self._dropouts = rates if any(rates) else []
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
        if not self._shape.adapters:
            return result
        if self._stacks[0].magnitude is not None:
            return self._decomposed(x, result).view(result.shape)
        if self._dropouts:
            x = self._dropped(x.reshape(trials, -1, self.in_features), self._dropouts)
        added: Tensor = AddAdapters.apply(  # type: ignore[no-untyped-call]
            result, x, self._stacks, self._sizes, *self._trained
        )
        return added

    def _base(self, x: Tensor) -> Tensor:
        """The base's own result; trials go one by one where rows of a batch interfere."""
        trials = self._shape.trials
        if trials > 1 and self._quantizer.rows_interfere(self.base_layer, x, trials):
            return torch.cat([self.base_layer(own) for own in x.chunk(trials)])
        result: Tensor = self.base_layer(x)
        return result

    def _decomposed(self, x: Tensor, result: Tensor) -> Tensor:
        """DoRA of all stacks -> [trials, n, out]."""
        rows = torch.split(x.reshape(self._shape.trials, -1, self.in_features), self._sizes)
        out = torch.split(result.reshape(self._shape.trials, -1, self.out_features), self._sizes)
        adapted, start = [], 0
        for stack, own_rows, own_out in zip(self._stacks, rows, out, strict=True):
            adapted.append(self._decomposed_stack(stack, start, own_rows, own_out))
            start += len(stack.a)
        return adapted[0] if len(adapted) == 1 else torch.cat(adapted)

    def _decomposed_stack(self, stack: LayerStack, start: int, rows: Tensor, out: Tensor) -> Tensor:
        """rows [trials, n, in], out [trials, n, out] -> [trials, n, out]."""
        assert stack.magnitude is not None
        kept = self._dropped(rows, stack.dropouts, start)
        hidden = torch.bmm(kept, stack.a.mT) * stack.scale
        weight = self._quantizer.backward_weight(self.base_layer).detach().to(rows.dtype)
        bare = out if kept is rows else kept @ weight.T
        bias = getattr(self.base_layer, "bias", None)
        if bias is not None and kept is rows:
            bare = bare - bias
        ratio = (stack.magnitude / dora_norms(weight, stack))[:, None]
        # A view: of a parameter itself autocast keeps a copy, checkpointed or not.
        return out + (ratio - 1) * bare + ratio * torch.bmm(hidden, stack.b[:])

    def _dropped(self, rows: Tensor, dropouts: Sequence[float], start: int = 0) -> Tensor:
        """rows [trials, n, in] with dropout: times 0, or 1 / (1 - p).

        Drawn from the trial's seed, the step and the layer alone, for as many tokens as the longest
        sample has: neither other trials nor a pack run again change them.

        Args:
            start: the first trial's place in the pack.
        """
        if not any(dropouts):
            return rows
        count, tokens = self._shape.batch
        samples, longest = count // self._shape.trials, max(self._shape.longest_tokens, tokens)
        masks = torch.ones_like(rows)
        for index, rate in enumerate(dropouts):
            if rate > 0:
                seed = step_seed(self._shape.seeds[start + index], *self._shape.draw, self._name)
                generator = torch.Generator(rows.device).manual_seed(seed)
                size = (samples, longest, rows.shape[2])
                drawn = torch.rand(size, generator=generator, device=rows.device)
                kept = (drawn[:, :tokens] >= rate).to(rows.dtype).reshape(rows.shape[1:])
                masks[index] = kept / (1 - rate)
        return rows * masks


def step_seed(seed: int, step: int, micro_batch: int, name: str = "") -> int:
    """A seed of its own for each trial's seed, optimizer step, micro-batch and layer."""
    text = f"{seed} {step} {micro_batch} {name}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")


@torch.no_grad()
def dora_norms(weight: Tensor, stack: LayerStack) -> Tensor:
    """Norms [trials, out] of the rows of W + s B A, as constants (DoRA, section 4.3).

    |w + s b A|^2 = |w|^2 + 2 s (w A^T) b + s^2 b (A A^T) b, so that no trial's sum is built.
    """
    norms = []
    for a, b, scale in zip(stack.a, stack.b.mT, stack.scale.flatten(), strict=True):
        own = weight.float()
        cross = 2 * scale * ((own @ a.T) * b).sum(1)
        square = scale**2 * ((b @ (a @ a.T)) * b).sum(1)
        norms.append((own.pow(2).sum(1) + cross + square).clamp_min(0).sqrt())
    return torch.stack(norms)
