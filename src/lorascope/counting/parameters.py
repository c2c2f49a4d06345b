"""How many parameters and bytes an adapter has, from the shapes of the matrices it sits on.

LoRA (Hu et al. 2021, arXiv 2106.09685): a weight W [out, in] gets B A with A [rank, in] and
B [out, rank]: rank (in + out) parameters. DoRA (Liu et al. 2024, arXiv 2402.09353) adds one
magnitude an output row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from lorascope.records import Matrix

FLOAT32_BYTES = 4
SMALLEST_STACK_RANK = 8


def matrix_parameters(matrices: Iterable[Matrix]) -> int:
    """Weights of the matrices themselves: the sum of in x out."""
    return sum(matrix.in_features * matrix.out_features for matrix in matrices)


def lora_parameters(matrices: Iterable[Matrix], rank: int, dora: bool = False) -> int:
    """Trainable parameters of one adapter over `matrices`: rank (in + out) each, DoRA out more."""
    if rank < 1:
        raise ValueError(f"rank={rank}: must be 1 or more")
    return sum(
        rank * (matrix.in_features + matrix.out_features) + (matrix.out_features if dora else 0)
        for matrix in matrices
    )


def padded_rank(rank: int) -> int:
    """The rank that training pads an adapter of `rank` to: the next power of two, at least 8."""
    return max(SMALLEST_STACK_RANK, 1 << (rank - 1).bit_length())


def adapter_bytes(parameters: int) -> int:
    """Bytes of an adapter's tensors; PEFT keeps them in float32. File headers are not counted."""
    return parameters * FLOAT32_BYTES


def adamw_bytes(parameters: int) -> int:
    """Bytes of AdamW's state: two moments a trainable parameter. Its step counters are left out."""
    return 2 * parameters * FLOAT32_BYTES


def square_matrix_rule(base_parameters: float, rank: int) -> float:
    """The classroom rule 2 rank sqrt(N): one square matrix of N entries for the whole model.

    Many teaching tables print it. It is not the count of any real adapter, which sits on several
    matrices a layer: at rank 1 the rule gives 164,176 for Llama-2-7B, whose linear layers take
    2,498,560.
    """
    return 2 * rank * math.sqrt(base_parameters)
