"""A model with its adapter on fake tensors: shapes and types as in training, no weights, no device.

PEFT cannot inject under FakeTensorMode (it moves modules), so layers are put in place on the meta
device and their tensors exchanged for fake ones afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from peft import PeftModel
from torch import nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    PretrainedConfig,
    PreTrainedModel,
)

from lorascope.adapters.attach import attach
from lorascope.adapters.decoder import decoder_layers
from lorascope.adapters.kinds import rank_of
from lorascope.adapters.layers import model_parts
from lorascope.adapters.placement import Placement, connect_layers
from lorascope.adapters.stack import PackShape
from lorascope.adapters.targets import select
from lorascope.bases.heads import auto_class
from lorascope.bases.transformers_config import (
    in_short,
    text_config,
    unusable_config,
    with_layers,
)
from lorascope.config import AdapterConfig, QuantConfig
from lorascope.errors import LorascopeError, ModelError
from lorascope.quantizers.kinds import QUANTIZERS
from lorascope.training.pack import PackedModel, new_stack, peft_pack, stacked_pack

DEVICE = "cpu"
"""The device of fake tensors: autograd on fake CUDA tensors aborts where torch has no CUDA."""
ELSEWHERE = "cpu:1"
"""Another device to fake tensors, with which torch refuses to mix those of DEVICE."""


@dataclass(frozen=True)
class FakeModelSpec:
    """Configuration, mode and adapters: all that decides the shapes and types of a model."""

    config: Mapping[str, object]
    """Values of its config.json."""
    quant: QuantConfig
    adapter: AdapterConfig
    compute: torch.dtype
    backward: torch.dtype
    """The type that a backward pass dequantizes weights to."""
    attention: str = "auto"
    beside: tuple[AdapterConfig, ...] = ()
    """Further adapters that are trained at once with `adapter`."""
    elsewhere: bool = False
    """Whether the layers lie on another device than all else, as those of a placed base."""

    @property
    def pack(self) -> list[AdapterConfig]:
        """All adapters, by rank."""
        return sorted((self.adapter, *self.beside), key=rank_of)


def fake_adapted(spec: FakeModelSpec, kept: Sequence[int] | None = None) -> PeftModel:
    """The model, with those of its layers that are `kept`, and the adapter of the highest rank as
    it is saved; call it under FakeTensorMode.

    Raises:
        ModelError: the architecture is unknown, or cannot be built or adapted.
        ConfigError: the adapter's targets match no layer.
    """
    with unset_fake_temporarily(), torch.random.fork_rng(devices=[]), torch.device("meta"):
        # Seeding the adapter must not reseed the process.
        model = _with_adapter(_meta_base(spec, kept), replace(spec, adapter=spec.pack[-1].saved()))
    make_fake(model, spec)
    _connect(model.get_base_model(), spec)
    return model


def fake_pack(spec: FakeModelSpec, kept: Sequence[int] | None = None) -> PackedModel:
    """The model with all its adapters as in training; it raises what `fake_adapted` does. Call it
    under FakeTensorMode."""
    with unset_fake_temporarily(), torch.device("meta"):
        base = _meta_base(spec, kept)
    make_fake(base, spec)
    _connect(base, spec)
    shapes, shape = select(model_parts(base), spec.adapter), PackShape([0] * len(spec.pack))
    stack = new_stack(base, spec.pack, shapes, DEVICE)
    if stack is None:
        return peft_pack(fake_adapted(spec, kept), spec.adapter, shape)
    return stacked_pack(base, stack, shapes, shape)


def _meta_base(spec: FakeModelSpec, kept: Sequence[int] | None) -> PreTrainedModel:
    whole = text_config(spec.config)
    config = whole if kept is None else with_layers(whole, kept)
    model = causal_model(config, spec)
    QUANTIZERS[spec.quant.storage].put_fake_layers(model, spec.quant, spec.compute)
    model.requires_grad_(False)
    return model.eval()


def _with_adapter(model: PreTrainedModel, spec: FakeModelSpec) -> PeftModel:
    try:
        return attach(model, spec.adapter, seed=0)
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
        return auto_class(config).from_config(
            config, dtype=spec.compute, attn_implementation=attention
        )
    except Exception as error:
        if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            raise ModelError(
                f"config.json: model_type={config.model_type!r} has no causal language model in "
                "transformers, so it can be neither traced nor trained here."
            ) from error
        raise unusable_config(config.model_type, error) from error


def make_fake(model: nn.Module, spec: FakeModelSpec) -> None:
    """Fake tensors for meta ones, tied parameters staying one; call it under FakeTensorMode."""
    _fill(model, spec, DEVICE)
    if spec.elsewhere:
        _fill(decoder_layers(model)[1], spec, ELSEWHERE)


def _connect(base: PreTrainedModel, spec: FakeModelSpec) -> None:
    """Let layers get what they compute with where they lie."""
    if spec.elsewhere:
        name, layers = decoder_layers(base)
        connect_layers(base, Placement(name, (DEVICE, ELSEWHERE), (0, len(layers))))


def _fill(model: nn.Module, spec: FakeModelSpec, device: str) -> None:
    fakes: dict[int, nn.Parameter] = {}
    quantizer = QUANTIZERS[spec.quant.storage]
    with torch.device(device):
        quantizer.fill_fake_layers(model, spec.quant, spec.backward)
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)
        for name, parameter in module._parameters.items():
            if parameter is None or (name == "weight" and quantizer.owns(module)):
                continue
            if id(parameter) not in fakes:
                dtype = parameter.dtype if parameter.requires_grad else spec.compute
                data = torch.empty(parameter.shape, dtype=dtype, device=device)
                fakes[id(parameter)] = nn.Parameter(data, requires_grad=parameter.requires_grad)
            module._parameters[name] = fakes[id(parameter)]
