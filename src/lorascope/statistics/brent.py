"""Brent's method for a root: scipy's own steps, without the quarter of a second that importing
scipy.optimize takes of every report."""

from __future__ import annotations

import math
from collections.abc import Callable

RELATIVE = 8.881784197001252e-16
"""Tolerance by the size of the root: four units in the last place."""
MOST_STEPS = 100


def brent_root(
    function: Callable[[float], float], start: float, end: float, tolerance: float = 2e-12
) -> float:
    """Where `function`, which has opposite signs at `start` and `end`, is 0, to `tolerance`.

    Interpolation where it closes in fast enough, else halving (Brent, Algorithms for Minimization
    without Derivatives, 1973, chapter 4), step by step as scipy.optimize.brentq: the same bits.

    Raises:
        ValueError: the signs are not opposite.
        ArithmeticError: `MOST_STEPS` steps do not find it.
    """
    former, best = float(start), float(end)
    at_former, at_best = function(former), function(best)
    if at_former == 0:
        return former
    if at_best == 0:
        return best
    if not (at_former < 0 < at_best or at_best < 0 < at_former):
        raise ValueError(f"{at_former} at {start} and {at_best} at {end}: no change of sign")
    # The root lies between the best guess and `other`.
    other = at_other = step = former_step = 0.0
    for _ in range(MOST_STEPS):
        if math.isnan(at_best):
            break
        if at_former != 0 and (at_former < 0) != (at_best < 0):
            other, at_other = former, at_former
            step = former_step = best - former
        if abs(at_other) < abs(at_best):
            former, best, other = best, other, best
            at_former, at_best, at_other = at_best, at_other, at_best
        least, half = (tolerance + RELATIVE * abs(best)) / 2, (other - best) / 2
        if at_best == 0 or abs(half) < least:
            return best
        tried = math.inf
        if abs(former_step) > least and abs(at_best) < abs(at_former):
            tried = _interpolated((former, best, other), (at_former, at_best, at_other))
        if 2 * abs(tried) < min(abs(former_step), 3 * abs(half) - least):
            former_step, step = step, tried
        else:
            former_step = step = half
        former, at_former = best, at_best
        best += step if abs(step) > least else (least if half > 0 else -least)
        at_best = function(best)
    raise ArithmeticError(f"no root between {start} and {end} within {MOST_STEPS} steps")


def _interpolated(places: tuple[float, float, float], values: tuple[float, float, float]) -> float:
    """The step from the best guess to where a line, or through three points a hyperbola, is 0;
    infinity where neither ever is."""
    (former, best, other), (at_former, at_best, at_other) = places, values
    try:
        if former == other:
            return -at_best * (best - former) / (at_best - at_former)
        by_former = (at_former - at_best) / (former - best)
        by_other = (at_other - at_best) / (other - best)
        slopes = by_other * by_former * (at_other - at_former)
        return -at_best * (at_other * by_other - at_former * by_former) / slopes
    except ZeroDivisionError:
        return math.inf
