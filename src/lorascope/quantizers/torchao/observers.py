"""The range of a layer's inputs that 8 bits cover: what watches them, and chooses it.

torchao's observers hold extremes, and the loss of a range. Its `AffineQuantizedMSEObserver` is not
taken whole (0.18): it forgets all batches but the last one, and tries ranges around zero only,
which are worse than min_max for inputs of one sign.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torchao.quantization.granularity import PerTensor
from torchao.quantization.observer import (
    AffineQuantizedMinMaxObserver,
    AffineQuantizedMSEObserver,
)
from torchao.quantization.quant_primitives import (
    MappingType,
    choose_qparams_affine_with_min_max,
    dequantize_affine,
    quantize_affine,
)

from lorascope.config import Observer, QuantConfig

LOWEST, HIGHEST = -128, 127
"""Codes of inputs."""
CONSTANTS = {
    "eps": torch.finfo(torch.float32).eps,
    "scale_dtype": torch.float32,
    "zero_point_dtype": torch.int8,
}
GRID = {"target_dtype": torch.int8, "quant_min": LOWEST, "quant_max": HIGHEST, **CONSTANTS}
SHARES = (1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.035, 0.025, 0.015)
"""Shares of the whole range that `mse` tries."""

Ends = tuple[Tensor, Tensor]
"""The smallest and largest value of a range, float32 []."""


class Watch(ABC):
    """Sees the inputs of one layer, some after others."""

    @abstractmethod
    def see(self, values: Tensor) -> None:
        """Inputs [tokens, in], float32."""


class Extremes(Watch):
    """The smallest and largest input."""

    def __init__(self) -> None:
        self.values = 0
        self.squares = torch.zeros((), dtype=torch.float64)
        self._own = AffineQuantizedMinMaxObserver(
            MappingType.ASYMMETRIC, granularity=PerTensor(), **GRID
        )

    def see(self, values: Tensor) -> None:
        self._own(values)
        self.values += values.numel()
        self.squares += values.square().sum(dtype=torch.float64).cpu()

    @property
    def ends(self) -> Ends:
        """They are not known before anything was seen."""
        return self._own.min_val, self._own.max_val


class Tails(Watch):
    """The range that contains `percentile` per cent of all inputs, as many below as above it.

    Args:
        values: number of inputs in all.
    """

    def __init__(self, percentile: float, values: int) -> None:
        self._outside = math.floor((100 - percentile) / 200 * values)
        self._smallest = self._largest = torch.empty(0)

    def see(self, values: Tensor) -> None:
        """Of each side it keeps those that may lie outside, and the next one, which is its end."""
        for side, largest in (("_smallest", False), ("_largest", True)):
            all_ = torch.cat([getattr(self, side).to(values.device), values.flatten()])
            kept = min(self._outside + 1, len(all_))
            setattr(self, side, all_.topk(kept, largest=largest).values)

    @property
    def ends(self) -> Ends:
        return self._smallest[-1], self._largest[-1]


class LeastError(Watch):
    """The share of a range with the least mean squared error, both of its ends shrunk alike.

    Args:
        ends: the whole range.
    """

    def __init__(self, ends: Ends) -> None:
        self._whole, self._errors = ends, torch.zeros(len(SHARES), dtype=torch.float64)
        self._own = AffineQuantizedMSEObserver(
            MappingType.ASYMMETRIC, granularity=PerTensor(), **GRID
        )

    def see(self, values: Tensor) -> None:
        low, high = self._whole
        means = [self._own.loss_fn(values, low * share, high * share) for share in SHARES]
        self._errors += torch.stack(means).cpu().double() * values.numel()

    @property
    def ends(self) -> Ends:
        share = SHARES[int(self._errors.argmin())]
        return self._whole[0] * share, self._whole[1] * share


class Judge(Watch):
    """What constants make of all inputs."""

    def __init__(self, scale: Tensor, zero_point: Tensor) -> None:
        self._constants = scale, zero_point
        self._clipped, self._errors, self._values = 0, 0.0, 0

    def see(self, values: Tensor) -> None:
        given_back = rounded(values, *self._constants)
        error = given_back - values
        # Half a step, and what float32 loses of it.
        self._clipped += int((error.abs() > 0.501 * self._constants[0]).sum())
        self._errors += float(error.square().sum(dtype=torch.float64))
        self._values += values.numel()

    @property
    def clipped_share(self) -> float:
        return self._clipped / self._values

    @property
    def mean_squared_error(self) -> float:
        return self._errors / self._values


def watch_of(quant: QuantConfig, whole: Extremes) -> Tails | LeastError | None:
    """What looks a second time at inputs whose extremes are known; None where these will do."""
    if quant.observer is Observer.percentile:
        return Tails(quant.percentile, whole.values)
    return LeastError(whole.ends) if quant.observer is Observer.mse else None


def constants(ends: Ends) -> tuple[Tensor, Tensor]:
    """Scale (float32) and zero point (int8) of a range, both []."""
    scale, zero_point = choose_qparams_affine_with_min_max(
        *ends, MappingType.ASYMMETRIC, [], **GRID
    )
    return scale, zero_point


def rounded(values: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Inputs [tokens, in] as their codes give them back."""
    block, grid = tuple(values.shape), (torch.int8, LOWEST, HIGHEST)
    codes = quantize_affine(values, block, scale, zero_point, *grid)
    given_back: Tensor = dequantize_affine(codes, block, scale, zero_point, *grid)
    return given_back
