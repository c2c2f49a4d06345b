"""A base of a given shape with random weights, made on its device: nothing is read or written."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from bitsandbytes.functional import int8_vectorwise_quant
from bitsandbytes.nn import Int8Params, Linear4bit, Linear8bitLt, Params4bit
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils.quantization_config import QuantizationMethod

from benchmarks.gpu_check.records import LoadedBase
from lorascope.bases.transformers_config import stored_dtype, text_config
from lorascope.config import QuantConfig
from lorascope.machine.devices import TORCH_DTYPES, Device, compute_precision
from lorascope.quantizers.bitsandbytes.fake_layers import put_quantized_layers
from lorascope.quantizers.loading import is_quantized, share_lookup_tables, unquantized_dtype

SEED = 0


def random_base(
    shape: str, config: Mapping[str, object], quant: QuantConfig, device: Device
) -> LoadedBase:
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
        if not is_quantized(module):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(stored).to(compute)
    share_lookup_tables(model)
    model.requires_grad_(False)
    return LoadedBase(shape, config, quant, device, model.eval())


def _quantize(
    model: PreTrainedModel, quant: QuantConfig, stored: torch.dtype, compute: torch.dtype
) -> None:
    """Linear layers but the head in 8 or 4 bits, where the mode says so."""
    linear = {name: module for name, module in model.named_modules() if type(module) is nn.Linear}
    with torch.device("meta"):
        put_quantized_layers(model, quant, compute)
    quantized = [name for name in linear if is_quantized(model.get_submodule(name))]
    for name in quantized:
        # Popped, so that no more than one layer is there twice.
        _fill(model.get_submodule(name), linear.pop(name).to(stored))
    if quantized:
        # As from_pretrained leaves it: moved by a Trainer, 8-bit layers would lose their scales.
        model.quantization_method = QuantizationMethod.BITS_AND_BYTES
        model.hf_device_map = {"": model.device}


def _fill(layer: nn.Module, source: nn.Linear) -> None:
    """Quantize the weight [out, in] of `source` into `layer`, as transformers does on loading."""
    weight = source.weight.data
    if isinstance(layer, Linear4bit):
        settings = vars(layer.weight)
        layer.weight = Params4bit(weight, requires_grad=False, **settings).to(weight.device)
        layer.compute_type_is_set = True
    elif isinstance(layer, Linear8bitLt):
        codes, scales, _ = int8_vectorwise_quant(weight.half())
        layer.weight = Int8Params(codes, requires_grad=False, CB=codes, SCB=scales)
    layer.bias = source.bias
