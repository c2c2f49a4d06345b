"""What both baselines load: a base that was stored in one mode, without anything of lorascope."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM


def compute_dtype(base: Path) -> torch.dtype:
    """FP32 on a CPU, where 16-bit products are slow; else FP16, or BF16 for 4 bits."""
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    if not torch.cuda.is_available():
        return torch.float32
    four_bit = config.get("quantization_config", {}).get("load_in_4bit", False)
    return torch.bfloat16 if four_bit else torch.float16


def load_base(base: Path, dtype: torch.dtype | None = None) -> Any:
    """The stored base, frozen, computing in one type throughout."""
    dtype = dtype or compute_dtype(base)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, device_map={"": device})
    model.requires_grad_(False)
    for module in model.modules():
        if hasattr(module, "compute_type_is_set"):
            # A stored 4-bit layer would go on computing in the type it was quantized with, and when
            # it scores on some CPUs in BF16: other scores by more than rounding.
            module.compute_dtype, module.compute_type_is_set = dtype, True
            module.support_avx512bf16_for_cpu = False
            continue
        cast_plain_weights(module, dtype)
    return model


def cast_plain_weights(module: nn.Module, dtype: torch.dtype) -> None:
    """Embeddings, norms and head of a stored quantized model keep their 16 bits otherwise."""
    for parameter in module.parameters(recurse=False):
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
