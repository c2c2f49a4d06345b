"""A model with its adapter on fake tensors: shapes and types as in training, no weights, no device.

PEFT cannot inject under FakeTensorMode (it moves modules), so layers are put in place on the meta
device and their tensors exchanged for fake ones afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from bitsandbytes.functional import QuantState
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from peft import PeftModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.pytorch_utils import Conv1D

from lorascope.adapter_stack import AdapterShapes, stacks_of
from lorascope.config import LoraConfig, QuantConfig, Storage
from lorascope.errors import LorascopeError, ModelError
from lorascope.fake_mode import dequantizing
from lorascope.linear_layers import linear_shapes
from lorascope.lora import attach
from lorascope.maths.quantization import BLOCK, NESTED_BLOCK
from lorascope.packing import PackedModel
from lorascope.quantization import FOUR_BIT, unquantized_dtype
from lorascope.targets import select
from lorascope.transformers_config import (
    in_short,
    stored_dtype,
    text_config,
    unusable_config,
    with_layers,
)

DEVICE = "cpu"
"""Of the fake tensors: autograd on fake CUDA tensors aborts where torch has no CUDA."""


@dataclass(frozen=True)
class FakeModelSpec:
    """What decides the shapes and types of a model in training."""

    config: Mapping[str, object]
    """As in its config.json."""
    quant: QuantConfig
    lora: LoraConfig
    compute: torch.dtype
    attention: str = "auto"
    beside: tuple[LoraConfig, ...] = ()
    """Further adapters that are trained at once with `lora`."""

    @property
    def pack(self) -> list[LoraConfig]:
        """All adapters, by rank."""
        return sorted((self.lora, *self.beside), key=lambda lora: lora.rank)


def fake_adapted(spec: FakeModelSpec, kept: Sequence[int] | None = None) -> PeftModel:
    """The model, with those of its layers that are `kept`, and PEFT's adapter of the highest rank;
    call it under FakeTensorMode.

    Raises:
        ModelError: the architecture is unknown, or cannot be built or adapted.
        ConfigError: the adapter's targets match no layer.
    """
    with unset_fake_temporarily(), torch.random.fork_rng(devices=[]), torch.device("meta"):
        # Seeding the adapter must not reseed the process.
        model = _with_adapter(_meta_base(spec, kept), replace(spec, lora=spec.pack[-1]))
    make_fake(model, spec)
    return model


def fake_pack(spec: FakeModelSpec, kept: Sequence[int] | None = None) -> PackedModel:
    """The model with all its adapters as in training; call it under FakeTensorMode.

    Raises:
        ModelError: the architecture is unknown, or cannot be built.
        ConfigError: the adapter's targets match no layer.
    """
    with unset_fake_temporarily(), torch.device("meta"):
        base = _meta_base(spec, kept)
    make_fake(base, spec)
    chosen = select(linear_shapes(base), spec.lora)
    layers = {shape.name: (shape.in_features, shape.out_features) for shape in chosen}
    stacks = stacks_of(spec.pack, AdapterShapes(layers, spec.lora.dora), DEVICE)
    return PackedModel(base, stacks, seeds=[0] * len(spec.pack))


def _meta_base(spec: FakeModelSpec, kept: Sequence[int] | None) -> PreTrainedModel:
    whole = text_config(spec.config)
    config = whole if kept is None else with_layers(whole, kept)
    model = causal_model(config, spec)
    _put_quantized_layers(model, spec)
    model.requires_grad_(False)
    return model.eval()


def _with_adapter(model: PreTrainedModel, spec: FakeModelSpec) -> PeftModel:
    try:
        with dequantizing():
            return attach(model, spec.lora, seed=0)
    except LorascopeError:
        raise
    except Exception as error:
        raise ModelError(
            f"config.json: model_type={model.config.model_type!r}: PEFT cannot put an adapter on "
            f"this model ({in_short(error)}), so it can be neither traced nor trained here."
        ) from error


def causal_model(config: PretrainedConfig, spec: FakeModelSpec) -> PreTrainedModel:
    """The bare model; on the meta device where that is torch's default."""
    # FlashAttention saves what SDPA's own flash kernel saves.
    names = {"auto": None, "flash_attention_2": "sdpa"}
    attention = names.get(spec.attention, spec.attention)
    try:
        return AutoModelForCausalLM.from_config(
            config, dtype=spec.compute, attn_implementation=attention
        )
    except Exception as error:
        if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            raise ModelError(
                f"config.json: model_type={config.model_type!r} has no causal language model in "
                "transformers, so it can be neither traced nor trained here."
            ) from error
        raise unusable_config(config.model_type, error) from error


