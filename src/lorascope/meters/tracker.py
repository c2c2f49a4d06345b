"""Bytes of all live tensors, operation by operation, in a real run or in one on fake tensors.

torch's own MemTracker (2.13) raises on frozen parameters.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from lorascope.quantizers.kinds import QUANTIZERS, Kernel, quantized_layers

START = "start"


class TensorTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While entered, every tensor that an operation makes counts until its storage is freed.

    Tensors from before count only once they are given to `add`. What a compiled kernel allocates
    for itself is not seen; what a quantizer's Python kernels allocate is, through `Kernel`.

    Args:
        block_bytes: size of an allocator's block; storages count in multiples of it.
        kernels: operations written out, so that what they allocate counts; None: all quantizers'.
        fake: whether the run is on fake tensors, where kernels make the results.
        device: count what lies on this device alone; None counts all.
    """

    def __init__(
        self,
        block_bytes: int = 1,
        kernels: Mapping[Any, Kernel] | None = None,
        fake: bool = False,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device = device
        self.live_bytes = 0
        self.peak_bytes = 0
        self.segments: dict[str, int] = {}
        """Peak by segment, in the order of `mark`."""
        self.paused = False
        self._segment = START
        self._block_bytes = block_bytes
        if kernels is None:
            each = [quantizer.kernels("cpu") for quantizer in QUANTIZERS.values()]
            kernels = {call: kernel for known in each for call, kernel in known.items()}
        self._kernels = kernels
        self._fake = fake
        self._storages: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def add(self, tensors: Iterable[Any]) -> None:
        """Count the storages of `tensors` that are not counted yet."""
        for tensor in tensors:
            if isinstance(tensor, DTensor):
                tensor = tensor.to_local()
            if isinstance(tensor, torch.Tensor) and self._counts(tensor):
                storage = tensor.untyped_storage()
                blocks = -(-storage.nbytes() // self._block_bytes)
                self._add_storage(storage, blocks * self._block_bytes)

    def _counts(self, tensor: torch.Tensor) -> bool:
        return self._device is None or tensor.device == self._device

    def mark(self, segment: str) -> None:
        """Count what follows towards the peak of `segment`, too."""
        self._segment = segment
        self._raise_peaks()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if self.paused:
            return func(*args, **(kwargs or {}))
        result = self._run(func, args, kwargs or {})
        self.add(tree_leaves(result))
        return result

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kernel = self._kernels.get(func)
        if kernel is None:
            return func(*args, **kwargs)
        if self._fake or kernel.exact:
            with self:
                return kernel.run(*args, **kwargs)
        shapes = tree_map_only(torch.Tensor, _without_data, (args, kwargs))
        for tensor in tree_leaves(shapes):
            if isinstance(tensor, torch.Tensor):
                # Views of a stand-in take no memory either.
                self._add_storage(tensor.untyped_storage(), size=0)
        with self:
            kernel.run(*shapes[0], **shapes[1])
        return func(*args, **kwargs)

    def _add_storage(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        if key in self._storages:
            return

        def freed(_: object) -> None:
            if self._storages.pop(key, None) is not None:
                self.live_bytes -= size

        self._storages[key] = weakref.ref(storage, freed)
        self.live_bytes += size
        self._raise_peaks()

    def _raise_peaks(self) -> None:
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        self.segments[self._segment] = max(self.segments.get(self._segment, 0), self.live_bytes)


def _without_data(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(tensor, device="meta")


def persistent_tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> Iterator[torch.Tensor]:
    """Tensors that stay between two batches: weights, quantization constants, gradients, optimizer
    state.

    Storages can come more than once.
    """
    yield from quantized_constants(model)
    for parameter in model.parameters():
        yield parameter
        if parameter.grad is not None:
            yield parameter.grad
    yield from model.buffers()
    if optimizer is not None:
        for state in optimizer.state.values():
            yield from (value for value in state.values() if isinstance(value, torch.Tensor))


def quantized_constants(model: nn.Module) -> Iterator[torch.Tensor]:
    """Scales and code tables of all quantized layers; shared ones come more than once."""
    for _, layer, quantizer in quantized_layers(model):
        yield from quantizer.constants(layer)
