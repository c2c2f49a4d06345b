"""Estimates over items in clusters and over training seeds, both of which are samples.

Values are [seeds, items]: a difference of two configurations, or the scores of one. Items (or
clusters of items) and seeds are crossed random factors: a value is mean + seed + item + item by
seed. With cluster totals scaled so that their mean is the estimate, [S seeds, K groups], the mean
squares of the two-way analysis of variance without replication give

    variance of the estimate = (MS_items + MS_seeds - MS_both) / (S K)

which is the two-way cluster-robust V_items + V_seeds - V_both of Cameron, Gelbach and Miller (2011)
with its small-sample factors. A seed part below zero counts as zero, so that the variance is
never below what items alone give.

The degrees of freedom of t are Satterthwaite's (1946), or those at which t gives the width of
Howe (1974) if those are fewer: half width^2 = t_{K-1}^2 V_items + t_{S-1}^2 (V_seeds - V_both).
With few seeds the first alone is too narrow where seeds differ much, the second where items flicker
from seed to seed; tests/test_statistics_simulation.py has what remains. With one seed all of
this is the one-way cluster-robust t test with K - 1 degrees, for right-or-wrong items the t form
of Durkalski's clustered McNemar test (2003); seed spread is then unknown and not included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import stdtr, stdtrit

from lorascope.maths.clusters import Floats, group_sums

SEEDS_SHOW = 2.0
"""Howe's width counts where MS_seeds is this many times MS_both: below, seeds may not differ."""


@dataclass(frozen=True)
class Components:
    """What the variance of an estimate is made of, in the estimate's unit squared.

    With S seeds the estimate's variance is item + (seed + item_by_seed) / S.
    """

    seeds: int
    groups: int
    """Clusters, or items where each stands alone."""
    items_alone: float
    """Variance of the estimate as measured if seeds had no spread: item + item_by_seed / seeds."""
    item: float | None
    """What no number of seeds removes. None with one seed: unknown."""
    item_by_seed: float | None
    """Of one seed's mean: items that come out differently from seed to seed."""
    seed: float | None
    """Of one seed's mean: a whole training better or worse, sampling of items removed; >= 0."""
    seed_raw: float | None
    """Variance of the seed means as they are: seed + item_by_seed, before any truncation."""

    @property
    def item_standard_error(self) -> float:
        """Standard error of the estimate from the sampling of items alone."""
        return math.sqrt(self.items_alone)

    @property
    def seed_spread(self) -> float | None:
        """Standard deviation between seeds, the items' own flicker removed; None: unknown."""
        return None if self.seed is None else math.sqrt(self.seed)

    @property
    def seed_spread_raw(self) -> float | None:
        """Standard deviation of the seed means as measured; None: unknown."""
        return None if self.seed_raw is None else math.sqrt(self.seed_raw)


@dataclass(frozen=True)
class TwoWayEstimate:
    """An estimate with its 95 % t interval and two-sided p against zero."""

    estimate: float
    standard_error: float
    degrees: float
    """Degrees of freedom of the t distribution."""
    low: float
    high: float
    p_value: float
    components: Components

    def p_not_below(self, limit: float) -> float:
        """One-sided p against "truth <= limit": small shows that the truth is above `limit`.

        Non-inferiority of an accuracy difference by a margin is p_not_below(-margin).
        """
        return float(stdtr(self.degrees, -self._distance(limit)))

    def p_not_above(self, limit: float) -> float:
        """One-sided p against "truth >= limit": small shows that the truth is below `limit`.

        Non-inferiority of a difference of losses by a margin is p_not_above(margin).
        """
        return float(stdtr(self.degrees, self._distance(limit)))

    def _distance(self, limit: float) -> float:
        return _distance(self.estimate - limit, self.standard_error)


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
    each = np.ones(totals.shape[1]) if weights is None else np.asarray(weights, dtype=np.float64)
    if each.shape != totals.shape[1:] or each.min() < 0 or each.sum() <= 0:
        raise ValueError("weights must be one number of 0 or more per item, not all 0")
    estimate = float(totals.sum() / (len(totals) * each.sum()))
    scaled = group_sums(totals - estimate * each, clusters)
    scaled *= scaled.shape[1] / each.sum()
    squares = mean_squares(scaled)
    components = _components(squares)
    variance, degrees = squares.variance()
    error = math.sqrt(variance)
    half = float(stdtrit(degrees, 0.975)) * error
    p_value = float(2 * stdtr(degrees, -abs(_distance(estimate, error))))
    return TwoWayEstimate(
        estimate, error, degrees, estimate - half, estimate + half, p_value, components
    )


