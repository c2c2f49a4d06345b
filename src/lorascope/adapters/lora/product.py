"""LoRA's product on one layer, for all trials of a pack: forward pass and gradients, by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lorascope.machine.devices import compute_type


@dataclass
class LayerStack:
    """The adapters on one layer, of neighbouring trials that are padded to the same rank."""

    scale: Tensor
    """[trials, 1, 1]"""
    dropouts: list[float]
    a: nn.Parameter
    """[trials, rank, in]"""
    b: nn.Parameter
    """[trials, rank, out], that is B^T: products with few columns are slow."""
    magnitude: nn.Parameter | None = None
    """[trials, out] for DoRA."""
    both: Tensor | None = None
    """[trials, rank (in + out)]: A and B of each trial side by side, sharing their memory."""
    initial: tuple[Tensor, Tensor] | None = None
    """A [trials, rank, in] and -B^T [trials, rank, out] as they began, where they were taken out of
    the base's weights."""
    ranks: Sequence[int] = ()
    """Rank of each trial, before it was padded."""

    def matrices(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """A and B in `dtype`, cast in one call."""
        if self.a.dtype is dtype or self.both is None:
            return _cast(self.a, dtype), _cast(self.b, dtype)
        sizes = [self.a[0].numel(), self.b[0].numel()]
        a, b = torch.split(self.both.to(dtype), sizes, dim=1)
        return a.view(self.a.shape), b.view(self.b.shape)

    def joined(self) -> tuple[Tensor, Tensor]:
        """A and B^T, with A and -B^T as they began beside them where those were taken out."""
        if self.initial is None:
            return self.a, self.b
        a, b = self.initial
        return torch.cat((self.a, a), dim=1), torch.cat((self.b, b), dim=1)

    def parameters(self) -> Iterator[nn.Parameter]:
        """A, B and, for DoRA, the magnitude."""
        yield self.a
        yield self.b
        if self.magnitude is not None:
            yield self.magnitude

    def moved(self, device: torch.device) -> LayerStack:
        """The same on another device, with values and gradients of its own."""
        a, b, *magnitude = (_trainable(_copied(own, device)) for own in self.parameters())
        began = [_copied(own, device) for own in self.initial or ()]
        return replace(
            self,
            scale=_copied(self.scale, device),
            a=a,
            b=b,
            magnitude=magnitude[0] if magnitude else None,
            both=None,
            initial=(began[0], began[1]) if began else None,
        )


def _copied(value: Tensor, device: torch.device) -> Tensor:
    # Neither by `to` nor like it: fake tensors know one number's value, and leave it where it is.
    return torch.empty(value.shape, dtype=value.dtype, device=device).copy_(value.detach())


def _trainable(value: Tensor) -> nn.Parameter:
    parameter = nn.Parameter(value)
    parameter.grad = torch.zeros_like(value)
    return parameter


class AddAdapters(torch.autograd.Function):
    """out + scale (rows A^T) B^T for the trials of all stacks, and its gradients (Hu et al. 2021).

    By hand, as autograd takes the rows of several stacks apart and together again in new memory,
    and computes products with as few columns as the rank, which take up to four times as long as
    their transposes: 6 % of a mixed pack's step. The gradients of A and B are added to where
    `RankStack` keeps them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        out: Tensor,
        x: Tensor,
        stacks: list[LayerStack],
        sizes: list[int],
        *_: nn.Parameter,
    ) -> Tensor:
        """out [trials x samples, tokens, out] and x [trials x samples, tokens, in], or the same in
        another shape with the trials' rows in order -> as `out`, in the type in which is computed.

        Args:
            sizes: number of trials in each stack.
            _: parameters of the stacks, passed so that autograd sees them.
        """
        compute, trials = compute_type(x), sum(sizes)
        rows = _cast(x.reshape(trials, -1, x.shape[-1]), compute)
        # In place: a linear layer's result is nobody else's, nor needed for its gradient.
        result = _cast(out.detach(), compute).contiguous()
        added = _parts(result.view(trials, -1, out.shape[-1]), sizes)
        hiddens = []
        for stack, its_rows, sums in zip(stacks, _parts(rows, sizes), added, strict=True):
            a, b = stack.matrices(compute)
            hidden = torch.bmm(a, its_rows.mT).mul_(stack.scale)
            sums.baddbmm_(hidden.mT, b)
            hiddens.append(hidden)
        ctx.stacks, ctx.sizes, ctx.shape = stacks, sizes, x.shape
        ctx.save_for_backward(rows, *hiddens)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient of the result -> gradients of `out` and `x`."""
        rows, *hiddens = ctx.saved_tensors
        compute, sizes = rows.dtype, ctx.sizes
        own = _cast(gradient, compute).reshape(len(rows), -1, gradient.shape[-1])
        of_rows = torch.empty_like(rows) if ctx.needs_input_grad[1] else None
        of_parts = [None] * len(sizes) if of_rows is None else _parts(of_rows, sizes)
        parts = zip(_parts(rows, sizes), _parts(own, sizes), of_parts, strict=True)
        for stack, hidden, part in zip(ctx.stacks, hiddens, parts, strict=True):
            its_rows, its_gradient, of_its_rows = part
            a, b = stack.matrices(compute)
            back = torch.bmm(b, its_gradient.mT).mul_(stack.scale)
            stack.b.grad.add_(torch.bmm(hidden, its_gradient))
            stack.a.grad.add_(torch.bmm(back, its_rows))
            if of_its_rows is not None:
                torch.bmm(back.mT, a, out=of_its_rows)
        of_x = None if of_rows is None else of_rows.view(ctx.shape)
        return gradient, of_x, *[None] * (len(ctx.needs_input_grad) - 2)


def without_initial(out: Tensor, rows: Tensor, stack: LayerStack) -> Tensor:
    """out [trials, n, out] of the base's layer -> that of a layer whose weight lacks s B A as they
    began, for rows [trials, n, in]."""
    assert stack.initial is not None
    compute = compute_type(rows)
    a, b = (_cast(matrix, compute) for matrix in stack.initial)
    hidden = torch.bmm(a, _cast(rows, compute).mT).mul_(stack.scale)
    return torch.baddbmm(_cast(out, compute), hidden.mT, b)


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype is dtype else tensor.to(dtype)


def _parts(tensor: Tensor, sizes: list[int]) -> Sequence[Tensor]:
    return (tensor,) if len(sizes) == 1 else torch.split(tensor, sizes)
