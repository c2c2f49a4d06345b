"""Power: the differences that a test split and seeds can show, and how many more would be needed.

Shares lie in 0 to 1. `comparisons` divides the 5 % among that many tests (Bonferroni): what Holm's
first, hardest step asks for.
"""

from __future__ import annotations

import math
from dataclasses import replace

from scipy.special import ndtri, stdtrit

from lorascope.statistics.shares import standard_error
from lorascope.statistics.two_way import Components

SEEDS_CONSIDERED = 100
"""The most seeds that a plan may ask for."""
BOUNDARY_NOISE = 0.5
"""An estimate within this many standard errors of a boundary may as well lie on it."""


def detectable_paired_difference(
    discordant_share: float, items: int, comparisons: float = 1
) -> float:
    """Smallest difference that is significant at 5 %, two runs on the same items.

    `discordant_share` of the items only one of the two gets right. McNemar's test turned round:
    z sqrt(discordant / n).
    """
    return _deviate(comparisons) * _discordant_error(discordant_share, items)


def powered_paired_difference(
    discordant_share: float, items: int, comparisons: float = 1, power: float = 0.8
) -> float:
    """Smallest true difference that comes out significant with chance `power`, same items.

    The delta that solves sqrt(n) delta = z_alpha sqrt(psi) + z_power sqrt(psi - delta^2), psi the
    discordant share (Connor, Biometrics 43, 1987). Above `discordant_share` it cannot happen: no
    difference is found with that chance.
    """
    unit = _discordant_error(discordant_share, items)
    alpha, beta = _deviate(comparisons), float(ndtri(power))
    grown = 1 + beta**2 / items
    root = math.sqrt(max(0.0, alpha**2 - grown * (alpha**2 - beta**2)))
    return unit * (alpha + math.copysign(root, beta)) / grown


def detectable_unpaired_difference(share: float, items: int) -> float:
    """Smallest significant difference of two runs on independent samples of `items` items each:
    z sqrt(2) x standard error of a share."""
    return _deviate(1) * math.sqrt(2) * standard_error(share, items)


def powered_unpaired_difference(share: float, items: int, power: float = 0.8) -> float:
    """Smallest true difference found with chance `power`: (z_alpha + z_power) sqrt(2) SE."""
    reach = _deviate(1) + float(ndtri(power))
    return reach * math.sqrt(2) * standard_error(share, items)


def detectable_with_error(standard_error: float, degrees: float, comparisons: float = 1) -> float:
    """Smallest estimate that is significant at 5 %, given its t test: the interval's half width."""
    return _deviate(comparisons, degrees) * standard_error


def items_needed(
    estimate: float,
    limit: float,
    item_standard_error: float,
    items: int,
    seed_standard_error: float = 0.0,
    comparisons: float = 1,
    degrees: float = math.inf,
) -> int | None:
    """Items at which the interval leaves `limit` out, if the estimate stays where it is.

    The item part of the variance shrinks as 1 / items; `seed_standard_error` is the part that items
    do not shrink. `degrees` are those of the t test, infinite for a normal one, and taken to stay.
    None: the estimate lies within half a standard error of `limit`, so that even its side is
    unknown, or the seed part alone is too wide. More than `items` exactly where the present
    interval still holds `limit`.
    """
    gap = abs(estimate - limit)
    if gap <= BOUNDARY_NOISE * math.hypot(item_standard_error, seed_standard_error):
        return None
    room = (gap / _deviate(comparisons, degrees)) ** 2 - seed_standard_error**2
    if room <= 0:
        return None
    return max(1, math.ceil(items * item_standard_error**2 / room))


def items_to_show(margin: float, comparisons: float = 1) -> int:
    """Independent items below which no accuracy is shown to be within `margin` of another's, were
    not one answer different: Tango's interval (`shares`) of n such items ends at z^2 / (n + z^2).
    """
    square = _deviate(comparisons, math.inf) ** 2
    return math.ceil(square * (1 - margin) / margin)


def projected_half_width(
    components: Components, seeds: int, comparisons: float = 1
) -> tuple[float, float]:
    """95 % half width expected of the same items with `seeds` seeds: (narrowest, widest).

    Known components give one number twice; for one seed it is what that seed's own interval would
    say, without any seed spread. With one seed measured, items that flicker from seed
    to seed cannot be told from items that differ for good: narrowest if all of the variance
    flickers (it falls as 1 / seeds), widest if none does. Both then leave out the spread of whole
    trainings, which one seed cannot show, unless other comparisons lent theirs: the true width may
    exceed the widest.
    """
    narrow, wide = (
        detectable_with_error(math.sqrt(variance), degrees, comparisons)
        for variance, degrees in projected_variances(components, seeds)
    )
    return narrow, wide


def projected_variances(
    components: Components, seeds: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """The same as variances, each with the degrees of freedom of its t."""
    if seeds < 1:
        raise ValueError(f"seeds={seeds}: 1 or more")
    if components.item is None or components.item_by_seed is None or components.seed is None:
        # A spread taken from other comparisons falls with seeds in any case.
        pooled, degrees = (components.seed or 0.0) / seeds, components.item_degrees
        return (
            (components.items_alone / seeds + pooled, degrees),
            (components.items_alone + pooled, degrees),
        )
    known = replace(
        components,
        seeds=seeds,
        items_alone=components.item + components.item_by_seed / seeds,
        seed_raw=components.item_by_seed + components.seed,
        both_degrees=components.item_degrees,
    ).variance()
    return known, known


def seeds_needed(
    estimate: float, limit: float, components: Components, comparisons: float = 1
) -> int | None:
    """Fewest seeds, 2 or more, whose 95 % interval leaves `limit` out if the estimate stays.

    A single seed's interval would leave seed spread out and so always seem to do.

    None: components unknown (one seed), the estimate within half a standard error of `limit`, or
    more than 100 seeds, which includes items too few for any number of seeds.
    """
    if components.item is None or components.item_by_seed is None or components.seed is None:
        return None
    once = components.item + (components.item_by_seed + components.seed) / components.seeds
    gap = abs(estimate - limit)
    if gap <= BOUNDARY_NOISE * math.sqrt(once):
        return None
    for seeds in range(2, SEEDS_CONSIDERED + 1):
        if projected_half_width(components, seeds, comparisons)[1] < gap:
            return seeds
    return None


def _deviate(comparisons: float, degrees: float = math.inf) -> float:
    if comparisons <= 0:
        raise ValueError(f"comparisons={comparisons}: must be above 0")
    # scipy.stats gives the same bits, many times as slowly.
    return -float(stdtrit(degrees, 0.025 / comparisons))


def _discordant_error(discordant_share: float, items: int) -> float:
    """Standard error of a paired difference near none: sqrt(discordant / n)."""
    if items < 1 or not 0 <= discordant_share <= 1:
        raise ValueError(f"discordant_share={discordant_share}, items={items}: 0 to 1, 1 or more")
    return math.sqrt(discordant_share / items)


def powered_reach(comparisons: float = 1, degrees: float = math.inf) -> float:
    """Standard errors that a true difference must reach to come out significant in 80 %: t_alpha +
    t_power, which is 1.96 + 0.84 for a single comparison whose error is known."""
    return _deviate(comparisons, degrees) + float(stdtrit(degrees, 0.8))
