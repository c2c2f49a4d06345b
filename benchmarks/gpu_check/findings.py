"""What rows say: floor and cost a token, gains of packs, break-even, distance from the plan."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import linear_regression

from benchmarks.gpu_check.records import (
    BARE,
    PACKED,
    BaseRow,
    Finding,
    Gain,
    LayerRow,
    StepRow,
)

GAIN_THAT_PAYS = 1.02

Seconds = dict[tuple[str, int, int], float]
"""(path, trials, tokens a trial) -> seconds of a step."""


def findings(
    bases: Sequence[BaseRow], steps: Sequence[StepRow], layers: Sequence[LayerRow]
) -> list[Finding]:
    """One for each base."""
    return [
        finding(
            base,
            [row for row in steps if (row.shape, row.mode) == (base.shape, base.mode)],
            [row for row in layers if (row.shape, row.mode) == (base.shape, base.mode)],
        )
        for base in bases
    ]


def finding(base: BaseRow, steps: Sequence[StepRow], layers: Sequence[LayerRow]) -> Finding:
    """What the rows of one base say."""
    seconds = {
        (row.path, row.trials, row.tokens_a_trial): row.step_seconds
        for row in steps
        if row.step_seconds is not None
    }
    alone = {tokens: own for (path, k, tokens), own in seconds.items() if (path, k) == (PACKED, 1)}
    fixed, slope, residual = line(alone)
    asked = [row.tokens_a_trial for row in steps]
    gains = packing_gains(seconds)
    errors = [row.plan_error_percent for row in steps if row.plan_error_percent is not None]
    return Finding(
        shape=base.shape,
        mode=base.mode,
        launch_floor_seconds=alone.get(min(asked)) if asked else None,
        fixed_seconds=fixed,
        seconds_a_token=slope,
        largest_residual_percent=residual,
        dequantization_seconds=dequantization_seconds(layers),
        gains=gains,
        break_even_tokens_a_trial=break_even(gains),
        bare_ratios=[
            Gain(1, tokens, seconds[BARE, 1, tokens] / own)
            for tokens, own in sorted(alone.items())
            if (BARE, 1, tokens) in seconds
        ],
        largest_plan_error_percent=max(errors, key=abs, default=None),
    )


def line(alone: dict[int, float]) -> tuple[float | None, float | None, float | None]:
    """Least squares through (tokens, seconds): seconds at 0, seconds a token, and the largest
    residual in percent of its step. None for fewer than three points, which any line would fit."""
    if len(alone) < 3:
        return None, None, None
    slope, fixed = linear_regression(list(alone), list(alone.values()))
    residuals = [abs(fixed + slope * tokens - own) / own for tokens, own in alone.items()]
    return fixed, slope, 100 * max(residuals)


def packing_gains(seconds: Seconds) -> list[Gain]:
    """K steps of a trial alone over one step of K trials, wherever both are there."""
    return [
        Gain(trials, tokens, trials * seconds[PACKED, 1, tokens] / packed)
        for (path, trials, tokens), packed in sorted(seconds.items())
        if path == PACKED and trials > 1 and (PACKED, 1, tokens) in seconds
    ]


def break_even(gains: Sequence[Gain]) -> int | None:
    """The largest token count at which the largest packs gain more than 2 %; 0 where none does,
    None where none was measured."""
    most = max((gain.trials for gain in gains), default=0)
    largest = [gain for gain in gains if gain.trials == most]
    if not largest:
        return None
    return max((g.tokens_a_trial for g in largest if g.ratio > GAIN_THAT_PAYS), default=0)


def dequantization_seconds(layers: Sequence[LayerRow]) -> float | None:
    """Of all quantized layers in one forward pass; None where a shape was not measured, or nothing
    is quantized."""
    total = 0.0
    for row in layers:
        if row.quantized_seconds is None or row.plain_seconds is None:
            return None
        total += row.layers * (row.quantized_seconds - row.plain_seconds)
    return total if layers else None
