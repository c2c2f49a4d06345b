"""The difference of two accuracies over clusters of items or several seeds.

The two-way t reads its standard error off the answers that changed. Where few or none did, that
error is far too small: one changed answer in 200 would prove more than none. Tango's variance
(`paired`) is that of the difference under test, so it does not vanish; it assumes independent
items. Here it is taken for as many independent items as the dependent ones are worth,

    n = answers / deff,  deff = (sum over groups of f s^2 + m) / (sum over answers of d^2 + 1)

with d the centred difference of an answer, s its sum in a group, m the answers in the group of an
answer, on average (sum over groups of size^2 / answers), and f CR2's factors (`clusters`): the
ratio of variances (Kish's design effect), drawn by one imagined changed answer towards groups that
change as a whole, which is all that can be said where nothing changed. With fewer than 50 changed
answers of such items the variance under test is the larger of the two; the statistic is referred to
t with the two-way degrees. With more, the two-way t stands alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from lorascope.statistics.clusters import Floats, group_sums, group_variances, small_sample
from lorascope.statistics.paired import restricted_variance
from lorascope.statistics.two_way import TwoWayEstimate

FEW = 50
"""Changed answers from which on their own spread is well enough known: with 20 of 400 items lost,
the true loss on the margin, t alone calls it smaller in 6 % instead of 2.5."""
EDGE = 1 - 1e-12
NUDGE = 1e-9
"""Of a share: what is smaller is rounding."""


@dataclass(frozen=True)
class IndependentFlips:
    """Changed answers, as those of independent items."""

    items: float
    only_a: float
    only_b: float


@dataclass(frozen=True)
class FlipDifference:
    """Share right of a minus that of b, with its 95 % interval and two-sided p against zero."""

    estimate: float
    low: float
    high: float
    p_value: float
    two_way: TwoWayEstimate
    flips: IndependentFlips

    def p_not_below(self, limit: float) -> float:
        """One-sided p against "truth <= limit": small shows that the truth is above `limit`."""
        return _tail(self.two_way, self.flips, limit, 1)

    def p_not_above(self, limit: float) -> float:
        """One-sided p against "truth >= limit": small shows that the truth is below `limit`."""
        return _tail(self.two_way, self.flips, limit, -1)


def independent_flips(difference: Floats, clusters: ArrayLike | None) -> IndependentFlips:
    """`difference` [seeds, items] of -1, 0 and 1 as that of independent items, deff as above."""
    answers, each = difference.size, np.full(difference.shape[1], float(len(difference)))
    centred = difference - difference.mean()
    sizes, sums = group_sums(np.stack([each, centred.sum(axis=0)]), clusters)
    factors = small_sample(sizes, group_variances(centred.mean(axis=0), each, clusters)).factors
    spread = float((factors * sums**2).sum()) + float((sizes**2).sum()) / answers
    design_effect = spread / (float((centred**2).sum()) + 1)
    return IndependentFlips(
        items=answers / design_effect,
        only_a=float((difference > 0).sum()) / design_effect,
        only_b=float((difference < 0).sum()) / design_effect,
    )


def flip_difference(two_way: TwoWayEstimate, flips: IndependentFlips) -> FlipDifference:
    """Interval and p of `two_way`, its variance floored by that of `flips` under test."""
    if not _are_few(two_way, flips):
        low, high = max(-1.0, two_way.low), min(1.0, two_way.high)
        return FlipDifference(two_way.estimate, low, high, two_way.p_value, two_way, flips)

    def end(side: int) -> float:
        def beyond(truth: float) -> float:
            return 0.025 - _tail(two_way, flips, truth, -side)

        if side * two_way.estimate >= EDGE or beyond(side * EDGE) <= 0:
            return float(side)
        # At the estimate itself nothing lies beyond, and where no answer changed not even an error.
        return float(brentq(beyond, two_way.estimate + side * NUDGE, side * EDGE, xtol=1e-12))

    p_value = 2 * min(_tail(two_way, flips, 0.0, 1), _tail(two_way, flips, 0.0, -1))
    return FlipDifference(two_way.estimate, end(-1), end(1), min(1.0, p_value), two_way, flips)


def _are_few(two_way: TwoWayEstimate, flips: IndependentFlips) -> bool:
    # Answers that all changed alike show no spread either, however many.
    return flips.only_a + flips.only_b < FEW or two_way.standard_error <= NUDGE


def _tail(two_way: TwoWayEstimate, flips: IndependentFlips, limit: float, side: int) -> float:
    """Chance of an estimate as far on `side` of `limit` if that were the truth."""
    under_test = 0.0
    if _are_few(two_way, flips):
        inside = min(max(limit, -EDGE), EDGE)
        under_test = restricted_variance(flips.items, flips.only_a, flips.only_b, inside)
    return two_way.tail(side * (two_way.estimate - limit), under_test)
