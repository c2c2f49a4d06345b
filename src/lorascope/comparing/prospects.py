"""What more items or more seeds would make of a comparison, if its estimate stays."""

from __future__ import annotations

import math

from lorascope.comparing.estimates import Tested
from lorascope.comparing.results import Measure
from lorascope.comparing.ruling import Projection
from lorascope.statistics.power import (
    BOUNDARY_NOISE,
    items_needed,
    projected_half_width,
    seeds_needed,
)


def is_near(tested: Tested, measure: Measure, margin: float) -> bool:
    """Whether the estimate lies so near the margin that even its side is unknown."""
    gap = abs(tested.difference.value - _limit(measure, margin))
    return gap <= BOUNDARY_NOISE * tested.error


def items_to_settle(
    tested: Tested, measure: Measure, margin: float, comparisons: int
) -> int | None:
    """Items in all at which the test, corrected for `comparisons`, settles it; None: none would."""
    parts = tested.two_way.components
    seed_variance = max(0.0, tested.two_way.standard_error**2 - parts.items_alone)
    needed = items_needed(
        tested.difference.value,
        _limit(measure, margin),
        math.sqrt(max(0.0, tested.error**2 - seed_variance)),
        tested.difference.items,
        math.sqrt(seed_variance),
        comparisons,
        tested.two_way.degrees,
    )
    # What is open now takes more than there is, whatever the approximation says.
    return None if needed is None else max(needed, tested.difference.items + 1)


def seeds_to_settle(
    tested: Tested, measure: Measure, margin: float, comparisons: int
) -> int | None:
    """Seeds in all, likewise; None where unknown, or where no number of seeds would."""
    parts = tested.two_way.components
    needed = seeds_needed(tested.difference.value, _limit(measure, margin), parts, comparisons)
    return None if needed is None else max(needed, parts.seeds + 1)


def project_seeds(tested: Tested, more_seeds: int) -> Projection:
    """The 95 % half width that `more_seeds` further seeds would give."""
    parts = tested.two_way.components
    lowest, highest = projected_half_width(parts, parts.seeds + more_seeds)
    # Where few answers changed the interval is wider than the components say.
    now = projected_half_width(parts, parts.seeds)[1]
    scale = max(1.0, tested.half_width / now) if now else 1.0
    if not now:
        lowest, highest = tested.half_width / math.sqrt(parts.seeds + more_seeds), tested.half_width
    return Projection(
        more_seeds=more_seeds,
        half_width=tested.half_width,
        lowest=scale * lowest,
        highest=scale * highest,
        seed_spread_known=parts.item_by_seed is not None,
    )


def _limit(measure: Measure, margin: float) -> float:
    """The difference at which harm reaches the margin."""
    return -measure.sign * margin
