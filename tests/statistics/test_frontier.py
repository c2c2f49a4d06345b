"""Pareto's frontier against the definition, its probability against worked cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorascope.statistics.frontier import frontier_probabilities, pareto_frontier


def test_dearer_and_worse_is_dominated() -> None:
    assert pareto_frontier([1, 2, 3, 4], [0.5, 0.4, 0.7, 0.7]).tolist() == [0, 2]


def test_ties() -> None:
    assert pareto_frontier([1, 1], [0.5, 0.5]).tolist() == [0, 1], "identical points both stay"
    assert pareto_frontier([1, 1], [0.5, 0.4]).tolist() == [0], "equal cost, lower score"
    assert pareto_frontier([1, 2], [0.5, 0.5]).tolist() == [0], "equal score, higher cost"


def test_several_costs_must_all_be_no_higher() -> None:
    assert pareto_frontier([[1, 9], [9, 1], [9, 9]], [0.5, 0.5, 0.5]).tolist() == [0, 1]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_frontier_is_its_definition(points: list[tuple[int, int]]) -> None:
    expected = [
        i
        for i, (cost, score) in enumerate(points)
        if not any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in points)
    ]
    assert pareto_frontier(*zip(*points, strict=True)).tolist() == expected


def test_cheapest_and_always_better_points_are_certain() -> None:
    right = np.zeros((3, 50))
    right[2] = 1
    right[1, 0] = 0
    assert frontier_probabilities([1, 2, 3], right).tolist() == [1.0, 0.0, 1.0]


def test_probability_of_a_dearer_point_is_that_of_scoring_more() -> None:
    """b is right on 12 items where a is wrong, a on 8 where b is wrong: P(b's resample leads)."""
    a, b = np.zeros((2, 200))
    a[:8], b[8:20] = 1, 1
    rng = np.random.default_rng(1)
    only_a, only_b, _ = rng.multinomial(200, [0.04, 0.06, 0.9], size=200_000).T
    found = frontier_probabilities([1, 2], [a, b], resamples=20_000)
    assert found[0] == 1.0
    assert found[1] == pytest.approx((only_b > only_a).mean(), abs=0.015)


def test_clusters_are_drawn_whole_and_points_jointly() -> None:
    a = np.repeat([1.0, 0.0], 10)
    b = 1 - a
    # Two clusters, of which each point owns one: b leads only if its own is drawn twice.
    clusters = np.repeat([0, 1], 10)
    found = frontier_probabilities([1, 2], [a, b], clusters, resamples=20_000)
    assert found[1] == pytest.approx(0.25, abs=0.01)
    copies = frontier_probabilities([1, 1], [a / 3 * 3, a], clusters)
    assert copies.tolist() == [1.0, 1.0]


def test_same_seed_gives_the_same_shares() -> None:
    scores = np.random.default_rng(0).random((5, 100))
    one = frontier_probabilities(range(5), scores, resamples=500)
    assert one.tolist() == frontier_probabilities(range(5), scores, resamples=500).tolist()
    assert one.tolist() != frontier_probabilities(range(5), scores, resamples=500, seed=1).tolist()


def test_points_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="one of each"):
        pareto_frontier([1, 2], [0.5])
    with pytest.raises(ValueError, match="finite"):
        pareto_frontier([1, float("nan")], [0.5, 0.6])
