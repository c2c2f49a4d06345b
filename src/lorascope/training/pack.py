"""A pack: the adapters of several trials around one frozen base.

A batch of a pack holds every trial's own samples, trial by trial. The base sees them as one batch
[trials x samples, tokens]; beside a linear layer each trial's adapter works on its own rows. No
number of one trial enters another's, so that a pack computes what each trial computes alone. A
single trial is a pack of one. On one thread of a CPU a trial's bits do not depend on its company,
unless a trial with another seed brings a longer sample into a batch, or where that is computed
without padding samples of other lengths: then it is equal but for rounding. On CUDA it is equal but
for rounding, as kernels are chosen by size.

A kind of adapter without a stack is trained by PEFT's own layers, one trial at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from lorascope.adapters.attach import attach, detach, new_values
from lorascope.adapters.class_head import (
    HeadedStack,
    bare_module,
    head_parameters,
    wrapped_heads,
)
from lorascope.adapters.first_samples import FirstSamples
from lorascope.adapters.kinds import kind_of
from lorascope.adapters.layers import model_parts
from lorascope.adapters.placement import placement_of
from lorascope.adapters.stack import (
    LayeredStack,
    PackShape,
    PeftStack,
    Stack,
    adapted_names,
    step_seed,
    trained_parameters,
)
from lorascope.adapters.targets import select
from lorascope.config import AdapterConfig
from lorascope.objectives.kinds import Places, TokenBatch
from lorascope.objectives.logits import Logits, forward_at
from lorascope.objectives.padding_free import can_do_without, without_padding
from lorascope.quantizers.torchao.rounding import Rounding
from lorascope.records import LinearShape
from lorascope.training.adapter_copies import AdapterCopies
from lorascope.training.layer_drop import LayerDrop
from lorascope.training.packed_linear import PackedLinear, Unpackable
from lorascope.training.rounded_merge import round_merged
from lorascope.training.shared_positions import SharedPositions


class PackedModel(nn.Module):
    """A base with adapters on some of its layers.

    Args:
        layers: names of the layers in whose place others stand, which have them as `base_layer`.
        heads: names of the modules of a head for classes, in whose place others stand too.
        copies: of values whose layers lie on other devices than the stack.
    """

    def __init__(
        self,
        base: PreTrainedModel,
        stack: Stack,
        layers: Sequence[str],
        shape: PackShape,
        heads: Sequence[str] = (),
        copies: AdapterCopies | None = None,
    ) -> None:
        super().__init__()
        self.base = base
        self._copies = copies or AdapterCopies()
        self.stack, self.layers, self.shape = stack, list(layers), shape
        self._replaced = [*self.layers, *heads]
        self._peft_layers = [own for own in base.modules() if isinstance(own, BaseTunerLayer)]
        self._layer_drop: LayerDrop | None = None
        self._positions = SharedPositions(base, shape)
        self._padding_free = can_do_without(base)
        self.best_rows: list[Tensor] = []
        """The values of each trial's best step, a vector a trial; empty without `keep_best`."""

    @property
    def device(self) -> torch.device:
        """Device of the adapters' vectors, and of batches."""
        device: torch.device = self.base.device
        return device

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Gradients keep their place: the optimizer's vectors and the layers share it. Layers on
        other devices get the present values."""
        self.stack.clear_gradients()
        self._copies.hand_out()

    def gather_gradients(self) -> None:
        """Have all gradients in the optimizer's vectors, wherever layers lie."""
        self._copies.gather()

    def seed(self, step: int, micro_batch: int) -> None:
        """Let dropout draw what this trial's seed draws in this micro-batch, whatever came before:
        a resumed pack needs no generator's state."""
        self.shape.draw = (step, micro_batch)
        # A base with dropout of its own draws from the global generator.
        torch.manual_seed(step_seed(self.shape.seeds[0], step, micro_batch))

    def without_padding(self, batch: TokenBatch) -> TokenBatch:
        """The batch as this base computes it best."""
        return without_padding(batch, self.base.config) if self._padding_free else batch

    def forward(self, batch: TokenBatch, places: Places, adapters: bool = True) -> Logits:
        """Logits at `places`; without adapters those of the frozen base, which is the same for all
        trials."""
        rows, self.shape.share = batch.rows, batch.share
        self.shape.batch = batch.shape if rows is None else tuple(rows.input_ids.shape)
        self.shape.lengths = None if rows is None else rows.lengths
        with nullcontext() if adapters else self._without_adapters():
            return forward_at(
                self.base,
                batch.input_ids,
                batch.attention_mask,
                places,
                batch.token_types,
                batch.rows,
            )

    @contextmanager
    def _without_adapters(self) -> Iterator[None]:
        """For a forward pass only: checkpointed layers run again in the backward pass, which is
        that of the adapters."""
        self.shape.adapters = False
        try:
            for layer in self._peft_layers:
                layer.enable_adapters(False)
            yield
        finally:
            self.shape.adapters = True
            for layer in self._peft_layers:
                layer.enable_adapters(True)

    def keep_best(self) -> None:
        """Make room for the values of each trial's best step, from the start: what is measured of
        the first steps then holds for all."""
        for index, row in enumerate(self.stack.rows):
            self.best_rows.append(torch.zeros_like(row, requires_grad=False))
            self.register_buffer(f"best{index}", self.best_rows[-1])

    def round_merged(self, rounding: Rounding) -> None:
        """Let layers compute with what a grid makes of merged weights."""
        round_merged(self.base, self.layers, rounding)

    def drop_layers(self, rates: Sequence[float]) -> None:
        """Let each trial pass over layers in training, with its own chance."""
        self._layer_drop = LayerDrop(self.base, rates, self.shape)

    @contextmanager
    def unpacked(self) -> Iterator[PreTrainedModel]:
        """The base with its own layers for a while."""
        packed = {name: self.base.get_submodule(name) for name in self._replaced}
        try:
            yield self._bare()
        finally:
            for name, layer in packed.items():
                self.base.set_submodule(name, layer)
            self._positions.take_turns()

    def unpack(self) -> PreTrainedModel:
        """The base with its own layers again, all of which it runs through."""
        if self._layer_drop is not None:
            self._layer_drop.remove()
        return self._bare()

    def _bare(self) -> PreTrainedModel:
        self._positions.remove()
        for name in self._replaced:
            self.base.set_submodule(name, bare_module(self.base.get_submodule(name)))
        return self.base


