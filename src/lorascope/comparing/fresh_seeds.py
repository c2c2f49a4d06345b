"""What the rule's choice scores with seeds that had no part in the choice.

A configuration that was chosen as the best by its trained seeds carries their luck into any test
items, however fresh: among equal ranks whose seeds spread by 8 points, the best of four over two
seeds scores some 5 points more than the next seed will. So the rule is applied again without each
seed in turn, and what it then chooses is scored with the seed that was left out (leave-one-out, of
the choice and not only of the score). The mean over seeds is what a choice with one seed fewer
scores with a new seed. With few seeds it may choose another configuration than all of them do,
which the page then names.
"""

from __future__ import annotations

from dataclasses import replace

from lorascope.comparing.cells import Compared, join_scored
from lorascope.comparing.decision import decide
from lorascope.comparing.estimates import cell_estimate
from lorascope.comparing.results import CellKey
from lorascope.comparing.ruling import FreshScore

LEAST_SEEDS = 2
"""One seed chooses, the other reports."""


def fresh_score(compared: Compared) -> FreshScore | None:
    """On test items; None with one seed, or where a choice without some seed has no score."""
    study, cells = compared.study, compared.cells
    seeds = sorted({trial.seed for data in cells.values() for trial in data.declared})
    if len(seeds) < LEAST_SEEDS:
        return None
    chosen = [_chosen_without(seed, compared) for seed in seeds]
    scored = [
        one
        for seed, cell in zip(seeds, chosen, strict=True)
        for one in (cells[cell].scored if cell else ())
        if one.seed == seed
    ]
    joined = join_scored(scored, study, "test") if len(scored) == len(seeds) else None
    estimate = cell_estimate(joined, compared.measure) if joined else None
    if estimate is None:
        return None
    return FreshScore(estimate, tuple(cell for cell in chosen if cell))


def _chosen_without(seed: int, compared: Compared) -> CellKey | None:
    """What the rule recommends from the other seeds."""
    left = {
        cell: replace(
            data,
            scored=tuple(one for one in data.scored if one.seed != seed),
            declared=tuple(trial for trial in data.declared if trial.seed != seed),
        )
        for cell, data in compared.cells.items()
    }
    return decide(Compared.of(compared.study, compared.measure, left)).recommended
