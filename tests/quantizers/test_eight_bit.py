"""INT8 in training steps: bitsandbytes' own numbers on a CPU, the same operations elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear8bitLt
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from lorascope.adapters.kinds import kind_of
from lorascope.adapters.lora.kind import LoraConfig
from lorascope.adapters.stack import PackShape
from lorascope.config import Config, QuantConfig, Storage
from lorascope.planning.subject import SampleLengths, subject_of
from lorascope.planning.trace import trace_training
from lorascope.quantizers.kinds import QUANTIZERS
from lorascope.records import LinearShape
from lorascope.training.packed_linear import PackedLinear
from tests.planning.test_capacity import EIGHT_LAYERS

EIGHT_BIT = QUANTIZERS[Storage.int8]
THRESHOLD = 6.0


def stored(bias: bool, prepared: bool = True) -> Any:
    """A layer [7, 5] in INT8, in training mode."""
    torch.manual_seed(0)
    exact = nn.Linear(5, 7, bias=bias)
    layer = Linear8bitLt(5, 7, bias=bias, has_fp16_weights=False, threshold=THRESHOLD)
    layer.load_state_dict(exact.state_dict())
    model = nn.Sequential(layer.to("cpu")).requires_grad_(False)
    if prepared:
        EIGHT_BIT.prepare(model, torch.float32)
    return model[0].train()


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Names of the operations that run inside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def rows(device: str = "cpu") -> Tensor:
    """[4, 3, 5] with an outlier in the last row."""
    torch.manual_seed(1)
    x = torch.randn(4, 3, 5)
    x[3, 2, 1] = 10 * THRESHOLD
    return x.to(device).requires_grad_()


def gradient_of(layer: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Result, and gradient of x for another random gradient."""
    result = layer(x)
    torch.manual_seed(2)
    result.backward(torch.randn(result.shape, device=result.device))
    assert x.grad is not None
    return result.detach(), x.grad


@pytest.mark.parametrize("bias", [False, True])
def test_a_training_step_on_a_cpu_has_the_bits_of_bitsandbytes(bias: bool) -> None:
    ours, its_gradient = gradient_of(stored(bias), rows())
    theirs, their_gradient = gradient_of(stored(bias, prepared=False), rows())
    assert torch.equal(ours, theirs)
    assert torch.equal(its_gradient, their_gradient)


def test_evaluation_stays_llm_int8() -> None:
    x = rows().detach()
    ours, theirs = stored(True).eval()(x), stored(True, prepared=False).eval()(x)
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, stored(True)(x))


def test_a_training_step_runs_the_same_operations_on_cuda() -> None:
    """Where bitsandbytes itself rounds inputs. On tensors without data, forward: torch without CUDA
    has no gradients for those of CUDA."""
    names = []
    for device in ("cpu", "cuda"):
        layer = stored(bias=True)
        bias, codes, scales = layer.bias.detach(), layer.weight.data, layer.weight.SCB
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            bias, codes, scales, x = (
                torch.empty(like.shape, dtype=like.dtype, device=device)
                for like in (bias, codes, scales, rows())
            )
            layer.bias = nn.Parameter(bias, requires_grad=False)
            layer.weight = nn.Parameter(codes, requires_grad=False)
            layer.weight.CB, layer.weight.SCB = None, scales
            with Operations() as seen:
                assert layer(x).shape == (4, 3, 7)
        names.append(seen.names)
    assert names[0] == names[1]
    assert not any("bitsandbytes" in name for name in names[0])


def test_nothing_but_codes_and_scales_waits_for_the_backward_pass() -> None:
    layer, x = stored(bias=True), rows()
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = layer(x * 1)
    assert {tuple(tensor.shape) for tensor in kept} == {(7, 5), (7,)}
    assert not hasattr(result.grad_fn, "A")


@pytest.mark.usefixtures("one_thread")
def test_an_outlier_of_one_trial_changes_no_other_and_lets_nobody_wait() -> None:
    config, own = LoraConfig(rank=2), LinearShape("l", "l", 5, 7)
    shape = PackShape([0, 1], batch=(4, 3))
    stack = kind_of(config).stack([config] * 2, [own], "cpu")
    assert stack is not None
    packed = PackedLinear(stored(bias=False), stack.layer("l", shape), own, shape)
    with Operations() as seen:
        together = packed(rows())
    assert not any("_local_scalar_dense" in name for name in seen.names)
    # In the same shape: a CPU may round products of another number of rows otherwise.
    without = rows().detach()
    without[3, 2, 1] = 0
    undisturbed = packed(without)
    assert torch.equal(together[:2], undisturbed[:2])
    assert not torch.equal(together[3], undisturbed[3])


@contextmanager
def checkpointed(storage: Storage) -> Iterator[Any]:
    config = Config(quant=QuantConfig(storage.value, storage), adapter=LoraConfig(rank=8))
    config.train.gradient_checkpointing = True
    config.train.micro_batch_size = config.train.batch_size = 4
    yield subject_of(config, EIGHT_LAYERS, "cuda", SampleLengths(64, equal=True))


def test_a_checkpointed_int8_layer_keeps_what_a_4_bit_layer_keeps() -> None:
    kept = {}
    for storage in (Storage.int8, Storage.nf4):
        with checkpointed(storage) as planned:
            trace = trace_training(planned, kept=None)
            kept[storage] = trace.parts["activations"]
    assert kept[Storage.int8] == kept[Storage.nf4]
