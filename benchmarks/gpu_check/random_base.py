"""A base of a given shape with random weights, made on its device: nothing is read or written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from bitsandbytes.functional import int8_vectorwise_quant
from bitsandbytes.nn import Int8Params, Linear4bit, Linear8bitLt, Params4bit
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.integrations.bitsandbytes import replace_with_bnb_linear
from transformers.utils.quantization_config import QuantizationMethod

from lorascope.bases.transformers_config import stored_dtype, text_config
from lorascope.config import QuantConfig
from lorascope.machine.devices import TORCH_DTYPES, Device
from lorascope.quantizers.kinds import PLAIN, QUANTIZERS, quantized_layers, quantizer_of
from lorascope.quantizers.loading import compute_precision, unquantized_dtype

SEED = 0


@dataclass(frozen=True)
class LoadedBase:
    """A frozen base on its device."""

    config: Mapping[str, object]
    """As in its config.json."""
    quant: QuantConfig
    device: Device
    model: PreTrainedModel


def random_base(config: Mapping[str, object], quant: QuantConfig, device: Device) -> LoadedBase:
    """What quantize-base and load_base make of a base whose weights transformers initialises.

    The model stands in 16 bits first, so that the device must hold that much, and is quantized
    layer by layer. Two bases of one shape have the same weights before they are quantized.

    Args:
        config: as in its config.json.

    Raises:
        ModelError: transformers does not know the architecture.
    """
    compute = TORCH_DTYPES[compute_precision(quant, device).value]
    stored = unquantized_dtype(quant, stored_dtype(config))
    torch.manual_seed(SEED)
    with torch.device(device.kind):
        model = AutoModelForCausalLM.from_config(text_config(config), dtype=compute)
    _quantize(model, quant, stored, compute)
    for module in model.modules():
        if quantizer_of(module) is PLAIN:
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(stored).to(compute)
    QUANTIZERS[quant.storage].prepare(model, compute)
    model.requires_grad_(False)
    return LoadedBase(config, quant, device, model.eval())


def _quantize(
    model: PreTrainedModel, quant: QuantConfig, stored: torch.dtype, compute: torch.dtype
) -> None:
    """Linear layers but the head in 8 or 4 bits, where the mode says so."""
    linear = {name: module for name, module in model.named_modules() if type(module) is nn.Linear}
    loading = QUANTIZERS[quant.storage].loading(quant, compute)
    if loading is None:
        return
    head = model.get_output_embeddings()
    kept = [name for name, module in linear.items() if module is head]
    replace_with_bnb_linear(model, kept, loading)
    quantized = [name for name, _, _ in quantized_layers(model)]
    for name in quantized:
        # Popped, so that no more than one layer is there twice.
        _fill(model.get_submodule(name), linear.pop(name).to(stored))
    if quantized:
        # As from_pretrained leaves it: moved by a Trainer, 8-bit layers would lose their scales.
        model.quantization_method = QuantizationMethod.BITS_AND_BYTES
        model.is_loaded_in_4bit = loading.load_in_4bit
        model.is_loaded_in_8bit = loading.load_in_8bit
        model.hf_device_map = {"": model.device}


def _fill(layer: nn.Module, source: nn.Linear) -> None:
    """Quantize the weight [out, in] of `source` into `layer`, as transformers does on loading."""
    weight = source.weight.data
    if isinstance(layer, Linear4bit):
        settings = vars(layer.weight)
        layer.weight = Params4bit(weight, requires_grad=False, **settings).to(weight.device)
    elif isinstance(layer, Linear8bitLt):
        codes, scales, _ = int8_vectorwise_quant(weight.half())
        layer.weight = Int8Params(codes, requires_grad=False, CB=codes, SCB=scales)
    layer.bias = source.bias
