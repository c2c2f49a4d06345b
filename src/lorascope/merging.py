"""The shipped model: the adapter added to the dequantized base that it was trained on, and checked.

Merging into the original 16-bit base is not what was trained; merging in place into 4 bits loses
what was learnt (peft#2105, peft#2321, transformers#31293).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lorascope.completion_loss import completion_loss, evaluation_mode
from lorascope.data.rows import PreparedRow
from lorascope.footprint import dequantized_weight
from lorascope.lora import load_adapter
from lorascope.quantization import is_quantized


@dataclass(frozen=True)
class MergeCheck:
    """Merged model against adapter on base, over the same rows."""

    items: int
    largest_logit_difference: float
    prediction_agreement: float
    """Share of completion positions where both predict the same next token."""
    adapter_loss_nats: float
    merged_loss_nats: float


def merge(base: PreTrainedModel, adapter: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, bool]:
    """Merge `adapter` into what `base` stands for in float32.

    Args:
        base: the base that the adapter was trained on, as stored.
        dtype: the type of the result.

    Returns:
        The plain model, and whether its head had to be untied from its embedding.
    """
    plain = dequantized(base)
    untied = _untie_if_adapted(plain, adapter)
    merged = load_adapter(plain, adapter).merge_and_unload(safe_merge=True)
    merged = merged.to(dtype)
    merged.config.dtype = dtype
    return merged, untied


def dequantized(model: PreTrainedModel) -> PreTrainedModel:
    """A plain float32 model of the weights that `model` stands for.

    A new model rather than the old one with its layers exchanged: transformers keeps many marks of
    quantization on a model, and refuses to cast or save while one is left.
    """
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = type(model).from_pretrained(
        None, config=config, state_dict=_exact_weights(model), dtype=torch.float32
    )
    return plain.to(model.device)


def _exact_weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Every parameter in float32 under its own name; of tied ones only the first."""
    weights = {name: value.data.float() for name, value in model.named_parameters()}
    for name, module in model.named_modules():
        if is_quantized(module):
            weights[f"{name}.weight"] = dequantized_weight(module)
    return {name: value.to("cpu") for name, value in weights.items()}


def _untie_if_adapted(model: PreTrainedModel, adapter: Path) -> bool:
    """Give the head weights of its own where the adapter changes head or embedding and both are
    one tensor: merging into the shared tensor would change the other one too."""
    if not model.config.get_text_config().tie_word_embeddings:
        return False
    names = _adapted_names(adapter)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    shared = {name for name, module in model.named_modules() if module in (head, embedding)}
    if not any(adapted.endswith(name) for adapted in names for name in shared):
        return False
    head.weight = nn.Parameter(copy.deepcopy(embedding.weight.data), requires_grad=False)
    model.config.get_text_config().tie_word_embeddings = False
    model.config.tie_word_embeddings = False
    return True


def _adapted_names(adapter: Path) -> set[str]:
    from safetensors import safe_open

    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as weights:
        keys = list(weights.keys())
    return {key.partition(".lora_")[0] for key in keys if ".lora_" in key}


def check_merge(
    adapted: PeftModel,
    merged: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[PreparedRow],
    batch_size: int,
) -> MergeCheck:
    """Compare the merged model with the adapter on its base, as it was trained and evaluated."""
    largest, agreeing, positions = 0.0, 0, 0
    for row in rows:
        prompt = tokenizer(row.prompt, add_special_tokens=False)["input_ids"]
        ids = tokenizer(row.prompt + row.completion, add_special_tokens=False)["input_ids"]
        tokens = torch.tensor([ids], device=adapted.device)
        with evaluation_mode(adapted), evaluation_mode(merged):
            ours = adapted(input_ids=tokens).logits[0, len(prompt) - 1 : -1].float()
            theirs = merged(input_ids=tokens.to(merged.device)).logits[0, len(prompt) - 1 : -1]
        theirs = theirs.float().to(ours.device)
        largest = max(largest, float((ours - theirs).abs().max()))
        agreeing += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
        positions += len(ours)
    adapter_sum, tokens_scored = completion_loss(adapted, tokenizer, rows, batch_size)
    merged_sum, _ = completion_loss(merged, tokenizer, rows, batch_size)
    return MergeCheck(
        items=len(rows),
        largest_logit_difference=largest,
        prediction_agreement=agreeing / positions,
        adapter_loss_nats=adapter_sum / tokens_scored,
        merged_loss_nats=merged_sum / tokens_scored,
    )
