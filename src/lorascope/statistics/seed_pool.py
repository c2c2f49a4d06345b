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
interval; tests/test_seed_simulation.py what remains where luck comes otherwise.
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
"""Names of the luck that the two sides of a comparison share with others; one name where a side has
none."""
SHARED_CORRELATION = 0.25
"""Correlation of the squared seed deviations of two differences from one reference: the differences
themselves correlate by 1/2 where both sides spread alike, their squares by its square."""
HALF = 0.25
"""The same correlation where half of a luck's variance is shared."""
OUTLIER_LEVEL = 0.01
"""Chance, over all comparisons, that a spread like the others' is taken for an outlier."""


@dataclass(frozen=True)
class SeedPool:
    """Spread between seeds, pooled."""

    raw: float
    """Variance of one seed's mean."""
    flicker: float
    """The part of `raw` that comes of items that come out differently from seed to seed."""
    degrees: float
    """Degrees of freedom of `raw`."""

    @property
    def variance(self) -> float:
        """Variance of one seed's mean, the items' flicker removed."""
        return max(0.0, self.raw - self.flicker)


def pool_seeds(
    components: Sequence[Components], ends: Sequence[Ends], partly: Sequence[Ends] | None = None
) -> SeedPool | None:
    """Mean variance between seeds over comparisons with several seeds; None without any.

    `ends` name what carries all of a side's luck, `partly` what carries half of it.
    """
    known = [
        _Spread(part.seed_raw, part.item_by_seed, part.seeds, both, half)
        for part, both, half in zip(
            components, ends, partly or [frozenset()] * len(ends), strict=True
        )
        if part.seed_raw is not None and part.item_by_seed is not None
    ]
    alike = _without_outliers(known)
    if not alike:
        return None
    return SeedPool(
        raw=sum(spread.raw for spread in alike) / len(alike),
        flicker=sum(spread.flicker for spread in alike) / len(alike),
        degrees=_degrees(alike),
    )


@dataclass(frozen=True)
class _Spread:
    """Variance between the seeds of one comparison."""

    raw: float
    flicker: float
    seeds: int
    ends: Ends
    partly: Ends = frozenset()


def _degrees(spreads: Sequence[_Spread]) -> float:
    """Satterthwaite's degrees of freedom of the mean of correlated variances."""
    whole = _shared([spread.ends for spread in spreads])
    correlation = np.maximum(whole, HALF * _shared([spread.partly for spread in spreads]))
    inverse = 1 / np.sqrt([spread.seeds - 1 for spread in spreads])
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
    kept = sorted(spreads, key=lambda spread: spread.raw)
    while len(kept) > 2:
        rest, largest = kept[:-1], kept[-1]
        usual = sum(spread.raw for spread in rest) / len(rest)
        if usual == 0 or not _stands_out(largest, usual, _degrees(rest), OUTLIER_LEVEL / len(kept)):
            break
        kept = rest
    return kept


def _stands_out(spread: _Spread, usual: float, degrees: float, level: float) -> bool:
    return bool(fdtrc(spread.seeds - 1, degrees, spread.raw / usual) < level)


def with_seed_noise(estimate: TwoWayEstimate, pool: SeedPool | None) -> TwoWayEstimate:
    """`estimate` with the larger of the pooled spread and its own.

    The components take it too, so that projections from them agree with the interval.
    """
    parts = estimate.components
    noise = _noise(parts, pool)
    if noise is None:
        return estimate
    items = parts.items_alone
    half = noise.reach(items, parts.item_degrees)
    spread = max(0.0, noise.raw - noise.flicker)
    degrees = _equivalent_degrees(items, noise, parts.item_degrees)
    noisy = replace(
        estimate,
        components=replace(parts, seed=spread, seed_raw=spread + (parts.item_by_seed or 0.0)),
        # What gives this interval with these degrees.
        standard_error=half / float(stdtrit(degrees, 0.975)),
        degrees=degrees,
        low=estimate.estimate - half,
        high=estimate.estimate + half,
        noise=noise,
    )
    return replace(noisy, p_value=min(1.0, 2 * noisy.tail(abs(estimate.estimate))))


def _noise(parts: Components, pool: SeedPool | None) -> SeedNoise | None:
    """The spread between the seeds of one comparison; None where nothing shows it."""
    measured = None
    if parts.seed_raw is not None and parts.item_by_seed is not None:
        measured = SeedNoise(parts.seed_raw, parts.item_by_seed, parts.seeds - 1, parts.seeds)
    if pool is None:
        return measured
    pooled = SeedNoise(pool.raw, pool.flicker, pool.degrees, parts.seeds)
    if measured is None or measured.raw <= pool.raw:
        return pooled
    alike = _Spread(measured.raw, measured.flicker, parts.seeds, frozenset())
    if pool.raw == 0 or _stands_out(alike, pool.raw, pool.degrees, OUTLIER_LEVEL):
        return measured
    return replace(measured, degrees=max(pool.degrees, measured.degrees))


def _equivalent_degrees(items: float, noise: SeedNoise, item_degrees: float) -> float:
    """Satterthwaite's degrees of freedom of items and seeds together."""
    if math.isinf(noise.degrees):
        return item_degrees
    seeds = noise.raw / noise.seeds
    spread = items**2 / item_degrees + seeds**2 / noise.degrees
    total = items + max(0.0, noise.raw - noise.flicker) / noise.seeds
    if spread == 0:
        return item_degrees
    return min(max(total**2 / spread, min(noise.degrees, item_degrees)), item_degrees)
