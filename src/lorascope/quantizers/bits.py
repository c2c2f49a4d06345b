"""Bits and bytes of quantized weights, without quantizing a tensor.

LLM.int8 (Dettmers et al. 2022, arXiv 2208.07339) keeps one float32 scale an output row. NF4 and FP4
(QLoRA, Dettmers et al. 2023, arXiv 2305.14314) keep one absolute maximum a block of 64 weights:
float32, or under double quantization 8 bits, with one float32 for 256 such constants. Whole numbers
keep one 16-bit scale a group of an output row, and a byte for its zero point where they have one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from lorascope.records import Matrix

BLOCK = 64
"""Weights that share one constant."""
NESTED_BLOCK = 256
"""Constants that share one constant, under double quantization."""


@dataclass(frozen=True)
class StoredBits:
    """Bits of a weight in one storage, and bytes of the constants that go with it."""

    weight_bits: int
    table_bytes: int = 0
    """Bytes of one set of code tables."""
    row_bytes: int = 0
    """Bytes an output row."""
    block_bytes: int = 0
    """Bytes a block; blocks run over the flattened weight, and the last may be short."""
    nested_bytes: int = 0
    """Bytes for every NESTED_BLOCK blocks."""
    matrix_bytes: int = 0
    """Bytes a matrix."""
    group_bytes: int = 0
    """Bytes a group; groups run within an output row, and the last of a row may be short."""
    group_size: int | None = None
    """Weights of a group; None is the whole row."""

    def constant_bytes(self, matrix: Matrix) -> int:
        """Exact bytes of a matrix's own constants; code tables apart."""
        blocks = math.ceil(matrix.in_features * matrix.out_features / BLOCK)
        nested = self.nested_bytes * math.ceil(blocks / NESTED_BLOCK)
        groups = math.ceil(matrix.in_features / (self.group_size or matrix.in_features))
        rows = (self.row_bytes + self.group_bytes * groups) * matrix.out_features
        return rows + self.block_bytes * blocks + nested + self.matrix_bytes

    def asymptotic(self, in_features: int) -> float:
        """Bits a weight with its share of the constants, on a matrix of many full blocks."""
        of_blocks = self.block_bytes / BLOCK + self.nested_bytes / (BLOCK * NESTED_BLOCK)
        of_rows = self.row_bytes / in_features
        of_groups = self.group_bytes / (self.group_size or in_features)
        return self.weight_bits + 8 * (of_rows + of_blocks + of_groups)


def weight_bytes(parameters: int, stored: StoredBits) -> int:
    """Bytes of `parameters` weights, constants apart; two 4-bit weights a byte."""
    return math.ceil(parameters * stored.weight_bits / 8)


def mean_asymptotic_bits(matrices: Iterable[Matrix], stored: StoredBits) -> float:
    """`asymptotic` averaged over all weights of `matrices`."""
    sizes = [(m.in_features, m.in_features * m.out_features) for m in matrices]
    bits = sum(size * stored.asymptotic(in_features) for in_features, size in sizes)
    return bits / sum(size for _, size in sizes)


def linear_bytes(matrices: Iterable[Matrix], stored: StoredBits) -> int:
    """Exact bytes of `matrices`: weights, constants, and one set of code tables for all of them, as
    `load_base` arranges it."""
    each = [
        weight_bytes(m.in_features * m.out_features, stored) + stored.constant_bytes(m)
        for m in matrices
    ]
    return sum(each) + min(1, len(each)) * stored.table_bytes
