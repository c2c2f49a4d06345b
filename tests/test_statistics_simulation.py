"""Intervals, tests and families of tests on thousands of simulated data sets whose truth is known.

The issue's band for nominal 95 % intervals is 94 to 96.5 %. Measured rates stand beside each case.
Right-or-wrong items come from a latent normal score: item (or cluster) + configuration's own item
effect + flicker from seed to seed + shift of the whole seed, right above zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from lorascope.maths.accuracy import accuracy_interval
from lorascope.maths.bootstrap import paired_loss_difference
from lorascope.maths.families import holm
from lorascope.maths.paired import mcnemar_p, paired_counts, paired_difference
from lorascope.maths.two_way import two_way

Floats = NDArray[np.float64]
ITEMS = 400
CLUSTERS = np.repeat(np.arange(80), 5)
BAND = (0.94, 0.965)
SETS = 2500


@dataclass(frozen=True)
class World:
    """How scores come about; standard deviations on the latent scale, where difficulty has 1.4."""

    seeds: int = 1
    clustered: bool = False
    own: float = 0.5
    """A configuration's own effect on an item (on a cluster, if clustered): stays over seeds."""
    flicker: float = 0.3
    """Of an item from seed to seed."""
    seed: float = 0.0
    """Of a whole training: 0.05 moves a difference of accuracies by 1.6 points from seed to seed,
    0.1 by 3.3, 0.2 by 6.5."""

    @property
    def labels(self) -> NDArray[np.int64] | None:
        return CLUSTERS if self.clustered else None

    @property
    def spread(self) -> float:
        """Standard deviation of one latent score, which makes the true accuracies known."""
        return float(np.sqrt(2 + self.own**2 + self.flicker**2 + self.seed**2))

    def draw(
        self, rng: np.random.Generator, sets: int, accuracies: tuple[float, ...]
    ) -> Iterator[Floats]:
        """`sets` times right answers [configurations, seeds, items] at the true `accuracies`."""
        shape = (len(accuracies), self.seeds, ITEMS)
        means = self.spread * norm.ppf(accuracies)[:, None, None]
        for _ in range(sets):
            difficulty = rng.normal(size=ITEMS) + self._shared(rng, (1,))[0]
            latent = means + difficulty + self.own * self._shared(rng, shape[:1])[:, None]
            latent = latent + self.seed * rng.normal(size=(*shape[:2], 1))
            yield (latent + self.flicker * rng.normal(size=shape) > 0).astype(np.float64)

    def _shared(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        if self.clustered:
            return rng.normal(size=(*shape, 80))[..., CLUSTERS]
        return rng.normal(size=(*shape, ITEMS))


def _inside(coverage: float, band: tuple[float, float] = BAND) -> None:
    assert band[0] <= coverage <= band[1], f"coverage {coverage:.4f}"


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
    _inside(hits / SETS)


WORLDS = [
    World(clustered=True),
    World(seeds=3),
    World(seeds=3, seed=0.05),
    World(seeds=3, clustered=True),
    World(seeds=3, clustered=True, seed=0.05),
    World(seeds=3, clustered=True, flicker=0.5, seed=0.1),
    World(seeds=5),
    World(seeds=5, seed=0.05),
    World(seeds=5, flicker=0.5, seed=0.1),
    World(seeds=5, clustered=True),
    World(seeds=5, clustered=True, seed=0.05),
]


@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_two_way_interval_of_a_difference_covers(world: World) -> None:
    _inside(_two_way_coverage(world))


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
    _inside(_two_way_coverage(world), bounds)


def _two_way_coverage(world: World) -> float:
    rng = np.random.default_rng(2)
    hits = 0
    for a, b in world.draw(rng, SETS, (0.7, 0.65)):
        found = two_way(a - b, clusters=world.labels)
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
    _inside(hits / SETS)


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
    _inside(hits / SETS)
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
    _inside(hits / SETS)


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
        wrong += two_way(a - b, clusters=world.labels).p_not_below(-0.03) < 0.05
    assert wrong / SETS <= 0.0587


MODES, RANKS = 4, 4


def _sweep(right: Floats) -> tuple[list[float], list[float]]:
    """Holm's p and estimate of every mode against the first at equal rank: 12 comparisons."""
    cells = right.reshape(MODES, RANKS, *right.shape[1:])
    p_values, estimates = [], []
    for mode in range(1, MODES):
        for rank in range(RANKS):
            a, b = cells[mode, rank], cells[0, rank]
            if len(a) == 1:
                counts = paired_counts(a[0], b[0])
                p_values.append(mcnemar_p(counts))
            else:
                p_values.append(two_way(a - b).p_value)
            estimates.append(float((a - b).mean()))
    return [p for p in holm(p_values) if p is not None], estimates


@pytest.mark.parametrize(
    "world", [World(), World(seeds=3), World(seeds=5), World(seeds=5, seed=0.05)], ids=str
)
def test_sweeps_without_any_difference_rarely_show_one(world: World) -> None:
    """Family-wise error of Holm's verdicts over 2,000 null sweeps that share their items."""
    rng = np.random.default_rng(8)
    found = better = 0
    for right in world.draw(rng, 2000, (0.7,) * (MODES * RANKS)):
        adjusted, estimates = _sweep(right)
        found += min(adjusted) < 0.05
        better += any(p < 0.05 and d > 0 for p, d in zip(adjusted, estimates, strict=True))
    assert found / 2000 <= 0.055
    assert better / 2000 <= 0.0325  # half of it, and two standard errors


@pytest.mark.parametrize(
    ("seed", "bounds"), [(0.05, (0.035, 0.075)), (0.1, (0.09, 0.16))], ids=["1.6 pt", "3.3 pt"]
)
def test_sweeps_of_three_seeds_that_differ_much_err_within_these_bounds(
    seed: float, bounds: tuple[float, float]
) -> None:
    """What remains: the small p values that Holm asks for need more than 2 degrees of freedom.

    Two points of seed spread are about what three seeds can bear; five bear more than three.
    """
    rng = np.random.default_rng(8)
    draws = World(seeds=3, seed=seed).draw(rng, 2000, (0.7,) * (MODES * RANKS))
    _inside(sum(min(_sweep(right)[0]) < 0.05 for right in draws) / 2000, bounds)


def test_same_configuration_against_itself_is_better_no_oftener_than_nominal() -> None:
    """A/A: own effects off, so that only the seeds' flicker and shift tell a from b."""
    rng = np.random.default_rng(9)
    world = World(seeds=5, own=0.0, flicker=0.4, seed=0.05)
    better = 0
    for a, b in world.draw(rng, SETS, (0.7, 0.7)):
        found = two_way(a - b)
        better += found.p_value < 0.05 and found.estimate > 0
    assert better / SETS <= 0.025 + 2 * np.sqrt(0.025 * 0.975 / SETS)


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
