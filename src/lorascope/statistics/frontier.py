"""Pareto's frontier: the configurations that no other beats in cost and score at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lorascope.statistics.clusters import Floats, group_sums, resampled_sums

CHUNK = 4_000_000
"""Comparisons of two points in a chunk of resamples, by which these are drawn."""
IN_CACHE = 100_000
"""Numbers that are worked on at once: more take longer, each."""


def pareto_frontier(costs: ArrayLike, scores: ArrayLike) -> NDArray[np.intp]:
    """Indices of the points that no other dominates, in the order given.

    `costs` [points] or [points, kinds], less is better; `scores` [points], more is better. One
    point dominates another if it is nowhere worse and somewhere better, so that of two identical
    points both stay.
    """
    cost, score = _checked(costs, scores)
    return np.flatnonzero(_undominated(cost, score[None, :])[0])


def frontier_probabilities(
    costs: ArrayLike,
    item_scores: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Floats:
    """Share of bootstrap resamples in which each point lies on the frontier: [points].

    `item_scores` [points, items], more is better, averaged over seeds beforehand, every point on
    the same items. Items, or whole clusters, are resampled for all points jointly; costs are taken
    as exact. Seed spread is not included. The same `seed` gives the same shares.
    """
    return frontier_shares(costs, resampled_scores(item_scores, clusters, resamples, seed))


def resampled_scores(
    item_scores: ArrayLike, clusters: ArrayLike | None, resamples: int = 2000, seed: int = 0
) -> Floats:
    """Scores of points in each resample of items, as `frontier_probabilities`, up to a common
    factor: [resamples, points]. They are the same whatever the points cost."""
    each = group_sums(item_scores, clusters)
    room = max(1, CHUNK // max(each.shape[1], len(each) ** 2))
    # The shared denominator orders nothing. Rounding makes sums equal that differ only by the
    # order in which thirds were added.
    drawn: Floats = np.concatenate(list(resampled_sums(each, resamples, seed, room)))
    return np.round(drawn, 9)


def frontier_shares(costs: ArrayLike, scores: Floats) -> Floats:
    """Share of resamples, of which `scores` are [resamples, points], in which each point lies on
    the frontier: [points]."""
    cost, _ = _checked(costs, scores.sum(axis=0))
    size = len(cost) if cost.shape[1] == 1 else len(cost) ** 2
    room = max(1, IN_CACHE // size)
    on_it = np.zeros(len(cost))
    for start in range(0, len(scores), room):
        on_it += _undominated(cost, scores[start : start + room]).sum(axis=0)
    return on_it / len(scores)


def _undominated(costs: Floats, scores: Floats) -> NDArray[np.bool_]:
    """`costs` [points, kinds], `scores` [resamples, points] -> on the frontier, as `scores`."""
    if costs.shape[1] == 1:
        return _undominated_by_price(costs[:, 0], scores)
    # [other, point]: the other costs no more; it costs less in some kind.
    no_dearer = (costs[:, None, :] <= costs[None, :, :]).all(axis=2)
    cheaper = no_dearer & (costs[:, None, :] < costs[None, :, :]).any(axis=2)
    other, point = scores[:, :, None], scores[:, None, :]
    dominated = ((other > point) & no_dearer) | ((other >= point) & cheaper)
    beaten: NDArray[np.bool_] = np.asarray(dominated.any(axis=1))
    return ~beaten


def _undominated_by_price(costs: Floats, scores: Floats) -> NDArray[np.bool_]:
    """The same for one kind of cost, `costs` [points]: what costs less must be worse, and what
    costs the same no better."""
    order = np.argsort(costs, kind="stable")
    sorted_costs = costs[order]
    # Best of the cheapest k points: [resamples, points + 1], nothing where k is 0.
    best = np.maximum.accumulate(scores[:, order], axis=1)
    best = np.concatenate([np.full((len(scores), 1), -np.inf), best], axis=1)
    cheaper = best[:, np.searchsorted(sorted_costs, costs, side="left")]
    no_dearer = best[:, np.searchsorted(sorted_costs, costs, side="right")]
    on_it: NDArray[np.bool_] = (scores > cheaper) & (scores >= no_dearer)
    return on_it


def _checked(costs: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    cost, score = np.asarray(costs, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    cost = cost[:, None] if cost.ndim == 1 else cost
    if score.ndim != 1 or cost.shape[:1] != score.shape:
        raise ValueError(f"costs {cost.shape} and scores {score.shape}: one of each per point")
    if not (np.isfinite(cost).all() and np.isfinite(score).all()):
        raise ValueError("costs and scores must be finite: leave unknown points out")
    return cost, score
