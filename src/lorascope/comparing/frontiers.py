"""Which configurations no other beats in both cost and score, and how sure that is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lorascope.comparing.cells import Compared, Scored, join_scored
from lorascope.comparing.costs import COSTS
from lorascope.comparing.item_columns import Floats, ItemKey, columns_of
from lorascope.comparing.results import CellKey, CellScore, FrontierPoint, Measure
from lorascope.config import Cost
from lorascope.statistics.frontier import frontier_shares, pareto_frontier, resampled_scores


def frontiers(compared: Compared) -> dict[str, tuple[FrontierPoint, ...]]:
    """Cost -> its points, cheapest first; costs that fewer than two cells have are left out."""
    found = {}
    known: dict[tuple[CellKey, ...], _Scores | None] = {}
    for cost in (kind.cost for kind in COSTS.values() if kind.on_frontier):
        scored = [s for s in compared.scores.values() if s.test(compared.measure) is not None]
        priced = [score for score in scored if cost in score.costs]
        place = tuple(score.cell for score in priced)
        if place not in known:
            known[place] = _item_scores(compared, priced) if len(priced) > 1 else None
        scores = known[place]
        if scores is not None:
            found[cost.value] = _points(scores, cost, compared.measure)
    return found


@dataclass(frozen=True)
class _Scores:
    """Of cells C that were scored on the same items I."""

    cells: Sequence[CellScore]
    item_scores: Floats
    """[C, I], more is better, means over seeds."""
    clusters: NDArray[np.int64] | None
    """[I]"""

    @cached_property
    def resampled(self) -> Floats:
        """[resamples, C], whatever the cells cost."""
        return resampled_scores(self.item_scores, self.clusters)


def _on_the_same_items(compared: Compared, scores: Sequence[CellScore]) -> list[CellScore]:
    """The cells that share most cells' items: one that was scored on others would leave a frontier
    of the few items that all have."""

    made: dict[tuple[ItemKey, ...], frozenset[ItemKey]] = {}

    def keys(score: CellScore) -> frozenset[ItemKey]:
        scored = compared.cells[score.cell].scored
        columns = [columns_of(compared.study, one.evaluation.identity, "test") for one in scored]
        found = dict.fromkeys(own.names.keys if own else () for own in columns)
        sets = [made.setdefault(own, frozenset(own)) for own in found]
        return frozenset.intersection(*sets) if sets else frozenset()

    by_cell = [keys(score) for score in scores]
    usual = Counter(by_cell).most_common(1)[0][0]
    return [score for score, found in zip(scores, by_cell, strict=True) if found == usual]


def _item_scores(compared: Compared, priced: Sequence[CellScore]) -> _Scores | None:
    scores, cells = _on_the_same_items(compared, priced), compared.cells
    everyone: list[Scored] = [one for score in scores for one in cells[score.cell].scored]
    joined = join_scored(everyone, compared.study, "test")
    if joined is None:
        return None
    # More is better for the frontier: losses count negative.
    is_accuracy = compared.measure is Measure.accuracy
    values = joined.correct if is_accuracy else -joined.losses_per_token()
    if values is None:
        return None
    rows, start = [], 0
    for score in scores:
        count = len(cells[score.cell].scored)
        rows.append(values[start : start + count].mean(axis=0))
        start += count
    return _Scores(scores, np.array(rows), joined.clusters)


def _points(scores: _Scores, cost: Cost, measure: Measure) -> tuple[FrontierPoint, ...]:
    costs = np.array([score.costs[cost] for score in scores.cells], float)
    on = set(pareto_frontier(costs, scores.item_scores.mean(axis=1)).tolist())
    shares = frontier_shares(costs, scores.resampled)
    points = [
        FrontierPoint(
            cost,
            score.cell,
            float(price),
            measure.sign * float(row.mean()),
            index in on,
            float(share),
            score.complete,
        )
        for index, (score, price, row, share) in enumerate(
            zip(scores.cells, costs, scores.item_scores, shares, strict=True)
        )
    ]
    return tuple(sorted(points, key=lambda point: (point.cost, point.cell)))
