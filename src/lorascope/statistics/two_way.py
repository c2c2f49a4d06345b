"""Estimates over items in clusters and over training seeds, both of which are samples.

Values are [seeds, items]: a difference of two configurations, or the scores of one. Items (or
clusters of items) and seeds are crossed random factors: a value is mean + seed + item + item by
seed. Over S seeds and K groups

    variance of the estimate = V_items + (V_seeds - V_both) / S,

V_items from the groups' totals over seeds, V_seeds between the means of seeds, V_both what of
that comes of items that flicker: the two-way cluster-robust variance of Cameron, Gelbach and Miller
(2011). A seed part below zero counts as zero, so that the variance is never below what items alone
give. V_items and V_both are CR2, which corrects for groups of unequal size (or of unequal tokens),
and have its degrees of freedom g (`clusters.small_sample`). Where all groups are alike, g is K - 1
and all of this is the analysis of variance without replication.

The degrees of freedom of t are Satterthwaite's (1946), or those at which t gives the width of
Howe (1974) if those are fewer: half width^2 = t_g^2 V_items + t_{S-1}^2 (V_seeds - V_both) / S.
With few seeds the first alone is too narrow where seeds differ much, the second where items flicker
from seed to seed; tests/statistics/test_simulation.py has what remains. With one seed all of
this is the one-way cluster-robust t test, for right-or-wrong items the t form of Durkalski's
clustered McNemar test (2003); seed spread is then unknown and not included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr, stdtrit

from lorascope.statistics.brent import brent_root
from lorascope.statistics.clusters import (
    Floats,
    equal_weights,
    group_sums,
    group_variances,
    small_sample,
    weighed_groups,
)
from lorascope.statistics.one_sided import OneSided
from lorascope.statistics.seed_noise import SeedNoise

SEEDS_SHOW = 2.0
"""Howe's width counts where V_seeds is this many times V_both: below, seeds may not differ."""


@dataclass(frozen=True)
class Components:
    """The parts of an estimate's variance, in its unit squared: with S seeds it is
    item + (seed + item_by_seed) / S."""

    seeds: int
    groups: int
    """Number of clusters, or of items where there are none."""
    items_alone: float
    """Variance of the estimate as measured if seeds had no spread: item + item_by_seed / seeds."""
    item: float | None
    """Variance that no number of seeds removes; None (unknown) with one seed."""
    item_by_seed: float | None
    """Variance of one seed's mean from items that come out differently from seed to seed."""
    seed: float | None
    """Variance of one seed's mean from whole trainings that are better or worse; 0 or more."""
    seed_raw: float | None
    """Variance of the seed means as they are: seed + item_by_seed, before any truncation."""
    item_degrees: float
    """Degrees of freedom of `items_alone`: groups - 1 where all have one size."""
    both_degrees: float
    """Degrees of freedom that `item_by_seed` has with two seeds."""

    @property
    def item_standard_error(self) -> float:
        """Standard error of the estimate from the sampling of items alone."""
        return math.sqrt(self.items_alone)

    @property
    def seed_spread_raw(self) -> float | None:
        """Standard deviation of the seed means as measured; None: unknown."""
        return None if self.seed_raw is None else math.sqrt(self.seed_raw)

    def variance(self) -> tuple[float, float]:
        """Variance of the estimate, and the degrees of freedom of its t."""
        both, raw = self.item_by_seed, self.seed_raw
        if self.seeds == 1 or both is None or raw is None or raw <= both:
            return self.items_alone, self.item_degrees
        between_seeds, from_seeds = self.seeds - 1, (raw - both) / self.seeds
        total = self.items_alone + from_seeds
        spread = self.items_alone**2 / self.item_degrees
        spread += (raw / self.seeds) ** 2 / between_seeds
        spread += (both / self.seeds) ** 2 / (self.both_degrees * between_seeds)
        satterthwaite = total**2 / spread
        if raw < SEEDS_SHOW * both:
            return total, satterthwaite
        width = stdtrit(self.item_degrees, 0.975) ** 2 * self.items_alone / total
        width += stdtrit(between_seeds, 0.975) ** 2 * from_seeds / total
        howe = _degrees_of(math.sqrt(width), between_seeds, self.item_degrees)
        return total, min(satterthwaite, howe)


