"""What more seeds would make of an interval whose answers hardly differ.

There the width comes of Tango's variance (`accuracy`), which falls with the number of answers that
are independent of each other. Where nothing changes, an item that is answered with further seeds
counts once; only changes that fall on other items with each seed make it narrower.
"""

from __future__ import annotations

import math
from dataclasses import replace

from lorascope.statistics.accuracy import flip_difference
from lorascope.statistics.power import projected_variances
from lorascope.statistics.shares import PairedCounts
from lorascope.statistics.two_way import TwoWayEstimate


def half_width_of_few(
    measured: TwoWayEstimate, flips: PairedCounts, changed: float, seeds: int
) -> tuple[float, float | None]:
    """95 % half width with `seeds` seeds in all, if answers go on to change as seldom: narrowest,
    where each seed changes items of other groups, and widest, where each changes the same ones.
    None: how much seeds vary is unknown, so that nothing bounds it.

    Args:
        changed: answers that changed; those of `flips` are over the design effect.
    """
    parts = measured.components
    narrow, wide = projected_variances(parts, seeds)
    lowest = _half_width(measured, *narrow, _spread_over(flips, changed, seeds / parts.seeds))
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


def _spread_over(flips: PairedCounts, changed: float, times: float) -> PairedCounts:
    """The independent answers of so many times as many seeds, as `independent_flips` counts them.

    Sums over groups of s^2, and the size of a group, grow as seeds do, the changed answers too, so
    that deff becomes `times` deff (changed + 1) / (times changed + 1).
    """
    scale = (times * changed + 1) / (changed + 1)
    return replace(
        flips,
        items=flips.items * scale,
        only_a=flips.only_a * scale,
        only_b=flips.only_b * scale,
    )
