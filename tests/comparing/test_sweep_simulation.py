"""Holm's verdicts over whole simulated sweeps: false ones are rare, a planted loss is found."""

from __future__ import annotations

import numpy as np
import pytest

from lorascope.statistics.accuracy import (
    FlipDifference,
    accuracy_difference,
    flip_difference,
    independent_flips,
)
from lorascope.statistics.families import holm
from lorascope.statistics.seed_pool import pool_seeds, with_seed_noise
from lorascope.statistics.shares import mcnemar_p, paired_counts
from lorascope.statistics.two_way import two_way
from tests.comparing.simulated_scores import Floats, World, inside

MODES, RANKS = 4, 4


def _with_shared_spread(differences: list[Floats]) -> list[FlipDifference]:
    """Every mode against the first at equal rank, [seeds, items] each, as a study compares them."""
    crossed = [two_way(difference) for difference in differences]
    ends = [
        frozenset(((mode, rank), (0, rank))) for mode in range(1, MODES) for rank in range(RANKS)
    ]
    pool = pool_seeds([one.components for one in crossed], ends)
    return [
        flip_difference(with_seed_noise(one, pool), independent_flips(difference, None))
        for one, difference in zip(crossed, differences, strict=True)
    ]


def _sweep(right: Floats) -> tuple[list[float], list[float]]:
    """Holm's p and estimate of every mode against the first at equal rank: 12 comparisons, which
    share their seed spread as a floor where there are several seeds."""
    cells = right.reshape(MODES, RANKS, *right.shape[1:])
    pairs = [
        (cells[mode, rank], cells[0, rank]) for mode in range(1, MODES) for rank in range(RANKS)
    ]
    estimates = [float((a - b).mean()) for a, b in pairs]
    if right.shape[1] == 1:
        p_values = [mcnemar_p(paired_counts(a[0], b[0])) for a, b in pairs]
    else:
        p_values = [one.p_value for one in _with_shared_spread([a - b for a, b in pairs])]
    return [p for p in holm(p_values) if p is not None], estimates


@pytest.mark.parametrize(
    ("world", "sweeps"),
    [(World(), 2000), (World(seeds=3), 1000), (World(seeds=3, seed=0.1), 1000)],
    ids=str,
)
def test_sweeps_without_any_difference_rarely_show_one(world: World, sweeps: int) -> None:
    """Family-wise error of Holm's verdicts over null sweeps that share their items.

    By the two-way t alone it is 14 % with three seeds at 3.3 points of spread (seed=0.1): over
    1,000 sweeps 5.5 % lies eight standard errors below that.
    """
    rng = np.random.default_rng(8)
    found = better = 0
    for right in world.draw(rng, sweeps, (0.7,) * (MODES * RANKS)):
        adjusted, estimates = _sweep(right)
        found += min(adjusted) < 0.05
        better += any(p < 0.05 and d > 0 for p, d in zip(adjusted, estimates, strict=True))
    assert found / sweeps <= 0.055
    assert better / sweeps <= 0.0325  # half of it, and two standard errors of 2,000


def test_shared_seed_spread_covers_at_least_as_often_as_promised() -> None:
    """Three seeds that differ by 3.3 points, where each comparison alone covers 93 % only."""
    rng = np.random.default_rng(11)
    covered = total = 0
    for right in World(seeds=3, seed=0.1).draw(rng, 300, (0.7,) * (MODES * RANKS)):
        cells = right.reshape(MODES, RANKS, *right.shape[1:])
        places = [(mode, rank) for mode in range(1, MODES) for rank in range(RANKS)]
        for one in _with_shared_spread(
            [cells[mode, rank] - cells[0, rank] for mode, rank in places]
        ):
            covered += one.low <= 0 <= one.high
            total += 1
    inside(covered / total, (0.955, 0.98))


def test_same_configuration_against_itself_is_better_no_oftener_than_nominal() -> None:
    """A/A: own effects off, so that only the seeds' flicker and shift tell a from b."""
    rng = np.random.default_rng(9)
    world = World(seeds=5, own=0.0, flicker=0.4, seed=0.05)
    better = 0
    for a, b in world.draw(rng, 2500, (0.7, 0.7)):
        found = accuracy_difference(a, b)
        better += found.p_value < 0.05 and found.estimate > 0
    assert better / 2500 <= 0.025 + 2 * np.sqrt(0.025 * 0.975 / 2500)


def test_planted_loss_of_ten_points_in_one_mode_is_found() -> None:
    rng = np.random.default_rng(10)
    accuracies = (0.7,) * (3 * RANKS) + (0.6,) * RANKS
    found = 0
    for right in World(own=0.4).draw(rng, 300, accuracies):
        adjusted, estimates = _sweep(right)
        found += sum(
            p < 0.05 and d < 0 for p, d in zip(adjusted[-RANKS:], estimates[-RANKS:], strict=True)
        )
    assert found / (300 * RANKS) > 0.9
