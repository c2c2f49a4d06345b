"""From scored items, side by side, to estimates: the one place that picks which statistic
fits which data.

One seed and independent right-or-wrong items: Wilson and Tango (with McNemar). One seed and losses:
the paired bootstrap. Clusters of items, or several seeds: the two-way t, for right-or-wrong items
with Tango's variance as a floor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lorascope.comparing.item_columns import Floats, JoinedItems
from lorascope.comparing.results import Estimate, Measure
from lorascope.statistics.accuracy import (
    FlipDifference,
    accuracy_interval,
    difference_of_flips,
    flip_difference,
    independent_flips,
    step_between,
)
from lorascope.statistics.bootstrap import BootstrapDifference, paired_loss_difference
from lorascope.statistics.brent import brent_root
from lorascope.statistics.power import detectable_with_error, powered_reach
from lorascope.statistics.seed_noise import SeedNoise
from lorascope.statistics.seed_pool import with_seed_noise
from lorascope.statistics.shares import PairedCounts, PairedDifference
from lorascope.statistics.two_way import Components, TwoWayEstimate, two_way

LEAST_RESAMPLED = 7
"""Degrees of freedom of items below which resampling them says little: 8 groups of one size."""

FARTHEST_NATS = 1e6
"""A difference of losses that is looked for no further."""

MathsDifference = PairedDifference | BootstrapDifference | FlipDifference | TwoWayEstimate


@dataclass(frozen=True)
class Tested:
    """Subject minus reference, with its tests."""

    difference: Estimate
    p_value: float
    p_margin: float
    """Twice the one-sided p against 'worse by the margin or more': below 0.05 where the 95 %
    interval ends inside the margin."""
    p_beyond: float
    """The same against 'no worse than the margin': small shows that it is worse by more."""
    subject_only_right: int | None
    reference_only_right: int | None
    judged: int | None
    two_way: TwoWayEstimate
    """The same by the two-way t, whose components say what more items or seeds would do."""
    flips: PairedCounts | None
    """None for losses."""

    @property
    def half_width(self) -> float:
        """Of the 95 % interval."""
        return (self.difference.high - self.difference.low) / 2

    @property
    def error(self) -> float:
        """The standard error that the interval stands for: above zero where no answer changed."""
        return self.half_width / detectable_with_error(1.0, self.two_way.degrees)

    def detectable(self, comparisons: int = 1) -> float:
        """Smallest true difference that is found eight times of ten among `comparisons`."""
        return powered_reach(comparisons, degrees=self.two_way.degrees) * self.error

    def limit(self, level: float, side: int) -> float:
        """End of the one-sided interval at `level`, on `side` (1 above, -1 below) of the
        difference: p against a truth beyond it is below `level`, against one before it not.

        Of several seeds; the test of one seed may be another. Where no truth is ruled out it is
        the farthest that there is.
        """
        crossed = self.two_way
        test = flip_difference(crossed, self.flips) if self.flips else crossed
        farthest = side * (self.flips.step if self.flips else FARTHEST_NATS)

        def excess(truth: float) -> float:
            return test.tail_beyond(truth, -side) - level

        if side * crossed.estimate >= side * farthest or excess(farthest) >= 0:
            return farthest
        return brent_root(excess, crossed.estimate, farthest, 1e-12)


def cell_estimate(joined: JoinedItems, measure: Measure) -> Estimate | None:
    """Mean over items and seeds of one cell, whose seeds `joined` holds as evaluations.

    None where `_values` is.
    """
    values = _values(joined, measure)
    if values is None:
        return None
    crossed = _crossed(values, joined, measure)
    estimate = _estimate(crossed, crossed, joined, len(values))
    if measure is Measure.loss_nats:
        return estimate
    low, high = accuracy_interval(values, joined.clusters, crossed)
    return replace(estimate, low=low, high=high)


def mean_score(joined: JoinedItems, measure: Measure) -> float:
    """The estimate of `cell_estimate`, of however few items; not finite where a loss is not."""
    if measure is Measure.accuracy and joined.correct is not None:
        return float(joined.correct.mean())
    return float(joined.loss_nats.sum() / (len(joined.loss_nats) * joined.tokens.sum()))


def compare_joined(joined: JoinedItems, measure: Measure, margin: float) -> Tested | None:
    """Test the first half of `joined`'s evaluations against the second half, seed by seed.

    `margin` is the largest acceptable harm: a loss of accuracy, or a gain of nats. None where a
    loss is not finite, or fewer than two items or clusters are common.
    """
    values = _values(joined, measure)
    if values is None:
        return None
    subject, reference = np.split(values, 2)
    difference = subject - reference
    crossed = _crossed(difference, joined, measure)
    tested: MathsDifference = crossed
    won = lost = judged = flips = None
    if measure is Measure.accuracy:
        won, lost, judged = _flips(difference)
        step = step_between(subject, reference)
        flips = independent_flips(difference, joined.clusters, step)
        tested = difference_of_flips(difference, joined.clusters, crossed, flips)
    elif len(subject) == 1 and crossed.components.item_degrees >= LEAST_RESAMPLED:
        first, second = joined.loss_nats
        tested = paired_loss_difference(first, second, joined.tokens, clusters=joined.clusters)
    within, beyond = _margin_ps(tested, measure, margin)
    return Tested(
        difference=_estimate(crossed, tested, joined, len(subject)),
        p_value=tested.p_value,
        p_margin=within,
        p_beyond=beyond,
        subject_only_right=won,
        reference_only_right=lost,
        judged=judged,
        two_way=crossed,
        flips=flips,
    )


def seed_components(joined: JoinedItems, measure: Measure) -> Components | None:
    """What the difference of `joined`'s halves varies by; None where `compare_joined` is None."""
    values = _values(joined, measure)
    if values is None:
        return None
    subject, reference = np.split(values, 2)
    return _crossed(subject - reference, joined, measure).components


