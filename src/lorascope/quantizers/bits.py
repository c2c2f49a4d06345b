"""Bits, bytes and rounding of quantized weights, without quantizing a tensor.

LLM.int8 (Dettmers et al. 2022, arXiv 2208.07339) keeps one float32 scale an output row. NF4 and FP4
(QLoRA, Dettmers et al. 2023, arXiv 2305.14314) keep one absolute maximum a block of 64 weights:
float32, or under double quantization 8 bits, with one float32 for 256 such constants.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lorascope.records import Matrix

if TYPE_CHECKING:
    # Every command imports this module, and refusals should not wait for numpy.
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

BLOCK = 64
"""Weights that share one constant."""
NESTED_BLOCK = 256
"""Constants that share one constant, under double quantization."""


class StoredBits(Protocol):
    """Bits and bytes of matrices in one storage."""

    @property
    def weight_bits(self) -> int:
        """Bits of a weight, constants apart."""

    @property
    def table_bytes(self) -> int:
        """Bytes of one set of code tables."""

    def constant_bytes(self, matrix: Matrix) -> int:
        """Exact bytes of a matrix's own constants; code tables apart."""

    def asymptotic(self, in_features: int) -> float:
        """Bits a weight with its share of the constants, on a matrix of many full blocks."""


@dataclass(frozen=True)
class Floats:
    """Floating-point numbers of 16 or 32 bits."""

    weight_bits: int
    table_bytes: int = 0

    def constant_bytes(self, matrix: Matrix) -> int:
        return 0

    def asymptotic(self, in_features: int) -> float:
        return float(self.weight_bits)


@dataclass(frozen=True)
class RowScales:
    """INT8: a float32 an output row, so that a weight takes 8 + 32 / in_features bits."""

    weight_bits: int = 8
    table_bytes: int = 0

    def constant_bytes(self, matrix: Matrix) -> int:
        return 4 * matrix.out_features

    def asymptotic(self, in_features: int) -> float:
        return self.weight_bits + 32 / in_features


@dataclass(frozen=True)
class Blocks:
    """4 bits: a float32 a block, where blocks run over the flattened weight and the last may be
    short. Double quantization: a byte a block, a float32 for every 256 of those, and one float32
    offset."""

    double_quantization: bool = False
    weight_bits: int = 4

    @property
    def table_bytes(self) -> int:
        """16 float32 values, nested 256 more.

        bitsandbytes keeps a set beside every matrix: nothing on a large one, but on a small one
        more than double quantization saves.
        """
        return 16 * 4 + (256 * 4 if self.double_quantization else 0)

    def constant_bytes(self, matrix: Matrix) -> int:
        blocks = math.ceil(matrix.in_features * matrix.out_features / BLOCK)
        if self.double_quantization:
            return blocks + 4 * math.ceil(blocks / NESTED_BLOCK) + 4
        return 4 * blocks

    def asymptotic(self, in_features: int) -> float:
        """4 + 32/64 = 4.5; with double quantization 4 + 8/64 + 32/(64 x 256) = 4.127."""
        if self.double_quantization:
            return self.weight_bits + 8 / BLOCK + 32 / (BLOCK * NESTED_BLOCK)
        return self.weight_bits + 32 / BLOCK


def weight_bytes(parameters: int, stored: StoredBits) -> int:
    """Bytes of `parameters` weights, constants apart; two 4-bit weights a byte."""
    return math.ceil(parameters * stored.weight_bits / 8)


def mean_asymptotic_bits(matrices: Iterable[Matrix], stored: StoredBits) -> float:
    """`asymptotic` averaged over all weights of `matrices`."""
    sizes = [(m.in_features, m.in_features * m.out_features) for m in matrices]
    bits = sum(size * stored.asymptotic(in_features) for in_features, size in sizes)
    return bits / sum(size for _, size in sizes)


def linear_bytes(matrices: Iterable[Matrix], stored: StoredBits, shared_tables: bool = True) -> int:
    """Exact bytes of `matrices`: weights, constants, code tables.

    `shared_tables` counts one set of tables for all matrices, as `load_base` arranges it; without
    it one for each, as bitsandbytes leaves them.
    """
    listed = list(matrices)
    each = sum(
        weight_bytes(m.in_features * m.out_features, stored) + stored.constant_bytes(m)
        for m in listed
    )
    sets = min(1, len(listed)) if shared_tables else len(listed)
    return each + sets * stored.table_bytes


@dataclass(frozen=True)
class AffineUint8:
    """The map of real numbers onto 0..255: q = round(x / scale) + zero_point."""

    scale: float
    zero_point: int
    """The code of 0.0, which is always met exactly."""

    def quantize(self, values: ArrayLike) -> NDArray[np.uint8]:
        """Codes of `values`, of the same shape; values outside the range get its ends."""
        import numpy as np

        codes = np.rint(np.asarray(values, dtype=np.float64) / self.scale) + self.zero_point
        inside: NDArray[np.uint8] = np.clip(codes, 0, 255).astype(np.uint8)
        return inside

    def dequantize(self, codes: ArrayLike) -> NDArray[np.float64]:
        """Values of `codes`; inside the range at most scale / 2 off, at its ends up to scale."""
        import numpy as np

        return (np.asarray(codes, dtype=np.float64) - self.zero_point) * self.scale


def affine_uint8(x_min: float, x_max: float) -> AffineUint8:
    """The affine map of [x_min, x_max], widened to hold 0 (Jacob et al. 2017, arXiv 1712.05877).

    scale = (x_max - x_min) / 255, zero_point = -round(x_min / scale).
    """
    if not (math.isfinite(x_min) and math.isfinite(x_max) and x_min <= x_max):
        raise ValueError(f"[{x_min}, {x_max}] is no range of finite numbers")
    low, high = min(x_min, 0.0), max(x_max, 0.0)
    scale = (high - low) / 255
    if scale == 0 or math.isinf(scale):
        raise ValueError(f"[{x_min}, {x_max}] has no scale in double precision")
    return AffineUint8(scale, -round(low / scale))
