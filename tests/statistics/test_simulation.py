"""Coverage of every interval, and errors of the margin test, on simulated data of known truth.

The band for nominal 95 % intervals is 94 to 96.5 %, over 2,500 data sets of 400 items each.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from lorascope.comparing.estimates import LEAST_RESAMPLED
from lorascope.statistics.accuracy import accuracy_difference, accuracy_interval
from lorascope.statistics.bootstrap import BootstrapDifference, paired_loss_difference
from lorascope.statistics.shares import paired_counts, paired_difference
from lorascope.statistics.two_way import TwoWayEstimate, two_way
from tests.comparing.simulated_scores import CLUSTERS, ITEMS, Floats, World, inside, pareto_clusters

BAND = (0.94, 0.965)
SETS = 2500


@pytest.mark.parametrize(
    ("own", "accuracies"),
    [(0.3, (0.7, 0.7)), (0.5, (0.5, 0.5)), (0.5, (0.8, 0.75)), (0.5, (0.7, 0.6))],
)
def test_score_interval_of_one_seed_covers(own: float, accuracies: tuple[float, float]) -> None:
    rng = np.random.default_rng(1)
    truth = accuracies[0] - accuracies[1]
    hits = 0
    for right in World(own=own).draw(rng, SETS, accuracies):
        found = paired_difference(paired_counts(right[0, 0], right[1, 0]))
        hits += found.low <= truth <= found.high
    inside(hits / SETS, BAND)


WORLDS = [
    World(clustered=True),
    World(seeds=3),
    World(seeds=3, seed=0.05),
    World(seeds=3, clustered=True),
    World(seeds=3, clustered=True, seed=0.05),
    World(seeds=3, clustered=True, flicker=0.5, seed=0.1),
    World(seeds=5, seed=0.05),
    World(seeds=5, flicker=0.5, seed=0.1),
    World(seeds=5, clustered=True, seed=0.05),
]


@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_two_way_interval_of_a_difference_covers(world: World) -> None:
    inside(_two_way_coverage(world), BAND)


@pytest.mark.parametrize(
    ("world", "bounds"),
    [
        (World(seeds=3, own=0.3, flicker=0.5, seed=0.1), (0.91, 0.94)),
        (World(seeds=3, own=0.3, flicker=0.5, seed=0.2), (0.91, 0.945)),
        (World(seeds=3, own=0.5, flicker=0.3, seed=0.2), (0.93, 0.96)),
        (World(seeds=2, own=0.5, flicker=0.3, seed=0.05), (0.93, 0.965)),
        (World(seeds=2, own=0.5, flicker=0.3, seed=0.2), (0.89, 0.945)),
        (World(seeds=3, own=0.3, flicker=0.5), (0.95, 0.975)),
    ],
    ids=str,
)
def test_two_way_interval_where_few_seeds_differ_much_has_these_bounds(
    world: World, bounds: tuple[float, float]
) -> None:
    """What remains outside the band: 2 or 3 seeds whose trainings differ by 3 points and more.

    One seed part with 1 or 2 degrees of freedom cannot be both noticed when large and ignored
    when absent. These are the measured bounds, not claims of 95 %.
    """
    inside(_two_way_coverage(world), bounds)


def _two_way_coverage(world: World) -> float:
    rng = np.random.default_rng(2)
    hits = 0
    for a, b in world.draw(rng, SETS, (0.7, 0.65)):
        found = accuracy_difference(a, b, world.labels)
        hits += found.low <= 0.05 <= found.high
    return hits / SETS


@pytest.mark.parametrize("accuracy", [0.5, 0.8])
@pytest.mark.parametrize(
    "world",
    [World(), World(clustered=True), World(seeds=3, clustered=True), World(seeds=5, seed=0.05)],
    ids=str,
)
def test_accuracy_interval_covers(world: World, accuracy: float) -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for (right,) in world.draw(rng, SETS, (accuracy,)):
        low, high = accuracy_interval(right, world.labels)
        hits += low <= accuracy <= high
    inside(hits / SETS, BAND)


def _losses(rng: np.random.Generator, clustered: bool) -> tuple[Floats, Floats, Floats]:
    """Nats of a and b and tokens, [items]: skewed lengths, skewed losses, difference 0.02."""
    tokens = 1 + rng.poisson(rng.gamma(2.0, 10.0, size=ITEMS)).astype(np.float64)
    rate = rng.gamma(4.0, 0.3, size=ITEMS)
    effect = rng.normal(size=80)[CLUSTERS] if clustered else rng.normal(size=ITEMS)
    # Independent of the tokens, so that the true ratio is the mean of the rates' difference.
    change = 0.02 + 0.1 * effect + 0.1 * (rng.exponential(size=ITEMS) - 1)
    return tokens * (rate + change), tokens * rate, tokens


@pytest.mark.parametrize("clustered", [False, True])
def test_bootstrap_interval_of_a_loss_covers_and_margin_errs_at_most_nominally(
    clustered: bool,
) -> None:
    rng = np.random.default_rng(4)
    hits = harmless = 0
    for _ in range(SETS):
        a, b, tokens = _losses(rng, clustered)
        labels = CLUSTERS if clustered else None
        found = paired_loss_difference(a, b, tokens, clusters=labels, resamples=799)
        hits += found.low <= 0.02 <= found.high
        # The truth lies on the margin: "less than 0.02 worse" is wrong each time it is said.
        harmless += found.p_not_above(0.02) < 0.05
    inside(hits / SETS, BAND)
    assert harmless / SETS <= 0.06


@pytest.mark.parametrize("clustered", [False, True])
def test_two_way_interval_of_a_loss_covers(clustered: bool) -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(SETS):
        a, b, tokens = _losses(rng, clustered)
        labels = CLUSTERS if clustered else None
        found = two_way((a - b)[None, :], clusters=labels, weights=tokens)
        hits += found.low <= 0.02 <= found.high
    inside(hits / SETS, BAND)


@pytest.mark.parametrize("margin", [0.02, 0.05])
def test_non_inferiority_at_the_boundary_errs_at_most_nominally(margin: float) -> None:
    rng = np.random.default_rng(6)
    wrong = 0
    for right in World().draw(rng, 4000, (0.7 - margin, 0.7)):
        found = paired_difference(paired_counts(right[0, 0], right[1, 0]))
        wrong += found.p_not_below(-margin) < 0.05
    assert wrong / 4000 <= 0.0569  # 5 % and two standard errors


@pytest.mark.parametrize(
    "world", [World(clustered=True), World(seeds=3, seed=0.05), World(seeds=5)], ids=str
)
def test_non_inferiority_with_clusters_or_seeds_errs_at_most_nominally(world: World) -> None:
    rng = np.random.default_rng(7)
    wrong = 0
    for a, b in world.draw(rng, SETS, (0.67, 0.7)):
        wrong += accuracy_difference(a, b, world.labels).p_not_below(-0.03) < 0.05
    assert wrong / SETS <= 0.0587


UNEQUAL = (0.945, 0.985)
"""For groups of Pareto's sizes, where CR2 errs to the safe side. With the factors and degrees of
equal groups these worlds cover 87 to 94 %."""
DRAWS = 25
UNEQUAL_SETS = 1000


@pytest.mark.parametrize(
    "world",
    [
        World(clustered=True, pareto=0),
        World(clustered=True, pareto=0, own=1.0),
        World(seeds=3, clustered=True, pareto=0),
        World(seeds=3, clustered=True, pareto=0, flicker=0.5, seed=0.05),
        World(seeds=5, clustered=True, pareto=0, seed=0.1),
    ],
    ids=str,
)
def test_very_unequal_clusters_are_covered_and_the_margin_errs_at_most_nominally(
    world: World,
) -> None:
    rng = np.random.default_rng(8)
    of_difference = of_accuracy = harmless = 0
    for draw in range(DRAWS):
        drawn = replace(world, pareto=draw)
        for a, b in drawn.draw(rng, UNEQUAL_SETS // DRAWS, (0.67, 0.7)):
            found = accuracy_difference(a, b, drawn.labels)
            low, high = accuracy_interval(a, drawn.labels)
            of_difference += found.low <= -0.03 <= found.high
            of_accuracy += low <= 0.67 <= high
            harmless += found.p_not_below(-0.03) < 0.025
    inside(of_difference / UNEQUAL_SETS, UNEQUAL)
    inside(of_accuracy / UNEQUAL_SETS, UNEQUAL)
    assert harmless / UNEQUAL_SETS <= 0.025 + 2 * np.sqrt(0.025 * 0.975 / UNEQUAL_SETS)


def _unequal_losses(
    rng: np.random.Generator, seeds: int, labels: NDArray[np.int64] | None
) -> tuple[Floats, Floats, Floats]:
    """Nats of a and b [seeds, items] and tokens [items], difference 0.02 nats a token."""
    if labels is None:
        tokens = np.ceil(3 * (1 + rng.pareto(1.5, size=ITEMS)))
        effect = rng.normal(size=ITEMS)
    else:
        tokens = 1 + rng.poisson(rng.gamma(2.0, 10.0, size=ITEMS)).astype(np.float64)
        effect = rng.normal(size=int(labels.max()) + 1)[labels]
    rate = rng.gamma(4.0, 0.3, size=ITEMS)
    change = 0.02 + 0.1 * effect + 0.1 * (rng.exponential(size=ITEMS) - 1)
    if seeds == 1:
        return (tokens * (rate + change))[None], (tokens * rate)[None], tokens
    flicker = 0.1 * rng.normal(size=(seeds, ITEMS)) + 0.01 * rng.normal(size=(seeds, 1))
    return tokens * (rate + change + flicker), np.tile(tokens * rate, (seeds, 1)), tokens


def _loss_difference(
    a: Floats, b: Floats, tokens: Floats, labels: NDArray[np.int64] | None
) -> BootstrapDifference | TwoWayEstimate:
    """By the statistic that a study takes, with fewer resamples."""
    crossed = two_way(a - b, clusters=labels, weights=tokens)
    if len(a) > 1 or crossed.components.item_degrees < LEAST_RESAMPLED:
        return crossed
    return paired_loss_difference(a[0], b[0], tokens, clusters=labels, resamples=799)


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("seeds", [1, 3])
def test_very_unequal_tokens_are_covered_and_the_margin_errs_at_most_nominally(
    seeds: int, clustered: bool
) -> None:
    """Pareto's numbers of tokens, or of items in a cluster."""
    rng = np.random.default_rng(9)
    hits = harmless = 0
    for draw in range(DRAWS):
        labels = pareto_clusters(draw) if clustered else None
        for _ in range(UNEQUAL_SETS // DRAWS):
            a, b, tokens = _unequal_losses(rng, seeds, labels)
            found = _loss_difference(a, b, tokens, labels)
            hits += found.low <= 0.02 <= found.high
            harmless += found.p_not_above(0.02) < 0.025
    inside(hits / UNEQUAL_SETS, UNEQUAL)
    assert harmless / UNEQUAL_SETS <= 0.025 + 2 * np.sqrt(0.025 * 0.975 / UNEQUAL_SETS)
