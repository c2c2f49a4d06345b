"""What adapters add to a layer's result, against autograd on the formula."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lorascope.adapters.lora.kind import LoraConfig
from lorascope.adapters.lora.product import AddAdapters, LayerStack
from lorascope.adapters.lora.stack import LoraStack
from lorascope.records import LinearShape
from tests.devices import DEVICE

pytestmark = pytest.mark.gpu

TRIALS, SAMPLES, TOKENS, WIDE, HIGH = 5, 2, 7, 12, 9


@pytest.fixture(autouse=True)
def tensors_on_the_device() -> Iterator[None]:
    """Every tensor that a test makes."""
    with torch.device(DEVICE.kind):
        yield


def stack_of(trials: int, rank: int, dtype: torch.dtype) -> LayerStack:
    """Random adapters whose gradients hold ones already, as after a first micro-batch."""
    parts = [torch.randn(trials, rank, size, dtype=dtype) for size in (WIDE, HIGH)]
    a, b = (nn.Parameter(part) for part in parts)
    for parameter in (a, b):
        parameter.grad = torch.ones_like(parameter)
    scale = torch.rand(trials, 1, 1, dtype=dtype) + 0.5
    return LayerStack(scale, [0.0] * trials, a, b)


def by_formula(out: Tensor, x: Tensor, stacks: list[LayerStack]) -> Tensor:
    """out + s (x A^T) B^T, trial by trial."""
    trials = [
        (scale * own @ a.T) @ b
        for own, (a, b, scale) in zip(
            x.chunk(TRIALS),
            [t for s in stacks for t in zip(s.a, s.b, s.scale.flatten(), strict=True)],
            strict=True,
        )
    ]
    return out + torch.cat(trials)


def added(out: Tensor, x: Tensor, stacks: list[LayerStack]) -> Tensor:
    parameters = [own for stack in stacks for own in stack.parameters()]
    result: Tensor = AddAdapters.apply(  # type: ignore[no-untyped-call]
        out.clone(), x, stacks, [len(stack.a) for stack in stacks], *parameters
    )
    return result


@pytest.mark.parametrize("sizes", [[(5, 8)], [(2, 8), (3, 16)]])
@pytest.mark.parametrize("strided", [False, True])
def test_sums_and_gradients_are_those_of_the_formula(
    sizes: list[tuple[int, int]], strided: bool
) -> None:
    torch.manual_seed(0)
    stacks = [stack_of(trials, rank, torch.float64) for trials, rank in sizes]
    x, out = (
        torch.randn(TRIALS * SAMPLES, size, TOKENS, dtype=torch.float64).mT for size in (WIDE, HIGH)
    )
    x, out = ((t if strided else t.contiguous()).requires_grad_() for t in (x, out))
    gradient = torch.randn(out.shape, dtype=torch.float64)
    parameters = [own for stack in stacks for own in stack.parameters()]
    expected = by_formula(out, x, stacks)
    of_out, of_x, *of_parameters = torch.autograd.grad(expected, [out, x, *parameters], gradient)

    result = added(out, x, stacks)
    result.backward(gradient)  # type: ignore[no-untyped-call]

    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(out.grad, of_out)
    torch.testing.assert_close(x.grad, of_x)
    for parameter, own in zip(parameters, of_parameters, strict=True):
        torch.testing.assert_close(parameter.grad, own + 1)


def test_a_first_layer_whose_input_needs_no_gradient_gets_its_own() -> None:
    stacks = [stack_of(TRIALS, 8, torch.float32)]
    x, out = torch.randn(TRIALS, TOKENS, WIDE), torch.randn(TRIALS, TOKENS, HIGH)
    added(out, x, stacks).sum().backward()  # type: ignore[no-untyped-call]
    parameters = list(stacks[0].parameters())
    references = torch.autograd.grad(by_formula(out, x, stacks).sum(), parameters)
    assert x.grad is None
    for parameter, own in zip(parameters, references, strict=True):
        torch.testing.assert_close(parameter.grad, own + 1)


def test_autocast_computes_in_its_type_and_gradients_stay_in_the_parameters() -> None:
    torch.manual_seed(0)
    stacks = [stack_of(TRIALS, 8, torch.float32)]
    parameters = list(stacks[0].parameters())
    x = torch.randn(TRIALS, TOKENS, WIDE, requires_grad=True)
    out = torch.randn(TRIALS, TOKENS, HIGH, requires_grad=True)
    expected = by_formula(out, x, stacks)
    references = torch.autograd.grad(expected.sum(), [x, *parameters])

    with torch.autocast(DEVICE.kind, dtype=torch.bfloat16):
        result = added(out, x, stacks)
    result.float().sum().backward()  # type: ignore[no-untyped-call]

    assert result.dtype is torch.bfloat16
    torch.testing.assert_close(result.float(), expected, rtol=0.02, atol=0.1)
    assert x.grad is not None
    assert x.grad.dtype is torch.float32
    torch.testing.assert_close(x.grad, references[0], rtol=0.02, atol=0.1)
    torch.testing.assert_close(out.grad, torch.ones_like(out))
    for parameter, own in zip(parameters, references[1:], strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, own + 1, rtol=0.02, atol=0.2)


def test_a_layer_that_keeps_its_result_for_its_gradient_is_refused_by_autograd() -> None:
    stacks = [stack_of(TRIALS, 8, torch.float32)]
    x = torch.randn(TRIALS, TOKENS, WIDE)
    kept = torch.randn(TRIALS, TOKENS, HIGH, requires_grad=True).exp()
    parameters = list(stacks[0].parameters())
    result = AddAdapters.apply(  # type: ignore[no-untyped-call]
        kept, x, stacks, [TRIALS], *parameters
    )
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.sum().backward()


def test_a_rank_is_cast_to_16_bits_in_one_call_each_way() -> None:
    """Of small layers the calls take the time: casts were 4 of 14 calls of a rank on a layer."""
    torch.manual_seed(0)
    stack = LoraStack(
        [LoraConfig(rank=rank) for rank in (8, 8, 64)],
        [LinearShape("l", "l", WIDE, HIGH)],
        DEVICE.kind,
    )
    for row in stack.rows:
        row.data.normal_()
    stacks = [own.layers["l"] for own in stack.stacks]
    x = torch.randn(3, TOKENS, WIDE, dtype=torch.bfloat16, requires_grad=True)
    out = torch.randn(3, TOKENS, HIGH, dtype=torch.bfloat16)
    found = []
    for beside in (True, False):
        for own in stacks:
            own.both = own.both if beside else None
        stack.clear_gradients()
        with Casts() as casts:  # type: ignore[no-untyped-call]
            result = added(out, x, stacks)
            result.sum().backward()  # type: ignore[no-untyped-call]
        found.append([result, *(row.grad.clone() for row in stack.rows if row.grad is not None)])
        assert casts.count == (4 if beside else 8)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


class Casts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts tensors that are copied into another type."""

    count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.count += func is torch.ops.aten._to_copy.default
        return func(*args, **(kwargs or {}))
