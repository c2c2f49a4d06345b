"""Shares of right answers when items come in clusters or a training was repeated."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student

from lorascope.statistics.flips import FlipDifference, flip_difference, independent_flips
from lorascope.statistics.intervals import wilson_interval
from lorascope.statistics.paired import PairedDifference, paired_counts, paired_difference
from lorascope.statistics.two_way import two_way


def accuracy_interval(right: ArrayLike, clusters: ArrayLike | None = None) -> tuple[float, float]:
    """95 % interval of one configuration's accuracy: `right` [seeds, items] of zeros and ones.

    One seed and independent items: Wilson's. Otherwise Wilson's with the items that would be worth
    as much if they were independent, n = p (1 - p) / SE^2, and t in place of z (Korn and Graubard,
    Survey Methodology 24, 1998): in the middle the two-way t interval, near 0 and 1 inside them.
    Where nothing varies, each cluster counts as one item.
    """
    scores = np.asarray(right, dtype=np.float64)
    share = float(scores.mean())
    if len(scores) == 1 and clusters is None:
        return wilson_interval(share, scores.shape[1])
    found = two_way(scores, clusters=clusters)
    deviate = float(student.ppf(0.975, found.degrees))
    if found.standard_error == 0:
        return wilson_interval(share, found.components.groups, deviate)
    worth = share * (1 - share) / found.standard_error**2
    return wilson_interval(share, max(1.0, worth), deviate)


def accuracy_difference(
    right_a: ArrayLike, right_b: ArrayLike, clusters: ArrayLike | None = None
) -> PairedDifference | FlipDifference:
    """Share right of a minus that of b, both [seeds, items] of zeros and ones, seed by seed.

    One seed and independent items: McNemar and Tango. Otherwise the two-way t, its variance floored
    by Tango's (`flips`).
    """
    a, b = np.asarray(right_a, dtype=np.float64), np.asarray(right_b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(f"right_a {a.shape} and right_b {b.shape} must both be [seeds, items]")
    if len(a) == 1 and clusters is None:
        return paired_difference(paired_counts(a[0], b[0]))
    return flip_difference(two_way(a - b, clusters=clusters), independent_flips(a - b, clusters))
