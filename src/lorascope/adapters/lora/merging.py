"""LoRA's and DoRA's merged weight of one trial on one layer, and its gradients, by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from lorascope.adapters.lora.product import LayerStack


def merged_weight(stack: LayerStack, trial: int, weight: Tensor) -> Tensor:
    """W + s B A of a trial, [out, in] in float32; under DoRA magnitude / norm times that.

    By the operations of PEFT's merging on the values that are saved, padding excluded: in another
    order sums would be rounded differently, and some weights end on another step of a grid.

    Args:
        trial: its place in the stack.
        weight: the base's [out, in] in float32.
    """
    rank = stack.ranks[trial]
    a, b = stack.a[trial, :rank], stack.b[trial, :rank].T
    if stack.initial is not None:
        taken_a, taken_b = (part[trial, :rank] for part in stack.initial)
        a, b = torch.cat((a, taken_a)), torch.cat((b, taken_b.T), dim=1)
    merged = weight + (b.contiguous() @ a.contiguous()) * stack.scale[trial]
    if stack.magnitude is None:
        return merged
    return _ratio(stack.magnitude[trial], merged)[:, None] * merged


def add_merged_gradients(
    stack: LayerStack, trial: int, rows: Tensor, gradient: Tensor, weight: Tensor
) -> None:
    """Add the gradients of A, B and magnitude to where the stack keeps them, as if the merged
    weight itself had been multiplied with: of A and B they are those of LoRA beside a layer.

    Args:
        rows: [n, in], what the layer got.
        gradient: [n, out], of what it gave.
        weight: the base's [out, in] in float32.
    """
    assert stack.a.grad is not None
    assert stack.b.grad is not None
    a, b, scale = stack.a[trial].to(rows.dtype), stack.b[trial].to(rows.dtype), stack.scale[trial]
    if stack.magnitude is not None:
        assert stack.magnitude.grad is not None
        plain = merged_weight(_without_magnitude(stack), trial, weight)
        ratio, norm = _ratio(stack.magnitude[trial], plain), torch.linalg.norm(plain, dim=1)
        out = rows @ plain.to(rows.dtype).T
        stack.magnitude.grad[trial].add_((gradient * out).sum(0) / norm)
        # The norm is a constant of the step (DoRA, section 4.3).
        gradient = gradient * ratio.to(gradient.dtype)
    hidden, back = (a @ rows.T).mul_(scale), (b @ gradient.T).mul_(scale)
    stack.b.grad[trial].add_(hidden @ gradient)
    stack.a.grad[trial].add_(back @ rows)


def _ratio(magnitude: Tensor, merged: Tensor) -> Tensor:
    """[out], of a weight [out, in] before magnitudes."""
    ratio: Tensor = magnitude / torch.linalg.norm(merged, dim=1)
    return ratio


def _without_magnitude(stack: LayerStack) -> LayerStack:
    return LayerStack(
        stack.scale, stack.dropouts, stack.a, stack.b, initial=stack.initial, ranks=stack.ranks
    )
