"""McNemar against scipy and statsmodels, Tango's score against its own definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, norm
from statsmodels.stats.contingency_tables import mcnemar

from lorascope.statistics.shares import (
    PairedCounts,
    mcnemar_p,
    paired_counts,
    paired_difference,
    score,
    score_interval,
)


@pytest.mark.parametrize(("b", "c"), [(5, 0), (3, 9), (12, 12), (1, 23), (0, 1)])
def test_few_discordant_items_use_the_exact_test(b: int, c: int) -> None:
    counts = PairedCounts(300 + b + c, b, c)
    assert mcnemar_p(counts) == pytest.approx(binomtest(b, b + c).pvalue)
    assert mcnemar_p(counts) == pytest.approx(mcnemar([[200, b], [c, 100]], exact=True).pvalue)


@pytest.mark.parametrize(("b", "c"), [(25, 0), (20, 40), (30, 30), (101, 80)])
def test_many_discordant_items_use_the_score_test(b: int, c: int) -> None:
    reference = mcnemar([[500, b], [c, 300]], exact=False, correction=False)
    assert mcnemar_p(PairedCounts(800 + b + c, b, c)) == pytest.approx(reference.pvalue, rel=1e-9)


def test_score_interval_ends_where_the_score_is_the_normal_deviate() -> None:
    counts = PairedCounts(44, 1, 0)
    low, high = score_interval(counts)
    assert score(counts, low) == pytest.approx(1.959964, abs=1e-6)
    assert score(counts, high) == pytest.approx(-1.959964, abs=1e-6)


@pytest.mark.parametrize("delta", [-0.3, -0.03, 0.0, 0.02, 0.4])
@pytest.mark.parametrize(("b", "c"), [(0, 0), (4, 0), (0, 4), (15, 30)])
def test_score_has_the_most_likely_nuisance_share(b: int, c: int, delta: float) -> None:
    """The constrained maximum of b log(q + delta) + c log q + rest log(1 - 2q - delta)."""
    n = 200

    def unlikely(q: float) -> float:
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = [(b, q + delta), (c, q), (n - b - c, 1 - 2 * q - delta)]
            return -float(sum(count * np.log(share) for count, share in terms if count))

    low, high = max(0.0, -delta), (1 - delta) / 2
    q = minimize_scalar(unlikely, bounds=(low, high), options={"xatol": 1e-12}).x
    variance = n * (2 * q + delta - delta**2)
    expected = (b - c - n * delta) / np.sqrt(variance) if variance > 1e-3 else 0.0
    assert score(PairedCounts(n, b, c), delta) == pytest.approx(expected, abs=1e-3)


@given(st.integers(1, 600), st.integers(0, 300), st.integers(0, 300))
def test_interval_and_p_value_say_the_same(alike: int, b: int, c: int) -> None:
    counts = PairedCounts(alike + b + c, b, c)
    found = paired_difference(counts)
    assert -1 <= found.low <= found.estimate <= found.high <= 1
    assert found.low < found.high
    assert (found.low > 0 or found.high < 0) == (found.p_value < 0.05)


@given(st.integers(1, 600), st.integers(0, 300), st.integers(0, 300))
def test_swapping_the_two_turns_the_sign(alike: int, b: int, c: int) -> None:
    one = paired_difference(PairedCounts(alike + b + c, b, c))
    other = paired_difference(PairedCounts(alike + b + c, c, b))
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low), abs=1e-9)
    assert other.p_value == pytest.approx(one.p_value)
    assert other.p_not_above(0.03) == pytest.approx(one.p_not_below(-0.03), abs=1e-9)


def test_exact_test_keeps_zero_wherever_the_score_keeps_it() -> None:
    """So that stretching the interval is all that consistency asks for."""
    for b, c in itertools.product(range(25), repeat=2):
        if 0 < b + c < 25:
            score_p = 2 * norm.sf(abs(b - c) / np.sqrt(b + c))
            assert score_p < 0.05 or binomtest(b, b + c).pvalue >= 0.05


def test_margin_is_excluded_exactly_where_the_interval_ends() -> None:
    found = paired_difference(PairedCounts(1000, 60, 70))
    assert found.p_not_below(found.low) == pytest.approx(0.025, abs=1e-6)
    assert found.p_not_above(found.high) == pytest.approx(0.025, abs=1e-6)


def test_without_discordant_items_the_interval_still_has_a_width() -> None:
    found = paired_difference(PairedCounts(400, 0, 0))
    edge = 1.959964**2 / (400 + 1.959964**2)
    assert (found.estimate, found.p_value) == (0.0, 1.0)
    assert (found.low, found.high) == pytest.approx((-edge, edge), abs=1e-9)
    assert found.p_not_below(-0.02) < 0.025 < found.p_not_below(-0.005)


@pytest.mark.parametrize("counts", [(1, 1, 0), (1, 0, 1), (1, 0, 0), (7, 7, 0)])
def test_tiny_and_one_sided_samples_stay_inside_the_range(counts: tuple[int, int, int]) -> None:
    found = paired_difference(PairedCounts(*counts))
    assert -1 <= found.low < found.high <= 1


def test_counts_of_two_vectors() -> None:
    counts = paired_counts([1, 1, 0, 0, 1], [1, 0, 1, 0, 1])
    assert counts == PairedCounts(items=5, only_a=1, only_b=1)
    with pytest.raises(ValueError, match="items"):
        paired_counts([1, 0], [1])
    with pytest.raises(ValueError, match="items"):
        paired_counts([], [])
    with pytest.raises(ValueError, match="share between"):
        score(counts, 3.0)
