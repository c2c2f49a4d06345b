"""Marks in a traced training step: its parts, and the way through the layers and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import nn

from lorascope.adapters.decoder import decoder_layers
from lorascope.meters.tracker import TensorTracker
from lorascope.training.pack import PackedModel

BACKWARD = ("middle_backward", "last_backward", "first_backward")
"""Segments on the way back through the layers."""
START = "_start"
"""Ends the name of a segment that is the moment where one of BACKWARD begins."""


class StepMarks:
    """The meter of a traced step. It marks where each part begins, the last layer's end, and the
    backward pass's way into the last and first group of `period` layers.

    Args:
        precision: mixed precision of the forward pass.
        starts: whether the moments where BACKWARD's begin are segments of their own.
    """

    def __init__(
        self,
        model: PackedModel,
        tracker: TensorTracker,
        period: int,
        precision: Callable[[], AbstractContextManager[None]],
        starts: bool = False,
    ) -> None:
        self._starts = starts
        self.layers_end_bytes = 0
        self._in_forward = True
        self._tracker, self._precision = tracker, precision
        _, layers = decoder_layers(model.base)
        last = len(layers) - 1
        names = {last - period: "middle_backward", last: "last_backward"}
        if last >= period:
            names[period - 1] = "first_backward"
        for index, layer in enumerate(layers):
            layer.register_forward_hook(self._hook(names.get(index), index == last))

    @contextmanager
    def micro_batch(self, *_: object) -> Iterator[None]:
        """Around the forward and backward pass; clipping is next."""
        self._tracker.mark("forward")
        yield
        self._tracker.mark("clip")

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Around the forward pass; the backward pass is next."""
        with self._precision():
            yield
        self._tracker.mark("head_backward")
        self._in_forward = False

    @contextmanager
    def optimizer_step(self, *_: object) -> Iterator[None]:
        """Around the optimizer's step."""
        self._tracker.mark("optimizer")
        yield

    def _begin(self, segment: str) -> None:
        if self._starts:
            self._tracker.segments[segment + START] = self._tracker.live_bytes
        self._tracker.mark(segment)

    def _hook(self, segment: str | None, is_last: bool) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            # A checkpointed layer runs again in the backward pass.
            if not self._in_forward:
                return
            hidden = output[0] if isinstance(output, tuple) else output
            if segment is not None and hidden.requires_grad:
                hidden.register_hook(lambda gradient: self._begin(segment))
            if is_last:
                self.layers_end_bytes = self._tracker.live_bytes
                self._tracker.mark("head")

        return hook
