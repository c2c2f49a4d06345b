"""Calibration: one scale and zero point for the inputs of each layer, from rows of train."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lorascope.config import Observer, QuantConfig
from lorascope.data.calibration import CalibrationRows
from lorascope.errors import ModelError
from lorascope.quantizers.torchao.eight_bit_inputs_layer import coded_weight
from lorascope.quantizers.torchao.observers import (
    Extremes,
    Judge,
    Watch,
    constants,
    watch_of,
)
from lorascope.records import CalibrationRecord, LayerRange


def calibrate(
    model: nn.Module, names: list[str], rows: CalibrationRows, quant: QuantConfig
) -> CalibrationRecord:
    """Read `rows` with a model whose layers `names` are plain, and choose what their inputs are
    rounded to.

    The model reads the rows two or three times: extremes, the range within them where
    `quant.observer` asks for another, and what becomes of the inputs.

    Raises:
        ModelError: no row reaches one of the layers, or its inputs are not finite.
    """
    extremes = {name: Extremes() for name in names}
    _read(model, rows, extremes)
    _require_seen(extremes)
    within = {name: watch_of(quant, whole) for name, whole in extremes.items()}
    _read(model, rows, {name: watch for name, watch in within.items() if watch is not None})
    chosen = {name: constants((within[name] or whole).ends) for name, whole in extremes.items()}
    judges = {name: Judge(*own) for name, own in chosen.items()}
    _read(model, rows, judges)
    percentile = quant.percentile if quant.observer is Observer.percentile else None
    layers = [
        _range(name, model.get_submodule(name), extremes[name], *chosen[name], judges[name])
        for name in names
    ]
    return CalibrationRecord(
        quant.observer.value, percentile, len(rows.token_ids), rows.tokens, rows.sha256, layers
    )


@torch.no_grad()
def _read(model: nn.Module, rows: CalibrationRows, watches: Mapping[str, Watch]) -> None:
    """Have `watches` see the inputs of their layers on every row."""
    if not watches:
        return
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(partial(_show, watch))
        for name, watch in watches.items()
    ]
    device = next(model.parameters()).device
    try:
        for ids in rows.token_ids:
            model(input_ids=torch.tensor([ids], device=device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()


def _show(watch: Watch, _: nn.Module, inputs: tuple[Any, ...]) -> None:
    values: Tensor = inputs[0].detach().float()
    if values.numel():
        watch.see(values.reshape(-1, values.shape[-1]))


def _require_seen(extremes: Mapping[str, Extremes]) -> None:
    for name, own in extremes.items():
        if not own.values:
            raise ModelError(
                f"{name}: no token of the calibration rows reaches this layer, so that nothing is "
                "known of its inputs. Set quant.calibration_rows higher, or use quant=w8a8_dynamic."
            )
        if not all(map(torch.isfinite, own.ends)):
            raise ModelError(
                f"{name}: its inputs on the calibration rows are not finite. Set "
                "quant.compute=float32, and if that does not help, check the model's weights."
            )


def _range(
    name: str, layer: Any, seen: Extremes, scale: Tensor, zero_point: Tensor, judge: Judge
) -> LayerRange:
    weight: Tensor = layer.weight.detach().float()
    stored = coded_weight(weight).dequantize()
    low, high = seen.ends
    return LayerRange(
        name=name,
        values=seen.values,
        observed_min=float(low),
        observed_max=float(high),
        scale=float(scale),
        zero_point=int(zero_point),
        clipped_share=judge.clipped_share,
        mean_squared_error=judge.mean_squared_error,
        mean_square=float(seen.squares) / seen.values,
        weight_min=float(weight.min()),
        weight_max=float(weight.max()),
        stored_weight_min=float(stored.min()),
        stored_weight_max=float(stored.max()),
    )
