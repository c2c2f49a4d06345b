"""Adapter-H as a method of PEFT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.pytorch_utils import Conv1D

from lorascope.adapters.peft_extension import OwnConfig, OwnLayer, OwnTuner, register

NAME = "BOTTLENECK"


@dataclass
class PeftBottleneckConfig(OwnConfig):
    """Adapter-H, as adapter_config.json holds it."""

    size: int = 64
    activation: str = "relu"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = NAME


class BottleneckLayer(OwnLayer):
    """A layer of the base, behind which a small network adds to its output."""

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")

    def make(self, adapter_name: str, config: Any) -> None:
        """A network that adds nothing yet: Houlsby et al. start near zero, this at zero, as LoRA
        does."""
        base = self.get_base_layer()
        out_features = int(base.nf if isinstance(base, Conv1D) else base.out_features)
        down, up = nn.Linear(out_features, config.size), nn.Linear(config.size, out_features)
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)
        self.bottleneck_down = nn.ModuleDict({adapter_name: down})
        self.bottleneck_up = nn.ModuleDict({adapter_name: up})
        self._activation = ACT2FN[config.activation]

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """[..., in] -> [..., out]"""
        result: Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return result
        for name in self.active_adapters:
            down, up = self.bottleneck_down[name], self.bottleneck_up[name]
            given = result.to(next(down.parameters()).dtype)
            result = result + up(self._activation(down(given))).to(result.dtype)
        return result


class BottleneckModel(OwnTuner):
    """A model with Adapter-H behind some of its layers."""

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer


register(NAME, PeftBottleneckConfig, BottleneckModel)
