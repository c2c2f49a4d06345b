"""The difference of two losses per token on the same items, one seed: items are resampled."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from lorascope.statistics.clusters import (
    Floats,
    group_sums,
    group_variances,
    resampled_sums,
    small_sample,
)
from lorascope.statistics.one_sided import OneSided

RESAMPLES = 9999
CHUNK = 4_000_000
"""Draws held in memory at once."""


@dataclass(frozen=True, eq=False)
class BootstrapDifference(OneSided):
    """Loss per token of a minus that of b, in nats: above zero, a is worse."""

    estimate: float
    standard_error: float
    """Standard deviation of the replicates."""
    low: float
    high: float
    groups: int
    """Number of clusters, or of items where there are none."""
    narrowness: float
    """Factor on the bootstrap's standard error: sqrt(n / (n - 1)) for n groups of one size, more
    where few of them have much of the weight."""
    degrees: float
    """Degrees of freedom of the standard error."""
    replicates: Floats = field(repr=False)
    """The estimate of each resample, sorted: [resamples]."""

    @property
    def p_value(self) -> float:
        """Two-sided, against no difference."""
        return min(1.0, 2 * min(self.p_not_below(0.0), self.p_not_above(0.0)))

    def tail_beyond(self, limit: float, side: int) -> float:
        # The number of replicates is a floor that many comparisons cannot pass: where none lies
        # beyond, t with the replicates' standard error says how much smaller p is.
        beyond = int((side * self.replicates <= side * limit).sum())
        share = (beyond + 1) / (self.replicates.size + 1)
        least = float(stdtr(self.degrees, ndtri(share) / self.narrowness))
        if beyond or self.standard_error == 0:
            return least
        distance = abs(self.estimate - limit) / (self.narrowness * self.standard_error)
        return min(least, float(stdtr(self.degrees, -distance)))


def paired_loss_difference(
    loss_a: ArrayLike,
    loss_b: ArrayLike,
    tokens: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> BootstrapDifference:
    """Loss per token of a minus that of b: `loss_a`, `loss_b` [items] are nats summed over tokens.

    The estimate is (sum loss_a - sum loss_b) / sum tokens, `tokens` [items] being the same of both.

    Items, or whole clusters, are drawn with replacement, both configurations together. The
    interval is the expanded percentile interval (Hesterberg, The American Statistician 69, 2015):
    the percentiles at Phi(-+ sqrt(n / (n - 1)) t_{n-1}) in place of 2.5 and 97.5, which undoes the
    bootstrap's narrowness for few groups; for groups of unequal weight n - 1 and the root are
    CR2's (`clusters.small_sample`). The p values go through the same correction, so that
    p <= 0.05 and an interval without zero are one statement. Below about 2 / resamples p is t's.
    The same `seed` gives the same numbers.
    """
    a, b = np.asarray(loss_a, dtype=np.float64), np.asarray(loss_b, dtype=np.float64)
    each = np.asarray(tokens, dtype=np.float64)
    if not a.shape == b.shape == each.shape or a.ndim != 1:
        raise ValueError(f"loss_a {a.shape}, loss_b {b.shape}, tokens {each.shape}: all [items]")
    if each.size == 0 or each.min() <= 0:
        raise ValueError("tokens must be positive: an item without tokens has no loss")
    sums = group_sums(np.stack([a - b, each]), clusters)
    estimate = float((a - b).sum() / each.sum())
    small = small_sample(sums[1], group_variances(a - b - estimate * each, each, clusters))
    squares = (sums[0] - estimate * sums[1]) ** 2
    # Without any residual each factor is as good as another.
    mean_factor = np.average(small.factors, weights=squares if squares.any() else None)
    narrowness = math.sqrt(float(mean_factor))
    drawn = np.concatenate(
        list(resampled_sums(sums, resamples, seed, room=max(1, CHUNK // sums.shape[1])))
    )
    replicates = np.sort(drawn[:, 0] / drawn[:, 1])
    low, high = _expanded_percentiles(replicates, narrowness, small.degrees)
    return BootstrapDifference(
        estimate=estimate,
        standard_error=float(replicates.std(ddof=1)),
        low=low,
        high=high,
        groups=sums.shape[1],
        narrowness=narrowness,
        degrees=small.degrees,
        replicates=replicates,
    )


def _expanded_percentiles(
    replicates: Floats, narrowness: float, degrees: float
) -> tuple[float, float]:
    """Order statistics at the expanded 2.5 and 97.5 % of the sorted `replicates`."""
    place = math.floor(ndtr(-narrowness * stdtrit(degrees, 0.975)) * (replicates.size + 1))
    if place < 1:
        raise ValueError(
            f"{replicates.size} resamples cannot show the tail at {degrees:.3g} degrees of freedom"
        )
    return float(replicates[place - 1]), float(replicates[-place])
