"""bitsandbytes' layers without data."""

from __future__ import annotations

from typing import Any

import torch
from bitsandbytes.functional import QuantState
from bitsandbytes.nn import Linear4bit
from torch import Tensor, nn

from lorascope.config import QuantConfig
from lorascope.quantizers.bits import BLOCK, NESTED_BLOCK
from lorascope.quantizers.bitsandbytes.eight_bit import EightBit
from lorascope.quantizers.bitsandbytes.eight_bit_layer import EightBitLinear
from lorascope.quantizers.bitsandbytes.four_bit import REPACKS, FourBit
from lorascope.quantizers.linear_layers import quantizable_layers
from lorascope.quantizers.readable import Readable

LIBRARY = "bitsandbytes"


class _FakeFourBit(Readable, Linear4bit):  # type: ignore[misc]
    """PEFT knows bitsandbytes' layers by their weight's type, which one without data has not."""

    def read_weight(self) -> Tensor:
        return FourBit().backward_weight(self)


class _FakeEightBit(Readable, EightBitLinear):
    def read_weight(self) -> Tensor:
        return EightBit().backward_weight(self)


def put_four_bit_layers(model: Any, quant: QuantConfig, compute: torch.dtype) -> None:
    """4-bit layers on the meta device in place of the model's, as transformers has them."""
    for name, module in quantizable_layers(model, quant, LIBRARY).items():
        layer = _FakeFourBit(
            module.in_features,
            module.out_features,
            bias=module.bias is not None,
            compute_dtype=compute,
            compress_statistics=quant.double_quantization,
            quant_type=quant.storage.value,
        )
        # Or its first forward pass without gradients would repack it.
        setattr(layer, REPACKS, False)
        model.set_submodule(name, layer)
    model.is_loaded_in_4bit = True


def put_eight_bit_layers(model: Any, quant: QuantConfig) -> None:
    """8-bit layers on the meta device in place of the model's, as transformers has them."""
    for name, module in quantizable_layers(model, quant, LIBRARY).items():
        layer = _FakeEightBit(
            module.in_features,
            module.out_features,
            bias=module.bias is not None,
            has_fp16_weights=False,
            threshold=quant.int8_outlier_threshold,
        )
        model.set_submodule(name, layer)
    model.is_loaded_in_8bit = True


def fill_four_bit_layers(model: nn.Module, quant: QuantConfig, backward: torch.dtype) -> None:
    """Packed weights with their constants; all layers share the code tables."""
    tables = _empty(16), _empty(256)
    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            layer.weight = _four_bit_weight(layer, quant, backward, *tables)
            layer.quant_state = layer.weight.quant_state


def _four_bit_weight(
    layer: Any, quant: QuantConfig, backward: torch.dtype, codes: Tensor, nested_codes: Tensor
) -> nn.Parameter:
    """Codes [ceil(out x in / 2), 1] and their constants, as bitsandbytes lays them out; `codes` has
    16 values and `nested_codes` 256."""
    count = layer.in_features * layer.out_features
    blocks = -(-count // BLOCK)
    nested = quant.double_quantization
    weight: Any = nn.Parameter(_empty((count + 1) // 2, 1, dtype=torch.uint8), requires_grad=False)
    state2 = offset = None
    if nested:
        absmax = _empty(-(-blocks // NESTED_BLOCK))
        state2 = QuantState(absmax=absmax, code=nested_codes, blocksize=NESTED_BLOCK)
        state2.dtype = torch.float32
        offset = _empty()
    weight.quant_state = QuantState(
        absmax=_empty(blocks, dtype=torch.uint8 if nested else torch.float32),
        shape=torch.Size((layer.out_features, layer.in_features)),
        code=codes,
        blocksize=BLOCK,
        quant_type=quant.storage.value,
        dtype=backward,
        offset=offset,
        state2=state2,
    )
    return weight  # type: ignore[no-any-return]


def fill_eight_bit_layers(model: nn.Module) -> None:
    """Codes [out, in], with their scales where a layer in training has them."""
    for layer in model.modules():
        if isinstance(layer, EightBitLinear):
            codes = _empty(layer.out_features, layer.in_features, dtype=torch.int8)
            weight: Any = nn.Parameter(codes, requires_grad=False)
            weight.CB = weight.SCB = None
            layer.weight, layer.state.CB = weight, weight.data
            layer.state.SCB = _empty(layer.out_features)


def _empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """On torch's default device."""
    return torch.empty(shape, dtype=dtype)
