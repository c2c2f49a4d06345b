"""PrefixLayer of the LoRA paper as a method of PEFT."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lorascope.adapters.decoder import decoder_layers
from lorascope.adapters.peft_extension import OwnConfig, OwnLayer, OwnTuner, register
from lorascope.adapters.prompts.decoder import FrontedDecoder

NAME = "PREFIX_LAYER"


@dataclass
class PeftPrefixLayerConfig(OwnConfig):
    """PrefixLayer, as adapter_config.json holds it; `target_modules` is the decoder's name."""

    tokens: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = NAME


class PrefixLayerDecoder(FrontedDecoder, OwnLayer):
    """A decoder with trained states in front, at the input of every layer."""

    adapter_layer_names = ("prefix_layer_states",)

    def make(self, adapter_name: str, config: Any) -> None:
        """Normal numbers, as wide as the model's own at its start."""
        self.put_in_front(config.tokens)
        decoder = self.get_base_layer()
        features = decoder.get_input_embeddings().weight.shape[1]
        shape = (len(decoder_layers(decoder)[1]), config.tokens, features)
        spread = getattr(decoder.config, "initializer_range", 0.02)
        states = torch.randn(shape, dtype=torch.float32) * spread
        self.prefix_layer_states = nn.ParameterDict({adapter_name: nn.Parameter(states)})

    def begin(self, inputs: dict[str, Any], samples: int) -> Any:
        """With the first layer's states as embeddings, and each other layer's in front of it."""
        (name,) = self.active_adapters
        first, *others = self.prefix_layer_states[name].unbind()
        inputs = self.embedded(inputs, first.expand(samples, -1, -1))
        with _replaced(decoder_layers(self.base_layer)[1], others):
            return self.without_front(self.base_layer(**inputs))


class _Fronted(nn.Module):
    """A layer that reads trained states at its first positions, whatever it is given there. It is
    no part of what gradient checkpointing runs again."""

    def __init__(self, layer: nn.Module, states: Tensor) -> None:
        super().__init__()
        self.layer, self._states = layer, states

    def __getattr__(self, name: str) -> Any:
        """Whatever else is asked of a layer."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """As the layer itself: [samples, positions, features]."""
        states = self._states.to(hidden_states.dtype)
        front = states.expand(len(hidden_states), -1, -1)
        behind = hidden_states[:, len(states) :]
        return self.layer(torch.cat([front, behind], 1), *args, **kwargs)


@contextmanager
def _replaced(layers: nn.ModuleList, states: list[Tensor]) -> Iterator[None]:
    """All layers but the first with their states, for one forward pass."""
    own = list(layers)
    try:
        for number, front in enumerate(states, 1):
            layers[number] = _Fronted(own[number], front)
        yield
    finally:
        for number, layer in enumerate(own):
            layers[number] = layer


class PrefixLayerModel(OwnTuner):
    """A model with such a decoder."""

    prefix = "prefix_layer_"
    tuner_layer_cls = PrefixLayerDecoder


register(NAME, PeftPrefixLayerConfig, PrefixLayerModel)
