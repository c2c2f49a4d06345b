"""Intervals against scipy, and against the section of published examples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm
from statsmodels.stats.proportion import proportion_confint

from lorascope.statistics.shares import Z_95, standard_error, wilson_interval


def test_z_is_the_normal_deviate_of_95_percent() -> None:
    assert pytest.approx(norm.ppf(0.975), abs=1e-6) == Z_95


@pytest.mark.parametrize(
    ("right", "items"), [(0, 1), (1, 1), (0, 50), (50, 50), (7, 10), (633, 1319), (999, 1000)]
)
def test_wilson_interval_equals_scipys(right: int, items: int) -> None:
    reference = binomtest(right, items).proportion_ci(confidence_level=0.95, method="wilson")
    interval = wilson_interval(right / items, items)
    assert interval == pytest.approx((reference.low, reference.high), abs=1e-6)
    assert interval == pytest.approx(proportion_confint(right, items, method="wilson"), abs=1e-6)


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_wilson_interval_holds_the_share_and_stays_inside_0_to_1(items: int, share: float) -> None:
    low, high = wilson_interval(share, items)
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1
    assert low < high


def test_standard_error_of_gsm8ks_test_split_at_48_percent() -> None:
    assert 100 * standard_error(0.48, 1319) == pytest.approx(1.38, abs=0.005)


@pytest.mark.parametrize(("share", "items"), [(0.5, 0), (-0.1, 10), (1.1, 10)])
def test_share_that_cannot_be_is_refused(share: float, items: int) -> None:
    with pytest.raises(ValueError, match=r"share|items"):
        wilson_interval(share, items)
