"""Quantized layers whose weight PEFT can ask for."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor


class Readable:
    """A layer that PEFT asks for its weight as it asks HQQ's, which it knows by `W_q`. It knows the
    layers of other libraries by the type of their weight."""

    weight: Tensor
    in_features: int
    out_features: int

    @abstractmethod
    def read_weight(self) -> Tensor:
        """The weight [out, in] that the layer stands for."""

    @property
    def W_q(self) -> Tensor:  # noqa: N802
        """The mark that PEFT looks for."""
        return self.weight

    def dequantize(self) -> Tensor:
        """`read_weight`, or its shape where nothing is stored yet."""
        if self.weight.is_meta:
            return torch.empty(self.out_features, self.in_features, device="meta")
        return self.read_weight()
