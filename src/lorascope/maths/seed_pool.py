"""Seed spread shared by the comparisons of one sweep, because three seeds alone say too little.

The variance between three seeds has two degrees of freedom: by luck it is often far too small, and
with many comparisons some interval is then far too narrow. The comparisons of a sweep estimate the
same kind of spread; together they know it better. A comparison whose own spread is smaller, or
unknown as it has one seed, takes the pooled one with its degrees of freedom; one whose own spread
is larger keeps it, as spreads need not be equal. One that stands far out of the others, as where a
single training collapsed, keeps its own and is not pooled: it says nothing of theirs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from scipy.special import fdtrc, stdtr, stdtrit

from lorascope.maths.two_way import Components, TwoWayEstimate

SHARED_CORRELATION = 0.25
"""Of the squared seed deviations of two differences from one reference: the differences themselves
correlate by 1/2 where both sides spread alike, their squares by its square."""
OUTLIER_LEVEL = 0.01
"""Chance, over all comparisons, that a spread like the others' is taken for an outlier."""


@dataclass(frozen=True)
class SeedPool:
    """Spread between seeds, pooled."""

    variance: float
    """Of one seed's mean, the items' own flicker removed."""
    raw: float
    """The same with the flicker in it: what is known with `degrees` of freedom."""
    degrees: float


def pool_seeds(components: Sequence[Components], references: Sequence[Hashable]) -> SeedPool | None:
    """Mean excess variance between seeds over comparisons with several seeds; None without any.

    `references` names what each comparison is held against: m differences that share a reference
    count as m / (1 + (m - 1) / 4) independent ones.
    """
    known = [
        _Spread(part.seed_raw, part.seed_raw - part.item_by_seed, part.seeds, reference)
        for part, reference in zip(components, references, strict=True)
        if part.seed_raw is not None and part.item_by_seed is not None
    ]
    alike = _without_outliers(known)
    if not alike:
        return None
    return SeedPool(
        variance=max(0.0, sum(one.excess for one in alike) / len(alike)),
        raw=sum(one.raw for one in alike) / len(alike),
        degrees=_degrees(alike),
    )


@dataclass(frozen=True)
class _Spread:
    """Variance between the seeds of one comparison."""

    raw: float
    excess: float
    seeds: int
    reference: Hashable


def _degrees(spreads: Sequence[_Spread]) -> float:
    shared = Counter(one.reference for one in spreads)
    return sum(
        (one.seeds - 1) / (1 + (shared[one.reference] - 1) * SHARED_CORRELATION) for one in spreads
    )


def _without_outliers(spreads: Sequence[_Spread]) -> list[_Spread]:
    """The spreads left after dropping, largest first, those that an F test tells from the rest."""
    kept = sorted(spreads, key=lambda one: one.raw)
    while len(kept) > 2:
        rest, largest = kept[:-1], kept[-1]
        usual = sum(one.raw for one in rest) / len(rest)
        if largest.raw == 0:
            break
        # Beside others without any spread, any spread stands out.
        ratio = largest.raw / usual if usual else math.inf
        chance = fdtrc(largest.seeds - 1, _degrees(rest), ratio)
        if chance * len(kept) >= OUTLIER_LEVEL:
            break
        kept = rest
    return kept


def with_seed_floor(estimate: TwoWayEstimate, pool: SeedPool | None) -> TwoWayEstimate:
    """`estimate` with the pooled spread where its own is smaller or unknown.

    Degrees of freedom are Satterthwaite's. The components take the pooled spread too, so that
    projections from them agree with the interval.
    """
    parts = estimate.components
    if pool is None or (parts.seed or 0.0) >= pool.variance:
        return estimate
    variance = parts.items_alone + pool.variance / parts.seeds
    # The pool is as uncertain as the raw spread that it was taken from.
    spread = parts.items_alone**2 / parts.item_degrees
    spread += (pool.raw / parts.seeds) ** 2 / pool.degrees
    # Satterthwaite's degrees lie between those of the parts.
    degrees = max(variance**2 / spread, min(pool.degrees, parts.item_degrees))
    error = math.sqrt(variance)
    half = float(stdtrit(degrees, 0.975)) * error
    raw = pool.variance + (parts.item_by_seed or 0.0)
    return replace(
        estimate,
        components=replace(parts, seed=pool.variance, seed_raw=raw),
        standard_error=error,
        degrees=degrees,
        low=estimate.estimate - half,
        high=estimate.estimate + half,
        p_value=float(2 * stdtr(degrees, -abs(estimate.estimate) / error)),
    )
