"""What several devices that divide a base save of its bytes, and what each adds when a layer is put
together: measured on torch's `fully_shard` (2.13), and counted here from shapes.

A layer is gathered into one buffer, and copied from there into its weights. Forward the buffer
stays until the layer is done. Backward it goes before the layer is computed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lorascope.adapters.decoder import decoder_layers
from lorascope.bases.transformers_config import text_config
from lorascope.planning.fake_model import causal_model
from lorascope.planning.marks import BACKWARD, START
from lorascope.planning.subject import PlanSubject


@dataclass(frozen=True)
class Division:
    """Bytes of a divided base on one device."""

    spared: int
    """Of all layers, what lies on other devices."""
    weights: int
    """The largest layer, put together."""
    buffer: int
    """What it is gathered into: its parts are equally large, the last ones padded."""

    def segments(self, whole: Mapping[str, int]) -> dict[str, int]:
        """Peaks of a step's segments, of those with a whole base."""
        return {name: peak - self.spared + self._gathered(name) for name, peak in whole.items()}

    def evaluated(self, whole: int) -> int:
        """At most, the peak of an evaluation: whether it is among the layers is not known."""
        return whole - self.spared + self.weights + self.buffer

    def _gathered(self, segment: str) -> int:
        if segment == "forward" or segment.endswith(START):
            return self.weights + self.buffer
        return self.weights if segment in BACKWARD else 0


UNDIVIDED = Division(0, 0, 0)


def division_of(subject: PlanSubject) -> Division:
    """Of the subject's base over its devices."""
    devices = subject.shards
    if devices == 1:
        return UNDIVIDED
    with torch.device("meta"):
        model = causal_model(text_config(subject.spec.config), subject.spec)
    _, layers = decoder_layers(model)
    whole, parts = [], []
    for layer in layers:
        weights = list(layer.parameters())
        whole.append(sum(weight.nbytes for weight in weights))
        parts.append(sum(_part_bytes(weight, devices) for weight in weights))
    return Division(sum(whole) - sum(parts), max(whole), devices * max(parts))


def _part_bytes(weight: Tensor, devices: int) -> int:
    """A weight is cut along its first axis."""
    rows = math.ceil(len(weight) / devices)
    return rows * weight[0].nbytes