@dataclass(frozen=True)
class MeanSquares:
    """The two-way analysis of variance without replication of a table [seeds, groups]."""

    seeds: int
    groups: int
    of_items: float
    of_seeds: float
    of_both: float

    def variance(self) -> tuple[float, float]:
        """Variance of the table's mean, and the degrees of freedom of its t."""
        cells, between_items = self.seeds * self.groups, self.groups - 1
        if self.seeds == 1 or self.of_seeds <= self.of_both:
            return self.of_items / cells, float(between_items)
        between_seeds, from_seeds = self.seeds - 1, self.of_seeds - self.of_both
        total = self.of_items + from_seeds
        spread = self.of_items**2 / between_items + self.of_seeds**2 / between_seeds
        spread += self.of_both**2 / (between_items * between_seeds)
        satterthwaite = total**2 / spread
        if self.of_seeds < SEEDS_SHOW * self.of_both:
            return total / cells, satterthwaite
        width = stdtrit(between_items, 0.975) ** 2 * self.of_items / total
        width += stdtrit(between_seeds, 0.975) ** 2 * from_seeds / total
        howe = _degrees_of(math.sqrt(width), between_seeds, between_items)
        return total / cells, min(satterthwaite, howe)


def _degrees_of(quantile: float, first: float, second: float) -> float:
    """Degrees of freedom between `first` and `second` at which t's 97.5 % is `quantile`."""
    low, high = sorted((float(first), float(second)))
    if quantile >= stdtrit(low, 0.975):
        return low
    if quantile <= stdtrit(high, 0.975):
        return high
    # In 1 / degrees the quantile is nearly straight.
    inverse = brentq(lambda d: stdtrit(1 / d, 0.975) - quantile, 1 / high, 1 / low)
    return float(1 / inverse)


def mean_squares(table: Floats) -> MeanSquares:
    """Mean squares of `table` [seeds, groups]; with one seed those of seeds are 0."""
    seeds, groups = table.shape
    if groups < 2:
        raise ValueError(f"{groups} group of items: 2 or more are needed for a standard error")
    seed_means, group_means = table.mean(axis=1), table.mean(axis=0)
    of_items = seeds * float(group_means.var(ddof=1))
    if seeds == 1:
        return MeanSquares(seeds, groups, of_items, 0.0, 0.0)
    rest = table - seed_means[:, None] - group_means + table.mean()
    of_both = float((rest**2).sum()) / ((seeds - 1) * (groups - 1))
    of_seeds = groups * float(seed_means.var(ddof=1))
    return MeanSquares(seeds, groups, of_items, of_seeds, of_both)


def _components(squares: MeanSquares) -> Components:
    seeds, groups = squares.seeds, squares.groups
    alone = squares.of_items / (seeds * groups)
    if seeds == 1:
        return Components(seeds, groups, alone, None, None, None, None)
    return Components(
        seeds,
        groups,
        alone,
        item=max(0.0, squares.of_items - squares.of_both) / (seeds * groups),
        item_by_seed=squares.of_both / groups,
        seed=max(0.0, squares.of_seeds - squares.of_both) / groups,
        seed_raw=squares.of_seeds / groups,
    )


def _distance(gap: float, standard_error: float) -> float:
    """gap / standard error; without any error the gap alone decides."""
    if standard_error > 0:
        return gap / standard_error
    return math.copysign(math.inf, gap) if gap else 0.0