def pack_adapters(
    base: PreTrainedModel,
    configs: Sequence[AdapterConfig],
    seeds: Sequence[int],
    samples: Sequence[FirstSamples | None] = (),
) -> PackedModel:
    """The base with new adapters, in the order of their ranks, each as PEFT makes it for its seed.

    Args:
        samples: what each trial reads before its first step.

    Raises:
        ConfigError: the adapters' targets match no layer.
        Unpackable: there are several adapters of a kind that is trained one by one.
    """
    first, shape = configs[0], PackShape(list(seeds))
    shapes = select(model_parts(base), first)
    stack = new_stack(base, configs, shapes)
    each = samples or [None] * len(configs)
    if stack is None:
        model = attach(base, first, seeds[0])
        kind_of(first).begin(first, model, seeds[0], each[0])
        return peft_pack(model, first, shape)
    for index, (config, seed, own) in enumerate(zip(configs, seeds, each, strict=True)):
        if config.subtracts():
            stack.write(index, new_values(base, config, seed, own))
            continue
        model = attach(base, config, seed)
        kind_of(config).begin(config, model, seed, own)
        stack.write(index, trained_parameters(model))
        detach(model)
    return stacked_pack(base, stack, shapes, shape)


def new_stack(
    base: PreTrainedModel,
    configs: Sequence[AdapterConfig],
    shapes: Sequence[LinearShape],
    device: torch.device | str | None = None,
) -> LayeredStack | HeadedStack | None:
    """Room for what several trials train, a head of its own each where the base has one; None for a
    kind without a stack."""
    size = head_parameters(base)
    stack = kind_of(configs[0]).stack(configs, shapes, device or base.device, size)
    return HeadedStack(stack, base) if stack is not None and size else stack


def stacked_pack(
    base: PreTrainedModel,
    stack: LayeredStack | HeadedStack,
    shapes: Sequence[LinearShape],
    shape: PackShape,
) -> PackedModel:
    """The base with a stack's layers beside its own, and heads in place of its own."""
    heads = stack.heads(shape) if isinstance(stack, HeadedStack) else {}
    for name, head in heads.items():
        base.set_submodule(name, head)
    placement, copies = placement_of(base), AdapterCopies()
    for layer in shapes:
        own, adapters = base.get_submodule(layer.name), stack.layer(layer.name, shape)
        if placement is not None and placement.place(layer.name) > 0:
            adapters = copies.moved(adapters, placement.device(layer.name))
        base.set_submodule(layer.name, PackedLinear(own, adapters, layer, shape))
    return PackedModel(base, stack, [layer.name for layer in shapes], shape, list(heads), copies)


def peft_pack(model: PeftModel, config: AdapterConfig, shape: PackShape) -> PackedModel:
    """A pack of one: the model's adapter in PEFT's own layers. Several trials are Unpackable."""
    if shape.trials > 1:
        raise Unpackable(f"{model.peft_type} adapters are trained one by one")
    base = model.get_base_model()
    # What marks a base as adapted, which it is no more when it is bare again.
    vars(base).pop("peft_config", None)
    stack = PeftStack(model, partial(kind_of(config).rate, config))
    return PackedModel(base, stack, adapted_names(base), shape, wrapped_heads(base))


def refuse_unpackable(base: nn.Module, trials: int) -> None:
    """Raise Unpackable where the base itself draws random numbers (dropout of its own), for which
    several trials would share a generator."""
    found = None if trials == 1 else own_dropout(base)
    if found is not None:
        raise Unpackable(found)


def own_dropout(base: nn.Module) -> str | None:
    """The first module of the base that draws random numbers itself, in words."""
    for name, module in base.named_modules():
        named = {"dropout": module.p} if isinstance(module, nn.Dropout) else vars(module)
        for key, value in named.items():
            if "drop" in key and isinstance(value, float) and value > 0:
                return f"{name} has dropout of its own ({key}={value})"
    return None