def _put_quantized_layers(model: PreTrainedModel, spec: FakeModelSpec) -> None:
    """bitsandbytes' layers in place of every linear layer but the head, as transformers does it."""
    storage = spec.quant.storage
    if storage is not Storage.int8 and storage not in FOUR_BIT:
        return
    if any(isinstance(module, Conv1D) for module in model.modules()):
        raise ModelError(
            f"quant={spec.quant.name}: this model's layers are Conv1D, for which 8 and 4 bits are "
            "not supported. Use quant=fp16, bf16 or fp32."
        )
    head = model.get_output_embeddings()
    # transformers leaves subclasses of Linear as they are.
    linear = [(n, m) for n, m in model.named_modules() if type(m) is nn.Linear]
    for name, module in linear:
        if module is not head:
            model.set_submodule(name, _quantized_layer(module, spec))
    model.is_loaded_in_8bit = storage is Storage.int8
    model.is_loaded_in_4bit = storage in FOUR_BIT


def _quantized_layer(module: nn.Linear, spec: FakeModelSpec) -> nn.Module:
    sizes, has_bias = (module.in_features, module.out_features), module.bias is not None
    layer: Any
    if spec.quant.storage is Storage.int8:
        threshold = spec.quant.int8_outlier_threshold
        layer = Linear8bitLt(*sizes, bias=has_bias, has_fp16_weights=False, threshold=threshold)
    else:
        layer = Linear4bit(
            *sizes,
            bias=has_bias,
            compute_dtype=spec.compute,
            compress_statistics=spec.quant.double_quantization,
            quant_type=spec.quant.storage.value,
        )
        # Or its first forward pass without gradients would repack it, as load_base prevents.
        layer.support_avx512bf16_for_cpu = False
    return layer  # type: ignore[no-any-return]


def make_fake(model: nn.Module, spec: FakeModelSpec) -> None:
    """Fake tensors for meta ones, tied parameters staying one; call it under FakeTensorMode."""
    fakes: dict[int, nn.Parameter] = {}
    tables = _code_tables() if spec.quant.storage in FOUR_BIT else {}
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=DEVICE)
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in fakes:
                fakes[id(parameter)] = _fake_parameter(module, name, parameter, spec, tables)
            module._parameters[name] = fakes[id(parameter)]


def _fake_parameter(
    module: nn.Module,
    name: str,
    parameter: nn.Parameter,
    spec: FakeModelSpec,
    tables: dict[str, Tensor],
) -> nn.Parameter:
    if name == "weight" and isinstance(module, Linear4bit):
        return _four_bit_weight(module, spec, tables)
    if name == "weight" and isinstance(module, Linear8bitLt):
        return _eight_bit_weight(module)
    dtype = parameter.dtype if parameter.requires_grad else spec.compute
    data = torch.empty(parameter.shape, dtype=dtype, device=DEVICE)
    return nn.Parameter(data, requires_grad=parameter.requires_grad)


def _four_bit_weight(
    layer: Linear4bit, spec: FakeModelSpec, tables: dict[str, Tensor]
) -> nn.Parameter:
    """Packed codes [ceil(out x in / 2), 1] with their constants, as bitsandbytes lays them out."""
    count = layer.in_features * layer.out_features
    blocks = -(-count // BLOCK)
    nested = spec.quant.double_quantization
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
        quant_type=spec.quant.storage.value,
        # The stored type, which the backward pass dequantizes to first.
        dtype=unquantized_dtype(spec.quant, stored_dtype(spec.config)),
        offset=offset,
        state2=state2,
    )
    layer.quant_state = weight.quant_state
    return weight  # type: ignore[no-any-return]


def _eight_bit_weight(layer: Linear8bitLt) -> nn.Parameter:
    shape = (layer.out_features, layer.in_features)
    codes = torch.empty(shape, dtype=torch.int8, device=DEVICE)
    weight: Any = nn.Parameter(codes, requires_grad=False)
    weight.CB = weight.SCB = None
    layer.state.CB = weight.data
    layer.state.SCB = torch.empty(layer.out_features, dtype=torch.float32, device=DEVICE)
    return weight  # type: ignore[no-any-return]


def _code_tables() -> dict[str, Tensor]:
    """All layers share them: 16 values, and 256 for nested constants."""
    return {
        "code": torch.empty(16, dtype=torch.float32, device=DEVICE),
        "nested": torch.empty(256, dtype=torch.float32, device=DEVICE),
    }
