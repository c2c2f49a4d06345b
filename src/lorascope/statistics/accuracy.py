"""Accuracies, and the difference of two, over clusters of items or several seeds.

The two-way t reads its standard error off the answers that changed. Where few or none did, that
error is far too small: one changed answer in 200 would prove more than none. Tango's variance
(`shares`) is that of the difference under test, so it does not vanish; it assumes independent
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
from scipy.special import stdtrit

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
from lorascope.statistics.shares import (
    PairedCounts,
    PairedDifference,
    paired_difference,
    restricted_variance,
    wilson_interval,
)
from lorascope.statistics.two_way import TwoWayEstimate, two_way

FEW = 50
"""Number of changed answers from which on their own spread is known well enough: with 20 of 400
items lost, the true loss on the margin, t alone calls it smaller in 6 % instead of 2.5."""
EDGE = 1 - 1e-12
HALF = 0.5
NUDGE = 1e-9
"""A difference of shares below this is rounding."""


def accuracy_interval(
    right: ArrayLike, clusters: ArrayLike | None = None, crossed: TwoWayEstimate | None = None
) -> tuple[float, float]:
    """95 % interval of one configuration's accuracy: `right` [seeds, items] of zeros and ones.

    One seed and independent items: Wilson's. Otherwise Wilson's with the items that would be worth
    as much if they were independent, n = p (1 - p) / SE^2, and t in place of z (Korn and Graubard,
    Survey Methodology 24, 1998): in the middle the two-way t interval, near 0 and 1 inside them.
    Where nothing varies, each cluster counts as one item. `crossed` is the two-way estimate of the
    same, where it is known.
    """
    scores = np.asarray(right, dtype=np.float64)
    share = float(scores.mean())
    if len(scores) == 1 and clusters is None:
        return wilson_interval(share, scores.shape[1])
    found = crossed or two_way(scores, clusters=clusters)
    deviate = float(stdtrit(found.degrees, 0.975))
    if found.standard_error == 0:
        return wilson_interval(share, found.components.groups, deviate)
    worth = share * (1 - share) / found.standard_error**2
    return wilson_interval(share, max(1.0, worth), deviate)


def accuracy_difference(
    right_a: ArrayLike, right_b: ArrayLike, clusters: ArrayLike | None = None
) -> PairedDifference | FlipDifference:
    """Share right of a minus that of b, both [seeds, items] of 0, 1 and 0.5, seed by seed.

    One seed, independent items, and steps of one size: McNemar and Tango. Otherwise the two-way t,
    its variance floored by Tango's (`flip_difference`).
    """
    a, b = np.asarray(right_a, dtype=np.float64), np.asarray(right_b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(f"right_a {a.shape} and right_b {b.shape} must both be [seeds, items]")
    step, difference = step_between(a, b), a - b
    if are_independent(difference, clusters, step):
        return paired_difference(_counts(difference, step))
    flips = independent_flips(difference, clusters, step)
    return flip_difference(two_way(difference, clusters=clusters), flips)


def difference_of_flips(
    difference: Floats, clusters: ArrayLike | None, crossed: TwoWayEstimate, flips: PairedCounts
) -> PairedDifference | FlipDifference:
    """As `accuracy_difference`, of `difference` [seeds, items] whose two-way estimate and flips are
    known."""
    if are_independent(difference, clusters, flips.step):
        return paired_difference(_counts(difference, flips.step))
    return flip_difference(crossed, flips)


def are_independent(difference: Floats, clusters: ArrayLike | None, step: float) -> bool:
    """Whether it is one seed's, of items that stand alone and move it by `step`, if at all."""
    alike = (difference == 0) | (np.abs(difference) == step)
    return len(difference) == 1 and clusters is None and bool(alike.all())


def _counts(difference: Floats, step: float) -> PairedCounts:
    won, lost = int((difference > 0).sum()), int((difference < 0).sum())
    return PairedCounts(difference.size, won, lost, step)


def step_between(a: Floats, b: Floats) -> float:
    """By how much one item's answer moves the difference: 0.5 where one of the two is half right on
    every item, as a bare base is of pairs of replies. Items on which both are count for neither:
    for one seed this is the exact test of signs. Elsewhere a half counts as a whole step, which is
    larger than need be."""
    return HALF if (a == HALF).all() or (b == HALF).all() else 1.0


@dataclass(frozen=True)
class FlipDifference(OneSided):
    """Share right of a minus that of b, with its 95 % interval and two-sided p against zero."""

    estimate: float
    low: float
    high: float
    p_value: float
    two_way: TwoWayEstimate
    flips: PairedCounts

    def tail_beyond(self, limit: float, side: int) -> float:
        return _tail(self.two_way, self.flips, limit, side)


def independent_flips(
    difference: Floats, clusters: ArrayLike | None, step: float = 1.0
) -> PairedCounts:
    """Answers and changed ones in `difference` [seeds, items] of -step, 0 and step, over deff
    above."""
    difference = difference / step
    answers, each = difference.size, equal_weights(difference.shape[1], float(len(difference)))
    centred = difference - difference.mean()
    sizes, sums = weighed_groups(each, clusters).totals, group_sums(centred.sum(axis=0), clusters)
    factors = small_sample(sizes, group_variances(centred.mean(axis=0), each, clusters)).factors
    spread = float((factors * sums**2).sum()) + float((sizes**2).sum()) / answers
    design_effect = spread / (float((centred**2).sum()) + 1)
    return PairedCounts(
        items=answers / design_effect,
        only_a=float((difference > 0).sum()) / design_effect,
        only_b=float((difference < 0).sum()) / design_effect,
        step=step,
    )


def flip_difference(measured: TwoWayEstimate, flips: PairedCounts) -> FlipDifference:
    """Interval and p of `measured`, its variance floored by that of `flips` under test."""
    if not are_few(measured, flips):
        low, high = max(-flips.step, measured.low), min(flips.step, measured.high)
        return FlipDifference(measured.estimate, low, high, measured.p_value, measured, flips)

    def end(side: int) -> float:
        def beyond(truth: float) -> float:
            return 0.025 - _tail(measured, flips, truth, -side)

        edge = flips.step * EDGE
        if side * measured.estimate >= edge or beyond(side * edge) <= 0:
            return side * flips.step
        # At the estimate itself nothing lies beyond, and where no answer changed not even an error.
        return brent_root(beyond, measured.estimate + side * NUDGE, side * edge, 1e-12)

    p_value = 2 * min(_tail(measured, flips, 0.0, 1), _tail(measured, flips, 0.0, -1))
    return FlipDifference(measured.estimate, end(-1), end(1), min(1.0, p_value), measured, flips)


def are_few(measured: TwoWayEstimate, flips: PairedCounts) -> bool:
    """Whether the variance under test counts, and not that which is seen alone."""
    # Answers that all changed alike show no spread either, however many.
    return flips.discordant < FEW or measured.standard_error <= NUDGE


def _tail(measured: TwoWayEstimate, flips: PairedCounts, limit: float, side: int) -> float:
    under_test = 0.0
    if are_few(measured, flips):
        inside = min(max(limit / flips.step, -EDGE), EDGE)
        of_steps = restricted_variance(flips.items, flips.only_a, flips.only_b, inside)
        under_test = flips.step**2 * of_steps
    return measured.tail(side * (measured.estimate - limit), under_test)
