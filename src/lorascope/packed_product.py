"""The products of all adapters of a layer as one node of the graph.

Left to autograd, rows are cut by stack and joined again, and so are their gradients: with ranks 1
to 128 a fifth of a training step went there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Factors:
    """Adapters of neighbouring trials at one layer: A [trials, rank, in], B [trials, out, rank],
    scale [trials, 1, 1], and what their dropout multiplies rows [trials, n, in] with, if any."""

    a: Tensor
    b: Tensor
    scale: Tensor
    mask: Tensor | None


def add_products(out: Tensor, rows: Tensor, factors: Sequence[Factors]) -> Tensor:
    """out [trials, n, out] + scale (rows A^T) B^T for rows [trials, n, in].

    The gradients of A and B are added to their `grad`, which must be there.
    """
    parameters = [matrix for own in factors for matrix in (own.a, own.b)]
    result: Tensor = _Products.apply(out, rows, factors, *parameters)
    return result


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, out: Tensor, rows: Tensor, factors: Sequence[Factors], *parameters: Tensor
    ) -> Tensor:
        """The parameters are given so that autograd comes back here where rows need no gradient."""
        dtype = _product_dtype(rows)
        ctx.types, ctx.factors = (out.dtype, rows.dtype), factors
        out, rows = out.to(dtype), rows.to(dtype)
        result = torch.empty_like(out)
        saved: list[Tensor] = []
        for own, its_rows, bare, target in _by_stack(factors, rows, out, result):
            its_rows = its_rows if own.mask is None else its_rows * own.mask
            a, b = own.a.to(dtype), own.b.to(dtype)
            hidden = torch.bmm(its_rows, a.mT).mul_(own.scale)
            torch.baddbmm(bare, hidden, b.mT, out=target)
            saved += [its_rows, a, b, hidden]
        ctx.save_for_backward(*saved)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """[trials, n, out] -> gradients of out and rows."""
        factors: Sequence[Factors] = ctx.factors
        saved = ctx.saved_tensors
        out_type, rows_type = ctx.types
        # The first layer's rows need no gradient.
        wanted = bool(ctx.needs_input_grad[1])
        of_rows = gradient.new_empty(*gradient.shape[:2], saved[0].shape[2] if wanted else 0)
        for index, (own, above, target) in enumerate(_by_stack(factors, gradient, of_rows)):
            its_rows, a, b, hidden = saved[4 * index : 4 * index + 4]
            of_hidden = torch.bmm(above, b).mul_(own.scale)
            _add_product(own.b.grad, above.mT, hidden)
            _add_product(own.a.grad, of_hidden.mT, its_rows)
            if wanted:
                torch.bmm(of_hidden, a, out=target)
                if own.mask is not None:
                    target.mul_(own.mask)
        return (
            gradient.to(out_type),
            of_rows.to(rows_type) if wanted else None,
            *([None] * (1 + 2 * len(factors))),
        )


def _by_stack(factors: Sequence[Factors], *tensors: Tensor) -> Iterator[tuple[Any, ...]]:
    """Each stack's adapters, and the views of its trials in `tensors` [trials, ...]."""
    sizes = [len(own.a) for own in factors]
    return zip(factors, *(torch.split(tensor, sizes) for tensor in tensors), strict=True)


def _product_dtype(rows: Tensor) -> torch.dtype:
    """The type that autocast, where it is on, takes for a product."""
    kind = rows.device.type
    if torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return rows.dtype


def _add_product(target: Tensor | None, left: Tensor, right: Tensor) -> None:
    """Add a product to a gradient in place; 16-bit products are rounded first, as autograd's."""
    assert target is not None
    if target.dtype is left.dtype:
        target.baddbmm_(left, right)
    else:
        target.add_(torch.bmm(left, right))
