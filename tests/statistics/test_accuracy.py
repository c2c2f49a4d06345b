"""Differences of accuracies over clusters and seeds, where few answers change."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from scipy.stats import t as student

from lorascope.statistics.accuracy import FlipDifference, accuracy_difference, independent_flips
from lorascope.statistics.shares import PairedCounts, restricted_variance, score, wilson_interval

MARGIN = 0.05


def difference(seeds: int, groups: int, each: int, lost: int) -> FlipDifference:
    """A perfect reference against one that loses the first `lost` items in the first seed."""
    right = np.ones((seeds, groups * each))
    worse = right.copy()
    worse[0, :lost] = 0
    clusters = np.repeat(np.arange(groups), each) if each > 1 else None
    found = accuracy_difference(worse, right, clusters)
    assert isinstance(found, FlipDifference)
    return found


def test_without_any_change_each_cluster_counts_as_one_item() -> None:
    found = difference(seeds=1, groups=40, each=5, lost=0)
    assert found.flips.items == pytest.approx(40)
    z = score(PairedCounts(40, 0, 0), -MARGIN)
    assert found.p_not_below(-MARGIN) == pytest.approx(float(student.sf(z, 39)))
    assert found.low == pytest.approx(-found.high)
    assert found.high > 0.08


@pytest.mark.parametrize(("seeds", "groups", "each"), [(1, 40, 5), (1, 30, 5), (3, 70, 1)])
def test_one_changed_answer_proves_little_more_than_none(
    seeds: int, groups: int, each: int
) -> None:
    """By t alone one lost answer of 200 had p 5e-11 for 'within 5 points', none 0.15."""
    none, one = (difference(seeds, groups, each, lost) for lost in (0, 1))
    assert one.p_not_below(-MARGIN) > none.p_not_below(-MARGIN) / 2
    assert one.high - one.low > (none.high - none.low) / 2


def test_independent_items_keep_their_number_where_many_answers_change() -> None:
    rng = np.random.default_rng(0)
    changes = rng.choice([-1.0, 0.0, 1.0], p=[0.15, 0.7, 0.15], size=(1, 4000))
    flips = independent_flips(changes, np.repeat(np.arange(800), 5))
    assert flips.items == pytest.approx(4000, rel=0.1)


def test_items_that_change_together_count_once() -> None:
    rng = np.random.default_rng(0)
    changes = rng.choice([-1.0, 0.0, 1.0], p=[0.15, 0.7, 0.15], size=800)
    flips = independent_flips(np.repeat(changes, 5)[None], np.repeat(np.arange(800), 5))
    assert flips.items == pytest.approx(800, rel=0.01)
    assert flips.only_a + flips.only_b == pytest.approx(float(np.abs(changes).sum()), rel=0.01)


def test_interval_ends_where_the_test_turns_significant() -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.random((2, 3, 200)) < [[[0.8]], [[0.75]]]).astype(float)
    found = accuracy_difference(a, b, np.repeat(np.arange(40), 5))
    assert found.p_not_below(found.low) == pytest.approx(0.025, abs=1e-6)
    assert found.p_not_above(found.high) == pytest.approx(0.025, abs=1e-6)
    assert (found.p_value < 0.05) == (found.low > 0 or found.high < 0)


@pytest.mark.parametrize("items", [70, 100, 400])
def test_a_loss_as_large_as_the_margin_is_rarely_called_smaller(items: int) -> None:
    """Items lost in all three seeds at once; by t alone 6 to 11 % of these calls were wrong."""
    rng = np.random.default_rng(items)
    right = np.ones((3, items))
    wrong = 0
    for _ in range(2000):
        worse = np.repeat(1.0 - (rng.random((1, items)) < MARGIN), 3, axis=0)
        wrong += accuracy_difference(worse, right).p_not_below(-MARGIN) < 0.025
    assert wrong / 2000 <= 0.025 + 2 * np.sqrt(0.025 * 0.975 / 2000)


@pytest.mark.parametrize("each", [1, 5])
@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("items", [10, 60, 400])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_every_share_of_lost_items_has_an_interval(
    seeds: int, each: int, items: int, share: float
) -> None:
    right = np.ones((seeds, items))
    worse = right.copy()
    worse[:, : round(share * items)] = 0
    clusters = np.repeat(np.arange(items // each), each) if each > 1 or seeds == 1 else None
    for a, b in ((worse, right), (right, worse)):
        found = accuracy_difference(a, b, clusters)
        assert -1 <= found.low <= found.estimate <= found.high <= 1
        assert found.high - found.low > 0.001
        assert 0 <= found.p_value <= 1


def test_variance_under_test_does_not_vanish_where_nothing_changed() -> None:
    # Tango's q is then the margin itself: 2 d - d (1 + d) = d (1 - d) for a loss of d.
    assert restricted_variance(400, 0, 0, -MARGIN) == pytest.approx(MARGIN * (1 - MARGIN) / 400)
    assert restricted_variance(400, 0, 0, 0.0) == 0.0


def test_pairs_of_replies_against_a_base_are_tested_by_signs_with_ties_left_out() -> None:
    """The base is half right on each: its difference to a reply is Wilson's share less a half."""
    right = np.array([[1.0] * 9 + [0.0]])
    found = accuracy_difference(right, np.full_like(right, 0.5))
    wilson = wilson_interval(0.9, 10)
    assert found.estimate == pytest.approx(0.4)
    assert (found.low, found.high) == pytest.approx((wilson[0] - 0.5, wilson[1] - 0.5))
    assert found.p_value == pytest.approx(binomtest(9, 10).pvalue)
    ties = np.append(right, [[0.5] * 5], axis=1)
    tied = accuracy_difference(ties, np.full_like(ties, 0.5))
    assert tied.p_value == pytest.approx(binomtest(9, 10).pvalue)
    assert tied.estimate == pytest.approx(4 / 15)
    assert tied.low > 0


@pytest.mark.parametrize(("seeds", "clusters"), [(1, 2), (3, 1)])
def test_half_steps_of_seeds_and_clusters_are_half_of_whole_ones(seeds: int, clusters: int) -> None:
    """Against a base that is half right, an answer moves half as far as against its opposite."""
    generator = np.random.default_rng(seeds)
    right = (generator.random((seeds, 24)) < 0.75).astype(float)
    groups = np.arange(24) // clusters if clusters > 1 else None
    half = accuracy_difference(right, np.full_like(right, 0.5), groups)
    whole = accuracy_difference(right, 1 - right, groups)
    assert isinstance(half, FlipDifference)
    assert (half.estimate, half.low, half.high) == pytest.approx(
        (whole.estimate / 2, whole.low / 2, whole.high / 2), abs=1e-9
    )
    assert half.p_value == pytest.approx(whole.p_value)
    assert half.tail_beyond(0.1, 1) == pytest.approx(whole.tail_beyond(0.2, 1))
