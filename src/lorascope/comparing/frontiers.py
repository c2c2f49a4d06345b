"""Which configurations no other beats in both cost and score, and how sure that is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from lorascope.comparing.cells import Compared, Scored, join_scored
from lorascope.comparing.costs import COSTS
from lorascope.comparing.item_columns import ItemKey, columns_of
from lorascope.comparing.results import CellScore, FrontierPoint, Measure
from lorascope.config import Cost
from lorascope.statistics.frontier import frontier_probabilities, pareto_frontier


def frontiers(compared: Compared) -> dict[str, tuple[FrontierPoint, ...]]:
    """Cost -> its points, cheapest first; costs that fewer than two cells have are left out."""
    found = {}
    for cost in (kind.cost for kind in COSTS.values() if kind.on_frontier):
        scored = [s for s in compared.scores.values() if s.test(compared.measure) is not None]
        priced = [score for score in scored if cost in score.costs]
        points = _points(compared, priced, cost) if len(priced) > 1 else ()
        if points:
            found[cost.value] = points
    return found


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


def _points(
    compared: Compared, priced: Sequence[CellScore], cost: Cost
) -> tuple[FrontierPoint, ...]:
    scores, cells = _on_the_same_items(compared, priced), compared.cells
    measure = compared.measure
    everyone: list[Scored] = [one for score in scores for one in cells[score.cell].scored]
    joined = join_scored(everyone, compared.study, "test")
    if joined is None:
        return ()
    # More is better for the frontier: losses count negative.
    values = joined.correct if measure is Measure.accuracy else -joined.losses_per_token()
    if values is None:
        return ()
    rows, start = [], 0
    for score in scores:
        count = len(cells[score.cell].scored)
        rows.append(values[start : start + count].mean(axis=0))
        start += count
    by_cell, costs = np.array(rows), np.array([s.costs[cost] for s in scores], float)
    on = set(pareto_frontier(costs, by_cell.mean(axis=1)).tolist())
    shares = frontier_probabilities(costs, by_cell, clusters=joined.clusters)
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
            zip(scores, costs, by_cell, shares, strict=True)
        )
    ]
    return tuple(sorted(points, key=lambda point: (point.cost, point.cell)))
