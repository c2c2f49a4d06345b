"""Training through the merge (train.qat): layers compute with what a grid makes of the sum of base
and adapter, which is the weight that is served.

Backward passes are straight-through (Bengio et al. 2013, arXiv 1308.3432): the gradient of a
rounded weight is taken for that of the weight itself, scales and zero points being constants. That
holds for cut weights too, whose gradients torchao's fake quantizers set to zero. On these grids
nothing lies beyond about a step of the ends, and a cut weight is the largest of its group, which
decides the scale: it should hear that it is too large. It also makes LoRA's gradients those of the
two thin matrices beside a layer, so that no gradient of a whole weight is made.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lorascope.adapters.peft_extension import OwnLayer
from lorascope.adapters.stack import RoundableLayer
from lorascope.machine.devices import compute_type
from lorascope.quantizers.torchao.rounding import Rounding, rounded_layers


class MergedLayer(Protocol):
    """A layer of the base with the adapters of a pack."""

    adapters: RoundableLayer
    out_features: int

    @property
    def bias(self) -> Tensor | None:
        """[out]"""

    def exact_weight(self) -> Tensor:
        """The base's weight [out, in] in float32."""


class RoundedProduct(torch.autograd.Function):
    """x Q(W + s B A)^T + bias for each trial's rows, Q being a grid's rounding.

    A merged weight is made for one trial after the other and again in the backward pass: there is
    never more than one, however many trials there are.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, layer: MergedLayer, rounding: Rounding, trials: int, *_: nn.Parameter
    ) -> Tensor:
        """x [trials x samples, tokens, in] -> [trials x samples, tokens, out], in the type in which
        is computed.

        Args:
            _: parameters of the layer's adapters, passed so that autograd sees them.
        """
        rows = x.reshape(trials, -1, x.shape[-1]).to(compute_type(x))
        result = rows.new_empty((*rows.shape[:2], layer.out_features))
        # Autocast would make merged weights in 16 bits here, and not in the backward pass.
        with torch.autocast(rows.device.type, enabled=False):
            bias, weight = layer.bias, layer.exact_weight()
            for trial, its_rows in enumerate(rows):
                served = _served(layer, trial, weight, rounding).to(rows.dtype)
                if bias is None:
                    torch.mm(its_rows, served.T, out=result[trial])
                else:
                    torch.addmm(bias.to(rows.dtype), its_rows, served.T, out=result[trial])
        ctx.layer, ctx.rounding, ctx.shape = layer, rounding, x.shape
        ctx.save_for_backward(rows)
        return result.view(*x.shape[:-1], layer.out_features)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient of the result -> gradient of `x`."""
        (rows,), layer = ctx.saved_tensors, ctx.layer
        own = gradient.reshape(len(rows), -1, gradient.shape[-1]).to(rows.dtype)
        of_rows = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        weight = layer.exact_weight()
        for trial, its_gradient in enumerate(own):
            layer.adapters.add_merged_gradients(trial, rows[trial], its_gradient, weight)
            if of_rows is not None:
                served = _served(layer, trial, weight, ctx.rounding).to(rows.dtype)
                torch.mm(its_gradient, served, out=of_rows[trial])
        of_x = None if of_rows is None else of_rows.view(ctx.shape)
        return of_x, *[None] * (len(ctx.needs_input_grad) - 1)


def _served(layer: MergedLayer, trial: int, weight: Tensor, rounding: Rounding) -> Tensor:
    return rounding(layer.adapters.merged(trial, weight))


class StraightThrough(torch.autograd.Function):
    """A rounded weight, whose gradient is that of the weight."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, rounding: Rounding) -> Tensor:
        """[out, in] -> [out, in]"""
        return rounding(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """As it comes."""
        return gradient, None


def round_merged(base: Any, names: Iterable[str], rounding: Rounding) -> None:
    """Let adapted layers compute with rounded merged weights, as far as a grid takes them.

    Args:
        names: of layers that stand in place of the base's, which is their `base_layer`.
    """
    taken = {name for name, _ in rounded_layers(base)}
    for name in names:
        layer, start = base.get_submodule(name), f"{name}.base_layer"
        if isinstance(layer, OwnLayer):
            own = (one.removeprefix(start) for one in taken if f"{one}.".startswith(f"{start}."))
            each = partial(_straight_through, rounding=rounding)
            layer.rounding = {f"{part}.weight".lstrip("."): each for part in own}
        elif start in taken:
            layer.rounding = rounding


def _straight_through(weight: Tensor, rounding: Rounding) -> Tensor:
    rounded: Tensor = StraightThrough.apply(weight, rounding)  # type: ignore[no-untyped-call]
    return rounded
