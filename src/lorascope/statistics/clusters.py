"""Items that belong together, such as several questions about one person, summed into one.

Groups of very unequal size make the usual variance too small and its t too narrow: with 400 items
in groups of Pareto's sizes a 95 % interval covered 88 %. `small_sample` has the correction, CR2 of
Bell and McCaffrey (Survey Methodology 28, 2002) with the degrees of freedom of Imbens and Kolesar
(Review of Economics and Statistics 98, 2016), for a mean or a ratio in closed form.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def group_sums(values: ArrayLike, clusters: ArrayLike | None) -> Floats:
    """Sums of `values` [..., items] within each cluster: [..., groups].

    `clusters` [items] holds one label per item; groups come in the labels' sorted order. None
    says that every item is a cluster of its own.
    """
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError("values must be finite: leave an item without a result out of both sides")
    if clusters is None:
        return array
    labels = np.asarray(clusters)
    if labels.shape != array.shape[-1:]:
        raise ValueError(
            f"clusters has shape {labels.shape} for {array.shape[-1]} items: one label per item"
        )
    order, starts = _sorted_groups(labels)
    sums: Floats = np.add.reduceat(array[..., order], starts, axis=-1)
    return sums


_LAST_SORTED: list[tuple[NDArray[np.generic], NDArray[np.intp], NDArray[np.intp]]] = []


def _sorted_groups(labels: NDArray[np.generic]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The items' order by label, and where each group starts in it.

    The comparisons of a study have the same labels, one after the other: those of the last array
    that cannot be written to are kept.
    """
    if _LAST_SORTED and _LAST_SORTED[0][0] is labels:
        return _LAST_SORTED[0][1:]
    order = np.argsort(labels, kind="stable")
    _, starts = np.unique(labels[order], return_index=True)
    if not labels.flags.writeable:
        _LAST_SORTED[:] = [(labels, order, starts)]
    return order, starts


@dataclass(frozen=True)
class SmallSample:
    """Weights that make a variance of the squared residuals of groups."""

    factors: Floats
    """Factor on each squared residual, so that their sum is unbiased: [groups]."""
    degrees: float
    """Degrees of freedom of that sum: groups - 1 where all are alike, fewer where they differ."""


def small_sample(weights: Floats, variances: Floats) -> SmallSample:
    """CR2 and its degrees of freedom for estimate = sum of totals / sum of weights.

    `weights` [groups] are items or tokens in each group, `variances` [groups] the variances of the
    groups' totals, up to a common factor. With h = weight / sum of weights the residual of a group,
    u = total - estimate x weight, has the expected square e = v (1 - 2 h) + h^2 (sum of v), and

        variance of the estimate = sum of (v / e) u^2 / (sum of weights)^2.

    Were v what it is said to be, this is unbiased. It is a quadratic form of the totals with the
    matrix B = D - a 1' - 1 a' + c, D = diag(d), d = v / e, a = d h, c = sum of d h^2, and its
    degrees are Satterthwaite's, trace(B V)^2 / trace(B V B V) with V = diag(v).
    """
    groups = weights.size
    if groups < 2:
        raise ValueError(f"{groups} group of items: 2 or more are needed for a standard error")
    if np.ptp(weights) == 0 and np.ptp(variances) == 0:
        return SmallSample(np.full(groups, groups / (groups - 1)), float(groups - 1))
    share, v, total = weights / weights.sum(), variances, float(variances.sum())
    expected = v * (1 - 2 * share) + share**2 * total
    d = np.divide(v, expected, out=np.ones(groups), where=expected > 0)
    a, c = d * share, float((d * share**2).sum())
    first, second = float((v * a).sum()), float((v * a * a).sum())
    trace = float((v * (d - 2 * a + c)).sum())
    of_square = float((v * v * d * (d + 2 * c - 4 * a)).sum())
    of_square += (c * total) ** 2 + 2 * second * total - 4 * c * first * total + 2 * first**2
    return SmallSample(d, min(trace**2 / of_square, float(groups - 1)))