@dataclass(frozen=True)
class TwoWayEstimate(OneSided):
    """An estimate with its 95 % t interval and two-sided p against zero."""

    estimate: float
    standard_error: float
    degrees: float
    """Degrees of freedom of the t distribution."""
    low: float
    high: float
    p_value: float
    components: Components
    noise: SeedNoise | None = None
    """Spread between seeds known from several comparisons; where set, tails come from it."""

    def tail_beyond(self, limit: float, side: int) -> float:
        return self.tail(side * (self.estimate - limit))

    def tail(self, gap: float, least_item_variance: float = 0.0) -> float:
        """Chance of an estimate `gap` or more above the truth, with an item part not below this."""
        items = max(self.components.items_alone, least_item_variance)
        if self.noise is not None:
            return self.noise.tail(gap, items, self.components.item_degrees)
        more = items - self.components.items_alone
        error = math.sqrt(self.standard_error**2 + more)
        return float(stdtr(self.degrees, -_distance(gap, error)))


def two_way(
    values: ArrayLike, *, clusters: ArrayLike | None = None, weights: ArrayLike | None = None
) -> TwoWayEstimate:
    """The mean of `values` [seeds, items] over both, or sum of values / sum of weights.

    `clusters` [items] labels items that belong together; `weights` [items] are an item's tokens
    where its value is a sum of nats. Residuals are then value - estimate x weight, the linear part
    of the ratio. At least 2 groups. Values that do not vary at all give standard error 0.
    """
    totals = np.asarray(values, dtype=np.float64)
    if totals.ndim != 2 or 0 in totals.shape:
        raise ValueError(f"values has shape {totals.shape}: must be [seeds, items]")
    each = (
        equal_weights(totals.shape[1]) if weights is None else np.asarray(weights, dtype=np.float64)
    )
    if each.shape != totals.shape[1:] or each.min() < 0 or each.sum() <= 0:
        raise ValueError("weights must be one number of 0 or more per item, not all 0")
    estimate = float(totals.sum() / (len(totals) * each.sum()))
    components = _components(totals - estimate * each, each, clusters)
    variance, degrees = components.variance()
    error = math.sqrt(variance)
    half = float(stdtrit(degrees, 0.975)) * error
    p_value = float(2 * stdtr(degrees, -abs(_distance(estimate, error))))
    return TwoWayEstimate(
        estimate, error, degrees, estimate - half, estimate + half, p_value, components
    )


def _degrees_of(quantile: float, first: float, second: float) -> float:
    """Degrees of freedom between `first` and `second` at which t's 97.5 % is `quantile`."""
    low, high = sorted((float(first), float(second)))
    if quantile >= stdtrit(low, 0.975):
        return low
    if quantile <= stdtrit(high, 0.975):
        return high
    # In 1 / degrees the quantile is nearly straight.
    inverse = brent_root(lambda d: float(stdtrit(1 / d, 0.975)) - quantile, 1 / high, 1 / low)
    return 1 / inverse


def _components(residuals: Floats, weights: Floats, clusters: ArrayLike | None) -> Components:
    """The variance's terms: `residuals` [seeds, items] are value - estimate x weight."""
    seeds, whole = len(residuals), float(weights.sum())
    sizes = weighed_groups(weights, clusters).totals
    mean = residuals.mean(axis=0)
    between = small_sample(sizes, group_variances(mean, weights, clusters))
    of_items = _variance(group_sums(mean, clusters), between.factors, whole)
    known = (seeds, len(sizes), of_items)
    if seeds == 1:
        return Components(*known, None, None, None, None, between.degrees, between.degrees)
    shifts = residuals.sum(axis=1) / whole
    # A better seed moves an item by its weight, so that large groups move by more.
    flicker = residuals - mean - shifts[:, None] * weights
    within = small_sample(sizes, group_variances(flicker, weights, clusters))
    of_both = _variance(group_sums(flicker, clusters), within.factors, whole) / (seeds - 1)
    of_seeds = float(shifts.var(ddof=1))
    return Components(
        *known,
        item=max(0.0, of_items - of_both / seeds),
        item_by_seed=of_both,
        seed=max(0.0, of_seeds - of_both),
        seed_raw=of_seeds,
        item_degrees=between.degrees,
        both_degrees=within.degrees,
    )


def _variance(totals: Floats, factors: Floats, weight: float) -> float:
    """Variance of the sum of `totals` [..., groups] / `weight`, summed over the leading axis."""
    return float((factors * totals**2).sum()) / weight**2


def _distance(gap: float, standard_error: float) -> float:
    """gap / standard error; without any error the gap alone decides."""
    if standard_error > 0:
        return gap / standard_error
    return math.copysign(math.inf, gap) if gap else 0.0
