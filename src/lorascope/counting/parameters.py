"""How many parameters and bytes adapters have, and the methods beside them, from shapes alone.

LoRA (Hu et al. 2021, arXiv 2106.09685): a weight W [out, in] gets B A with A [rank, in] and
B [out, rank]: rank (in + out) parameters. DoRA (Liu et al. 2024, arXiv 2402.09353) adds one
magnitude an output row.

For the methods beside LoRA, PEFT's own count is the reference where it has the method, else the
LoRA paper's formula (section 5.1): d is the hidden size, L the layers, p tokens, b the bottleneck.
Task heads that a method may train too are left out. Full fine-tuning and BitFit are numbers of
`ModelShape` itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from lorascope.counting.architectures import ModelShape, WeightMatrix
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


def houlsby_adapter_parameters(shape: ModelShape, bottleneck: int) -> int:
    """Adapter-H (Houlsby et al. 2019, arXiv 1902.00751): 2 L (2 d b + b + d).

    Two adapters a layer, after attention and after the MLP; each goes down to `bottleneck` and up
    again, with biases.
    """
    return 2 * shape.layers * (2 * shape.hidden * bottleneck + bottleneck + shape.hidden)


def prefix_layer_parameters(shape: ModelShape, tokens: int) -> int:
    """PrefixLayer of the LoRA paper: L d (l_p + l_i), trained activations after every layer."""
    return shape.layers * shape.hidden * tokens


def full_parameters(shape: ModelShape) -> int:
    """Full fine-tuning: all that a gradient reaches."""
    return shape.total_parameters - shape.frozen_parameters


def prefix_embed_parameters(shape: ModelShape, tokens: int) -> int:
    """PrefixEmbed of the LoRA paper: d (l_p + l_i), trained embeddings around the prompt."""
    return tokens * shape.hidden


def prompt_tuning_parameters(shape: ModelShape, virtual_tokens: int) -> int | None:
    """Prompt tuning (Lester et al. 2021, arXiv 2104.08691), as PEFT counts it: p d, for models that
    encode and decode twice that; None where PEFT cannot run it."""
    each = shape.peft.prompt_parameters
    return None if each is None else virtual_tokens * each


def prefix_tuning_parameters(shape: ModelShape, virtual_tokens: int) -> int | None:
    """Prefix tuning (Li and Liang 2021, arXiv 2101.00190), as PEFT counts it: p L (key + value);
    None where PEFT cannot run it.

    Without the reparametrisation that is dropped after training. Grouped-query attention makes keys
    and values narrower than d. Twice the LoRA paper's PrefixLayer, which has one vector where this
    has a key and a value.
    """
    each = shape.peft.prefix_parameters
    return None if each is None else virtual_tokens * each


def ia3_parameters(shape: ModelShape) -> int:
    """IA3 (Liu et al. 2022, arXiv 2205.05638) on PEFT's default targets, else on ours.

    One factor an output feature of the attention targets, one an input feature of the feed-forward
    ones. PEFT matches the end of a name, so that RoBERTa's attention.output.dense counts among the
    latter; it takes q in place of k for some models.
    """
    outputs, inputs = shape.peft.ia3_targets
    return sum(m.out_features for m in _ending_in(shape, outputs)) + sum(
        m.in_features for m in _ending_in(shape, inputs)
    )


def target_parameters_lora(matrices: Iterable[WeightMatrix], rank: int) -> int:
    """LoRA on bare parameters, PEFT's `target_parameters`: experts x rank (in + out) a tensor.

    A 3-D tensor of experts gets a pair of matrices an expert; a router's 2-D weight gets one.
    """
    return sum(matrix.experts * lora_parameters([matrix], rank) for matrix in matrices)


def peft_all_linear_parameters(shape: ModelShape, rank: int) -> int | None:
    """LoRA where PEFT is told "all-linear": on named modules, and on some models' experts and
    routers too; None where PEFT cannot.

    Experts were linear layers before transformers 5 fused them into 3-D tensors, so PEFT
    still adapts those of Mixtral and a few others under that name; where gate and up are one tensor
    it doubles the rank.
    """
    each = shape.peft.all_linear_parameters
    return None if each is None else rank * each


def _ending_in(shape: ModelShape, endings: tuple[str, ...]) -> list[WeightMatrix]:
    """Matrices whose dotted name ends in one of `endings`, whole parts only."""
    dotted = tuple(f".{ending}" for ending in endings)
    return [matrix for matrix in shape.matrices if f".{matrix.name}".endswith(dotted)]
