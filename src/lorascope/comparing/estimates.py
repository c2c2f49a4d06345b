"""From joined items to estimates: the one place that picks which statistic fits which data.

One seed and independent right-or-wrong items: Wilson and Tango (with McNemar). One seed and losses:
the paired bootstrap. Clusters of items, or several seeds: the two-way t.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lorascope.comparing.joining import Floats, JoinedItems
from lorascope.comparing.results import Estimate, Measure
from lorascope.maths.bootstrap import BootstrapDifference, paired_loss_difference
from lorascope.maths.paired import PairedDifference, paired_counts, paired_difference
from lorascope.maths.power import powered_reach
from lorascope.maths.statistics import standard_error, wilson_interval
from lorascope.maths.two_way import TwoWayEstimate, two_way

MathsDifference = PairedDifference | BootstrapDifference | TwoWayEstimate


@dataclass(frozen=True)
class Tested:
    """Subject minus reference, with its tests."""

    difference: Estimate
    p_value: float
    p_margin: float
    """Two-sided size of 'worse by the margin or more': below 0.05 where the 95 % interval ends
    inside the margin."""
    subject_only_right: int | None
    reference_only_right: int | None
    judged: int | None
    detectable: float
    two_way: TwoWayEstimate
    """The same by the two-way t, whose components say what more items or seeds would do."""


def cell_estimate(joined: JoinedItems, measure: Measure) -> Estimate | None:
    """Mean over items and seeds of one cell; None where a loss is not finite.

    `joined` holds the cell's seeds as evaluations.
    """
    values = _values(joined, measure)
    if not np.isfinite(values).all():
        return None
    seeds = len(values)
    if joined.items < 2:
        return None
    estimate = _crossed(values, joined, measure)
    low, high = estimate.low, estimate.high
    error = estimate.standard_error
    if measure is Measure.accuracy:
        low, high = max(0.0, low), min(1.0, high)
        if seeds == 1 and joined.clusters is None:
            low, high = wilson_interval(estimate.estimate, joined.items)
            error = standard_error(estimate.estimate, joined.items)
    return Estimate(
        estimate.estimate, low, high, error, joined.items, joined.cluster_count, seeds,
        estimate.components.seed_spread_raw, estimate.components.item_standard_error,
    )  # fmt: skip


def compare_joined(joined: JoinedItems, measure: Measure, margin: float) -> Tested | None:
    """Test the first half of `joined`'s evaluations against the second half, seed by seed.

    `margin` is the largest acceptable harm: a loss of accuracy, or a gain of nats. None where a
    loss is not finite, or fewer than two items are common.
    """
    values = _values(joined, measure)
    if joined.items < 2 or not np.isfinite(values).all():
        return None
    subject, reference = np.split(values, 2)
    crossed = _crossed(subject - reference, joined, measure)
    alone = len(subject) == 1 and joined.clusters is None
    tested: MathsDifference = crossed
    if alone and measure is Measure.accuracy:
        tested = paired_difference(paired_counts(subject[0] > 0.5, reference[0] > 0.5))
    elif len(subject) == 1 and measure is Measure.loss_nats:
        first, second = joined.loss_nats
        tested = paired_loss_difference(first, second, joined.tokens, clusters=joined.clusters)
    if measure is Measure.accuracy:
        one_sided = tested.p_not_below(-margin)
    else:
        one_sided = tested.p_not_above(margin)
    won, lost, judged = _flips(subject, reference) if measure is Measure.accuracy else (None,) * 3
    return Tested(
        difference=Estimate(
            tested.estimate, tested.low, tested.high, crossed.standard_error, joined.items,
            joined.cluster_count, len(subject), crossed.components.seed_spread_raw,
            crossed.components.item_standard_error,
        ),
        p_value=tested.p_value,
        p_margin=min(1.0, 2 * one_sided),
        subject_only_right=won,
        reference_only_right=lost,
        judged=judged,
        detectable=powered_reach() * crossed.standard_error,
        two_way=crossed,
    )  # fmt: skip


def _values(joined: JoinedItems, measure: Measure) -> Floats:
    """[evaluations, items]: right or wrong, or summed nats."""
    if measure is Measure.loss_nats:
        return joined.loss_nats
    assert joined.correct is not None
    return joined.correct


def _crossed(values: Floats, joined: JoinedItems, measure: Measure) -> TwoWayEstimate:
    """Items, or their clusters, and seeds as crossed samples; losses a token are ratios."""
    weights = joined.tokens if measure is Measure.loss_nats else None
    return two_way(values, clusters=joined.clusters, weights=weights)


def _flips(subject: Floats, reference: Floats) -> tuple[int, int, int]:
    """Items that only the subject, and only the reference, gets right, summed over seeds."""
    won = int(((subject > 0.5) & (reference < 0.5)).sum())
    lost = int(((subject < 0.5) & (reference > 0.5)).sum())
    return won, lost, subject.size
