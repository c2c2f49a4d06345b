"""The shipped model: the adapter added to the dequantized base that it was trained on; its check.

Merging into the original 16-bit base is not what was trained; merging in place into 4 bits loses
what was learnt (peft#2105, peft#2321, transformers#31293).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lorascope.adapters.attach import load_adapter
from lorascope.config import MergeConfig
from lorascope.data.rows import PreparedRow
from lorascope.data.tokenization import IGNORED_LABEL
from lorascope.errors import ModelError
from lorascope.objectives.completion import completion_loss, last_completion
from lorascope.objectives.evaluation import evaluation_mode
from lorascope.quantizers.kinds import quantized_layers


@dataclass(frozen=True)
class MergeCheck:
    """Differences between the merged model and the adapter on its base, over the same rows."""

    items: int
    largest_logit_difference: float
    prediction_agreement: float
    """Share of completion positions where both predict the same next token."""
    adapter_loss_nats: float
    merged_loss_nats: float

    @property
    def loss_gap_nats(self) -> float:
        return abs(self.adapter_loss_nats - self.merged_loss_nats)


def merge(base: PreTrainedModel, adapter: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, bool]:
    """Merge `adapter` into the dequantized `base`, in float32.

    Args:
        base: the stored base that the adapter was trained on.
        dtype: the type of the result's parameters; buffers keep float32, as a router's bias decides
            by small differences.

    Returns:
        The plain model, and whether its head had to be untied from its embedding.
    """
    plain = dequantized(base)
    untied = _untie_if_adapted(plain, adapter)
    merged = load_adapter(plain, adapter).merge_and_unload(safe_merge=True)
    for parameter in merged.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    merged.config.dtype = dtype
    return merged, untied


def dequantized(model: PreTrainedModel) -> PreTrainedModel:
    """A plain float32 model of the weights and buffers that `model` stands for.

    A new model rather than the old one with its layers exchanged: transformers keeps many marks of
    quantization on a model, and refuses to cast or save while one is left. Saved, it has the
    tensor names of the files that `model` was read from.

    Raises:
        ModelError: a weight or a persistent buffer of the plain model has no value, or no place.
    """
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain, info = type(model).from_pretrained(
        None,
        config=config,
        state_dict=_exact_values(model),
        dtype=torch.float32,
        output_loading_info=True,
    )
    strays = {key: sorted(info[key]) for key in ("missing_keys", "unexpected_keys") if info[key]}
    if strays:
        raise ModelError(
            f"{type(model).__name__} cannot be rebuilt without its quantization: {strays}. Ship a "
            "trial of a mode that is stored in floating point, such as fp16."
        )
    plain._weight_conversions = _name_conversions(model)
    return plain.to(model.device)


def _exact_values(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Every parameter and persistent buffer under its own name, floating ones in float32; of tied
    ones only the first. What a plain model computes for itself (rotary frequencies) is left out."""
    stored = model.state_dict().keys()
    values = {name: value.data for name, value in model.named_parameters()}
    values |= {name: value for name, value in model.named_buffers() if name in stored}
    for name, layer, quantizer in quantized_layers(model):
        constants = {id(tensor) for tensor in quantizer.constants(layer)}
        for own, tensor in [*layer.named_buffers(recurse=False)]:
            if id(tensor) in constants:
                values.pop(f"{name}.{own}", None)
        values[f"{name}.weight"] = quantizer.weight(layer)
    return {
        name: (value.float() if value.is_floating_point() else value).to("cpu")
        for name, value in values.items()
    }


def _name_conversions(model: Any) -> Any:
    """The renamings and fusions that transformers 5 made when it read `model`, which saving undoes.

    Without them a model made from tensors in memory is saved under the names that only transformers
    5 has for them: fused experts, `mlp` for `block_sparse_moe`. What a quantizer unpacks is left
    out: the plain model has none of it. None is transformers' word for "look it up".
    """
    conversions = getattr(model, "_weight_conversions", None)
    quantizer = getattr(model, "hf_quantizer", None)
    if conversions is None or quantizer is None:
        return conversions
    packed = quantizer.get_weight_conversions()
    unpacking = {type(step) for conversion in packed for step in conversion.operations}
    return [
        conversion
        for conversion in conversions
        if not unpacking & {type(step) for step in getattr(conversion, "operations", ())}
    ]


def _untie_if_adapted(model: PreTrainedModel, adapter: Path) -> bool:
    """Give the head its own weights where the adapter changes head or embedding and both are one
    tensor: merging into the shared tensor would change the other one too."""
    if not model.config.get_text_config().tie_word_embeddings:
        return False
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    shared = {name for name, module in model.named_modules() if module in (head, embedding)}
    if not _adapts(adapter, shared):
        return False
    head.weight = nn.Parameter(copy.deepcopy(embedding.weight.data), requires_grad=False)
    model.config.get_text_config().tie_word_embeddings = False
    model.config.tie_word_embeddings = False
    return True


def _adapts(adapter: Path, names: set[str]) -> bool:
    """Whether the adapter has weights of one of these modules, whatever its method calls them."""
    from safetensors import safe_open

    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as weights:
        keys = list(weights.keys())
    starts = tuple(f"base_model.model.{name}." for name in names)
    return any(key.startswith(starts) for key in keys)


def check_merge(
    adapted: PeftModel,
    merged: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[PreparedRow],
    batch_size: int,
) -> MergeCheck:
    """Compare the merged model with the adapter on its base, as it was trained and evaluated."""
    largest, agreeing, positions = torch.zeros(()), 0, 0
    for row in rows:
        ids, labels = last_completion(row, tokenizer)
        predicting = torch.tensor(labels[1:]) != IGNORED_LABEL
        ours = _logits(adapted, ids)[predicting]
        theirs = _logits(merged, ids)[predicting]
        # Unlike Python's max, torch's keeps a NaN.
        largest = torch.maximum(largest, (ours - theirs).abs().max())
        agreeing += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
        positions += len(ours)
    adapter_sum, tokens_scored = completion_loss(adapted, tokenizer, rows, batch_size)
    merged_sum, _ = completion_loss(merged, tokenizer, rows, batch_size)
    return MergeCheck(
        items=len(rows),
        largest_logit_difference=float(largest),
        prediction_agreement=agreeing / positions,
        adapter_loss_nats=adapter_sum / tokens_scored,
        merged_loss_nats=merged_sum / tokens_scored,
    )


def close_enough(check: MergeCheck, unrounded: MergeCheck | None, limits: MergeConfig) -> bool:
    """Whether the merged model is close enough; one with differences that are not finite is not.

    INT8 inference rounds activations, which no merged model does: the merged weights are held to
    the limits without that rounding, and with it to what it does to next tokens and loss.

    Args:
        unrounded: for INT8, the check against the adapter on the dequantized base.
    """
    exact = unrounded or check
    close = (
        exact.largest_logit_difference <= limits.max_logit_difference
        and exact.prediction_agreement >= limits.min_agreement
        and exact.loss_gap_nats <= limits.max_loss_gap_nats
    )
    rounded_close = (
        check.prediction_agreement >= limits.int8_min_agreement
        and check.loss_gap_nats <= limits.max_loss_gap_nats
    )
    return close and (unrounded is None or rounded_close)


def _logits(model: Any, ids: list[int]) -> torch.Tensor:
    """Logits after each token but the last, [tokens - 1, vocabulary], float32 on the CPU."""
    with evaluation_mode(model):
        logits: torch.Tensor = model(input_ids=torch.tensor([ids], device=model.device)).logits
    return logits[0, :-1].float().cpu()
