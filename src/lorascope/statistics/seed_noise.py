"""The t distribution of an estimate whose variance has a part that few seeds have shown.

The variance is V_items + max(0, s^2 d / chi2_d - f) / S: the sampling of items, and the spread
between S seeds, of which the sample variance s^2 is known with d degrees of freedom and holds
the flicker f of the items, counted in V_items already. Given s^2 the true spread is as s^2 d /
chi2_d (Fisher's fiducial, Weerahandi's generalized p value, 1993), so that the tail beyond a gap is
the mean of Student's tail over chi2_d. It is exact in the limits: with no item part it is t with d
degrees, with no seed part t with those of the items. Satterthwaite's degrees, which take a spread
that came out small by luck for well known, are far too many where d is 1 or 2 and level / tests
small: two seeds of equal mean do not show that seeds are equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, lru_cache

import numpy as np
from scipy.special import gammaincinv, stdtr

from lorascope.statistics.brent import brent_root
from lorascope.statistics.clusters import Floats

NODES = 48
CROWDED = 4
"""Exponent of the nodes' places: crowds them where chi2 is near 0 and the spread is large."""
TIED = 0.05
"""Share of draws in which seeds that do not differ come out closer together than is believed."""
FARTHEST = 1e6
"""The largest quantile that is looked for, in typical standard errors."""


@dataclass(frozen=True)
class SeedNoise:
    """The spread of one seed's mean, as a sample shows it."""

    raw: float
    """Variance of one seed's mean, the items' flicker in it."""
    flicker: float
    """The part of `raw` that comes of items that come out differently from seed to seed."""
    degrees: float
    """Degrees of freedom of `raw`; infinite where the spread is declared, not measured."""
    seeds: int = 1
    """Number of seeds that the estimate is a mean over; 1 in a pool."""

    @property
    def variance(self) -> float:
        """Variance of one seed's mean, the items' flicker removed."""
        return max(0.0, self.raw - self.flicker)

    def no_tie(self) -> SeedNoise:
        """With a spread no smaller than the flicker alone shows in all but `TIED` of all draws.

        What came out smaller is luck: two seeds that tie do not show that seeds do not differ.
        """
        least = self.flicker
        if math.isfinite(self.degrees):
            least *= 2 * float(gammaincinv(self.degrees / 2, TIED)) / self.degrees
        return replace(self, raw=max(self.raw, least))

    def moves(self, gap: float, seeds: int, last: int) -> float:
        """Chance that the mean over `last` seeds lies `gap` or more below that over the first
        `seeds` of them. One degree of freedom alone would leave all open: it counts as two."""
        scale = math.sqrt(self.raw * (1 / seeds - 1 / last))
        if scale == 0:
            return float(gap <= 0)
        return float(stdtr(max(2.0, self.degrees), -gap / scale))

    def tail(self, gap: float, item_variance: float, item_degrees: float) -> float:
        """Chance of an estimate `gap` or more above the truth."""
        return self._tails(item_variance, item_degrees)(gap)

    def reach(self, item_variance: float, item_degrees: float, beyond: float = 0.025) -> float:
        """The gap whose `tail` is `beyond`; 0 where nothing varies."""
        scale = math.sqrt(item_variance + self.raw / self.seeds)
        if scale == 0:
            return 0.0
        tail = self._tails(item_variance, item_degrees)

        @cache
        def excess(gap: float) -> float:
            return tail(gap * scale) - beyond

        farthest = 4.0
        while excess(farthest) > 0 and farthest < FARTHEST:
            farthest *= 4
        if excess(farthest) > 0:
            return farthest * scale
        return scale * brent_root(excess, 0.0, farthest, 1e-6)

    def _tails(self, item_variance: float, item_degrees: float) -> Callable[[float], float]:
        """`tail` as a function of the gap: a search for a root asks for many."""
        variances, weights = self._variances(item_variance)
        known = variances > 0
        all_known = bool(known.all())
        deviations = np.sqrt(np.where(known, variances, 1.0))

        def tail(gap: float) -> float:
            tails = stdtr(item_degrees, -gap / deviations)
            if not all_known:
                tails = np.where(known, tails, 0.5 if gap == 0 else float(gap < 0))
            return float(weights @ tails)

        return tail

    def _variances(self, item_variance: float) -> tuple[Floats, Floats]:
        if math.isinf(self.degrees):
            spread = np.array([self.raw])
            weights = np.ones(1)
        else:
            inflation, weights = _inflations(round(self.degrees, 3))
            spread = self.raw * inflation
        return item_variance + np.maximum(0.0, spread - self.flicker) / self.seeds, weights


@lru_cache(maxsize=256)
def _inflations(degrees: float) -> tuple[Floats, Floats]:
    """Values of degrees / chi2 [nodes] and their weights, which sum to 1."""
    places, weights = np.polynomial.legendre.leggauss(NODES)
    places, weights = (places + 1) / 2, weights / 2
    chance = places**CROWDED
    weights = weights * CROWDED * places ** (CROWDED - 1)
    chi_squared = 2 * gammaincinv(degrees / 2, chance)
    return degrees / np.maximum(chi_squared, 1e-300), weights / weights.sum()
