"""A linear layer of the frozen base with the adapters of a pack around it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lorascope.adapters.stack import PackShape, StackedLayer
from lorascope.quantizers.kinds import quantizer_of
from lorascope.records import LinearShape


class Unpackable(Exception):
    """A base on which trials can only be trained one at a time."""


class PackedLinear(nn.Module):
    """A layer of the base, with each trial's adapter in its own rows."""

    def __init__(
        self, base_layer: nn.Module, adapters: StackedLayer, layer: LinearShape, shape: PackShape
    ) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.adapters = adapters
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self._quantizer = quantizer_of(base_layer)
        self._frozen = _Frozen(base_layer)
        self._name, self._shape = layer.name, shape

    def forward(self, x: Tensor) -> Tensor:
        """[trials x samples, tokens, in] -> [trials x samples, tokens, out]."""
        trials = self._shape.trials
        if trials > 1 and x.shape[:-1] != self._shape.batch:
            raise Unpackable(
                f"{self._name}: this layer gets {tuple(x.shape)} for a batch {self._shape.batch}, "
                "so that no row tells its trial"
            )
        result = self._base(x)
        return self.adapters.add(result, x, self._frozen) if self._shape.adapters else result

    def _base(self, x: Tensor) -> Tensor:
        """The base's own result; trials go one by one where rows of a batch interfere."""
        trials = self._shape.trials
        if trials > 1 and self._quantizer.rows_interfere(self.base_layer, x, trials):
            return torch.cat([self.base_layer(own) for own in x.chunk(trials)])
        result: Tensor = self.base_layer(x)
        return result


class _Frozen:
    """A layer of the base, for adapters that read more of it than its result."""

    def __init__(self, layer: nn.Module) -> None:
        self._layer, self._quantizer = layer, quantizer_of(layer)

    @property
    def bias(self) -> Tensor | None:
        """[out]"""
        bias: Tensor | None = getattr(self._layer, "bias", None)
        return bias

    def weight(self, dtype: torch.dtype) -> Tensor:
        """What its weight stands for, [out, in]."""
        return self._quantizer.backward_weight(self._layer).detach().to(dtype)
