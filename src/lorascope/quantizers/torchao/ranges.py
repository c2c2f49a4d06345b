"""The ranges that calibration found, in a model's layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lorascope.records import CalibrationRecord


def put_ranges(model: nn.Module, record: CalibrationRecord) -> None:
    """Give each layer the scale and zero point of its inputs."""
    for own in record.layers:
        layer: Any = model.get_submodule(own.name)
        device = layer.weight.device
        layer.input_scale = torch.tensor([own.scale], device=device)
        layer.input_zero_point = torch.tensor([own.zero_point], dtype=torch.int8, device=device)
