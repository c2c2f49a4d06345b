"""A pack: the adapters of several trials around one frozen base, stacked along a trial axis.

A batch of a pack holds every trial's own samples, trial by trial. The base sees them as one batch
[trials x samples, tokens]; a linear layer adds to each trial's rows what that trial's adapter says:

    rows [trials, samples x tokens, in] -> base(rows) + scale (rows A^T) B^T,
    A [trials, rank, in], B^T [trials, rank, out], scale [trials, 1, 1].

No number of one trial enters another's, so that a pack computes what each trial computes alone. A
single trial is a pack of one. Ranks are padded with zeros to 8, 16, 32, 64 and so on, and trials of
one such rank share a stack: a rank of 512 does not tax a rank of 1. The zeros stay, as their
gradients, moments and decay are zero. A trial alone is padded in the same way: in another shape its
products would be rounded in another order. So on one thread a trial's bits do not depend on its
company, unless a batch is padded to a longer sample of a trial with another seed: then it is equal
but for rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lorascope.adapters.lora.attach import attach
from lorascope.adapters.lora.stack import (
    AdapterShapes,
    AdapterStack,
    AdapterWeights,
    adapter_weights,
    stacks_of,
)
from lorascope.config import LoraConfig
from lorascope.objectives.kinds import TokenBatch
from lorascope.training.linear import PackedLinear, PackShape, Unpackable, step_seed


class PackedModel(nn.Module):
    """A base whose adapted layers are `PackedLinear`."""

    def __init__(self, base: PreTrainedModel, stacks: list[AdapterStack], seeds: list[int]) -> None:
        super().__init__()
        self.base = base
        self.stacks = stacks
        self.shape = PackShape(seeds)
        for name in stacks[0].layers:
            layers = [stack.layers[name] for stack in stacks]
            packed = PackedLinear(base.get_submodule(name), layers, self.shape, name)
            base.set_submodule(name, packed)

    @property
    def config(self) -> Any:
        """The base's."""
        return self.base.config

    @property
    def device(self) -> torch.device:
        """Where base and adapters are."""
        device: torch.device = self.base.device
        return device

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Gradients keep their place: the optimizer's vectors and the layers share it."""
        for stack in self.stacks:
            stack.clear_gradients()

    def seed(self, step: int, micro_batch: int) -> None:
        """Let dropout draw what this trial's seed draws in this micro-batch, whatever came before:
        a resumed pack needs no generator's state."""
        self.shape.draw = (step, micro_batch)
        # A base with dropout of its own draws from the global generator.
        torch.manual_seed(step_seed(self.shape.seeds[0], step, micro_batch))

    def forward(self, batch: TokenBatch, adapters: bool = True) -> Tensor:
        """Logits [trials x samples, tokens, vocabulary]; without adapters those of the frozen base,
        which is the same for all trials."""
        self.shape.batch, self.shape.adapters = batch.shape, adapters
        try:
            logits: Tensor = self.base(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
            ).logits
        finally:
            # Checkpointed layers run again in the backward pass, which is that of the adapters.
            self.shape.adapters = True
        return logits

    def keep_best(self) -> None:
        """Make room for the values of each trial's best step, from the start: what is measured of
        the first steps then holds for all."""
        for index, stack in enumerate(self.stacks):
            stack.best = torch.zeros_like(stack.values)
            self.register_buffer(f"best{index}", stack.best)

    def rows(self) -> list[nn.Parameter]:
        """Each trial's parameters as one vector, in the pack's order."""
        return [row for stack in self.stacks for row in stack.rows]

    def read(self, index: int) -> AdapterWeights:
        """Copies of one trial's values, padding apart."""
        stack = next(s for s in reversed(self.stacks) if s.start <= index)
        return stack.read(index - stack.start)

    def best_rows(self) -> list[Tensor]:
        """That room, a vector a trial in the pack's order; empty without `keep_best`."""
        return [row for stack in self.stacks if stack.best is not None for row in stack.best]

    @contextmanager
    def unpacked(self) -> Iterator[PreTrainedModel]:
        """The base with its own layers for a while."""
        packed = {name: self.base.get_submodule(name) for name in self.stacks[0].layers}
        try:
            yield self.unpack()
        finally:
            for name, layer in packed.items():
                self.base.set_submodule(name, layer)

    def unpack(self) -> PreTrainedModel:
        """The base with its own layers again."""
        for name in self.stacks[0].layers:
            self.base.set_submodule(name, self.base.get_submodule(name).base_layer)
        return self.base


def pack_adapters(
    base: PreTrainedModel, loras: Sequence[LoraConfig], seeds: Sequence[int]
) -> PackedModel:
    """The base with new adapters, in the order of their ranks, each as PEFT makes it for its seed.

    Raises:
        ConfigError: the adapters' targets match no layer.
    """
    stacks: list[AdapterStack] = []
    for index, (lora, seed) in enumerate(zip(loras, seeds, strict=True)):
        model = attach(base, lora, seed)
        weights = adapter_weights(model)
        if not stacks:
            layers = {n: (a.shape[1], weights.b[n].shape[0]) for n, a in weights.a.items()}
            shapes = AdapterShapes(layers, dora=bool(weights.magnitude))
            stacks = stacks_of(loras, shapes, base.device)
        stack = next(stack for stack in reversed(stacks) if stack.start <= index)
        stack.write(index - stack.start, weights)
        model.unload()
    return PackedModel(base, stacks, list(seeds))


def refuse_unpackable(base: nn.Module, trials: int) -> None:
    """Raise where the base itself draws random numbers, for which trials would share a generator.

    Raises:
        Unpackable: the base has dropout of its own, and there are several trials.
    """
    if trials == 1:
        return
    for name, module in base.named_modules():
        named = {"dropout": module.p} if isinstance(module, nn.Dropout) else vars(module)
        for key, value in named.items():
            if "drop" in key and isinstance(value, float) and value > 0:
                raise Unpackable(f"{name} has dropout of its own ({key}={value})")
