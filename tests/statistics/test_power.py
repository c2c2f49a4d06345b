"""Detectable differences against published examples, simulation and the estimators' widths."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from lorascope.statistics.accuracy import accuracy_difference, independent_flips
from lorascope.statistics.power import (
    detectable_paired_difference,
    detectable_unpaired_difference,
    detectable_with_error,
    items_needed,
    powered_paired_difference,
    powered_reach,
    powered_unpaired_difference,
    projected_half_width,
    seeds_needed,
)
from lorascope.statistics.projection import half_width_of_few
from lorascope.statistics.shares import PairedCounts, mcnemar_p
from lorascope.statistics.two_way import Components, two_way


@pytest.mark.parametrize(("discordant", "points"), [(0.10, 1.7), (0.20, 2.4)])
def test_significant_paired_differences_of_published_examples(
    discordant: float, points: float
) -> None:
    assert 100 * detectable_paired_difference(discordant, 1319) == pytest.approx(points, abs=0.05)


def test_unpaired_differences_of_gsm8ks_test_split() -> None:
    assert 100 * detectable_unpaired_difference(0.48, 1319) == pytest.approx(3.8, abs=0.05)
    found = powered_unpaired_difference(0.48, 1319)
    assert found == pytest.approx((1.959964 + norm.ppf(0.8)) * np.sqrt(2 * 0.48 * 0.52 / 1319))


def test_detectable_difference_is_where_mcnemar_reaches_5_percent() -> None:
    just = detectable_paired_difference(0.2, 4000) * 4000
    apart = round((800 + just) / 2)
    assert mcnemar_p(PairedCounts(4000, apart, 800 - apart)) == pytest.approx(0.05, abs=0.005)


@pytest.mark.parametrize(("comparisons", "power"), [(1, 0.8), (12, 0.8), (1, 0.5), (1, 0.3)])
def test_powered_difference_is_found_that_often(comparisons: int, power: float) -> None:
    delta = powered_paired_difference(0.15, 2000, comparisons, power)
    rng = np.random.default_rng(0)
    shares = [(0.15 + delta) / 2, (0.15 - delta) / 2, 0.85]
    b, c, _ = rng.multinomial(2000, shares, size=40_000).T
    found = (b - c) / np.sqrt(b + c) > norm.isf(0.025 / comparisons)
    assert found.mean() == pytest.approx(power, abs=0.015)


def test_powered_reach_is_the_textbooks_2_8_standard_errors() -> None:
    assert powered_reach() == pytest.approx(1.959964 + 0.841621, abs=1e-5)
    assert powered_reach(12) == pytest.approx(norm.isf(0.025 / 12) + 0.841621, abs=1e-5)


def test_more_comparisons_ask_for_more() -> None:
    assert detectable_paired_difference(0.1, 400, 12) > detectable_paired_difference(0.1, 400)
    assert powered_paired_difference(0.1, 400, 12) > powered_paired_difference(0.1, 400)


def test_items_needed_put_the_interval_on_the_limit() -> None:
    needed = items_needed(-0.01, -0.03, 0.0125, 400)
    assert needed is not None
    assert 1.959964 * 0.0125 * np.sqrt(400 / needed) == pytest.approx(0.02, rel=1e-3)
    with_seeds = items_needed(-0.01, -0.03, 0.0125, 400, seed_standard_error=0.008)
    assert with_seeds is not None
    assert with_seeds > needed


def test_items_needed_are_unknown_at_the_boundary_or_under_wide_seeds() -> None:
    assert items_needed(-0.03, -0.03, 0.0125, 400) is None
    assert items_needed(-0.025, -0.03, 0.0125, 400) is None, "within half a standard error"
    assert items_needed(-0.01, -0.03, 0.0125, 400, seed_standard_error=0.011) is None


def _components(seeds: int) -> tuple[Components, float]:
    rng = np.random.default_rng(4)
    values = 0.05 * rng.normal(size=(seeds, 1)) + 0.3 * rng.normal(size=400)
    found = two_way(values + 0.4 * rng.normal(size=(seeds, 400)))
    return found.components, found.high - found.estimate


def test_projection_to_the_seeds_at_hand_is_the_present_half_width() -> None:
    components, half = _components(4)
    assert projected_half_width(components, 4) == pytest.approx((half, half))
    widths = [projected_half_width(components, seeds)[0] for seeds in range(2, 30)]
    assert widths == sorted(widths, reverse=True)


def test_projection_from_one_seed_is_a_range() -> None:
    components, half = _components(1)
    low, high = projected_half_width(components, 3)
    assert high == pytest.approx(half)
    assert low == pytest.approx(half / np.sqrt(3))
    assert high == pytest.approx(detectable_with_error(components.item_standard_error, 399))


def test_seeds_needed_are_the_fewest_that_do() -> None:
    components, _ = _components(4)
    gap = projected_half_width(components, 7)[0] * 1.001
    assert seeds_needed(gap, 0.0, components) == 7
    assert projected_half_width(components, 7, 12)[0] > gap
    assert (seeds_needed(gap, 0.0, components, comparisons=12) or 0) > 7
    assert seeds_needed(0.0, 0.0, components) is None
    assert components.item is not None
    assert seeds_needed(float(np.sqrt(components.item)), 0.0, components) is None
    assert seeds_needed(gap, 0.0, _components(1)[0]) is None


@pytest.mark.parametrize(
    ("discordant", "items", "comparisons"), [(2, 5, 1), (0.1, 0, 1), (0, 5, 0)]
)
def test_input_that_cannot_be_is_refused(discordant: float, items: int, comparisons: int) -> None:
    with pytest.raises(ValueError, match="="):
        detectable_paired_difference(discordant, items, comparisons)


def test_projection_to_no_seeds_is_refused() -> None:
    with pytest.raises(ValueError, match="seeds=0"):
        projected_half_width(_components(3)[0], 0)


@pytest.mark.parametrize("clusters", [None, 20])
def test_seeds_that_change_no_answer_narrow_nothing(clusters: int | None) -> None:
    """Foretold exactly as it comes."""
    labels = None if clusters is None else np.arange(60) % clusters
    one, four = np.ones((1, 60)), np.ones((4, 60))
    measured = two_way(one - one, clusters=labels)
    lowest, highest = half_width_of_few(measured, independent_flips(one - one, labels), 0, 4)
    came = accuracy_difference(four, four, labels)
    if clusters is None:
        # One seed of independent items is tested without t.
        assert came.high > accuracy_difference(one, one).high
    assert lowest == pytest.approx(came.high, rel=1e-9)
    assert highest is None


@pytest.mark.parametrize(("clusters", "near"), [(None, 0.05), (100, 0.05), (20, 0.25)])
def test_few_changes_narrow_as_far_as_they_fall_on_other_items(
    clusters: int | None, near: float
) -> None:
    labels = None if clusters is None else np.arange(200) // (200 // clusters)
    apart = 1 if clusters is None else 200 // clusters
    one, four = np.zeros((1, 200)), np.zeros((4, 200))
    one[0, : 3 * apart : apart] = 1
    for seed in range(4):
        four[seed, 3 * apart * seed : 3 * apart * (seed + 1) : apart] = 1
    measured, flips = two_way(one, clusters=labels), independent_flips(one, labels)
    lowest, _ = half_width_of_few(measured, flips, 3, 4)
    spread, repeated = (
        (found.high - found.low) / 2
        for found in (
            accuracy_difference(x, 0 * x, labels) for x in (four, np.repeat(one, 4, axis=0))
        )
    )
    assert lowest == pytest.approx(spread, rel=near)
    assert lowest < repeated
