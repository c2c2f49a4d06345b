"""Holm's adjustment against statsmodels."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from lorascope.statistics.families import holm, holm_steps


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_adjusted_p_values_equal_statsmodels(p_values: list[float]) -> None:
    reference = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(list(reference))


def test_untested_comparisons_pass_through_and_do_not_count() -> None:
    assert holm([0.04, None, 0.01, None]) == [0.04, None, 0.02, None]
    assert holm([None]) == [None]
    assert holm([]) == []


def test_steps_count_down_from_the_smallest_p_until_one_fails() -> None:
    p_values = [0.2, None, 0.01, 0.03]
    assert holm_steps(p_values) == [2, 1, 3, 2]
    assert holm_steps([0.2, None, 0.01, 0.02]) == [1, 1, 3, 2]


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_p_value_that_cannot_be_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.5, p])
