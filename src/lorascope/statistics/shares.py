"""Shares of right answers, one seed, items independent: of one configuration, and paired of two.

All differences are share right of a minus share right of b, on the same items. Everything but the
exact test comes from one statistic, Tango's score for the difference of two paired shares
(Statistics in Medicine 17, 1998, 891-908), with n items, b of which only a gets right and c only b:

    z(delta) = (b - c - n delta) / sqrt(n (2 q + delta (1 - delta)))

where q is the most likely share of "only b" if the true difference were delta: the larger root of
2n q^2 + (-b - c + (2n - b + c) delta) q - c delta (1 - delta) = 0. At delta = 0 it is McNemar's
(b - c) / sqrt(b + c), at minus a margin it is the test of non-inferiority, and the interval is
every delta with |z| <= 1.96.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from lorascope.statistics.brent import brent_root
from lorascope.statistics.one_sided import OneSided

Z_95 = 1.959964
"""The normal deviate that leaves 2.5 % on either side."""
EXACT_BELOW = 25
"""Number of discordant items below which McNemar's test is the exact binomial one."""


def standard_error(share: float, items: int) -> float:
    """Standard error of a share over `items` independent items: sqrt(p (1 - p) / n)."""
    _require_share(share, items)
    return math.sqrt(share * (1 - share) / items)


def wilson_interval(share: float, items: float, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval (1927) for a share over `items`; 95 % by default.

    Unlike share +- z x standard error it stays inside [0, 1] and has a width at 0 and at 1.
    It covers the sampling of items, not the seed of a training.
    """
    _require_share(share, items)
    shrink = 1 + z * z / items
    middle = (share + z * z / (2 * items)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / items + z * z / (4 * items * items))
    # The ends are exact at 0 and 1; rounding must not move them out of the range.
    return max(0.0, middle - half), min(1.0, middle + half)


def _require_share(share: float, items: float) -> None:
    if items < 1:
        raise ValueError(f"items={items}: a share needs 1 item or more")
    if not 0 <= share <= 1:
        raise ValueError(f"share={share}: must lie between 0 and 1")


@dataclass(frozen=True)
class PairedCounts:
    """Numbers of items: all, and those that only one of the two got right. They are fractions where
    dependent items are worth fewer independent ones."""

    items: float
    only_a: float
    only_b: float
    step: float = 1.0
    """By how much an item that only one got right moves the difference: 0.5 where the other is half
    right on every item. Formulas above are then of differences over the step."""

    @property
    def discordant(self) -> float:
        """Items that exactly one of the two got right: all that the tests rest on."""
        return self.only_a + self.only_b


@dataclass(frozen=True)
class PairedDifference(OneSided):
    """The share right of a minus that of b, with what the items can say about it."""

    counts: PairedCounts
    estimate: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    p_value: float
    """McNemar's, two-sided: chance of a difference this large if the truth were none."""

    def tail_beyond(self, limit: float, side: int) -> float:
        return float(ndtr(-side * score(self.counts, limit)))


def paired_counts(right_a: ArrayLike, right_b: ArrayLike) -> PairedCounts:
    """Counts from two boolean vectors [items] over the same items in the same order."""
    a, b = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    if a.shape != b.shape or a.ndim != 1 or not a.size:
        raise ValueError(f"right_a {a.shape} and right_b {b.shape} must be two vectors [items]")
    return PairedCounts(a.size, int((a & ~b).sum()), int((~a & b).sum()))


def paired_difference(counts: PairedCounts) -> PairedDifference:
    """Difference, 95 % score interval and McNemar's p. The interval leaves zero out exactly when
    p_value < 0.05: where the exact test of few discordant items keeps zero and the score does not,
    it is stretched to zero."""
    p_value = mcnemar_p(counts)
    low, high = score_interval(counts)
    if p_value >= 0.05:
        low, high = min(low, 0.0), max(high, 0.0)
    estimate = counts.step * (counts.only_a - counts.only_b) / counts.items
    return PairedDifference(counts, estimate, low, high, p_value)


def mcnemar_p(counts: PairedCounts) -> float:
    """McNemar's two-sided p (1947): exact binomial below 25 discordant items, else the score test.

    The score test is chi2 = (b - c)^2 / (b + c), 1 degree of freedom, no continuity correction.
    Without any discordant item nothing speaks against equality: 1.
    """
    if counts.discordant == 0:
        return 1.0
    if counts.discordant < EXACT_BELOW:
        fewer, tosses = int(min(counts.only_a, counts.only_b)), int(counts.discordant)
        ways = sum(math.comb(tosses, heads) for heads in range(fewer + 1))
        return min(1.0, float(ways / 2 ** (tosses - 1)))
    return float(2 * ndtr(-abs(score(counts, 0.0))))


def score(counts: PairedCounts, difference: float) -> float:
    """Tango's z(difference), the formula above: positive when the data lie above `difference`."""
    n, b, c = counts.items, counts.only_a, counts.only_b
    difference /= counts.step
    variance = restricted_variance(n, b, c, difference)
    distance = (b - c) / n - difference
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)


def restricted_variance(items: float, only_a: float, only_b: float, difference: float) -> float:
    """Variance of (only_a - only_b) / items if the true difference were `difference`: Tango's
    (2 q + delta (1 - delta)) / n, the formula above."""
    if not -1 < difference < 1:
        raise ValueError(f"difference={difference}: a share between -1 and 1")
    linear = -only_a - only_b + (2 * items - only_a + only_b) * difference
    constant = -only_b * difference * (1 - difference)
    root = math.sqrt(max(0.0, linear**2 - 8 * items * constant))
    # The same root written without subtracting two close numbers.
    lost = (root - linear) / (4 * items) if linear <= 0 else -2 * constant / (root + linear)
    return max(0.0, (2 * lost + difference * (1 - difference)) / items)


def score_interval(counts: PairedCounts) -> tuple[float, float]:
    """Every difference with |score| <= 1.96: Tango's 95 % interval, inside [-step, step]."""
    step, counts = counts.step, replace(counts, step=1.0)
    estimate = (counts.only_a - counts.only_b) / counts.items
    edge = 1 - 1e-12

    def end(side: int) -> float:
        if side * estimate >= edge or side * score(counts, side * edge) > -Z_95:
            return float(side)
        middle = min(max(estimate, -edge), edge)
        return brent_root(lambda d: score(counts, d) + side * Z_95, middle, side * edge, 1e-12)

    return step * end(-1), step * end(1)
