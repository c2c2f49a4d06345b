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
from lorascope.footprint import dequantized_weight, logical_shape
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
    """Merge `adapter` into `base`, in place.

    Args:
        base: as the adapter was trained on; its quantized layers are dequantized to float32 first.
        dtype: the type of the result.

    Returns:
        The plain model, and whether its head had to be untied from its embedding.
    """
    dequantize_in_place(base)
    untied = _untie_if_adapted(base, adapter)
    merged = load_adapter(base, adapter).merge_and_unload(safe_merge=True)
    merged = merged.to(dtype)
    merged.config.dtype = dtype
    return merged, untied


def dequantize_in_place(model: PreTrainedModel) -> None:
    """Replace each quantized layer by a plain float32 one of the weights that it stands for."""
    for name, module in list(model.named_modules()):
        if not is_quantized(module):
            continue
        out_features, in_features = logical_shape(module)
        plain = nn.Linear(in_features, out_features, bias=module.bias is not None, device="meta")
        plain.weight = nn.Parameter(dequantized_weight(module), requires_grad=False)
        if module.bias is not None:
            plain.bias = nn.Parameter(module.bias.data.float(), requires_grad=False)
        model.set_submodule(name, plain)
    model.float()
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.is_quantized = False
    model.hf_quantizer = None
    for flag in ("is_loaded_in_4bit", "is_loaded_in_8bit", "quantization_method"):
        if hasattr(model, flag):
            setattr(model, flag, None if flag == "quantization_method" else False)


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