def group_variances(residuals: Floats, weights: Floats, clusters: ArrayLike | None) -> Floats:
    """Variance of each group's total, up to a common factor: [groups].

    Half-way between two working models. Bell and McCaffrey's has independent units of weight: v is
    the group's weight. Imbens and Kolesar's has effects of groups: per unit of weight they have the
    share rho of the variance and items the rest, v = rho (sum of w)^2 + (1 - rho) (sum of w^2),
    where rho is what makes the groups' squared sums of `residuals` [..., items], value - estimate x
    weight, come out on average. By simulation with Pareto's sizes 95 % intervals cover 89 to 97 %
    under the first, 96 to 99 % under the second, as a large group's own residual grows with the
    error of the estimate, and 94 to 98 % half-way.
    """
    weighed = weighed_groups(weights, clusters)
    shared = _with_shared_effects(residuals, clusters, weighed)
    variances: Floats = weighed.shares + shared / shared.sum()
    return variances


def _with_shared_effects(
    residuals: Floats, clusters: ArrayLike | None, weighed: WeighedGroups
) -> Floats:
    """Variances under the second model."""
    single = float((residuals**2).sum() / weighed.sum_of_squares)
    if weighed.room <= 0 or single == 0:
        return weighed.squares
    excess = float((group_sums(residuals, clusters) ** 2).sum()) / single - weighed.sum_of_squares
    rho = min(1.0, max(0.0, excess / weighed.room))
    variances: Floats = rho * weighed.totals**2 + (1 - rho) * weighed.squares
    return variances


@dataclass(frozen=True)
class WeighedGroups:
    """What is known of groups by the weights of their items alone."""

    totals: Floats
    """Sum of weights: [groups]."""
    squares: Floats
    """Sum of squared weights: [groups]."""
    shares: Floats
    """Share of all weight: [groups]."""
    sum_of_squares: float
    room: float
    """By how much the squared totals are more than the squares."""


_LAST_WEIGHED: list[tuple[Floats, ArrayLike | None, WeighedGroups]] = []


def weighed_groups(weights: Floats, clusters: ArrayLike | None) -> WeighedGroups:
    """Of `weights` [items] and the items' `clusters`. As with `_sorted_groups`, those of the last
    weights that cannot be written to are kept."""
    for known, labels, found in _LAST_WEIGHED:
        if known is weights and labels is clusters:
            return found
    totals, squares = group_sums(weights, clusters), group_sums(weights**2, clusters)
    all_squares = float(squares.sum())
    found = WeighedGroups(
        totals, squares, totals / totals.sum(), all_squares, float((totals**2).sum()) - all_squares
    )
    if not weights.flags.writeable and _is_kept(clusters):
        _LAST_WEIGHED[:] = [(weights, clusters, found), *_LAST_WEIGHED[:3]]
    return found


def _is_kept(clusters: ArrayLike | None) -> bool:
    return clusters is None or (isinstance(clusters, np.ndarray) and not clusters.flags.writeable)


@lru_cache(maxsize=8)
def equal_weights(items: int, weight: float = 1.0) -> Floats:
    """`weight` for each of `items`; not to be written to."""
    weights = np.full(items, weight)
    weights.setflags(write=False)
    return weights


def resampled_sums(sums: Floats, resamples: int, seed: int, room: int) -> Iterator[Floats]:
    """`sums` [values, groups] over each bootstrap resample of the groups: chunks [resamples,
    values].

    A resample is as many draws with replacement as there are groups; `room` of them are held at
    once. The same seed and room give the same draws.
    """
    groups = sums.shape[-1]
    for start in range(0, resamples, room):
        yield _drawn(groups, min(room, resamples - start), seed, start) @ sums.T


@lru_cache(maxsize=1)
def _drawn(groups: int, count: int, seed: int, start: int) -> Floats:
    """How often each group is in each of `count` resamples: [resamples, groups].

    The comparisons of a study have as many groups, one after the other. Of those the last chunk is
    kept, which helps where all resamples are one: up to 400 groups with 9,999 of them.
    """
    draws = np.random.default_rng((seed, start)).integers(groups, size=(count, groups))
    draws += np.arange(count)[:, None] * groups
    drawn = np.bincount(draws.ravel(), minlength=count * groups).reshape(count, groups)
    times = drawn.astype(np.float64)
    times.setflags(write=False)
    return times
