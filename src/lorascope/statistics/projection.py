"""What more seeds would make of an interval whose answers hardly differ.

There the width comes of Tango's variance (`accuracy`), which falls with the number of answers that
are independent of each other. Where nothing changes, an item that is answered with further seeds
counts once; only changes that fall on other items with each seed make it narrower.
"""

from __future__ import annotations

import math
from dataclasses import replace

from lorascope.statistics.accuracy import FEW, flip_difference
from lorascope.statistics.power import projected_variances
from lorascope.statistics.shares import PairedCounts
from lorascope.statistics.two_way import TwoWayEstimate


def few_differ(flips: PairedCounts | None) -> bool:
    """Whether the width comes of the variance under test, not of what is seen to vary."""
    return flips is not None and flips.discordant < FEW


def half_width_of_few(
    measured: TwoWayEstimate, flips: PairedCounts, seeds: int
) -> tuple[float, float | None]:
    """95 % half width with `seeds` seeds in all, if answers go on to change as seldom: narrowest,
    where each seed changes other items, and widest, where each changes the same ones. None: how
    much seeds vary is unknown, so that nothing bounds it."""
    parts = measured.components
    narrow, wide = projected_variances(parts, seeds)
    lowest = _half_width(measured, *narrow, _spread_over(flips, parts.seeds, seeds))
    is_known = parts.seeds > 1 or measured.noise is not None
    return lowest, _half_width(measured, *wide, flips) if is_known else None


def _half_width(
    measured: TwoWayEstimate, variance: float, degrees: float, flips: PairedCounts
) -> float:
    parts = replace(measured.components, items_alone=variance)
    then = replace(
        measured, standard_error=math.sqrt(variance), degrees=degrees, components=parts, noise=None
    )
    found = flip_difference(then, flips)
    return (found.high - found.low) / 2


def _spread_over(flips: PairedCounts, seeds: int, then: int) -> PairedCounts:
    """The independent answers of more seeds, as `independent_flips` counts them: changes fall on
    other items with each seed, and items without one count once."""
    more, changed = then / seeds, flips.discordant
    design_effect = (changed + seeds) / (changed + 1)
    later = (more * changed + then) / (more * changed + 1)
    scale = more * design_effect / later
    return replace(
        flips,
        items=flips.items * scale,
        only_a=flips.only_a * scale,
        only_b=flips.only_b * scale,
    )
