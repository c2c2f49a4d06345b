"""The noise of few seeds against Student's t, and degrees of freedom counted by hand."""

from __future__ import annotations

import math

import pytest
from scipy.stats import t as student

from lorascope.statistics.seed_noise import SeedNoise
from lorascope.statistics.seed_pool import pool_seeds
from lorascope.statistics.two_way import Components


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
