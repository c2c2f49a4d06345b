"""The ranges that calibration found, in a model's layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lorascope.records import CalibrationRecord


@dataclass(frozen=True)
class Ranges:
    """What the inputs of a model's layers are rounded to."""

    record: CalibrationRecord

    def put(self, model: nn.Module) -> None:
        """Give each layer the scale and zero point of its inputs."""
        for own in self.record.layers:
            layer: Any = model.get_submodule(own.name)
            device = layer.weight.device
            layer.input_scale = torch.tensor([own.scale], device=device)
            layer.input_zero_point = torch.tensor([own.zero_point], dtype=torch.int8, device=device)
