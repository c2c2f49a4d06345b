"""Bounds of tests that are looked at several times, against published ones and other integrals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from lorascope.statistics.group_sequential import bounds, crossing, obrien_fleming, pocock

FIFTHS = (0.2, 0.4, 0.6, 0.8, 1.0)


def test_bounds_of_five_looks_are_the_published_ones() -> None:
    """Lan and DeMets' two functions, one-sided 2.5 %: Reboussin, DeMets, Kim and Lan, Controlled
    Clinical Trials 21 (2000), and gsDesign's sfLDOF and sfLDPocock."""
    assert np.round(bounds(FIFTHS, 0.025), 3).tolist() == [4.877, 3.357, 2.680, 2.290, 2.031]
    assert np.round(bounds(FIFTHS, 0.025, pocock), 3).tolist() == [
        2.438, 2.427, 2.410, 2.397, 2.386,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("looks", "constant", "power"),
    [(2, 2.178, 0.0), (5, 2.413, 0.0), (10, 2.555, 0.0), (2, 1.977, 0.5), (5, 2.040, 0.5),
     (10, 2.087, 0.5)],
)  # fmt: skip
def test_constants_of_pocock_and_obrien_fleming_spend_the_error(
    looks: int, constant: float, power: float
) -> None:
    """Jennison and Turnbull (2000), tables 2.1 and 2.3, two-sided 5 %; one side crosses half of it.
    The constants have three decimals, so that the error has about as many."""
    shares = [(k + 1) / looks for k in range(looks)]
    error = sum(crossing(shares, [constant / share**power for share in shares]))
    assert error == pytest.approx(0.025, abs=8e-5)


@pytest.mark.parametrize("shares", [(0.3, 1.0), (0.88, 0.95, 0.98, 1.0), (0.5, 0.5005, 1.0)])
@pytest.mark.parametrize("error", [0.05, 0.0036])
def test_what_crosses_is_what_may_be_spent(shares: tuple[float, ...], error: float) -> None:
    found = crossing(shares, bounds(shares, error))
    spent = [obrien_fleming(share, error) for share in shares]
    if min(np.diff(shares)) > 0.002:
        assert np.cumsum(found) == pytest.approx(spent, rel=1e-6)
    else:
        # A look that brings next to nothing is reckoned as one of its own.
        assert sum(found) < error


def test_two_looks_are_a_bivariate_normal() -> None:
    shares = (0.4, 1.0)
    first, last = bounds(shares, 0.025)
    both = multivariate_normal(cov=[[1, math.sqrt(0.4)], [math.sqrt(0.4), 1]])
    never = both.cdf([first, last])
    assert 1 - never == pytest.approx(0.025, abs=1e-6)


def test_drift_gives_the_power_of_a_design() -> None:
    """With one look it is that of a z test."""
    drift = norm.isf(0.025) + norm.isf(0.1)
    assert crossing([1.0], [norm.isf(0.025)], drift) == pytest.approx([0.9])
    sequential = sum(crossing(FIFTHS, bounds(FIFTHS, 0.025), drift))
    # Looking early costs little of it with bounds of this type.
    assert 0.88 < sequential < 0.9


def test_shares_must_rise() -> None:
    for shares in [(0.5, 0.4), (0.0, 1.0), (0.5, 1.1), (0.5, 0.5)]:
        with pytest.raises(ValueError, match="must rise"):
            bounds(shares, 0.05)
