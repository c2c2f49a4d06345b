"""Seed spread shared by the comparisons of one sweep, because three seeds alone say too little.

The variance between three seeds has two degrees of freedom: by luck it is often far too small, and
with many comparisons some interval is then far too narrow. Comparisons of one kind estimate the
same spread; together they know it better. What is of one kind, `comparing.seed_spread` says: a
difference of two modes at one rank, in which the luck of a seed cancels, is not of the kind of a
difference of two ranks.

Assumed: a training's luck is normal and its own or shared by the trainings at the same `end`, and
all ends of a kind have one spread. Two differences that share both ends are then one difference
seen twice, those that share one have squares that correlate by 1/4, and all others are independent:
m comparisons count as m^2 / sum of these correlations. The four pairs of ranks 1 and 8 in four
modes, moved by a luck that the modes share, count once. What comparisons share in part (the same
two modes at other ranks) is reckoned as half of their luck, whose squares correlate by 1/4. A
comparison whose own spread is larger takes that, and its own few degrees where it stands out (one
collapsed training); it is not pooled then. `seed_noise` says what a spread known so makes of an
interval; tests/comparing/test_seed_simulation.py what remains where luck comes otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import fdtrc, stdtrit

from lorascope.statistics.clusters import Floats
from lorascope.statistics.seed_noise import SeedNoise
from lorascope.statistics.two_way import Components, TwoWayEstimate

Ends = frozenset[Hashable]
"""Names of the luck that the sides of a comparison share with others; one where a side has none."""
SHARED_CORRELATION = 0.25
"""Correlation of the squared seed deviations of two differences from one reference: the differences
themselves correlate by 1/2 where both sides spread alike, their squares by its square."""
HALF = 0.25
"""The same correlation where half of a luck's variance is shared."""
OUTLIER_LEVEL = 0.01
"""Chance, over all comparisons, that a spread like the others' is taken for an outlier."""


@dataclass(frozen=True)
class _Spread:
    """Variance between the seeds of one comparison, and what carries its luck."""

    noise: SeedNoise
    ends: Ends
    partly: Ends


def pool_seeds(
    components: Sequence[Components], ends: Sequence[Ends], partly: Sequence[Ends] | None = None
) -> SeedNoise | None:
    """Mean variance between seeds over comparisons with several seeds; None without any.

    `ends` name what carries all of a side's luck, `partly` what carries half of it.
    """
    carried = zip(components, ends, partly or [frozenset()] * len(ends), strict=True)
    known = [
        _Spread(noise, both, half) for part, both, half in carried if (noise := _measured(part))
    ]
    alike = _without_outliers(known)
    if not alike:
        return None
    return SeedNoise(
        raw=sum(spread.noise.raw for spread in alike) / len(alike),
        flicker=sum(spread.noise.flicker for spread in alike) / len(alike),
        degrees=_degrees(alike),
    )


def _measured(parts: Components) -> SeedNoise | None:
    """The spread between the seeds of one comparison; None for one seed, which shows none."""
    if parts.seed_raw is None or parts.item_by_seed is None:
        return None
    return SeedNoise(parts.seed_raw, parts.item_by_seed, parts.seeds - 1, parts.seeds)


def _degrees(spreads: Sequence[_Spread]) -> float:
    """Satterthwaite's degrees of freedom of the mean of correlated variances."""
    correlation = _shared([spread.ends for spread in spreads])
    if any(spread.partly for spread in spreads):
        half = HALF * _shared([spread.partly for spread in spreads])
        correlation = np.maximum(correlation, half)
    inverse = 1 / np.sqrt([spread.noise.degrees for spread in spreads])
    return float(len(spreads) ** 2 / (inverse @ correlation @ inverse))


def _shared(ends: Sequence[Ends]) -> Floats:
    """Correlation [pairs, pairs] of squares of differences between these ends."""
    names = {name: place for place, name in enumerate(dict.fromkeys(
        name for both in ends for name in both))}  # fmt: skip
    held = np.zeros((len(ends), len(names)))
    for row, both in enumerate(ends):
        held[row, [names[name] for name in both]] = 1
    shared, sizes = held @ held.T, held.sum(axis=1)
    same = (shared == sizes[:, None]) & (shared == sizes[None, :]) & (shared > 0)
    return np.where(same, 1.0, np.where(shared > 0, SHARED_CORRELATION, 0.0))


def _without_outliers(spreads: Sequence[_Spread]) -> list[_Spread]:
    """The spreads left after dropping, largest first, those that an F test tells from the rest."""
    kept = sorted(spreads, key=lambda spread: spread.noise.raw)
    while len(kept) > 2:
        rest, largest = kept[:-1], kept[-1].noise
        usual = sum(spread.noise.raw for spread in rest) / len(rest)
        if usual == 0 or not _stands_out(largest, usual, _degrees(rest), OUTLIER_LEVEL / len(kept)):
            break
        kept = rest
    return kept


def _stands_out(noise: SeedNoise, usual: float, degrees: float, level: float) -> bool:
    return bool(fdtrc(noise.degrees, degrees, noise.raw / usual) < level)


def with_seed_noise(estimate: TwoWayEstimate, pool: SeedNoise | None) -> TwoWayEstimate:
    """`estimate` and its components, from which projections are made, with the larger of the pooled
    spread and its own."""
    parts = estimate.components
    noise = _noise(parts, pool)
    if noise is None:
        return estimate
    noise = noise.no_tie()
    items = parts.items_alone
    half = noise.reach(items, parts.item_degrees)
    degrees = _equivalent_degrees(items, noise, parts.item_degrees)
    noisy = replace(
        estimate,
        components=replace(
            parts, seed=noise.variance, seed_raw=noise.variance + (parts.item_by_seed or 0.0)
        ),
        # What gives this interval with these degrees.
        standard_error=half / float(stdtrit(degrees, 0.975)),
        degrees=degrees,
        low=estimate.estimate - half,
        high=estimate.estimate + half,
        noise=noise,
    )
    return replace(noisy, p_value=min(1.0, 2 * noisy.tail(abs(estimate.estimate))))


def _noise(parts: Components, pool: SeedNoise | None) -> SeedNoise | None:
    """The larger of a comparison's own spread and the pooled one; None where neither is known."""
    measured = _measured(parts)
    if pool is None:
        return measured
    if measured is None or measured.raw <= pool.raw:
        return replace(pool, seeds=parts.seeds)
    if pool.raw == 0 or _stands_out(measured, pool.raw, pool.degrees, OUTLIER_LEVEL):
        return measured
    return replace(measured, degrees=max(pool.degrees, measured.degrees))


def _equivalent_degrees(items: float, noise: SeedNoise, item_degrees: float) -> float:
    """Satterthwaite's degrees of freedom of items and seeds together."""
    if math.isinf(noise.degrees):
        return item_degrees
    seeds = noise.raw / noise.seeds
    spread = items**2 / item_degrees + seeds**2 / noise.degrees
    total = items + noise.variance / noise.seeds
    if spread == 0:
        return item_degrees
    return min(max(total**2 / spread, min(noise.degrees, item_degrees)), item_degrees)
