"""What dequantization costs: a quantized layer's forward pass against a 16-bit one's."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from statistics import median

import torch
from torch import nn

from benchmarks.gpu_check.records import Effort, LayerRow, LoadedBase
from benchmarks.gpu_check.step_clock import synchronize
from lorascope.machine.devices import TORCH_DTYPES, Device
from lorascope.quantizers import kinds
from lorascope.quantizers.loading import compute_precision

ROUNDS = 5


def quantized_layers(base: LoadedBase, effort: Effort) -> Iterator[tuple[LayerRow, nn.Module]]:
    """For each shape of a quantized layer a row to fill, and the first such layer."""
    found: dict[tuple[int, int], list[nn.Module]] = defaultdict(list)
    for _, layer, _ in kinds.quantized_layers(base.model):
        found[layer.in_features, layer.out_features].append(layer)
    for (wide, high), layers in found.items():
        row = LayerRow(
            base.shape, base.quant.name, wide, high, len(layers), effort.layer_tokens
        )  # fmt: skip
        yield row, layers[0]


def layer_row(base: LoadedBase, row: LayerRow, layer: nn.Module, effort: Effort) -> LayerRow:
    """`row` with the seconds of `layer`, and of a layer of its shape in the computing type."""
    compute = TORCH_DTYPES[compute_precision(base.quant, base.device).value]
    made = {"device": base.model.device, "dtype": compute}
    plain = nn.Linear(row.in_features, row.out_features, layer.bias is not None, **made)
    inputs = torch.randn(row.tokens, row.in_features, **made)
    seconds = [_forward_seconds(each, inputs, base.device, effort) for each in (layer, plain)]
    return replace(row, quantized_seconds=seconds[0], plain_seconds=seconds[1])


def _forward_seconds(
    layer: nn.Module, inputs: torch.Tensor, device: Device, effort: Effort
) -> float:
    """Median over rounds of many calls, the first round apart; inputs [tokens, in]."""
    taken = []
    with torch.no_grad():
        for _ in range(ROUNDS + 1):
            synchronize(device)
            started = time.perf_counter()
            for _ in range(effort.layer_calls):
                layer(inputs)
            synchronize(device)
            taken.append((time.perf_counter() - started) / effort.layer_calls)
    return median(taken[1:])