def with_seed_pool(test: Tested, pool: SeedNoise | None, measure: Measure, margin: float) -> Tested:
    """`test` with the larger of its own spread between seeds and that of its kind.

    Without either, one seed and no pool, it stays as it is.
    """
    crossed = with_seed_noise(test.two_way, pool)
    parts, noise = test.two_way.components, crossed.noise
    # One seed says nothing of others, though every answer has one difference with it.
    is_told = parts.seeds == 1 and noise is not None and noise.raw > 0
    # Where they all have, the floor of `flips` says all that items can say.
    if crossed == test.two_way or (parts.items_alone == 0 and not is_told):
        return test
    tested = flip_difference(crossed, test.flips) if test.flips else crossed
    difference = replace(
        test.difference, low=tested.low, high=tested.high, standard_error=crossed.standard_error
    )
    within, beyond = _margin_ps(tested, measure, margin)
    return replace(
        test,
        difference=difference,
        p_value=tested.p_value,
        p_margin=within,
        p_beyond=beyond,
        two_way=crossed,
    )


def compare_with_base(joined: JoinedItems, measure: Measure) -> tuple[Estimate, float] | None:
    """The mean of all evaluations but the last minus the last, with its two-sided p, over items
    alone: these trainings, whatever others would give.

    None where `_values` is.
    """
    values = _values(joined, measure)
    if values is None:
        return None
    differences = values[:-1] - values[-1]
    crossed = _crossed(differences.mean(axis=0)[None], joined, measure)
    tested: FlipDifference | TwoWayEstimate = crossed
    if measure is Measure.accuracy:
        step = step_between(values[:-1], values[-1])
        tested = flip_difference(crossed, independent_flips(differences, joined.clusters, step))
    return _estimate(crossed, tested, joined, len(differences)), tested.p_value


def _margin_ps(tested: MathsDifference, measure: Measure, margin: float) -> tuple[float, float]:
    """Twice the one-sided p against 'worse by the margin or more', and against less harm."""
    limit = -measure.sign * margin
    below, above = tested.p_not_below(limit), tested.p_not_above(limit)
    within, beyond = (below, above) if measure is Measure.accuracy else (above, below)
    return min(1.0, 2 * within), min(1.0, 2 * beyond)


def _estimate(
    crossed: TwoWayEstimate, tested: MathsDifference, joined: JoinedItems, seeds: int
) -> Estimate:
    """The estimate and interval of `tested`, with what it varies by."""
    parts = crossed.components
    return Estimate(
        tested.estimate, tested.low, tested.high, crossed.standard_error, joined.items,
        joined.cluster_count, seeds, parts.seed_spread_raw, parts.item_standard_error,
    )  # fmt: skip


def _values(joined: JoinedItems, measure: Measure) -> Floats | None:
    """[evaluations, items]: right or wrong, or summed nats. None where a loss is not finite, or
    there are fewer than two items or clusters."""
    values = joined.loss_nats if measure is Measure.loss_nats else joined.correct
    assert values is not None
    few = (joined.cluster_count or joined.items) < 2
    return None if few or not np.isfinite(values).all() else values


def _crossed(values: Floats, joined: JoinedItems, measure: Measure) -> TwoWayEstimate:
    """Items, or their clusters, and seeds as crossed samples; losses a token are ratios."""
    weights = joined.tokens if measure is Measure.loss_nats else None
    return two_way(values, clusters=joined.clusters, weights=weights)


def _flips(difference: Floats) -> tuple[int, int, int]:
    """Items that only the subject, and only the reference, gets right, or more nearly, summed over
    seeds."""
    return int((difference > 0).sum()), int((difference < 0).sum()), difference.size
