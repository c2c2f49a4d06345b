"""bitsandbytes' layers without data, and their packed weights on fake tensors."""

from __future__ import annotations

from typing import Any

import torch
from bitsandbytes.functional import QuantState
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lorascope.config import QuantConfig, Storage
from lorascope.errors import ModelError
from lorascope.quantizers.bits import BLOCK, NESTED_BLOCK
from lorascope.quantizers.loading import FOUR_BIT

DEVICE = "cpu"
"""Of the fake tensors: autograd on fake CUDA tensors aborts where torch has no CUDA."""


def put_quantized_layers(model: PreTrainedModel, quant: QuantConfig, compute: torch.dtype) -> None:
    """bitsandbytes' layers in place of every linear layer but the head, as transformers does it."""
    storage = quant.storage
    if storage is not Storage.int8 and storage not in FOUR_BIT:
        return
    if any(isinstance(module, Conv1D) for module in model.modules()):
        raise ModelError(
            f"quant={quant.name}: this model's layers are Conv1D, for which 8 and 4 bits are "
            "not supported. Use quant=fp16, bf16 or fp32."
        )
    head = model.get_output_embeddings()
    # transformers leaves subclasses of Linear as they are.
    linear = [(n, m) for n, m in model.named_modules() if type(m) is nn.Linear and m is not head]
    if not linear:
        raise ModelError(
            f"quant={quant.name}: bitsandbytes quantizes no layer of {type(model).__name__}, so "
            "the mode would weigh as much as 16 bits. Use quant=fp16, bf16 or fp32."
        )
    for name, module in linear:
        model.set_submodule(name, _quantized_layer(module, quant, compute))
    model.is_loaded_in_8bit = storage is Storage.int8
    model.is_loaded_in_4bit = storage in FOUR_BIT


def _quantized_layer(module: nn.Linear, quant: QuantConfig, compute: torch.dtype) -> nn.Module:
    sizes, has_bias = (module.in_features, module.out_features), module.bias is not None
    layer: Any
    if quant.storage is Storage.int8:
        threshold = quant.int8_outlier_threshold
        layer = Linear8bitLt(*sizes, bias=has_bias, has_fp16_weights=False, threshold=threshold)
    else:
        layer = Linear4bit(
            *sizes,
            bias=has_bias,
            compute_dtype=compute,
            compress_statistics=quant.double_quantization,
            quant_type=quant.storage.value,
        )
        # Or its first forward pass without gradients would repack it, as load_base prevents.
        layer.support_avx512bf16_for_cpu = False
    return layer  # type: ignore[no-any-return]


def four_bit_weight(
    layer: Linear4bit, quant: QuantConfig, stored: torch.dtype, tables: dict[str, Tensor]
) -> nn.Parameter:
    """Packed codes [ceil(out x in / 2), 1] with their constants, as bitsandbytes lays them out.

    Args:
        stored: the type that the backward pass dequantizes to first.
        tables: what `code_tables` gives.
    """
    count = layer.in_features * layer.out_features
    blocks = -(-count // BLOCK)
    nested = quant.double_quantization
    packed = torch.empty(((count + 1) // 2, 1), dtype=torch.uint8, device=DEVICE)
    weight: Any = nn.Parameter(packed, requires_grad=False)
    state2 = offset = None
    if nested:
        absmax = torch.empty(-(-blocks // NESTED_BLOCK), dtype=torch.float32, device=DEVICE)
        state2 = QuantState(absmax=absmax, code=tables["nested"], blocksize=NESTED_BLOCK)
        state2.dtype = torch.float32
        offset = torch.empty((), dtype=torch.float32, device=DEVICE)
    weight.quant_state = QuantState(
        absmax=torch.empty(blocks, dtype=torch.uint8 if nested else torch.float32, device=DEVICE),
        shape=torch.Size((layer.out_features, layer.in_features)),
        code=tables["code"],
        blocksize=BLOCK,
        quant_type=quant.storage.value,
        dtype=stored,
        offset=offset,
        state2=state2,
    )
    layer.quant_state = weight.quant_state
    return weight  # type: ignore[no-any-return]


def eight_bit_weight(layer: Linear8bitLt) -> nn.Parameter:
    """Codes [out, in], with their scales where a layer in training has them."""
    shape = (layer.out_features, layer.in_features)
    codes = torch.empty(shape, dtype=torch.int8, device=DEVICE)
    weight: Any = nn.Parameter(codes, requires_grad=False)
    weight.CB = weight.SCB = None
    layer.state.CB = weight.data
    layer.state.SCB = torch.empty(layer.out_features, dtype=torch.float32, device=DEVICE)
    return weight  # type: ignore[no-any-return]


def code_tables() -> dict[str, Tensor]:
    """All layers share them: 16 values, and 256 for nested constants."""
    return {
        "code": torch.empty(16, dtype=torch.float32, device=DEVICE),
        "nested": torch.empty(256, dtype=torch.float32, device=DEVICE),
    }
