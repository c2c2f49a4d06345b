"""Seed spread shared by the comparisons of one sweep, because three seeds alone say too little.

The variance between three seeds has two degrees of freedom: by luck it is often far too small, and
with many comparisons some interval is then far too narrow. The comparisons of a sweep estimate the
same kind of spread; together they know it better. A comparison whose own spread is smaller, or
unknown as it has one seed, takes the pooled one with its degrees of freedom; one whose own spread
is larger keeps it, as spreads need not be equal.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from scipy.special import stdtr, stdtrit

from lorascope.maths.two_way import Components, TwoWayEstimate

SHARED_CORRELATION = 0.25
"""Of the squared seed deviations of two differences from one reference: the differences themselves
correlate by 1/2 where both sides spread alike, their squares by its square."""


@dataclass(frozen=True)
class SeedPool:
    """Spread between seeds, pooled."""

    variance: float
    """Of one seed's mean, the items' own flicker removed."""
    degrees: float


def pool_seeds(components: Sequence[Components], references: Sequence[Hashable]) -> SeedPool | None:
    """Mean excess variance between seeds over comparisons with several seeds; None without any.

    `references` names what each comparison is held against: m differences that share a reference
    count as m / (1 + (m - 1) / 4) independent ones.
    """
    known = [
        (part.seed_raw - part.item_by_seed, part.seeds, reference)
        for part, reference in zip(components, references, strict=True)
        if part.seed_raw is not None and part.item_by_seed is not None
    ]
    if not known:
        return None
    shared = Counter(reference for _, _, reference in known)
    degrees = sum(
        (seeds - 1) / (1 + (shared[reference] - 1) * SHARED_CORRELATION)
        for _, seeds, reference in known
    )
    return SeedPool(max(0.0, sum(excess for excess, _, _ in known) / len(known)), degrees)


def with_seed_floor(estimate: TwoWayEstimate, pool: SeedPool | None) -> TwoWayEstimate:
    """`estimate` with the pooled spread where its own is smaller or unknown.

    Degrees of freedom are Satterthwaite's. The components take the pooled spread too, so that
    projections from them agree with the interval.
    """
    parts = estimate.components
    if pool is None or (parts.seed or 0.0) >= pool.variance:
        return estimate
    from_seeds = pool.variance / parts.seeds
    variance = parts.items_alone + from_seeds
    spread = parts.items_alone**2 / (parts.groups - 1) + from_seeds**2 / pool.degrees
    degrees, error = variance**2 / spread, math.sqrt(variance)
    half = float(stdtrit(degrees, 0.975)) * error
    if parts.item_by_seed is not None:
        raw = pool.variance + parts.item_by_seed
        parts = replace(parts, seed=pool.variance, seed_raw=raw)
    return replace(
        estimate,
        components=parts,
        standard_error=error,
        degrees=degrees,
        low=estimate.estimate - half,
        high=estimate.estimate + half,
        p_value=float(2 * stdtr(degrees, -abs(estimate.estimate) / error)),
    )
