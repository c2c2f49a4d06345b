"""Trainable parameters of the methods that compete with LoRA, from a model's shape alone.

Where PEFT has the method, its own count is the reference (tests compare them); where it has none,
the LoRA paper's formula (Hu et al. 2021, arXiv 2106.09685, section 5.1). Below, d is the hidden
size, L the layers, p tokens, b the bottleneck. Task heads that a method may train too are left out.
Full fine-tuning and BitFit are numbers of `ModelShape` itself.
"""

from __future__ import annotations

from collections.abc import Iterable

from lorascope.counting.architectures import ModelShape, WeightMatrix
from lorascope.counting.parameters import lora_parameters


def houlsby_adapter_parameters(layers: int, hidden: int, bottleneck: int) -> int:
    """Adapter-H (Houlsby et al. 2019, arXiv 1902.00751): 2 L (2 d b + b + d).

    Two adapters a layer, after attention and after the MLP; each goes down to `bottleneck` and up
    again, with biases.
    """
    return 2 * layers * (2 * hidden * bottleneck + bottleneck + hidden)


def prefix_embedding_parameters(hidden: int, tokens: int) -> int:
    """PrefixEmbed of the LoRA paper: d (l_p + l_i), trained word embeddings around the prompt."""
    return hidden * tokens


def prefix_layer_parameters(layers: int, hidden: int, tokens: int) -> int:
    """PrefixLayer of the LoRA paper: L d (l_p + l_i), trained activations after every layer."""
    return layers * hidden * tokens


def prompt_tuning_parameters(shape: ModelShape, virtual_tokens: int) -> int:
    """Prompt tuning (Lester et al. 2021, arXiv 2104.08691), as PEFT counts it: p d."""
    return virtual_tokens * shape.hidden


def prefix_tuning_parameters(shape: ModelShape, virtual_tokens: int) -> int:
    """Prefix tuning (Li and Liang 2021, arXiv 2101.00190), as PEFT counts it: p L (key + value).

    Without the reparametrisation that is dropped after training. Grouped-query attention makes keys
    and values narrower than d. Twice the LoRA paper's PrefixLayer, which has one vector where this
    has a key and a value.
    """
    return 2 * virtual_tokens * shape.layers * shape.prefix_features


def ia3_parameters(shape: ModelShape) -> int:
    """IA3 (Liu et al. 2022, arXiv 2205.05638) on PEFT's default targets.

    One factor an output feature of the attention targets, one an input feature of the feed-forward
    ones. PEFT matches the end of a name, so that RoBERTa's attention.output.dense counts among the
    latter; it takes q in place of k for some models.
    """
    outputs, inputs = shape.ia3_targets
    return sum(m.out_features for m in _ending_in(shape, outputs)) + sum(
        m.in_features for m in _ending_in(shape, inputs)
    )


def target_parameters_lora(matrices: Iterable[WeightMatrix], rank: int) -> int:
    """LoRA on bare parameters, PEFT's `target_parameters`: experts x rank (in + out) a tensor.

    A 3-D tensor of experts gets a pair of matrices an expert; a router's 2-D weight gets one.
    """
    return sum(matrix.experts * lora_parameters([matrix], rank) for matrix in matrices)


def peft_all_linear_parameters(shape: ModelShape, rank: int) -> int:
    """LoRA where PEFT is told "all-linear": as on named modules, and on experts and routers too.

    Experts were linear layers before transformers 5 fused them into 3-D tensors, so PEFT
    still adapts them under that name; where gate and up are one tensor it doubles the rank.
    """
    bare = (target_parameters_lora([m], m.fused * rank) for m in shape.expert_matrices)
    return lora_parameters(shape.matrices, rank) + sum(bare)


def _ending_in(shape: ModelShape, endings: tuple[str, ...]) -> list[WeightMatrix]:
    """Matrices whose dotted name ends in one of `endings`, whole parts only."""
    dotted = tuple(f".{ending}" for ending in endings)
    return [matrix for matrix in shape.matrices if f".{matrix.name}".endswith(dotted)]
