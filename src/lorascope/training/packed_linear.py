"""A linear layer of the frozen base, with the adapters of a pack's trials beside it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lorascope.adapters.stack import PackShape, PositionTurns, StackedLayer
from lorascope.quantizers.kinds import quantizer_of
from lorascope.quantizers.torchao.rounding import Rounding
from lorascope.records import LinearShape
from lorascope.training.rounded_merge import RoundedProduct


class Unpackable(Exception):
    """A base on which trials can only be trained one at a time."""


class PackedLinear(nn.Module):
    """A layer of the frozen base, with each trial's adapter in its own rows."""

    def __init__(
        self, base_layer: nn.Module, adapters: StackedLayer, layer: LinearShape, shape: PackShape
    ) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.adapters = adapters
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.rounding: Rounding | None = None
        """What the merged weight becomes before it is computed with; None computes beside the
        base's layer."""
        self._quantizer = quantizer_of(base_layer)
        self._name, self._shape = layer.name, shape

    @property
    def bias(self) -> Tensor | None:
        """Bias [out] of the base's layer."""
        bias: Tensor | None = getattr(self.base_layer, "bias", None)
        return bias

    def weight(self, dtype: torch.dtype) -> Tensor:
        """Dequantized weight [out, in] of the base's layer."""
        return self._quantizer.backward_weight(self.base_layer).detach().to(dtype)

    def exact_weight(self) -> Tensor:
        """The weight [out, in] that the base's layer stands for, in float32."""
        return self._quantizer.weight(self.base_layer)

    def forward(self, x: Tensor) -> Tensor:
        """[trials x samples, tokens, in] -> [trials x samples, tokens, out]."""
        shape = self._shape
        if shape.positions is not None:
            return self._of_positions(x, shape.positions)
        if shape.trials > 1 and shape.adapters and x.shape[:-1] != shape.batch:
            raise Unpackable(
                f"{self._name}: this layer gets {tuple(x.shape)} for a batch {shape.batch}, "
                "so that no row tells its trial"
            )
        return self._computed(x)

    def _of_positions(self, x: Tensor, turns: PositionTurns) -> Tensor:
        """[1, positions, in] -> [1, positions, out] of the trial whose turn it is."""
        results = turns.results
        if self._name not in results:
            every = self._computed(x, self._shape.trials)
            # Parts are copies, as the first DeBERTa divides in place.
            parts = [every] if len(every) == 1 else [t.clone() for t in torch.split(every, 1)]
            results[self._name] = parts
        return results[self._name][turns.trial]

    def _computed(self, x: Tensor, copies: int = 1) -> Tensor:
        """The layer's result with adapters; x [1, positions, in] is that many trials' alike."""
        rows = x if copies == 1 else x.expand(copies, -1, -1)
        if self.rounding is not None and self._shape.adapters:
            rounded: Tensor = RoundedProduct.apply(  # type: ignore[no-untyped-call]
                rows, self, self.rounding, self._shape.trials, *self.adapters.parameters()
            )
            return rounded
        result = self.base_layer(x)
        if not self._shape.adapters:
            return result  # type: ignore[no-any-return]
        return self.adapters.add(
            result if copies == 1 else result.expand(copies, -1, -1), rows, self
        )
