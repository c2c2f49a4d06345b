"""The noise of few seeds against Student's t, and degrees of freedom counted by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2
from scipy.stats import t as student

from lorascope.statistics.seed_noise import SeedNoise
from lorascope.statistics.seed_pool import pool_seeds, with_seed_noise
from lorascope.statistics.two_way import Components, two_way


@pytest.mark.parametrize("degrees", [1, 2, 3, 5, 20])
def test_a_spread_between_seeds_alone_is_students_t(degrees: int) -> None:
    noise = SeedNoise(raw=4.0, flicker=0.0, degrees=degrees, seeds=1)
    for gap in (0.5, 2.0, 5.0, 12.0):
        assert noise.tail(2 * gap, 0.0, math.inf) == pytest.approx(
            student.sf(gap, degrees), rel=2e-3, abs=1e-7
        )
    assert noise.reach(0.0, math.inf) == pytest.approx(2 * student.ppf(0.975, degrees), rel=1e-4)


def test_without_a_spread_items_alone_decide() -> None:
    noise = SeedNoise(raw=0.0, flicker=0.0, degrees=1, seeds=2)
    assert noise.reach(1.0, 29) == pytest.approx(student.ppf(0.975, 29), rel=1e-5)


def test_two_seeds_of_equal_means_do_not_show_that_seeds_are_equal() -> None:
    unsure = SeedNoise(raw=1.0, flicker=1.0, degrees=1, seeds=2)
    sure = SeedNoise(raw=1.0, flicker=1.0, degrees=100, seeds=2)
    assert unsure.reach(0.5, 1000) > 3 * sure.reach(0.5, 1000)


def test_two_seeds_that_tie_prove_nothing() -> None:
    """A tie of two seeds was taken for a spread of nought, so that two of them settled a study: of
    310 right-or-wrong items they tie in one of 25 draws where they spread by 1.5 points."""
    values = np.random.default_rng(1).integers(-1, 2, (2, 310)).astype(float)
    values[1] = np.roll(values[0], 1)
    estimate = with_seed_noise(two_way(values), None)
    assert estimate.components.item_by_seed is not None
    assert estimate.noise is not None
    least = estimate.components.item_by_seed * chi2.ppf(0.05, 1)
    assert estimate.noise.raw == pytest.approx(least)
    tail = estimate.tail(5 * math.sqrt(estimate.components.items_alone))
    assert 1e-3 < tail < 0.05


def test_the_mean_over_all_seeds_moves_as_drawn_ones_do() -> None:
    """With spreads and a flat prior: Monte Carlo of what further seeds bring."""
    rng = np.random.default_rng(2)
    noise = SeedNoise(raw=4.0, flicker=0.0, degrees=5.0)
    spread = np.sqrt(4.0 * 5 / rng.chisquare(5, 200_000))
    truth = spread / math.sqrt(3) * rng.normal(size=200_000)
    further = truth + spread / math.sqrt(2) * rng.normal(size=200_000)
    means = further * 2 / 5
    for gap in (0.5, 1.5, 3.0):
        assert noise.moves(gap, 3, 5) == pytest.approx((means < -gap).mean(), abs=0.004)
    assert replace(noise, degrees=1.0).moves(3.0, 3, 5) == pytest.approx(
        student.sf(3.0 / math.sqrt(4 * (1 / 3 - 1 / 5)), 2)
    )
    assert SeedNoise(raw=0.0, flicker=0.0, degrees=1.0).moves(0.1, 2, 3) == 0


def _parts(raw: float, seeds: int = 2) -> Components:
    return Components(seeds, 100, 0.01, 0.005, 0.01, raw - 0.01, raw, 99.0, 99.0)


def test_what_carries_the_same_luck_counts_once() -> None:
    def degrees(*ends: str, seeds: int = 2) -> float:
        pool = pool_seeds([_parts(1.0, seeds)] * len(ends), [frozenset(pair) for pair in ends])
        assert pool is not None
        return pool.degrees

    assert degrees("ab") == pytest.approx(1)
    assert degrees("ab", seeds=3) == pytest.approx(2)
    assert degrees("ab", "ba", "ab") == pytest.approx(1)
    assert degrees("ab", "cd") == pytest.approx(2)
    # Three differences from one reference count as two, all six among four as three.
    assert degrees("ab", "ac", "ad") == pytest.approx(2)
    assert degrees("ab", "ac", "ad", "bc", "bd", "cd") == pytest.approx(3)


def test_the_pool_is_the_mean_of_its_spreads() -> None:
    pool = pool_seeds([_parts(1.0), _parts(3.0)], [frozenset("ab"), frozenset("cd")])
    assert pool is not None
    assert (pool.raw, pool.flicker, pool.variance) == pytest.approx((2.0, 0.01, 1.99))
    assert pool_seeds([], []) is None
