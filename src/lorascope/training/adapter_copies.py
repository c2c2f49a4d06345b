"""Copies of a pack's values on the devices of their layers, where layers are placed over several.

All values of a trial are one vector on the first device, as without a placement: optimizer,
clipping, checkpoints and validation read and change that alone, so that a trial's numbers do not
depend on where its layers lie. Layers elsewhere compute with a copy. Before a step each copy gets
the present values, and after it the vectors get the copies' gradients: two transfers a step, and 8
bytes a parameter more on the other devices.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lorascope.adapters.stack import StackedLayer


class AdapterCopies:
    """The layers of a pack that lie on other devices than its vectors."""

    def __init__(self) -> None:
        self._values: list[tuple[Tensor, Tensor]] = []
        self._gradients: list[tuple[Tensor, Tensor]] = []

    def moved(self, layer: StackedLayer, device: torch.device) -> StackedLayer:
        """A layer to compute with on another device in place of `layer`, whose parameters share the
        vectors' memory."""
        copy = layer.moved(device)
        self._values += zip(layer.buffers(), copy.buffers(), strict=True)
        for own, copied in zip(layer.parameters(), copy.parameters(), strict=True):
            assert own.grad is not None
            assert copied.grad is not None
            self._values.append((own.data, copied.data))
            self._gradients.append((own.grad, copied.grad))
        return copy

    @torch.no_grad()
    def hand_out(self) -> None:
        """Give copies the vectors' values, and no gradients."""
        for own, copied in self._values:
            copied.copy_(own)
        for _, gradient in self._gradients:
            gradient.zero_()

    @torch.no_grad()
    def gather(self) -> None:
        """Give the vectors the copies' gradients."""
        for own, copied in self._gradients:
            own.copy_(copied)
