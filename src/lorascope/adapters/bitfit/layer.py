"""BitFit as a method of PEFT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lorascope.adapters.peft_extension import OwnConfig, OwnLayer, OwnTuner, register

NAME = "BITFIT"


@dataclass
class PeftBitfitConfig(OwnConfig):
    """BitFit, as adapter_config.json holds it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = NAME


class BiasLayer(OwnLayer):
    """A layer of the base with a vector added to its bias, which is to its output."""

    adapter_layer_names = ("bitfit_bias",)

    def make(self, adapter_name: str, config: Any) -> None:
        """A vector of zeros."""
        zeros = torch.zeros(self.get_base_layer().bias.shape, dtype=torch.float32)
        self.bitfit_bias = nn.ParameterDict({adapter_name: nn.Parameter(zeros)})

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """[..., in] -> [..., out]"""
        result: Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return result
        for name in self.active_adapters:
            result = result + self.bitfit_bias[name].to(result.dtype)
        return result

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add what was trained to the base's bias."""
        bias = self.get_base_layer().bias
        for name in adapter_names or self.active_adapters:
            bias.data = bias.data + self.bitfit_bias[name].detach().to(bias.dtype)
            self.merged_adapters.append(name)


class BitfitModel(OwnTuner):
    """A model with trained differences to its biases."""

    prefix = "bitfit_"
    tuner_layer_cls = BiasLayer


register(NAME, PeftBitfitConfig, BitfitModel)
