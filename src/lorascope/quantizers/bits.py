"""Bits, bytes and rounding of quantized weights, without quantizing a tensor.

LLM.int8 (Dettmers et al. 2022, arXiv 2208.07339) keeps one float32 scale an output row. NF4 and FP4
(QLoRA, Dettmers et al. 2023, arXiv 2305.14314) keep one absolute maximum a block of 64 weights:
float32, or under double quantization 8 bits, with one float32 for 256 such constants.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lorascope.counting.parameters import Matrix, matrix_parameters

BLOCK = 64
"""Weights that share one constant."""
NESTED_BLOCK = 256
"""Constants that share one constant, under double quantization."""

STORAGE_BITS = {"float32": 32, "bfloat16": 16, "float16": 16, "int8": 8, "nf4": 4, "fp4": 4}
"""Bits a weight, constants apart."""


@dataclass(frozen=True)
class AffineUint8:
    """The map of real numbers onto 0..255: q = round(x / scale) + zero_point."""

    scale: float
    zero_point: int
    """The code of 0.0, which is always met exactly."""

    def quantize(self, values: ArrayLike) -> NDArray[np.uint8]:
        """Codes of `values`, of the same shape; values outside the range get its ends."""
        codes = np.rint(np.asarray(values, dtype=np.float64) / self.scale) + self.zero_point
        inside: NDArray[np.uint8] = np.clip(codes, 0, 255).astype(np.uint8)
        return inside

    def dequantize(self, codes: ArrayLike) -> NDArray[np.float64]:
        """Values of `codes`; inside the range at most scale / 2 off, at its ends up to scale."""
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


def weight_bytes(parameters: int, storage: str) -> int:
    """Bytes of `parameters` weights in `storage`, constants apart; two 4-bit weights a byte."""
    return math.ceil(parameters * STORAGE_BITS[storage] / 8)


def constant_bytes(matrix: Matrix, storage: str, double_quantization: bool = False) -> int:
    """Exact bytes of one matrix's own constants in bitsandbytes; code tables apart.

    int8: a float32 an output row. 4 bits: a float32 a block, where blocks run over the flattened
    weight and the last may be short. Double quantization: a byte a block, a float32 for every 256
    of those, and one float32 offset.
    """
    if STORAGE_BITS[storage] > 8:
        return 0
    if storage == "int8":
        return 4 * matrix.out_features
    blocks = math.ceil(matrix.in_features * matrix.out_features / BLOCK)
    return blocks + 4 * math.ceil(blocks / NESTED_BLOCK) + 4 if double_quantization else 4 * blocks


def table_bytes(storage: str, double_quantization: bool = False) -> int:
    """Bytes of one set of bitsandbytes' code tables: 16 float32 values, nested 256 more.

    bitsandbytes keeps a set beside every matrix: nothing on a large one, but on a small one more
    than double quantization saves.
    """
    if STORAGE_BITS[storage] > 4:
        return 0
    return 16 * 4 + (256 * 4 if double_quantization else 0)


def asymptotic_bits(storage: str, in_features: int, double_quantization: bool = False) -> float:
    """Bits a weight with its share of the constants, on a matrix of many full blocks.

    int8: 8 + 32 / in_features. 4 bits: 4 + 32/64 = 4.5; with double quantization
    4 + 8/64 + 32/(64 x 256) = 4.127.
    """
    bits = STORAGE_BITS[storage]
    if bits > 8:
        return float(bits)
    if storage == "int8":
        return bits + 32 / in_features
    if double_quantization:
        return bits + 8 / BLOCK + 32 / (BLOCK * NESTED_BLOCK)
    return bits + 32 / BLOCK


def mean_asymptotic_bits(
    matrices: Iterable[Matrix], storage: str, double_quantization: bool = False
) -> float:
    """`asymptotic_bits` averaged over all weights of `matrices`."""
    listed = list(matrices)
    bits = sum(
        m.in_features
        * m.out_features
        * asymptotic_bits(storage, m.in_features, double_quantization)
        for m in listed
    )
    return bits / matrix_parameters(listed)


def linear_bytes(
    matrices: Iterable[Matrix],
    storage: str,
    double_quantization: bool = False,
    shared_tables: bool = True,
) -> int:
    """Exact bytes of `matrices` in `storage`: weights, constants, code tables.

    `shared_tables` counts one set of tables for all matrices, as `load_base` arranges it; without
    it one for each, as bitsandbytes leaves them.
    """
    listed = list(matrices)
    own = sum(
        weight_bytes(m.in_features * m.out_features, storage)
        + constant_bytes(m, storage, double_quantization)
        for m in listed
    )
    sets = min(1, len(listed)) if shared_tables else len(listed)
    return own + sets * table_bytes(storage, double_quantization)
